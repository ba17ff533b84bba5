//! Every key: what it means, what it may be, what it is by default, and whether a reload takes it
//! up. `headgate check --keys` prints this table, and the reader refuses what isn't in it.

use std::fmt::Write;

/// The socket of the admin API unless somebody names another.
pub(crate) const SOCKET_DEFAULT: &str = "/run/headgate/headgate.sock";

/// Whether a running gateway can take up another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Without a restart.
    Reloadable,
    /// Only at the next start: it sizes or opens what lives as long as the process.
    RestartOnly,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The table that holds it.
    pub table: &'static str,
    /// Its name within the table.
    pub name: &'static str,
    /// What it may be set to.
    pub allowed: &'static str,
    /// What it is where nobody sets it; `-` where somebody must, empty where it is then off.
    pub default: &'static str,
    /// Whether a reload takes it up.
    pub reload: Reload,
    /// What it means, in one line.
    pub meaning: &'static str,
}

macro_rules! keys {
    ($($table:literal { $($reload:ident $name:literal $allowed:literal $default:literal
        $meaning:literal;)* })*) => {
        /// All of them, table by table.
        pub const KEYS: &[Key] = &[$($(Key {
            table: $table,
            name: $name,
            allowed: $allowed,
            default: $default,
            reload: Reload::$reload,
            meaning: $meaning,
        },)*)*];
        /// The tables, in the order in which a newcomer meets them.
        pub const TABLES: &[&str] = &[$($table,)*];
    };
}

/// Tables that may stand several times: `[[port]]`.
pub const ARRAYS: &[&str] = &["worker", "port", "interface", "nat", "pool"];

