//! `[announce]`: how our addresses are announced on links, and who else may use them.

use super::problem::Log;
use super::read::{Section, parsed, section, within};
use super::tree::{Node, Table, Value};
use super::types::{MacAddr, host_address};
use model::limits::GATEWAYS_MAX;
use std::net::IpAddr;
use std::time::Duration;

/// How addresses are announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// From one announcement of an address to the next; `None`: only what is new is announced.
    pub period: Option<Duration>,
    /// Other gateways of ours on the same links.
    pub gateways: Vec<GatewayName>,
}

/// What another gateway is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayName {
    /// The MAC of its port.
    Mac(MacAddr),
    /// An own address of it on a link of ours.
    Address(IpAddr),
}

pub(super) fn announce(root: &Table, log: &mut Log) -> Option<Announce> {
    let section = section(root, "announce", log);
    let period = section.or("period", Some(Duration::from_secs(60)), log, period);
    let gateways = gateways(&section, log);
    Some(Announce { period: period?, gateways })
}

/// A period, or 0 for none.
fn period(node: &Node) -> Result<Option<Duration>, String> {
    let off = match &node.value {
        Value::Integer(number) => *number == Some(0),
        Value::Text(text) => matches!(text.trim(), "0" | "0s"),
        _ => false,
    };
    if off { Ok(None) } else { within("10s", "1h")(node).map(Some) }
}

fn gateways(section: &Section<'_>, log: &mut Log) -> Vec<GatewayName> {
    let name = |text: &str| match text.parse() {
        Ok(mac) => Ok(GatewayName::Mac(mac)),
        Err(_) => host_address(text)
            .map(GatewayName::Address)
            .map_err(|_| "expected a MAC as 02:00:00:00:00:01, or an address".to_owned()),
    };
    let gateways = section.list("gateways", log, parsed(name));
    if gateways.len() > GATEWAYS_MAX {
        let what = format!("names {} gateways; allowed are {GATEWAYS_MAX}", gateways.len());
        log.problem(section.place("gateways"), &section.full("gateways"), what);
    }
    gateways
}
