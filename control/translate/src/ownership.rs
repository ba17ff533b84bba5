//! Whose a Service of type LoadBalancer is.

use crate::problem::{Problem, reason};
use crate::settings::Settings;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use std::net::IpAddr;

/// Whether a Service of type LoadBalancer is ours.
pub(crate) fn is_ours(
    service: &Service,
    spec: &ServiceSpec,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> bool {
    let ours = &settings.wishes().load_balancer_class;
    match spec.load_balancer_class.as_deref() {
        Some(class) if class == ours => true,
        Some(class) => {
            let what = format!(
                "its addresses are managed by class \"{class}\"; that of this gateway is \"{ours}\""
            );
            problems.push(Problem::new(reason::NOT_FORWARDED, what).quiet());
            false
        }
        None if !settings.wishes().default_class => {
            let what = format!(
                "it has no class, and this gateway serves those of loadBalancerClass \"{ours}\" alone"
            );
            problems.push(Problem::new(reason::NOT_FORWARDED, what).quiet());
            false
        }
        None => match foreign_status(service, settings) {
            None => true,
            Some(address) => {
                let what = format!(
                    "its status names {address}, which is in no pool: it belongs to another \
                     controller; set loadBalancerClass \"{ours}\" to have it served here"
                );
                problems.push(Problem::new(reason::FOREIGN_STATUS, what));
                false
            }
        },
    }
}

/// An address or name in the status that isn't one of our pools'.
fn foreign_status(service: &Service, settings: &Settings) -> Option<String> {
    let status = service.status.as_ref()?.load_balancer.as_ref()?;
    status.ingress.as_ref()?.iter().find_map(|ingress| {
        let Some(text) = ingress.ip.as_deref() else { return ingress.hostname.clone() };
        let address = text.parse::<IpAddr>().ok()?;
        settings.pool_of(address).is_none().then(|| text.to_owned())
    })
}
