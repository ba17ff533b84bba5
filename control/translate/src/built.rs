//! What a build tells.

use crate::probes::ProbeChange;
use crate::writes::StatusWrite;
use model::answers::{Event, ServiceStatus};
use model::desired::{Delta, ObjectName};

/// What a build changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// Change of the desired state.
    pub delta: Delta,
    /// Statuses that are new or differ, in the order of the Services' names.
    pub statuses: Vec<ServiceStatus>,
    /// Services that have gone, and with them their status.
    pub removed: Vec<ObjectName>,
    /// What began or ended; their time is for the caller to set.
    pub events: Vec<Event>,
    /// What began earlier, and was told by whoever wrote the statuses.
    pub known_events: Vec<Event>,
    /// Statuses to write, where Services live in an API server.
    pub writes: Vec<StatusWrite>,
    /// Probes that begin and end.
    pub probes: ProbeChange,
    /// [`crate::Index::allocations`] differ: to be stored before the delta is published.
    pub allocations_changed: bool,
    /// [`crate::Index::pools`] may differ.
    pub pools_changed: bool,
    /// Services that were looked at.
    pub evaluated: usize,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services known.
    pub services: usize,
    /// Service ports that are forwarded.
    pub service_ports: usize,
    /// Their frontends.
    pub frontends: usize,
    /// Their backends.
    pub backends: usize,
    /// Endpoints of forwarded Services that are refused.
    pub endpoints_refused: usize,
    /// Service ports whose backends all fail their probe and are used nevertheless.
    pub probes_overruled: usize,
}
