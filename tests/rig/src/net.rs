//! The network around a gateway: a client, a switch, and backends behind it.
//!
//! ```text
//! client namespace      gateway namespace      switch namespace      backend namespaces
//!   hgf-TAG  ------------ front   back ---------- hgb-TAG  br0 ------- eth0 of web-1, web-2, ...
//!   (kernel ends of net_tap; made by the gateway, plugged in by us once they are there)
//! ```
//!
//! Backends may be behind a [node](crate::node), too.

use crate::command::output_of;
use crate::instance::Instance;
use crate::namespace::Namespace;
use crate::plan;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt::Write;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What makes a bridge snoop MLD, ask by itself who is in which group, and forget after 8 s; times
/// are hundredths of a second.
const SNOOPING: &str = "mcast_snooping 1 mcast_querier 1 mcast_query_interval 200 \
     mcast_query_response_interval 100 mcast_startup_query_interval 100 \
     mcast_startup_query_count 3 mcast_membership_interval 800";

/// A backend: a namespace with one address in each family.
#[derive(Clone, Debug)]
pub struct Host {
    /// `web-1` and so on.
    pub name: String,
    /// Where its programs run.
    pub namespace: Namespace,
    /// IPv4, IPv6.
    pub addresses: [IpAddr; 2],
    /// The node that it is behind; else it is on the link.
    pub node: Option<&'static str>,
}

/// The network around a gateway.
pub struct Net {
    /// What all of it belongs to.
    pub instance: Instance,
    /// The gateway runs here; its host mirror's TAPs are here.
    pub gateway: Namespace,
    /// Clients run here.
    pub client: Namespace,
    /// The bridge between the gateway and the backends.
    pub switch: Namespace,
    /// The backends.
    pub backends: Vec<Host>,
}

/// What the kernel counts at the far end of one of the gateway's ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Packets that came from the gateway.
    pub from_gateway: u64,
    /// Packets that the gateway fetched.
    pub to_gateway: u64,
    /// Packets that the gateway didn't fetch in time.
    pub missed: u64,
}

