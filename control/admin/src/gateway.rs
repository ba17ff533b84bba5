//! The questions that the admin API asks.

use crate::programming::ProgrammingTimes;
use model::answers::{
    BackendRow, BudgetRow, ConnectionFilter, Connections, DropRow, Event, FlowExplanation,
    NeighbourRow, PoolRow, PortRow, ProbeCounts, ServiceExplanation, ServiceRow, ServiceTraffic,
    Status, Workers, WriteCounts,
};
use model::desired::ObjectName;
use model::ids::{FiveTuple, WorkerId};
use std::future::Future;
use std::time::Duration;

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The question makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A worker didn't answer in time.
    #[error("worker {0} did not answer in time")]
    Timeout(WorkerId),
    /// It can't be answered now, as while starting or stopping.
    #[error("{0}")]
    Unavailable(String),
}

/// Counters that metrics need beside the answers of `status` and `show`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficReadings {
    /// Traffic of each service port that is forwarded.
    pub services: Vec<ServiceTraffic>,
    /// The backends of those service ports; none where there are more than have labels.
    pub backends: Vec<BackendRow>,
    /// How many there are.
    pub backends_known: u32,
    /// Milliseconds since the source of objects was last known to be in step; 0 while it is.
    pub source_stale_ms: u64,
}

/// What the control side counts, for metrics.
#[derive(Clone, Debug, Default)]
pub struct ControlReadings {
    /// Pools of LoadBalancer addresses.
    pub pools: Vec<PoolRow>,
    /// What was written to the source; `None` where nothing ever is.
    pub writes: Option<WriteCounts>,
    /// Active probes.
    pub probes: ProbeCounts,
    /// Service ports whose backends all fail their probe and are used nevertheless.
    pub probes_overruled: u64,
    /// Endpoints that no Service may have as a backend.
    pub endpoints_refused: u64,
    /// From the source's word to the last worker's use, of each change.
    pub programming: ProgrammingTimes,
}

/// A running gateway, as the admin API sees it.
///
/// An inquiry to the workers may take milliseconds; the server gives every question a time limit,
/// so that an implementation need not.
pub trait Gateway: Send + Sync + 'static {
    /// Whether the control side and every worker are alive; otherwise what isn't.
    ///
    /// # Errors
    /// One sentence that says what is dead.
    fn live(&self) -> Result<(), String>;
    /// Whether clients may be sent here: desired state was applied, and it isn't draining.
    ///
    /// # Errors
    /// One sentence that says what is missing.
    fn ready(&self) -> Result<(), String>;
    /// The answer of `status`.
    fn status(&self) -> impl Future<Output = Result<Status, GatewayError>> + Send;
    /// The Services, in the order of their names, forwarded or not.
    fn services(&self) -> impl Future<Output = Result<Vec<ServiceRow>, GatewayError>> + Send;
    /// The backends, in the order of service port and address.
    fn backends(&self) -> impl Future<Output = Result<Vec<BackendRow>, GatewayError>> + Send;
    /// The connections that match, up to `filter.limit`.
    fn connections(
        &self,
        filter: ConnectionFilter,
    ) -> impl Future<Output = Result<Connections, GatewayError>> + Send;
    /// Packets dropped, for every reason.
    fn drops(&self) -> impl Future<Output = Result<Vec<DropRow>, GatewayError>> + Send;
    /// The neighbours that the gateway uses.
    fn neighbours(&self) -> impl Future<Output = Result<Vec<NeighbourRow>, GatewayError>> + Send;
    /// The DPDK ports with the devices' own counters.
    fn ports(&self) -> impl Future<Output = Result<Vec<PortRow>, GatewayError>> + Send;
    /// The workers and the host mirror.
    fn workers(&self) -> impl Future<Output = Result<Workers, GatewayError>> + Send;
    /// The same after so long a time, in which the passes of all workers were measured.
    fn workers_measured(
        &self,
        time: Duration,
    ) -> impl Future<Output = Result<Workers, GatewayError>> + Send;
    /// The budgets of all interfaces and purposes.
    fn budgets(&self) -> impl Future<Output = Result<Vec<BudgetRow>, GatewayError>> + Send;
    /// The latest events, oldest first.
    fn events(&self) -> impl Future<Output = Result<Vec<Event>, GatewayError>> + Send;
    /// The pools of LoadBalancer addresses, in the order of the configuration.
    fn pools(&self) -> impl Future<Output = Result<Vec<PoolRow>, GatewayError>> + Send;
    /// What would become of a packet of this flow, and why.
    fn explain_flow(
        &self,
        flow: FiveTuple,
    ) -> impl Future<Output = Result<FlowExplanation, GatewayError>> + Send;
    /// The walk from Service to backend, up to the first "no".
    fn explain_service(
        &self,
        name: ObjectName,
    ) -> impl Future<Output = Result<ServiceExplanation, GatewayError>> + Send;
    /// Counters for a scrape of the metrics.
    fn traffic(&self) -> impl Future<Output = Result<TrafficReadings, GatewayError>> + Send;
    /// What the control side counts, for a scrape of the metrics.
    fn control(&self) -> impl Future<Output = Result<ControlReadings, GatewayError>> + Send;
}
