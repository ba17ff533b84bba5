//! What is wrong with a Service: shown in its status while it lasts, an event when it begins.

use crate::object::Place;
use crate::spec::Spec;
use model::answers::{Event, Severity};
use model::desired::ObjectName;
use std::collections::BTreeSet;

/// The reasons of events, as operators meet them.
pub mod reason {
    /// A LoadBalancer address was given.
    pub const IP_ALLOCATED: &str = "IPAllocated";
    /// A LoadBalancer address was taken back.
    pub const IP_RELEASED: &str = "IPReleased";
    /// A Service is forwarded as it asks.
    pub const PROGRAMMED: &str = "Programmed";
    /// Its LoadBalancer address is still to be given.
    pub const ADDRESS_PENDING: &str = "AddressPending";
    /// No address, or no nodePort, could be given.
    pub const ALLOCATION_FAILED: &str = "AllocationFailed";
    /// An address that must not be a Service's.
    pub const ADDRESS_REFUSED: &str = "AddressRefused";
    /// An endpoint that must not be a backend.
    pub const ENDPOINT_REFUSED: &str = "EndpointRefused";
    /// Another Service has the frontend.
    pub const PORT_CONFLICT: &str = "PortConflict";
    /// Something asked for isn't forwarded.
    pub const NOT_FORWARDED: &str = "NotForwarded";
    /// A field or annotation that makes no sense.
    pub const INVALID: &str = "Invalid";
    /// Affinity was asked for, and with this target it pins all clients of a node together.
    pub const AFFINITY_INEFFECTIVE: &str = "AffinityIneffective";
    /// Every probe of a service port's backends fails; all are used nevertheless.
    pub const ALL_PROBES_FAIL: &str = "AllProbesFail";
    /// Endpoints on nodes that the API server has lost sight of are used, for want of others.
    pub const UNKNOWN_NODES_USED: &str = "UnknownNodesUsed";
    /// `externalTrafficPolicy: Local` can't keep the client's address with this forwarding.
    pub const SOURCE_NOT_KEPT: &str = "SourceNotKept";
    /// Source ranges leave a family open.
    pub const FAMILY_OPEN: &str = "FamilyOpen";
    /// The status names addresses of another controller.
    pub const FOREIGN_STATUS: &str = "ForeignStatus";
    /// What another program's annotation asks for has no meaning here.
    pub const NOT_HONOURED: &str = "NotHonoured";
    /// A field that will go.
    pub const DEPRECATED: &str = "Deprecated";
    /// A limit cut something off.
    pub const LIMIT_EXCEEDED: &str = "LimitExceeded";
}

/// Bytes of a message at most: an object may hold 256 KiB of text in one annotation, and a message
/// is kept in many places.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Problems of one list of an object that are named one by one.
pub(crate) const NAMED_MAX: usize = 16;

/// Text of an object's as messages quote it.
pub(crate) fn shown(text: &str) -> String {
    const CHARS: usize = 80;
    let mut shown: String = text.chars().take(CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Another object that a problem of a Service is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub object: ObjectName,
    /// Where it came from.
    pub place: Place,
}

/// One problem of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// From [`reason`].
    pub reason: &'static str,
    /// The object that it is about, where that isn't the Service.
    pub about: Option<About>,
    /// One sentence with its remedy.
    pub message: String,
    /// As the operator wants it: shown in the status, worth no event.
    pub quiet: bool,
}

impl Problem {
    /// A problem of the Service itself.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            let ends = (0..=MESSAGE_BYTES_MAX).rev();
            let end = ends.into_iter().find(|&end| message.is_char_boundary(end));
            message.truncate(end.unwrap_or_default());
            message.push('…');
        }
        Self { reason, about: None, message, quiet: false }
    }

    /// The same, worth no event.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// The same, about another object.
    pub fn about(mut self, kind: &'static str, object: &ObjectName, place: &Place) -> Self {
        self.about = Some(About { kind, object: object.clone(), place: place.clone() });
        self
    }

    /// As the Service's status shows it.
    pub fn text(&self) -> String {
        match &self.about {
            None => self.message.clone(),
            Some(About { kind, object, place }) if place.file.is_empty() => {
                format!("{kind} {object}: {}", self.message)
            }
            Some(About { kind, object, place }) => {
                format!("{kind} {object} ({place}): {}", self.message)
            }
        }
    }

    /// Equal for two problems that are the same to a reader; lines of files may differ, and how many
    /// there are.
    fn identity(&self) -> (&'static str, Option<(&'static str, &ObjectName)>, &str) {
        let about = self.about.as_ref().map(|about| (about.kind, &about.object));
        let uncounted = self.message.trim_start_matches(|c: char| c.is_ascii_digit());
        let counted = uncounted.len() < self.message.len() && uncounted.starts_with(' ');
        (self.reason, about, if counted { uncounted } else { &self.message })
    }

    /// The event that says that it began. It is the Service's, whose story is looked for there,
    /// also where another object is to blame.
    pub(crate) fn event(&self, spec: &Spec) -> Event {
        let (message, place) = match &self.about {
            None => (self.message.clone(), &spec.place),
            Some(About { kind, object, place }) => {
                (format!("{kind} {object}: {}", self.message), place)
            }
        };
        let severity = Severity::Warning;
        Event { severity, place: place.to_string(), ..normal(self.reason, spec, message) }
    }
}

/// A normal event of a Service.
pub(crate) fn normal(reason: &str, spec: &Spec, message: String) -> Event {
    Event {
        time_s: 0,
        severity: Severity::Normal,
        reason: reason.to_owned(),
        kind: "Service".to_owned(),
        object: spec.name().clone(),
        uid: spec.uid().to_string(),
        place: spec.place.to_string(),
        message,
    }
}

/// Those of `now` that `before` didn't have and that are worth an event.
pub(crate) fn begun<'a>(before: &[Problem], now: &'a [Problem]) -> Vec<&'a Problem> {
    let known: BTreeSet<_> = before.iter().map(Problem::identity).collect();
    let new = now.iter().filter(|problem| !known.contains(&problem.identity()));
    new.filter(|problem| !problem.quiet).collect()
}
