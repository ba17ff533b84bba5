//! Annotations of other controllers, put into ours before anything is read. Opt-in; where a
//! Service has both, ours count.

use crate::aws;
use crate::problem::{Problem, reason, shown};
use crate::settings::Settings;
use crate::spec::{ADDRESSES, POOL, SCHEDULER, SHARE_KEY};
use k8s_openapi::api::core::v1::Service;
use model::desired::Affinity;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What stands in `metadata.annotations`.
pub(crate) type Annotations = BTreeMap<String, String>;

/// MetalLB's annotations, without the domain.
const METALLB: [(&str, &str); 3] =
    [("loadBalancerIPs", ADDRESSES), ("address-pool", POOL), ("allow-shared-ip", SHARE_KEY)];
/// Their domains, the newer one first.
const METALLB_DOMAINS: [&str; 2] = ["metallb.io", "metallb.universe.tf"];

/// The annotations of a Service with what others' mean added to it.
pub(crate) fn annotations<'a>(
    service: &'a Service,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Cow<'a, Annotations> {
    let given = match service.metadata.annotations.as_ref() {
        Some(given) => Cow::Borrowed(given),
        None => Cow::Owned(Annotations::new()),
    };
    let mut meant = Vec::new();
    if settings.wishes().metallb {
        for (theirs, ours) in METALLB {
            let keys = METALLB_DOMAINS.map(|domain| format!("{domain}/{theirs}"));
            let value = keys.iter().find_map(|key| given.get(key));
            meant.extend(value.map(|value| (ours, value.clone())));
        }
    }
    if settings.wishes().aws && aws::is_meant(service) {
        meant.append(&mut aws::meant(service, problems));
    }
    meant.retain(|(ours, _)| !given.contains_key(*ours));
    if meant.is_empty() {
        return given;
    }
    let mut all = given.into_owned();
    all.extend(meant.into_iter().map(|(ours, value)| (ours.to_owned(), value)));
    Cow::Owned(all)
}

/// Whether an annotation is one of another controller's that was opted into.
pub(crate) fn is_for_others(key: &str, settings: &Settings) -> bool {
    let metallb = || METALLB_DOMAINS.iter().any(|domain| key.starts_with(domain));
    settings.wishes().metallb && metallb() || settings.wishes().aws && key.starts_with(aws::PREFIX)
}

/// What becomes of the name of an IPVS scheduler: those that go by the client's address give
/// affinity, the others are balanced as everything is.
pub(crate) fn scheduler(
    annotations: &Annotations,
    problems: &mut Vec<Problem>,
) -> Option<Affinity> {
    let text = annotations.get(SCHEDULER).map(|text| text.trim())?;
    match text {
        "sh" => return Some(Affinity { timeout_s: 10_800 }),
        "mh" | "" => {}
        "rr" | "wrr" | "lc" | "wlc" => {
            let what = format!(
                "{SCHEDULER} \"{text}\": connections are spread evenly by a hash of their \
                 addresses and ports, which needs no counting"
            );
            let problem = Problem::new(reason::NOT_HONOURED, what);
            // Taking turns is even, too; counting connections isn't done.
            let even = matches!(text, "rr" | "wrr");
            problems.push(if even { problem.quiet() } else { problem });
        }
        "dh" => {
            let what = format!(
                "{SCHEDULER} \"dh\" goes by the address that clients send to, which is one for the \
                 whole Service: all would go to one backend; connections are spread evenly, \
                 \"sh\" goes by the client's address"
            );
            problems.push(Problem::new(reason::NOT_HONOURED, what));
        }
        other => {
            let other = shown(other);
            let what = format!(
                "{SCHEDULER} is \"{other}\": expected rr, wrr, lc, wlc, mh, sh or dh; it is ignored"
            );
            problems.push(Problem::new(reason::INVALID, what));
        }
    }
    None
}
