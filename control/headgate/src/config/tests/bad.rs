//! What can be wrong with a configuration, and what is said about it.

/// (what is replaced, by what, what is said)
pub(super) const BAD: &[(&str, &str, &str)] = &[
    (
        "memory_mib = 128",
        "memory_mib = 12",
        "headgate.toml:3: eal.memory_mib: 12 is out of range; allowed are 64 to 1048576",
    ),
    (
        "memory_mib = 128",
        "memry_mib = 128",
        "headgate.toml:3: eal.memry_mib: unknown key; did you mean \"memory_mib\"? [eal] has huge_pages, memory_mib, mbufs",
    ),
    (
        "memory_mib = 128",
        "memory_mib = \"128\"",
        "headgate.toml:3: eal.memory_mib: expected a number, found the string \"128\"; allowed are 64 to 1048576",
    ),
    (
        "memory_mib = 128",
        "huge_pages = 1",
        "headgate.toml:3: eal.huge_pages: expected true or false, found the number 1",
    ),
    (
        "memory_mib = 128",
        "mbufs = 1000000",
        "headgate.toml:3: eal.mbufs: 1000000 buffers take 2320 MiB, but eal.memory_mib is 256; raise it or use fewer",
    ),
    (
        "[eal]",
        "[eall]",
        "headgate.toml:2: eall: unknown table; did you mean \"eal\"? there are eal, worker, port, interface, nat, announce, pool, node_port, external_ips, backend, manifests, kubernetes, service, cluster_ip, topology, probe, aliases, connections, timeouts, answers, host, idle, admin, gateway, state",
    ),
    (
        "[eal]",
        "[gateway]\nselection_key = \"+123456789abcdef\"\n[eal]",
        "headgate.toml:3: gateway.selection_key: \"+123456789abcdef\": expected 16 hexadecimal digits, as openssl rand -hex 8 makes them",
    ),
    (
        "[eal]",
        "[announce]\nperiod = \"5s\"\ngateways = [\"gate-b\", \"03:00:00:00:00:01\", \"224.0.0.1\"]\n[eal]",
        "headgate.toml:3: announce.period: \"5s\" is out of range; allowed are 10s to 1h\n\
         headgate.toml:4: announce.gateways: \"gate-b\": expected a MAC as 02:00:00:00:00:01, or an address\n\
         headgate.toml:4: announce.gateways: \"03:00:00:00:00:01\": expected a MAC as 02:00:00:00:00:01, or an address\n\
         headgate.toml:4: announce.gateways: \"224.0.0.1\": expected a MAC as 02:00:00:00:00:01, or an address",
    ),
    (
        "[eal]",
        "socket = \"/run/x\"\n[eal]",
        "headgate.toml:2: socket: a key outside a table; it belongs into [admin]",
    ),
    (
        "[eal]",
        "[kubernetes]\n[manifests]\ndir = \"/m\"\n[eal]",
        "headgate.toml:4: manifests.dir: [kubernetes] at headgate.toml:2 names another source: objects come from one, remove the other",
    ),
    (
        "[eal]",
        "[kubernetes]\nkubeconfg = \"/k\"\n[eal]",
        "headgate.toml:3: kubernetes.kubeconfg: unknown key; did you mean \"kubeconfig\"? [kubernetes] has kubeconfig, context, lease, lease_duration, identity, write, events, finalizer, hold_back",
    ),
    (
        "[eal]",
        "[kubernetes]\nkubeconfig = \"k\"\nlease = \"headgate\"\nlease_duration = \"1s\"\nidentity = \"a b\"\n[eal]",
        "headgate.toml:3: kubernetes.kubeconfig: \"k\": expected an absolute path\n\
         headgate.toml:4: kubernetes.lease: \"headgate\": expected NAMESPACE/NAME in lower case, as headgate-system/headgate, or none\n\
         headgate.toml:5: kubernetes.lease_duration: \"1s\" is out of range; allowed are 5s to 10m\n\
         headgate.toml:6: kubernetes.identity: \"a b\": expected 1 to 63 characters without spaces, and another one on each gateway",
    ),
    (
        "core = 1",
        "core = -1",
        "headgate.toml:6: worker.core: -1 is out of range; allowed are 0 to 1023",
    ),
    ("core = 1", "", "headgate.toml:5: worker.core: is missing; expected 0 to 1023"),
    (
        "core = 1",
        "core = 1\n[[worker]]\ncore = 1",
        "headgate.toml:8: worker.core: core 1 already has a worker at headgate.toml:6; give each a core of its own",
    ),
    (
        "device = \"net_tap1,iface=hgp-back\"",
        "device = \"net_tap0,iface=hgp-back\"",
        "headgate.toml:15: port.device: \"net_tap0\" is already taken at headgate.toml:10",
    ),
    (
        "device = \"net_tap1,iface=hgp-back\"",
        "device = \"eth0\"",
        "headgate.toml:15: port.device: \"eth0\": expected a vdev string as net_tap0,iface=hg0 or a PCI address as 0000:03:00.0",
    ),
    (
        "name = \"back\"\ndevice",
        "name = \"front\"\ndevice",
        "headgate.toml:14: port.name: \"front\" is already taken at headgate.toml:9\n\
         headgate.toml:28: interface.port: no [[port]] is called \"back\" (there are: front, front)",
    ),
    (
        "mac = \"02:00:00:00:00:02\"",
        "mac = \"01:00:00:00:00:02\"",
        "headgate.toml:16: port.mac: \"01:00:00:00:00:02\": expected a unicast address: the first byte even, not all zero",
    ),
    (
        "port = \"back\"\nvlan",
        "port = \"bak\"\nvlan",
        "headgate.toml:28: interface.port: no [[port]] is called \"bak\"; did you mean \"back\"? (there are: front, back)",
    ),
    (
        "vlan = 7",
        "vlan = 4095",
        "headgate.toml:29: interface.vlan: 4095 is out of range; allowed are 1 to 4094",
    ),
    (
        "port = \"back\"\nvlan = 7",
        "port = \"front\"",
        "headgate.toml:28: interface.port: its port and VLAN already belong to \"front\" at headgate.toml:20; set another vlan",
    ),
    (
        "role = \"front\"",
        "role = \"frnt\"",
        "headgate.toml:21: interface.role: \"frnt\" is unknown; did you mean \"front\"? allowed are front, back, both",
    ),
    (
        "role = \"front\"",
        "role = \"back\"",
        "headgate.toml:18: interface.role: no interface has the role front (or both): no client could reach a frontend",
    ),
    (
        "addresses = [\"198.18.1.1/24\", ",
        "addresses = [\"198.18.0.2/16\", ",
        "headgate.toml:31: interface.addresses: 198.18.0.2/16 overlaps 198.18.0.1/24 of interface \"front\" at headgate.toml:22; a prefix lies on one link",
    ),
    (
        "\"198.18.1.1/24\", ",
        "\"198.18.1.255/24\", \"198.18.1.1\", \"ff02::1/64\", ",
        "headgate.toml:31: interface.addresses: \"198.18.1.255/24\": the network's or broadcast address can't be a host's\n\
         headgate.toml:31: interface.addresses: \"198.18.1.1\": expected ADDRESS/LENGTH, as 198.18.0.1/24 or 2001:db8::1/64\n\
         headgate.toml:31: interface.addresses: \"ff02::1/64\": expected a unicast address",
    ),
    (
        "via = \"198.18.0.254\"",
        "via = \"198.18.7.254\"",
        "headgate.toml:23: interface.routes: via 198.18.7.254 is not on this link (198.18.0.0/24, 2001:db8:1::/64, fe80::/64)",
    ),
    (
        "via = \"198.18.0.254\"",
        "via = \"2001:db8:1::254\"",
        "headgate.toml:23: interface.routes: to 0.0.0.0/0 and via 2001:db8:1::254 are of two families",
    ),
    (
        "via = \"198.18.0.254\"",
        "va = \"198.18.0.254\"",
        "headgate.toml:23: interface.routes: unknown key \"va\"; expected { to = \"0.0.0.0/0\", via = \"198.18.0.254\" }",
    ),
    (
        "address = \"198.18.0.9\"",
        "address = \"198.18.7.9\"",
        "headgate.toml:24: interface.neighbours: 198.18.7.9 is not on this link (198.18.0.0/24, 2001:db8:1::/64, fe80::/64)",
    ),
    (
        "address = \"198.18.0.9\"",
        "address = \"198.18.0.1\"",
        "headgate.toml:24: interface.neighbours: 198.18.0.1 is the interface's own address; a next hop is another host",
    ),
    (
        "address = \"fe80::9\"",
        "address = \"198.18.0.9\"",
        "headgate.toml:24: interface.neighbours: 198.18.0.9 stands there twice",
    ),
    (
        "mac = \"02:00:00:00:00:09\"",
        "mac = \"03:00:00:00:00:09\"",
        "headgate.toml:24: interface.neighbours: \"03:00:00:00:00:09\": expected a unicast address: the first byte even, not all zero",
    ),
    (
        "mac = \"02:00:00:00:00:09\"",
        "lladdr = \"02:00:00:00:00:09\"",
        "headgate.toml:24: interface.neighbours: unknown key \"lladdr\"; expected { address = \"198.18.0.9\", mac = \"02:00:00:00:00:09\" }",
    ),
    (
        "name = \"front\"\nport",
        "name = \"front-of-house\"\nport",
        "headgate.toml:19: interface.name: \"hg-front-of-house\", the name of its twin on the host, is longer than 15; set host_name",
    ),
    (
        "device = \"net_tap1,iface=hgp-back\"",
        "device = \"net_tap1,iface=hg-back\"",
        "headgate.toml:26: interface.host_name: \"hg-back\" is also the kernel side of port \"back\" at headgate.toml:15; set host_name",
    ),
    (
        "addresses = [\"198.18.1.200\"",
        "addresses = [\"198.18.1.1\"",
        "headgate.toml:35: nat.addresses: 198.18.1.1 is the address of interface \"back\" at headgate.toml:31; a NAT address is no host address",
    ),
    (
        "interface = \"back\"",
        "interface = \"front\"",
        "headgate.toml:34: nat.interface: interface \"front\" has the role front: no backend is there",
    ),
    (
        "203.0.113.100-203.0.113.120",
        "203.0.113.60-203.0.113.70",
        "headgate.toml:39: pool.addresses: 203.0.113.60-203.0.113.70 overlaps 203.0.113.0-203.0.113.63 of pool \"demo\" at headgate.toml:39",
    ),
    (
        "203.0.113.0/26",
        "203.0.113.1/26",
        "headgate.toml:39: pool.addresses: \"203.0.113.1/26\": it has host bits: write 203.0.113.0/26, or one address alone",
    ),
    (
        "[node_port]\naddresses = [\"198.18.0.1\"]",
        "[node_port]\naddresses = [\"198.18.0.9\"]",
        "headgate.toml:43: node_port.addresses: 198.18.0.9 is no address of an interface (there are: 198.18.0.1, 2001:db8:1::1, fe80::1, 198.18.1.1, 2001:db8:2::1, fe80::1)",
    ),
    (
        "[external_ips]",
        "range = \"30000\"\n[external_ips]",
        "headgate.toml:45: node_port.range: \"30000\": expected FIRST-LAST between 1 and 65535, as 30000-32767",
    ),
    (
        "\"1h30m\"",
        "\"8d\"",
        "headgate.toml:49: timeouts.tcp_established: \"8d\" is out of range; allowed are 10s to 7d",
    ),
    (
        "\"1h30m\"",
        "\"soon\"",
        "headgate.toml:49: timeouts.tcp_established: \"soon\": expected a duration as 500ms, 30s, 2h or 1h30m",
    ),
    (
        "[answers]",
        "[admin]\nmetrics = \"0.0.0.0:9107\"\nsocket = \"run\"\n[answers]",
        "headgate.toml:53: admin.metrics: \"0.0.0.0:9107\" is not a loopback address with a port, as 127.0.0.1:9107 or [::1]:9107\n\
         headgate.toml:54: admin.socket: \"run\": expected an absolute path",
    ),
    (
        "[answers]",
        "[idle]\nmode = \"sleep\"\n[answers]",
        "headgate.toml:53: idle.mode: \"sleep\" is unknown; allowed are backoff, spin",
    ),
    (
        "echo_per_second = 50",
        "echo_per_second = 1.5",
        "headgate.toml:53: answers.echo_per_second: expected a number, found a fraction; allowed are 1 to 100000000",
    ),
    (
        "2001:db8:ffff::179",
        "ff02::5",
        "headgate.toml:56: host.peers: \"ff02::5\": expected a unicast address",
    ),
    (
        "[[worker]]",
        "[worker]",
        "headgate.toml:5: worker: expected tables, [[worker]], found a table",
    ),
];
