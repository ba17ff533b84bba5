//! `loadBalancerSourceRanges`: who may use a LoadBalancer address.

use crate::problem::{NAMED_MAX, Problem, reason, shown};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::ServiceSpec;
use model::ids::Family;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Counts where the field is empty.
const ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Prefixes of clients that may use a LoadBalancer address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceRanges {
    pub(crate) ranges: Vec<IpNet>,
    /// Something in the list makes no sense: nobody can tell who may pass.
    pub(crate) broken: bool,
}

impl SourceRanges {
    /// Some range is of this family: clients of it that are in none are kept out. Ranges of one
    /// family leave the other open.
    pub(crate) fn guard(&self, family: Family) -> bool {
        self.ranges.iter().any(|range| Family::of(range.addr()) == family)
    }

    /// Nobody can tell which clients of this family may pass: it isn't served.
    pub(crate) fn withhold(&self, family: Family) -> bool {
        self.broken && !self.guard(family)
    }
}

pub(crate) fn source_ranges(
    spec: &ServiceSpec,
    annotations: Option<&BTreeMap<String, String>>,
    problems: &mut Vec<Problem>,
) -> SourceRanges {
    let field = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let annotation = annotations.and_then(|all| all.get(ANNOTATION)).map_or("", |text| text.trim());
    let texts: Vec<&str> = if field.is_empty() && !annotation.is_empty() {
        annotation.split(',').map(str::trim).collect()
    } else {
        field.iter().map(|text| text.trim()).collect()
    };
    let mut found = SourceRanges::default();
    let mut odd = 0;
    for text in texts {
        match parse(text) {
            Some(range) => found.ranges.push(range.trunc()),
            None => {
                found.broken = true;
                odd += 1;
                if odd <= NAMED_MAX {
                    let text = shown(text);
                    let what = format!("source range \"{text}\" is not a prefix, as 192.0.2.0/24");
                    problems.push(Problem::new(reason::INVALID, what));
                }
            }
        }
    }
    found.ranges.sort();
    found.ranges.dedup();
    found
}

/// A prefix; of an IPv4 one the numbers may have leading zeros, as Kubernetes reads them.
fn parse(text: &str) -> Option<IpNet> {
    if let Ok(range) = text.parse() {
        return Some(range);
    }
    let (address, length) = text.split_once('/')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut octets = [0u8; 4];
    let mut parts = address.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| digits(part))?;
        *octet = part
            .trim_start_matches('0')
            .parse()
            .or(if part.trim_matches('0').is_empty() { Ok(0) } else { Err(()) })
            .ok()?;
    }
    let length = digits(length).then(|| length.parse::<u8>().ok())??;
    if parts.next().is_some() {
        return None;
    }
    IpNet::new(IpAddr::V4(Ipv4Addr::from(octets)), length).ok()
}
