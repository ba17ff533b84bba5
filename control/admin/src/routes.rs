//! The paths of the admin API, and what their queries mean.

use crate::gateway::{Gateway, GatewayError};
use crate::metrics;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::answers::ConnectionFilter;
use model::desired::ObjectName;
use model::ids::{FiveTuple, Protocol};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Rows of `show connections` unless the question names a number.
pub(crate) const CONNECTIONS_DEFAULT: usize = 100;
/// Rows of `show connections` at most: about 300 bytes each, so 30 MB of JSON.
pub(crate) const CONNECTIONS_MAX: usize = 100_000;
/// Seconds for which the passes of workers are measured, at most.
pub const MEASURED_MAX_S: u32 = 60;
/// How long a question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The body of an answer that isn't good.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// One sentence.
    pub(crate) error: String,
}

impl IntoResponse for GatewayError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        refuse(status, self.to_string())
    }
}

pub(crate) fn refuse(status: StatusCode, error: String) -> Response {
    (status, axum::Json(Refusal { error })).into_response()
}

/// The query of `/v1/connections`: the words of the command line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConnectionQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

fn written((address, port): (IpAddr, Option<u16>)) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}

fn read_end(text: &str) -> Result<(IpAddr, Option<u16>), GatewayError> {
    if let Ok(address) = text.parse() {
        return Ok((address, None));
    }
    let both: SocketAddr = text.parse().map_err(|_| {
        GatewayError::Invalid(format!("\"{text}\" is neither an address nor ADDRESS:PORT"))
    })?;
    Ok((both.ip(), Some(both.port())))
}

fn read_name(text: &str) -> Result<ObjectName, GatewayError> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err(GatewayError::Invalid(format!("\"{text}\" is not NAMESPACE/NAME"))),
    }
}

impl From<&ConnectionFilter> for ConnectionQuery {
    fn from(filter: &ConnectionFilter) -> Self {
        Self {
            source: filter.source.map(written),
            destination: filter.destination.map(written),
            service: filter.service.as_ref().map(ObjectName::to_string),
            state: filter.state.clone(),
            protocol: filter.protocol,
            limit: Some(filter.limit),
        }
    }
}

impl TryFrom<ConnectionQuery> for ConnectionFilter {
    type Error = GatewayError;
    fn try_from(query: ConnectionQuery) -> Result<Self, GatewayError> {
        Ok(Self {
            source: query.source.as_deref().map(read_end).transpose()?,
            destination: query.destination.as_deref().map(read_end).transpose()?,
            service: query.service.as_deref().map(read_name).transpose()?,
            state: query.state,
            protocol: query.protocol,
            limit: query.limit.unwrap_or(CONNECTIONS_DEFAULT).clamp(1, CONNECTIONS_MAX),
        })
    }
}

/// The query of `/v1/workers`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WorkersQuery {
    /// For how many seconds passes are measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) passes: Option<u32>,
}

/// The query of `/v1/explain/flow`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FlowQuery {
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
}

impl From<FiveTuple> for FlowQuery {
    fn from(flow: FiveTuple) -> Self {
        Self { protocol: flow.protocol, source: flow.source, destination: flow.destination }
    }
}

impl From<FlowQuery> for FiveTuple {
    fn from(query: FlowQuery) -> Self {
        Self { protocol: query.protocol, source: query.source, destination: query.destination }
    }
}

type Answer = Result<Response, GatewayError>;

/// Waits for an answer, but not for ever.
async fn answer<T: Serialize>(asked: impl Future<Output = Result<T, GatewayError>>) -> Answer {
    answer_within(ANSWER_WITHIN, asked).await
}

async fn answer_within<T: Serialize>(
    time: Duration,
    asked: impl Future<Output = Result<T, GatewayError>>,
) -> Answer {
    let late = |_| GatewayError::Unavailable(format!("no answer within {time:?}"));
    let answer = tokio::time::timeout(time, asked).await.map_err(late)??;
    Ok(axum::Json(answer).into_response())
}

