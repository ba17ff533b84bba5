//! What is to stand in the status of Services, for whoever writes it.

use model::desired::ObjectName;
use std::net::IpAddr;
use std::sync::Arc;

/// `status.loadBalancer.ingress[].ipMode` (KEP-1860): a fact about the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpMode {
    /// The packet reaches the backend with its destination unchanged.
    Vip,
    /// The destination was rewritten.
    Proxy,
}

impl IpMode {
    /// As the API spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vip => "VIP",
            Self::Proxy => "Proxy",
        }
    }
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The address; written in its canonical form.
    pub address: IpAddr,
    /// Its mode.
    pub mode: IpMode,
}

/// The condition `headgate.dev/Programmed`. Its transition time is the writer's to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programmed {
    /// Every worker forwards it.
    pub status: bool,
    /// One word in CamelCase.
    pub reason: &'static str,
    /// One sentence with its remedy.
    pub message: String,
}

/// What is to stand in one Service's status. Without ingress and condition, what we wrote earlier
/// is withdrawn.
///
/// It may be written when every worker runs with the delta of the same build, not before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusWrite {
    /// The Service.
    pub service: ObjectName,
    /// The UID that it is meant for: a Service of another UID is another one.
    pub uid: Arc<str>,
    /// In the order of `spec.ipFamilies`.
    pub ingress: Vec<Ingress>,
    /// `None` where the Service isn't ours.
    pub programmed: Option<Programmed>,
}