keys! {
    "eal" {
        RestartOnly "huge_pages" "true or false" "true" "Take memory from huge pages.";
        RestartOnly "memory_mib" "64 to 1048576" "256" "Memory for packets and rings, in MiB; connection tables have their own.";
        RestartOnly "mbufs" "1024 to 8388608" "16384" "Packet buffers, about 2.4 KB each.";
    }
    "worker" {
        RestartOnly "core" "0 to 1023" "-" "CPU core that this poll-mode worker owns.";
    }
    "port" {
        RestartOnly "name" "1 to 15 of a-z A-Z 0-9 - _ ." "-" "Name that interfaces refer to.";
        RestartOnly "device" "vdev string or PCI address" "-" "DPDK device, as net_tap0,iface=hg0.";
        RestartOnly "netns" "name or path" "" "Namespace in which the vdev's kernel side lives.";
        RestartOnly "rx_queues" "1 to 64" "one for each worker" "Receive queues.";
        RestartOnly "mac" "unicast MAC" "the device's" "MAC address of the port.";
        RestartOnly "descriptors" "64 to 32768" "1024" "Places in each queue.";
    }
    "interface" {
        RestartOnly "name" "1 to 15 of a-z A-Z 0-9 - _ ." "-" "Name in tables and commands.";
        RestartOnly "port" "name of a [[port]]" "-" "Port that carries it.";
        RestartOnly "vlan" "1 to 4094" "" "VLAN; untagged where unset.";
        RestartOnly "addresses" "list of ADDRESS/LENGTH" "-" "The gateway's own addresses, both families.";
        RestartOnly "mtu" "1280 to 9216" "1500" "Longest packet, in bytes.";
        RestartOnly "role" "front, back or both" "both" "Where clients are, and where backends are.";
        RestartOnly "routes" "list of {to, via}" "[]" "Routes that are set on the host twin.";
        RestartOnly "neighbours" "list of {address, mac}" "[]" "Neighbours that answer no ARP or ND.";
        RestartOnly "host_name" "1 to 15 characters" "hg-NAME" "Name of the TAP twin of the host.";
    }
    "nat" {
        RestartOnly "interface" "name of an [[interface]]" "-" "Interface towards the backends.";
        RestartOnly "addresses" "list of addresses" "-" "Source addresses that the backends see.";
    }
    "announce" {
        RestartOnly "period" "10s to 1h, or 0s for never" "60s" "From one announcement of an address to the next.";
        RestartOnly "gateways" "list of MACs and addresses" "[]" "Other gateways that may have our addresses, too.";
    }
    "pool" {
        RestartOnly "name" "1 to 63 of a-z A-Z 0-9 - _ ." "-" "Name that Services ask for.";
        RestartOnly "addresses" "list of CIDR, FIRST-LAST, ADDRESS" "-" "Addresses for LoadBalancer Services.";
        RestartOnly "priority" "0 to 65535" "100" "Of several pools the lower number comes first.";
        RestartOnly "auto_assign" "true or false" "true" "Serves Services that name no pool.";
        RestartOnly "avoid_buggy_addresses" "true or false" "false" "Keep IPv4 addresses ending in .0 and .255 back.";
        RestartOnly "namespaces" "list of names" "[]" "Namespaces that it is for; all where nothing chooses.";
        RestartOnly "namespace_selector" "label selector" "" "Namespaces that it is for besides, by labels.";
        RestartOnly "service_selector" "label selector" "" "Services that it is for, by labels.";
        RestartOnly "scheme" "internal or internet-facing" "" "Where its clients are, for those who ask.";
        RestartOnly "refusal" "reject or drop" "reject" "Answer while a Service has no backend.";
    }
    "node_port" {
        RestartOnly "addresses" "list of own addresses" "[]" "Where NodePorts are answered.";
        RestartOnly "range" "FIRST-LAST" "30000-32767" "Node ports that may be given.";
    }
    "external_ips" {
        RestartOnly "ranges" "list of CIDR" "[]" "externalIPs that are served; none where empty.";
    }
    "backend" {
        RestartOnly "ranges" "list of CIDR" "any" "Where endpoints may be.";
    }
    "manifests" {
        RestartOnly "dir" "absolute path" "/etc/headgate/manifests" "Directory of manifests to serve.";
    }
    "kubernetes" {
        RestartOnly "kubeconfig" "absolute path" "$KUBECONFIG, then a pod's" "Kubeconfig of the API server; reread as it changes.";
        RestartOnly "context" "name in the kubeconfig" "the current one" "Context of the kubeconfig.";
        RestartOnly "lease" "NAMESPACE/NAME or none" "headgate-system/headgate" "Lease of the gateways; none for a single one.";
        RestartOnly "lease_duration" "5s to 10m" "15s" "How long the Lease's holder may be silent.";
        RestartOnly "identity" "1 to 63 characters" "the host's name" "Name of this gateway, in Lease and Events.";
        RestartOnly "write" "true or false" "true" "Allocate and write status, where the Lease is ours.";
        RestartOnly "events" "true or false" "true" "Write Events.";
        RestartOnly "finalizer" "true or false" "false" "Hold Services until their forwarding has ended.";
        RestartOnly "hold_back" "0s to 10m" "3s" "Delay of a re-list that removes most backends.";
    }
    "service" {
        RestartOnly "load_balancer_class" "DOMAIN/NAME" "headgate.dev/gateway" "Class that is ours.";
        RestartOnly "default_class" "true or false" "not with [kubernetes]" "Serve Services without a class.";
        RestartOnly "target" "endpoint or node" "endpoint" "What backends are made of.";
        RestartOnly "proxy_name" "label value" "" "Value of the label service-proxy-name that is ours.";
        RestartOnly "reset_after" "never, or 1s to 7d" "never" "When clients of a gone backend get a RST.";
    }
    "cluster_ip" {
        RestartOnly "serve" "true or false" "false" "Serve the ClusterIPs of all Services.";
        RestartOnly "services" "list of NAMESPACE/NAME" "[]" "Serve those of these in any case.";
    }
    "topology" {
        RestartOnly "zone" "label value" "" "Zone of the gateway: hints of endpoints count.";
        RestartOnly "node_name" "name of a Node" "" "Node that the gateway stands beside, for hints.";
    }
    "probe" {
        RestartOnly "interval" "100ms to 1h" "5s" "From one probe to the next.";
        RestartOnly "timeout" "100ms to 10s" "1s" "How long an answer may take.";
        RestartOnly "healthy_after" "1 to 100" "2" "Good answers in a row that make healthy again.";
        RestartOnly "unhealthy_after" "1 to 100" "3" "Bad answers in a row that make unhealthy.";
        RestartOnly "node" "healthz, health-check-node-port or none" "healthz" "What nodes are asked.";
        RestartOnly "unknown_nodes" "true or false" "true" "Use what answers on nodes out of sight.";
    }
    "aliases" {
        RestartOnly "metallb" "true or false" "false" "Read MetalLB's annotations as ours.";
        RestartOnly "aws" "true or false" "false" "Serve Services written for AWS load balancers.";
    }
    "connections" {
        RestartOnly "ipv4" "1024 to 268435456" "262144" "IPv4 connections for each worker, 128 bytes each.";
        RestartOnly "ipv6" "1024 to 134217728" "65536" "IPv6 connections for each worker, 224 bytes each.";
        RestartOnly "new_per_second" "1 to 100000000" "1000000" "New connections, for each worker.";
        RestartOnly "new_burst" "1 to 100000000" "a tenth of it" "As many at once.";
        RestartOnly "path_mtu_min" "68 to 9216" "1280" "Least path MTU that backends are told of, IPv4.";
    }
    "timeouts" {
        RestartOnly "tcp_syn_sent" "1s to 10m" "30s" "TCP: SYN seen, no SYN-ACK yet.";
        RestartOnly "tcp_syn_received" "1s to 10m" "60s" "TCP: SYN-ACK seen, not acknowledged yet.";
        RestartOnly "tcp_established" "10s to 7d" "24h" "TCP: idle connection.";
        RestartOnly "tcp_fin_wait" "1s to 1h" "2m" "TCP: a FIN that nobody has acknowledged.";
        RestartOnly "tcp_close_wait" "1s to 1d" "1h" "TCP: one side has closed, and the other knows.";
        RestartOnly "tcp_time_wait" "1s to 10m" "70s" "TCP: both have closed; holds its NAT port.";
        RestartOnly "tcp_closed" "1s to 10m" "10s" "TCP: refused.";
        RestartOnly "udp" "1s to 10m" "30s" "UDP: no stream yet.";
        RestartOnly "udp_stream" "1s to 1d" "300s" "UDP: answered, and more than two seconds old.";
    }
    "answers" {
        RestartOnly "refusals_per_second" "1 to 100000000" "10000" "RST and port unreachable, a worker and interface.";
        RestartOnly "refusals_burst" "1 to 100000000" "a tenth of it" "As many at once.";
        RestartOnly "time_exceeded_per_second" "1 to 100000000" "1000" "ICMP time exceeded.";
        RestartOnly "time_exceeded_burst" "1 to 100000000" "a tenth of it" "As many at once.";
        RestartOnly "too_big_per_second" "1 to 100000000" "1000" "ICMP packet too big.";
        RestartOnly "too_big_burst" "1 to 100000000" "a tenth of it" "As many at once.";
        RestartOnly "echo_per_second" "1 to 100000000" "10000" "Echo replies.";
        RestartOnly "echo_burst" "1 to 100000000" "a tenth of it" "As many at once.";
        RestartOnly "neighbour_per_second" "1 to 100000000" "10000" "ARP and ND answers.";
        RestartOnly "neighbour_burst" "1 to 100000000" "a tenth of it" "As many at once.";
        RestartOnly "challenges_per_second" "1 to 100000000" "10000" "Segments that a silent peer has to answer.";
        RestartOnly "challenges_burst" "1 to 100000000" "a tenth of it" "As many at once.";
    }
    "host" {
        RestartOnly "arp_nd_per_second" "1 to 100000000" "2000" "ARP and ND to the host, a worker and interface.";
        RestartOnly "arp_nd_burst" "1 to 100000000" "a tenth of it" "As many at once.";
        RestartOnly "routing_per_second" "1 to 100000000" "10000" "BGP, BFD, OSPF, VRRP of neighbours; and of peers.";
        RestartOnly "routing_burst" "1 to 100000000" "a tenth of it" "As many at once.";
        RestartOnly "peers" "list of addresses" "[]" "Routing peers that aren't on a link of ours.";
        RestartOnly "begun_per_second" "1 to 100000000" "20000" "Answers to what the host itself began.";
        RestartOnly "begun_burst" "1 to 100000000" "a tenth of it" "As many at once.";
        RestartOnly "other_per_second" "1 to 100000000" "20000" "All else to the host.";
        RestartOnly "other_burst" "1 to 100000000" "a tenth of it" "As many at once.";
    }
    "idle" {
        RestartOnly "mode" "backoff or spin" "backoff" "What a worker without packets does.";
    }
    "admin" {
        RestartOnly "socket" "absolute path" "/run/headgate/headgate.sock" "Unix socket of the admin API.";
        RestartOnly "metrics" "loopback ADDRESS:PORT" "" "Where metrics are served over TCP.";
    }
    "gateway" {
        RestartOnly "selection_key" "16 hexadecimal digits" "the Lease's, else kept" "Keys the choice of backends, alike in all gateways.";
    }
    "state" {
        RestartOnly "dir" "absolute path" "/var/lib/headgate" "Where what must outlive the process is kept.";
    }
}

