//! What is to stand in the status of Services, for whoever writes it.

use model::desired::ObjectName;
use model::ids::Protocol;
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

/// One entry of `status.loadBalancer.ingress[].ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressPort {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Why it isn't served, as `headgate.dev/PortConflict`; `None` where it is.
    pub error: Option<&'static str>,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The address; written in its canonical form.
    pub address: IpAddr,
    /// Its mode.
    pub mode: IpMode,
    /// All ports of the Service where one of them isn't served on this address, else none.
    pub ports: Vec<IngressPort>,
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
    /// Whether the finalizer `headgate.dev/cleanup` is to be there.
    pub finalizer: bool,
    /// What another controller owns of the status is to be taken over from it.
    pub take_over: bool,
}