impl Net {
    /// Makes all namespaces and the back link, for `backends` backends.
    pub fn build(kind: &str, backends: u16) -> Result<Self> {
        let instance = Instance::create(kind)?;
        let gateway = Namespace::create(&instance, "gw")?;
        let client = Namespace::create(&instance, "client")?;
        let switch = Namespace::create(&instance, "switch")?;
        switch.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
        switch.ip("link set br0 up")?;
        let mut net = Self { instance, gateway, client, switch, backends: Vec::new() };
        for index in 0..backends {
            net.add_backend(index)?;
        }
        Ok(net)
    }
    /// The client's end of the gateway's front port.
    pub fn front_link(&self) -> String {
        format!("hgf-{}", self.instance.tag())
    }
    /// The switch's end of the gateway's back port.
    pub fn back_link(&self) -> String {
        format!("hgb-{}", self.instance.tag())
    }
    /// Makes backend `index`, from 0, on the link.
    pub(crate) fn add_backend(&mut self, index: u16) -> Result<()> {
        let name = format!("web-{}", index + 1);
        let namespace = Namespace::create(&self.instance, &name)?;
        let addresses = plan::backend(index);
        cable(&self.switch, &name, "br0", &namespace, addresses)?;
        self.backends.push(Host { name, namespace, addresses, node: None });
        Ok(())
    }
    /// Waits until the gateway has made the kernel ends of its ports. `check` is asked meanwhile
    /// and ends the wait by failing.
    pub fn wait_for_links(&self, mut check: impl FnMut() -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        let ends = [(&self.client, self.front_link()), (&self.switch, self.back_link())];
        for (namespace, link) in &ends {
            while !namespace.has_link(link) {
                check()?;
                if begun.elapsed() > Duration::from_secs(20) {
                    bail!("no {link} in {} after 20 s: the port wasn't made", namespace.name());
                }
                sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
    /// Gives the kernel ends their addresses and plugs the back one into the bridge. To be called
    /// whenever a gateway has made them anew: they are up then, with the MAC of the gateway's port
    /// and the link-local address that comes of it, which is the gateway's too.
    pub fn plug_in(&self) -> Result<()> {
        let (front, back) = (self.front_link(), self.back_link());
        let mut lines = format!(
            "link set {front} address 0a:48:47:00:01:00\nlink set {front} mtu 1500\n\
             link set {front} up\naddr flush dev {front} scope link\n\
             addr replace fe80::848:47ff:fe00:100/64 dev {front} nodad\n"
        );
        client_addresses(&mut lines, &front, plan::client);
        for prefix in plan::ON_LINK {
            writeln!(lines, "route replace {prefix} dev {front}")?;
        }
        self.client.ip_batch(&lines)?;
        // Before it joins: a bridge keeps frames for its ports' MACs to itself.
        self.switch.ip_batch(&format!(
            "addr flush dev {back} scope link\nlink set {back} address 0a:48:47:00:02:00\nlink set {back} mtu 1500\n\
             link set {back} master br0\nlink set {back} up\n"
        ))?;
        without_offload(&self.client, &front)?;
        without_offload(&self.switch, &back)
    }
    /// From now on the switch behind gives frames for a group to those ports alone that joined it.
    pub fn snoop_behind(&self) -> Result<()> {
        self.switch.ip_batch(&format!("link set br0 type bridge {SNOOPING}\n"))
    }
    /// Puts such a switch between the client and the gateway, whose front port is there already.
    pub fn snoop_in_front(&self) -> Result<()> {
        let front = self.front_link();
        let mut lines = format!(
            "addr flush dev {front}\n\
             link add snoop type bridge stp_state 0 forward_delay 0 {SNOOPING}\n\
             link set snoop up\nlink add to-client type veth peer name client\n\
             link set to-client master snoop\nlink set to-client up\nlink set client up\n\
             link set {front} master snoop\n"
        );
        client_addresses(&mut lines, "client", plan::client);
        for prefix in plan::ON_LINK {
            writeln!(lines, "route replace {prefix} dev client")?;
        }
        self.client.ip_batch(&lines)?;
        without_offload(&self.client, "client")
    }
    /// Puts a switch with so many more clients between the client, which is one no more, and the
    /// gateway, whose front port is there already.
    pub fn crowd_in_front(&self, count: u16) -> Result<Vec<Host>> {
        let front = self.front_link();
        self.client.ip_batch(&format!(
            "addr flush dev {front}\n\
             link add crowd type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set crowd up\nlink set {front} master crowd\n"
        ))?;
        (0..count).map(|index| self.add_client(index)).collect()
    }
    fn add_client(&self, index: u16) -> Result<Host> {
        let name = format!("client-{}", index + 1);
        let namespace = Namespace::create(&self.instance, &name)?;
        let addresses = plan::client(plan::CLIENTS + index);
        cable(&self.client, &name, "crowd", &namespace, addresses)?;
        let routes = plan::ON_LINK.map(|prefix| format!("route replace {prefix} dev eth0\n"));
        namespace.ip_batch(&routes.concat())?;
        // Else a client that comes often soon comes from the same port again.
        let range = "/proc/sys/net/ipv4/ip_local_port_range";
        namespace.within(|| std::fs::write(range, "1024 65535"))??;
        Ok(Host { name, namespace, addresses, node: None })
    }
    /// The groups that a snooping switch has heard of, with their ports, as `bridge` prints them.
    pub fn groups(namespace: &Namespace) -> Result<String> {
        output_of(namespace.command("bridge").args(["mdb", "show"]))
    }
    /// Joins the client to the bridge with a plain cable, without any gateway: what shows that
    /// the rig itself works.
    pub fn join_plain(&self) -> Result<()> {
        let front = self.front_link();
        let inside = self.client.name();
        self.switch.ip(&format!("link add client type veth peer name {front} netns {inside}"))?;
        self.switch.ip_batch("link set client master br0\nlink set client up\n")?;
        let mut lines = format!("link set {front} up\n");
        client_addresses(&mut lines, &front, |index| plan::back(101 + index));
        self.client.ip_batch(&lines)
    }
    /// What the kernel has counted at the far ends: front, back.
    pub fn kernel_counters(&self) -> Result<[KernelCounters; 2]> {
        Ok([
            counters(&self.client, &self.front_link())?,
            counters(&self.switch, &self.back_link())?,
        ])
    }
    /// `add`s or `del`etes default routes of the gateway's namespace, which lead to the client.
    pub fn default_routes(&self, change: &str) -> Result<()> {
        for router in plan::client(0) {
            self.gateway.ip(&format!("route {change} default via {router} dev hg-front"))?;
        }
        Ok(())
    }
    /// Makes the kernel of the gateway's namespace forget the next hops towards backends.
    pub fn forget_next_hops(&self) -> Result<()> {
        self.gateway.ip("neigh flush dev hg-back").map(drop)
    }
    /// The client's addresses of the family of `destination`.
    pub fn client_addresses(&self, destination: IpAddr) -> Vec<IpAddr> {
        let family = usize::from(destination.is_ipv6());
        (0..plan::CLIENTS).map(|index| plan::client(index)[family]).collect()
    }
}

/// Joins a host to a bridge by a cable whose end there has the host's name.
fn cable(
    switch: &Namespace,
    name: &str,
    bridge: &str,
    host: &Namespace,
    [v4, v6]: [IpAddr; 2],
) -> Result<()> {
    let inside = host.name();
    switch.ip(&format!("link add {name} type veth peer name eth0 netns {inside}"))?;
    // Partial checksums end here: a poll-mode port behind the bridge would see them as they are.
    without_offload(host, "eth0")?;
    switch.ip_batch(&format!("link set {name} master {bridge}\nlink set {name} up\n"))?;
    host.ip_batch(&format!(
        "link set eth0 up\naddr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n"
    ))
}

fn client_addresses(lines: &mut String, link: &str, address: impl Fn(u16) -> [IpAddr; 2]) {
    for index in 0..plan::CLIENTS {
        let [v4, v6] = address(index);
        lines.push_str(&format!("addr replace {v4}/24 dev {link}\n"));
        lines.push_str(&format!("addr replace {v6}/64 dev {link} nodad\n"));
    }
}

/// Whole checksums on everything that leaves by `link`.
pub(crate) fn without_offload(namespace: &Namespace, link: &str) -> Result<()> {
    output_of(namespace.command("ethtool").args(["-K", link, "tx", "off"]))
        .map(drop)
        .with_context(|| format!("cannot turn checksum offload off on {link}"))
}

fn counters(namespace: &Namespace, link: &str) -> Result<KernelCounters> {
    let text = namespace.ip(&format!("-s -j link show dev {link}"))?;
    let answer: Value = serde_json::from_str(&text).context("ip -s -j link")?;
    let count = |path: &str| {
        let found = answer.pointer(&format!("/0/stats64/{path}")).and_then(Value::as_u64);
        found.with_context(|| format!("no {path} in {text}"))
    };
    Ok(KernelCounters {
        from_gateway: count("rx/packets")?,
        to_gateway: count("tx/packets")?,
        missed: count("tx/dropped")?,
    })
}
