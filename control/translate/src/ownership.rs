//! Whose a Service of type LoadBalancer is.

use crate::allocations::AllocatedAddress;
use crate::aws;
use crate::problem::{Problem, reason};
use crate::settings::Settings;
use crate::spec::TAKE_OVER;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use std::net::IpAddr;

/// Whether a Service of type LoadBalancer is ours. `held` are the addresses that it has; `None`
/// where its status is to be taken over.
pub(crate) fn is_ours(
    service: &Service,
    spec: &ServiceSpec,
    settings: &Settings,
    held: Option<&[AllocatedAddress]>,
    problems: &mut Vec<Problem>,
) -> bool {
    let ours = &settings.wishes().load_balancer_class;
    let for_aws = settings.wishes().aws && aws::is_meant(service);
    match spec.load_balancer_class.as_deref() {
        Some(class) if class == ours => true,
        Some(aws::CLASS) if settings.wishes().aws => true,
        Some(class) => {
            let what = format!(
                "its addresses are managed by class \"{class}\"; that of this gateway is \"{ours}\""
            );
            problems.push(Problem::new(reason::NOT_FORWARDED, what).quiet());
            false
        }
        None if !settings.wishes().default_class && !for_aws => {
            let what = format!(
                "it has no class, and this gateway serves those of loadBalancerClass \"{ours}\" alone"
            );
            problems.push(Problem::new(reason::NOT_FORWARDED, what).quiet());
            false
        }
        None => match held.and_then(|held| foreign_status(service, settings, held)) {
            None => true,
            Some(address) => {
                let what = format!(
                    "its status names {address}, which is in no pool: it belongs to another \
                     controller; set the annotation {TAKE_OVER} to \"true\" to have it served here, \
                     or create it anew with loadBalancerClass \"{ours}\""
                );
                problems.push(Problem::new(reason::FOREIGN_STATUS, what));
                false
            }
        },
    }
}

/// An address or name in the status that isn't one of our pools'.
fn foreign_status(
    service: &Service,
    settings: &Settings,
    held: &[AllocatedAddress],
) -> Option<String> {
    let status = service.status.as_ref()?.load_balancer.as_ref()?;
    status.ingress.as_ref()?.iter().find_map(|ingress| {
        let Some(text) = ingress.ip.as_deref() else { return ingress.hostname.clone() };
        let address = text.parse::<IpAddr>().ok()?;
        let ours =
            settings.pool_of(address).is_some() || held.iter().any(|held| held.address == address);
        (!ours).then(|| text.to_owned())
    })
}
