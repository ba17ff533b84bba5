//! What a Lease says.

use super::options::{LEASE, LeaseOptions, NAMESPACE};
use k8s_openapi::api::coordination::v1::Lease;

/// The hash of the pools of whoever held the Lease last, and of what makes a Service its own.
pub const POOLS_ANNOTATION: &str = "headgate.dev/pools";
/// What keys the choice of backends, as 16 hexadecimal digits: all gateways choose alike.
pub const SELECTION_ANNOTATION: &str = "headgate.dev/selection-key";
/// Who that was, also after the Lease was given back.
pub const HOLDER_ANNOTATION: &str = "headgate.dev/last-holder";

/// What is wrong where the Lease isn't there.
pub(super) fn missing(options: &LeaseOptions) -> String {
    let LeaseOptions { namespace, name, .. } = options;
    let remedy = if (&**namespace, &**name) == (NAMESPACE, LEASE) {
        "kubectl apply -k control/deploy"
    } else {
        "apply a copy of control/deploy/lease.yaml with this name, its Role included"
    };
    format!(
        "the Lease {namespace}/{name} isn't there, so nothing is allocated or written: {remedy}"
    )
}

/// Who writes instead.
pub(super) fn other(lease: &Lease) -> String {
    match holder(lease) {
        "" => "nobody holds the Lease yet: whoever takes it allocates and writes".to_owned(),
        holder => format!("{holder} holds the Lease: it allocates and writes"),
    }
}

/// What an annotation says; empty where it isn't there.
pub(super) fn annotation<'a>(lease: &'a Lease, key: &str) -> &'a str {
    let annotations = lease.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(key)).map_or("", String::as_str)
}

/// The key of the choice of backends that a Lease says, where it is one.
pub(super) fn selection(lease: &Lease) -> Option<u64> {
    let text = annotation(lease, SELECTION_ANNOTATION);
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok())?
}

/// When a Lease was renewed, as the API keeps it.
pub(super) fn renewed(lease: &Lease) -> Option<i64> {
    let time = lease.spec.as_ref()?.renew_time.as_ref()?;
    Some(time.0.as_microsecond())
}

/// Who holds a Lease.
pub(super) fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}
