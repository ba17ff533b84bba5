//! The management network, and nodes with their ways.

use super::plan::{BRIDGE, LINK};
use super::{Cluster, Node, NodeOptions, Via, plan};
use crate::instance::Instance;
use crate::namespace::Namespace;
use crate::net::without_offload;
use crate::process::Process;
use anyhow::{Context, Result};
use std::fs;
use std::net::IpAddr;

const BRIDGE_MAC: &str = "0a:48:47:05:00:00";

/// A namespace on the management network.
pub(super) struct Attached {
    namespace: Namespace,
    /// The bridge's port towards it.
    port: String,
}

/// The namespace of the first API server, with the bridge of the management network.
pub(super) fn control(instance: &Instance) -> Result<Namespace> {
    let control = Namespace::create(instance, "control")?;
    let [v4, v6] = plan::management(plan::CONTROL);
    // With an address of its own: else it takes the lowest of its ports', which is another one with
    // some that join it, and whoever knows the former one talks to nobody for a while.
    control.ip_batch(&format!(
        "link add {BRIDGE} address {BRIDGE_MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set {BRIDGE} up\naddr add {v4}/24 dev {BRIDGE}\naddr add {v6}/64 dev {BRIDGE} nodad\n"
    ))?;
    Ok(control)
}

impl Cluster {
    /// Joins a namespace (a gateway's, mostly) to the management network, by a link called `mgmt`;
    /// gives its addresses there. It is a path of the kernel, which no gateway's packets take.
    pub fn attach(&mut self, namespace: &Namespace) -> Result<[IpAddr; 2]> {
        let index = u8::try_from(self.attached.len()).context("too many namespaces")?;
        let addresses = plan::management(plan::FIRST_ATTACHED + index);
        let port = format!("m-{index}");
        let inside = namespace.name();
        self.control.ip(&format!("link add {port} type veth peer name {LINK} netns {inside}"))?;
        self.control.ip_batch(&format!("link set {port} master {BRIDGE}\nlink set {port} up\n"))?;
        namespace.ip_batch(&format!(
            "link set {LINK} up\naddr add {}/24 dev {LINK}\naddr add {}/64 dev {LINK} nodad\n",
            addresses[0], addresses[1]
        ))?;
        self.attached.push(Attached { namespace: namespace.clone(), port });
        Ok(addresses)
    }
    /// Cuts an attached namespace off the management network (packets vanish, both ways), or joins
    /// it again.
    pub fn cut(&self, namespace: &Namespace, is_cut: bool) -> Result<()> {
        let found = self.attached.iter().find(|attached| attached.namespace == *namespace);
        let port = &found.with_context(|| format!("{} isn't attached", namespace.name()))?.port;
        // Out of the bridge rather than down: the other end sees no change of its link.
        let change = if is_cut { "nomaster".into() } else { format!("master {BRIDGE}") };
        self.control.ip(&format!("link set {port} {change}")).map(drop)
    }
    pub(super) fn forget_neighbours(&self, addresses: &[IpAddr]) -> Result<()> {
        let links = self.attached.iter().map(|attached| (&attached.namespace, LINK));
        for (namespace, link) in links.chain([(&self.control, BRIDGE)]) {
            for address in addresses {
                namespace.ip(&format!("neigh flush to {address} dev {link}"))?;
            }
        }
        Ok(())
    }
    /// Makes a node: a namespace on the bridge `br0` of `switch` (as [`Net`](crate::net::Net) has
    /// it), with kube-proxy, and a kubelet that registers it. Wait for it with
    /// [`Self::wait_for_nodes`].
    pub fn add_node(&mut self, switch: &Namespace, options: &NodeOptions) -> Result<&Node> {
        let index = u8::try_from(self.nodes.len()).context("too many nodes")?;
        let name = options.name.clone().unwrap_or_else(|| format!("node-{}", index + 1));
        let namespace = Namespace::create(&self.instance, &name)?;
        let addresses = plan::node(index);
        self.attach(&namespace)?;
        connect(switch, &namespace, &name, addresses, &options.router)?;
        let node = Node {
            name,
            namespace,
            addresses,
            pod_cidrs: plan::pod_cidrs(index),
            labels: options.labels.clone(),
            proxy: None,
        };
        give_pods_ways(&node, index)?;
        for other in &self.nodes {
            route(&node, other)?;
            route(other, &node)?;
        }
        self.write_node(&node, false)?;
        self.nodes.push(node);
        if options.kube_proxy {
            self.start_kube_proxy(self.nodes.len() - 1)?;
        }
        self.nodes.last().context("no node")
    }
    /// The nodes, in the order in which they were made.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
    /// Waits until the nodes' kubelets have registered all of them.
    pub fn wait_for_nodes(&mut self) -> Result<()> {
        for name in self.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>() {
            self.kubectl(&format!("wait --for=create node/{name} --timeout=30s"))?;
            self.kubectl(&format!("wait --for=condition=Ready node/{name} --timeout=30s"))?;
            if let Some(kubelets) = &mut self.kubelets {
                kubelets.check_runs()?;
            }
        }
        Ok(())
    }
    /// A node's kubelet falls silent: no heartbeat, no status, no reaction. Its pods run on. After
    /// [`ClusterOptions::node_grace`](super::ClusterOptions) the node is Unknown.
    pub fn stop_kubelet(&self, index: usize) -> Result<()> {
        self.write_node(self.nodes.get(index).context("no such node")?, true)
    }
    /// The end of [`Self::stop_kubelet`].
    pub fn start_kubelet(&self, index: usize) -> Result<()> {
        self.write_node(self.nodes.get(index).context("no such node")?, false)
    }
    fn write_node(&self, node: &Node, stopped: bool) -> Result<()> {
        let text = serde_json::json!({
            "namespace": node.namespace.name(),
            "addresses": node.addresses,
            "podCIDRs": node.pod_cidrs,
            "labels": node.labels,
            "stopped": stopped,
        });
        let path = self.dir.join("nodes").join(format!("{}.json", node.name));
        // Its reader must not see half of it.
        let fresh = path.with_extension("fresh");
        fs::write(&fresh, text.to_string())?;
        fs::rename(&fresh, &path).with_context(|| path.display().to_string())
    }
    /// Starts kube-proxy on a node, also again after [`Self::stop_kube_proxy`].
    pub fn start_kube_proxy(&mut self, index: usize) -> Result<()> {
        let kubeconfig =
            self.kubeconfig_with("kube-proxy", &self.user("kube-proxy"), Via::Shared)?;
        let node = self.nodes.get_mut(index).context("no such node")?;
        let role = self.program.role("kube-proxy", None);
        let mut command = super::program::in_namespace(&node.namespace, &role);
        command
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--hostname-override={}", node.name))
            .arg("--proxy-mode=nftables")
            .arg("--detect-local-mode=ClusterCIDR")
            .arg(format!("--cluster-cidr={}", plan::PODS.join(",")))
            .args(["--healthz-bind-address=[::]:10256", "--metrics-bind-address=[::]:10249"])
            // Sizes and times of connection tracking are the machine's: not to be written here.
            .args(["--conntrack-max-per-core=0", "--conntrack-min=0"])
            .args([
                "--conntrack-tcp-timeout-established=0s",
                "--conntrack-tcp-timeout-close-wait=0s",
            ])
            .args(["--oom-score-adj=0"]);
        let name = format!("kube-proxy-{}", node.name);
        let log = self.instance.logs().join(format!("{name}.log"));
        node.proxy = Some(Process::start(&self.instance, &name, command, &log)?);
        Ok(())
    }
    /// Kills a node's kube-proxy; its rules stay.
    pub fn stop_kube_proxy(&mut self, index: usize) -> Result<()> {
        self.nodes.get_mut(index).context("no such node")?.proxy = None;
        Ok(())
    }
}