macro_rules! plain {
    ($($name:ident)*) => {$(
        async fn $name<G: Gateway>(State(gateway): State<Arc<G>>) -> Answer {
            answer(gateway.$name()).await
        }
    )*};
}

plain! { status services backends drops neighbours ports budgets events pools }

async fn workers<G: Gateway>(
    State(gateway): State<Arc<G>>,
    Query(query): Query<WorkersQuery>,
) -> Answer {
    match query.passes {
        None => answer(gateway.workers()).await,
        Some(seconds) if (1..=MEASURED_MAX_S).contains(&seconds) => {
            let time = Duration::from_secs(seconds.into());
            answer_within(ANSWER_WITHIN + time, gateway.workers_measured(time)).await
        }
        Some(_) => {
            let what = format!("passes are measured for 1 to {MEASURED_MAX_S} seconds");
            Err(GatewayError::Invalid(what))
        }
    }
}

async fn connections<G: Gateway>(
    State(gateway): State<Arc<G>>,
    Query(query): Query<ConnectionQuery>,
) -> Answer {
    answer(gateway.connections(query.try_into()?)).await
}

async fn explain_flow<G: Gateway>(
    State(gateway): State<Arc<G>>,
    Query(query): Query<FlowQuery>,
) -> Answer {
    answer(gateway.explain_flow(query.into())).await
}

async fn explain_service<G: Gateway>(
    State(gateway): State<Arc<G>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Answer {
    answer(gateway.explain_service(ObjectName::new(&namespace, &name))).await
}

fn verdict(found: Result<(), String>) -> (StatusCode, String) {
    match found {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

async fn livez<G: Gateway>(State(gateway): State<Arc<G>>) -> (StatusCode, String) {
    verdict(gateway.live())
}

async fn readyz<G: Gateway>(State(gateway): State<Arc<G>>) -> (StatusCode, String) {
    verdict(gateway.live().and_then(|()| gateway.ready()))
}

async fn scrape<G: Gateway>(State(gateway): State<Arc<G>>) -> Answer {
    let late = |_| GatewayError::Unavailable(format!("no answer within {ANSWER_WITHIN:?}"));
    let reading = metrics::Scrape::read(&*gateway);
    let scrape = tokio::time::timeout(ANSWER_WITHIN, reading).await.map_err(late)??;
    let text = scrape.text().map_err(|error| GatewayError::Unavailable(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// Health and metrics: what may also be asked over loopback.
pub(crate) fn health<G: Gateway>(gateway: Arc<G>) -> Router {
    Router::new()
        .route("/livez", get(livez::<G>))
        .route("/readyz", get(readyz::<G>))
        .route("/metrics", get(scrape::<G>))
        .with_state(gateway)
        .fallback(nothing_here)
}

/// All that is asked over the Unix socket.
pub(crate) fn all<G: Gateway>(gateway: Arc<G>) -> Router {
    Router::new()
        .route("/livez", get(livez::<G>))
        .route("/readyz", get(readyz::<G>))
        .route("/metrics", get(scrape::<G>))
        .route("/v1/status", get(status::<G>))
        .route("/v1/services", get(services::<G>))
        .route("/v1/backends", get(backends::<G>))
        .route("/v1/connections", get(connections::<G>))
        .route("/v1/drops", get(drops::<G>))
        .route("/v1/neighbours", get(neighbours::<G>))
        .route("/v1/ports", get(ports::<G>))
        .route("/v1/workers", get(workers::<G>))
        .route("/v1/budgets", get(budgets::<G>))
        .route("/v1/events", get(events::<G>))
        .route("/v1/pools", get(pools::<G>))
        .route("/v1/explain/flow", get(explain_flow::<G>))
        .route("/v1/explain/service/{namespace}/{name}", get(explain_service::<G>))
        .with_state(gateway)
        .fallback(nothing_here)
}

async fn nothing_here(uri: axum::http::Uri) -> Response {
    let error = format!("no such path: {}; the command line may be newer than the daemon", uri);
    refuse(StatusCode::NOT_FOUND, error)
}
