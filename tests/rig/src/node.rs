//! A node: a router on the back link, with backends behind it, as pods are.

use crate::namespace::Namespace;
use crate::net::{Host, Net, without_offload};
use crate::plan;
use anyhow::{Context, Result};
use std::fs;

/// Its name.
pub const NODE: &str = "node-1";

/// Makes the node; its pods are plugged into a bridge.
pub(crate) fn add(net: &Net) -> Result<Namespace> {
    let node = Namespace::create(&net.instance, NODE)?;
    let inside = node.name();
    net.switch.ip(&format!("link add {NODE} type veth peer name eth0 netns {inside}"))?;
    without_offload(&node, "eth0")?;
    net.switch.ip_batch(&format!("link set {NODE} master br0\nlink set {NODE} up\n"))?;
    let ([v4, v6], [pods_v4, pods_v6]) = (plan::node(), plan::pod_router());
    node.ip_batch(&format!(
        "link add pods type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set eth0 up\naddr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n\
         link set pods up\naddr add {pods_v4}/24 dev pods\naddr add {pods_v6}/64 dev pods nodad\n"
    ))?;
    node.within(|| -> Result<()> {
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{key}"), "1").with_context(|| key.to_owned())?;
        }
        Ok(())
    })??;
    Ok(node)
}

/// Makes backend `index`, from 0, behind the node.
pub(crate) fn add_pod(net: &mut Net, node: &Namespace, index: u16) -> Result<()> {
    let name = format!("web-{}", index + 1);
    let namespace = Namespace::create(&net.instance, &name)?;
    let (addresses, routers) = (plan::pod(index), plan::pod_router());
    let inside = namespace.name();
    node.ip(&format!("link add {name} type veth peer name eth0 netns {inside}"))?;
    without_offload(&namespace, "eth0")?;
    node.ip_batch(&format!("link set {name} master pods\nlink set {name} up\n"))?;
    namespace.ip_batch(&format!(
        "link set eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n\
         route add default via {}\nroute add default via {}\n",
        addresses[0], addresses[1], routers[0], routers[1]
    ))?;
    net.backends.push(Host { name, namespace, addresses, node: Some(NODE) });
    Ok(())
}

/// The Node object.
pub fn yaml() -> String {
    let [v4, v6] = plan::node();
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {NODE}\nspec:\n  podCIDRs: {:?}\n\
         status:\n  addresses:\n  - {{type: InternalIP, address: \"{v4}\"}}\n  \
         - {{type: InternalIP, address: \"{v6}\"}}\n  \
         conditions:\n  - {{type: Ready, status: \"True\"}}\n",
        plan::POD_CIDRS
    )
}
