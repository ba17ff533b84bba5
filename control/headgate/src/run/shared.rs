//! What the admin API asks of the running gateway.

use super::books::not_read;
use super::explain;
use super::gateway::Running;
use admin::metrics::BACKENDS_LABELLED_MAX;
use admin::{ControlReadings, Gateway, GatewayError, TrafficReadings};
use engine::NoAnswer;
use model::answers::{
    BackendRow, BudgetRow, ConnectionFilter, Connections, DropRow, Event, FlowExplanation,
    NeighbourRow, PoolRow, PortRow, ServiceExplanation, ServiceRow, ServiceTraffic, Status,
    Workers,
};
use model::desired::ObjectName;
use model::ids::FiveTuple;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What the admin API shares with the control thread.
#[derive(Clone)]
pub struct Shared(pub Arc<Running>);

fn no_answer(error: NoAnswer) -> GatewayError {
    GatewayError::Timeout(error.0)
}

impl Shared {
    /// Asks what may block, off the threads that serve others.
    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Running) -> Result<T, GatewayError> + Send + 'static,
    ) -> Result<T, GatewayError> {
        let running = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || ask(&running))
            .await
            .map_err(|error| GatewayError::Unavailable(format!("the answer failed: {error}")))?
    }
}

impl Gateway for Shared {
    fn live(&self) -> Result<(), String> {
        // Workers and mirror take the process with them; a control thread that panics is started
        // again, one that hangs is not.
        match self.0.hangs_for_ms() {
            Some(ms) => Err(format!("the control side has been silent for {} s", ms / 1000)),
            None => Ok(()),
        }
    }
    fn ready(&self) -> Result<(), String> {
        if self.0.draining.load(Relaxed) {
            return Err("draining".to_owned());
        }
        let books = self.0.books();
        // What was stored serves clients as well as what the source says.
        if !books.is_loaded() && books.desired.service_ports.is_empty() {
            return Err(not_read(&books.source_name));
        }
        Ok(())
    }
    async fn status(&self) -> Result<Status, GatewayError> {
        self.blocking(|running| Ok(running.status_now())).await
    }
    async fn services(&self) -> Result<Vec<ServiceRow>, GatewayError> {
        self.blocking(|running| Ok(running.service_rows())).await
    }
    async fn backends(&self) -> Result<Vec<BackendRow>, GatewayError> {
        self.blocking(|running| Ok(running.backend_rows())).await
    }
    async fn connections(&self, filter: ConnectionFilter) -> Result<Connections, GatewayError> {
        self.blocking(move |running| running.engine.connections(&filter).map_err(no_answer)).await
    }
    async fn drops(&self) -> Result<Vec<DropRow>, GatewayError> {
        Ok(self.0.engine.drops())
    }
    async fn neighbours(&self) -> Result<Vec<NeighbourRow>, GatewayError> {
        Ok(self.0.engine.neighbours())
    }
    async fn ports(&self) -> Result<Vec<PortRow>, GatewayError> {
        Ok(self.0.engine.ports())
    }
    async fn workers(&self) -> Result<Workers, GatewayError> {
        Ok(self.0.engine.workers())
    }
    async fn workers_measured(&self, time: Duration) -> Result<Workers, GatewayError> {
        self.blocking(move |running| Ok(running.engine.workers_measured(time))).await
    }
    async fn budgets(&self) -> Result<Vec<BudgetRow>, GatewayError> {
        Ok(self.0.engine.budgets())
    }
    async fn events(&self) -> Result<Vec<Event>, GatewayError> {
        Ok(self.0.books().events())
    }
    async fn pools(&self) -> Result<Vec<PoolRow>, GatewayError> {
        Ok(self.0.books().pools.clone())
    }
    async fn control(&self) -> Result<ControlReadings, GatewayError> {
        let books = self.0.books();
        Ok(ControlReadings {
            pools: books.pools.clone(),
            writes: books.write_counts,
            probes: books.probe_counts,
            probes_overruled: books.probes_overruled,
            endpoints_refused: books.endpoints_refused,
            programming: books.programming.clone(),
        })
    }
    async fn explain_flow(&self, flow: FiveTuple) -> Result<FlowExplanation, GatewayError> {
        self.blocking(move |running| {
            let answer = running.engine.explain(flow).map_err(no_answer)?;
            let node_ports = &running.facts.node_ports;
            Ok(explain::flow(&running.books().desired, node_ports, flow, answer))
        })
        .await
    }
    async fn explain_service(&self, name: ObjectName) -> Result<ServiceExplanation, GatewayError> {
        self.blocking(move |running| explain::service(running, &name)).await
    }
    async fn traffic(&self) -> Result<TrafficReadings, GatewayError> {
        self.blocking(|running| running.traffic()).await
    }
}

impl Running {
    /// What metrics need of traffic. Rows of more backends than have labels are not made.
    fn traffic(&self) -> Result<TrafficReadings, GatewayError> {
        let books = self.books();
        let reading = |key: &model::desired::ServicePortKey| ServiceTraffic {
            key: Arc::new(key.clone()),
            traffic: books.traffic(&self.engine, key),
        };
        let services = books.desired.service_ports.keys().map(reading).collect();
        let source_stale_ms = self.source_state(&books).stale_ms;
        let [_, backends_known] = books.backend_counts();
        drop(books);
        let all = backends_known as usize <= BACKENDS_LABELLED_MAX;
        let backends = if all { self.backend_rows() } else { Vec::new() };
        Ok(TrafficReadings { services, backends, backends_known, source_stale_ms })
    }
}
