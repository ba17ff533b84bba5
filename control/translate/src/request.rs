//! Which LoadBalancer address a Service asks for.

use crate::pools::Scheme;
use crate::problem::{Problem, reason, shown};
use crate::settings::Settings;
use crate::spec::{ADDRESSES, POOL, SCHEME, list};
use k8s_openapi::api::core::v1::ServiceSpec;
use model::ids::Family;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A LoadBalancer address that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// By address.
    pub(crate) addresses: Vec<IpAddr>,
    /// By pool.
    pub(crate) pool: Option<Arc<str>>,
    /// By where the clients are.
    pub(crate) scheme: Option<Scheme>,
    /// Positions of the pools that its labels keep it from.
    pub(crate) not_for: Vec<usize>,
    /// The request makes no sense: what the Service has stays, nothing new is given.
    pub(crate) broken: bool,
}

pub(crate) fn request(
    spec: &ServiceSpec,
    labels: Option<&BTreeMap<String, String>>,
    annotations: Option<&BTreeMap<String, String>>,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Request {
    let annotation = |key: &str| annotations.and_then(|all| all.get(key)).map(String::as_str);
    let (addresses, pool) = (annotation(ADDRESSES), annotation(POOL));
    let field = spec.load_balancer_ip.as_deref().filter(|text| !text.is_empty());
    if field.is_some() && addresses.is_none() {
        let what = format!("loadBalancerIP is deprecated: {ADDRESSES} can ask for both families");
        problems.push(Problem::new(reason::DEPRECATED, what).quiet());
    }
    let before = problems.len();
    if field.is_some() && addresses.is_some() {
        let what = format!("both loadBalancerIP and {ADDRESSES} ask for addresses: keep one");
        problems.push(Problem::new(reason::ALLOCATION_FAILED, what));
    }
    let words = addresses.or(field).into_iter().flat_map(|all| all.split(','));
    let texts: Vec<String> = words.map(trimmed).filter(|text| !text.is_empty()).collect();
    let found = list(Some(&texts), "requested address", problems);
    for family in [Family::V4, Family::V6] {
        let of_family = found.iter().filter(|&&address| Family::of(address) == family).count();
        if of_family > 1 {
            let what = format!("{of_family} {family} addresses are asked for: expected one");
            problems.push(Problem::new(reason::ALLOCATION_FAILED, what));
        }
    }
    let pool = pool.map(str::trim).filter(|text| !text.is_empty());
    if let Some(name) = pool
        && settings.pool_named(name).is_none()
    {
        let names: Vec<_> = settings.pools().iter().map(|pool| &*pool.name).collect();
        let name = shown(name);
        let what = format!("there is no pool \"{name}\"; there are: {}", names.join(", "));
        problems.push(Problem::new(reason::ALLOCATION_FAILED, what));
    }
    let scheme = match annotation(SCHEME).map(str::trim) {
        None | Some("") => None,
        Some("internal") => Some(Scheme::Internal),
        Some("internet-facing") => Some(Scheme::InternetFacing),
        Some(other) => {
            let other = shown(other);
            let what = format!("{SCHEME} is \"{other}\": expected internal or internet-facing");
            problems.push(Problem::new(reason::ALLOCATION_FAILED, what));
            None
        }
    };
    Request {
        addresses: found,
        pool: pool.map(Into::into),
        scheme,
        not_for: not_for(labels, settings),
        broken: problems.len() > before,
    }
}

fn trimmed(text: &str) -> String {
    text.trim().to_owned()
}

/// Positions of the pools that are not for a Service with these labels.
fn not_for(labels: Option<&BTreeMap<String, String>>, settings: &Settings) -> Vec<usize> {
    let none = BTreeMap::new();
    let labels = labels.unwrap_or(&none);
    let pools = settings.pools().iter().enumerate();
    let selectors = pools.filter_map(|(at, pool)| Some((at, pool.service_selector.as_ref()?)));
    selectors.filter(|(_, one)| !one.matches(labels)).map(|(at, _)| at).collect()
}
