//! Asking a running gateway: the command line's end of the admin socket.

use crate::routes::{ConnectionQuery, FlowQuery, Refusal, WorkersQuery};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use model::answers::{
    BackendRow, BudgetRow, ConnectionFilter, Connections, DropRow, Event, FlowExplanation,
    NeighbourRow, PoolRow, PortRow, ServiceExplanation, ServiceRow, Status, Workers,
};
use model::desired::ObjectName;
use model::ids::FiveTuple;
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long an answer may take; longer than the server gives itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no Headgate answers on {0}; start it with \"headgate run\" or \"systemctl start headgate\", or name its socket with --socket"
    )]
    NotRunning(PathBuf),
    /// The socket may not be opened.
    #[error("no permission to use {0}; become root or a member of the group headgate")]
    Permission(PathBuf),
    /// Connecting failed in another way.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The gateway said no.
    #[error("{message}")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// One sentence.
        message: String,
    },
    /// No answer in time.
    #[error("Headgate did not answer within {ANSWER_WITHIN:?}")]
    Timeout,
    /// The conversation broke off.
    #[error("the connection to Headgate broke: {0}")]
    Http(#[from] hyper::Error),
    /// The question can't be put into a request.
    #[error("the question cannot be sent: {0}")]
    Question(String),
    /// The answer isn't understood.
    #[error("the answer is not understood (is the daemon of another version?): {0}")]
    Answer(#[from] serde_json::Error),
}

/// A client of the admin API.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

macro_rules! questions {
    ($($(#[$doc:meta])* $name:ident -> $answer:ty = $path:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// Where the gateway doesn't run or doesn't answer.
        pub async fn $name(&self) -> Result<$answer, ClientError> {
            self.get($path).await
        }
    )*};
}

impl Client {
    /// A client of the gateway whose admin socket is at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket that it asks on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    questions! {
        /// Asks for the state of the whole.
        status -> Status = "/v1/status";
        /// Asks for the Services.
        services -> Vec<ServiceRow> = "/v1/services";
        /// Asks for the backends.
        backends -> Vec<BackendRow> = "/v1/backends";
        /// Asks for the drops by reason.
        drops -> Vec<DropRow> = "/v1/drops";
        /// Asks for the neighbours.
        neighbours -> Vec<NeighbourRow> = "/v1/neighbours";
        /// Asks for the DPDK ports.
        ports -> Vec<PortRow> = "/v1/ports";
        /// Asks for the workers.
        workers -> Workers = "/v1/workers";
        /// Asks for the budgets of interfaces and purposes.
        budgets -> Vec<BudgetRow> = "/v1/budgets";
        /// Asks for the latest events.
        events -> Vec<Event> = "/v1/events";
        /// Asks for the pools of LoadBalancer addresses.
        pools -> Vec<PoolRow> = "/v1/pools";
    }

    /// Asks for the connections that match.
    ///
    /// # Errors
    /// Where the gateway doesn't run or doesn't answer.
    pub async fn connections(&self, filter: &ConnectionFilter) -> Result<Connections, ClientError> {
        self.get_with("/v1/connections", ConnectionQuery::from(filter)).await
    }

    /// Asks for the workers after so many seconds, in which their passes are measured.
    ///
    /// # Errors
    /// Where the gateway doesn't run or doesn't answer.
    pub async fn workers_measured(&self, seconds: u32) -> Result<Workers, ClientError> {
        let query = serde_urlencoded::to_string(WorkersQuery { passes: Some(seconds) });
        let query = query.map_err(|error| ClientError::Question(error.to_string()))?;
        let time = ANSWER_WITHIN + Duration::from_secs(seconds.into());
        let path = format!("/v1/workers?{query}");
        let asked = self.converse(&path);
        let answer =
            tokio::time::timeout(time, asked).await.map_err(|_| ClientError::Timeout)??;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Asks what would become of a packet.
    ///
    /// # Errors
    /// Where the gateway doesn't run or doesn't answer.
    pub async fn explain_flow(&self, flow: FiveTuple) -> Result<FlowExplanation, ClientError> {
        self.get_with("/v1/explain/flow", FlowQuery::from(flow)).await
    }

    /// Asks why a Service is reached or not.
    ///
    /// # Errors
    /// Where there is no such Service, or the gateway doesn't run or doesn't answer.
    pub async fn explain_service(
        &self,
        name: &ObjectName,
    ) -> Result<ServiceExplanation, ClientError> {
        self.get(&format!("/v1/explain/service/{}/{}", name.namespace, name.name)).await
    }

    /// Asks for a path as text, as `/metrics`.
    ///
    /// # Errors
    /// Where the gateway doesn't run or doesn't answer well.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.ask(path).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: impl serde::Serialize,
    ) -> Result<T, ClientError> {
        let query = serde_urlencoded::to_string(query);
        let query = query.map_err(|error| ClientError::Question(error.to_string()))?;
        self.get(&format!("{path}?{query}")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        Ok(serde_json::from_slice(&self.ask(path).await?)?)
    }

    async fn ask(&self, path: &str) -> Result<Bytes, ClientError> {
        let asked = tokio::time::timeout(ANSWER_WITHIN, self.converse(path)).await;
        asked.map_err(|_| ClientError::Timeout)?
    }

    async fn converse(&self, path: &str) -> Result<Bytes, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unconnected(e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, "headgate")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| ClientError::Question(error.to_string()))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        driver.abort();
        if status == StatusCode::OK { Ok(body) } else { Err(refused(status, &body)) }
    }

    fn unconnected(&self, source: io::Error) -> ClientError {
        let path = self.socket.clone();
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning(path),
            ErrorKind::PermissionDenied => ClientError::Permission(path),
            _ => ClientError::Connect { path, source },
        }
    }
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let message = serde_json::from_slice::<Refusal>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).trim().to_owned(), |refusal| refusal.error);
    ClientError::Refused { status: status.as_u16(), message }
}