/// The cable between a node and the bridge, and the node's default route.
fn connect(
    switch: &Namespace,
    namespace: &Namespace,
    name: &str,
    addresses: [IpAddr; 2],
    router: &[IpAddr; 2],
) -> Result<()> {
    let inside = namespace.name();
    switch.ip(&format!("link add {name} type veth peer name eth0 netns {inside}"))?;
    // Partial checksums end here: a poll-mode port behind the bridge would see them as they are.
    without_offload(namespace, "eth0")?;
    switch.ip_batch(&format!("link set {name} master br0\nlink set {name} up\n"))?;
    namespace.ip_batch(&format!(
        "link set eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n\
         route add default via {}\nroute add default via {}\n",
        addresses[0], addresses[1], router[0], router[1]
    ))
}

/// A node forwards; an address of its pods that no pod has leads nowhere, in place of back to the
/// gateway by the default route.
fn give_pods_ways(node: &Node, index: u8) -> Result<()> {
    node.namespace.within(|| -> Result<()> {
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ] {
            fs::write(format!("/proc/sys/net/{key}"), value).with_context(|| key.to_owned())?;
        }
        Ok(())
    })??;
    let routers = plan::pod_routers(index);
    node.namespace.ip_batch(&format!(
        "addr add {}/32 dev lo\naddr add {}/128 dev lo nodad\n\
         route add blackhole {}\nroute add blackhole {}\n",
        routers[0], routers[1], node.pod_cidrs[0], node.pod_cidrs[1]
    ))
}

/// The way from one node to the pods of another.
fn route(from: &Node, to: &Node) -> Result<()> {
    let lines: String = to
        .pod_cidrs
        .iter()
        .zip(&to.addresses)
        .map(|(prefix, address)| format!("route replace {prefix} via {address}\n"))
        .collect();
    from.namespace.ip_batch(&lines)
}
