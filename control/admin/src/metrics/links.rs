//! The families of links: whether they are up, groups, and other stations with our addresses.

use super::Families;
use model::answers::{ConflictRow, LinkRow, Links};
use std::fmt::Error;

pub(super) fn links(
    links: &Links,
    conflicts: &[ConflictRow],
    to: &mut Families<'_>,
) -> Result<(), Error> {
    let row = |link: &LinkRow| {
        let labels = vec![("interface", link.interface.clone()), ("port", link.port.clone())];
        (labels, f64::from(u8::from(link.up && link.twin_up)))
    };
    let help = "1 while the interface's port has its link and the host's twin is up.";
    to.gauges("interface_up", help, links.interfaces.iter().map(row))?;
    let help = "Solicited-node groups of IPv6 that are joined.";
    to.gauge("ipv6_groups", help, links.groups as f64)?;
    let gateways = conflicts.iter().filter(|conflict| conflict.is_gateway).count();
    let counts = [("stranger", conflicts.len() - gateways), ("gateway", gateways)];
    let counts = counts.map(|(who, count)| (vec![("by", who.to_owned())], count as f64));
    let help = "Addresses of ours that other stations use, by who that is.";
    to.gauges("address_conflicts", help, counts)
}