/// The keys of one table.
pub fn of_table(table: &str) -> impl Iterator<Item = &'static Key> + Clone {
    KEYS.iter().filter(move |key| key.table == table)
}

impl Key {
    /// The variable that sets it: `HEADGATE_ADMIN_SOCKET`. Tables that may stand several times
    /// have none.
    pub fn variable(&self) -> Option<String> {
        (!ARRAYS.contains(&self.table))
            .then(|| format!("HEADGATE_{}_{}", self.table, self.name).to_uppercase())
    }
}

/// The table of keys for a person.
pub fn described() -> String {
    let mut text = String::new();
    for table in TABLES {
        let header =
            if ARRAYS.contains(table) { format!("[[{table}]]") } else { format!("[{table}]") };
        // Writing into a string doesn't fail.
        let _ = writeln!(text, "{header}");
        for key in of_table(table) {
            let default = match key.default {
                "-" => "required".to_owned(),
                "" => "unset by default".to_owned(),
                default => format!("default {default}"),
            };
            let reload = match key.reload {
                Reload::Reloadable => "reloadable",
                Reload::RestartOnly => "restart-only",
            };
            let _ = writeln!(text, "  {:<23} {}", key.name, key.meaning);
            let _ = writeln!(text, "  {:<23}   {}; {default}; {reload}", "", key.allowed);
        }
        text.push('\n');
    }
    text.push_str(
        "Keys of [tables] can be set as HEADGATE_TABLE_KEY in the environment as well, lists with \
         commas.\n",
    );
    text
}
