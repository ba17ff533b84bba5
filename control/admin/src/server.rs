//! The server: the Unix socket with everything, and optionally loopback with health and metrics.

use crate::gateway::Gateway;
use crate::peer::{GROUP, Peer, group_id};
use crate::routes;
use crate::socket::{self, Place, SocketError};
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// How long answers under way may take once the server has been told to stop.
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// An address and port that only this host can reach: metrics travel in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoopbackAddress(SocketAddr);

/// An address that isn't loopback, or none at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a loopback address with a port, as 127.0.0.1:9107 or [::1]:9107")]
pub struct NotLoopback(pub String);

impl LoopbackAddress {
    /// The address and port.
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl TryFrom<SocketAddr> for LoopbackAddress {
    type Error = NotLoopback;
    fn try_from(address: SocketAddr) -> Result<Self, NotLoopback> {
        let loopback = address.ip().is_loopback();
        loopback.then_some(Self(address)).ok_or_else(|| NotLoopback(address.to_string()))
    }
}

impl FromStr for LoopbackAddress {
    type Err = NotLoopback;
    fn from_str(text: &str) -> Result<Self, NotLoopback> {
        let address: SocketAddr = text.parse().map_err(|_| NotLoopback(text.to_owned()))?;
        address.try_into()
    }
}

impl fmt::Display for LoopbackAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the server listens.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Loopback address for `/metrics`, `/livez` and `/readyz`.
    pub metrics: Option<LoopbackAddress>,
}

/// Why the server doesn't start or stops.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The Unix socket can't be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The loopback address can't be had.
    #[error("cannot listen on {address} for metrics: {source}")]
    Metrics {
        /// The address.
        address: LoopbackAddress,
        /// What the system said.
        source: std::io::Error,
    },
    /// Serving failed.
    #[error("the admin API stopped: {0}")]
    Serve(#[from] std::io::Error),
}

/// The admin API, listening but not yet answering: binding comes first, so that a second daemon
/// learns that it is one before it touches a device.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    metrics: Option<TcpListener>,
    place: Place,
}

impl Server {
    /// Takes the socket, and the loopback address where one is configured.
    ///
    /// # Errors
    /// Where another Headgate runs, or the system refuses the socket or the address.
    pub async fn bind(options: &Options) -> Result<Self, ServerError> {
        let (listener, place) = socket::take(&options.socket).await?;
        let metrics = match options.metrics {
            None => None,
            Some(address) => Some(
                TcpListener::bind(address.get())
                    .await
                    .map_err(|source| ServerError::Metrics { address, source })?,
            ),
        };
        Ok(Self { listener, metrics, place })
    }

    /// The path of the socket.
    pub fn socket(&self) -> &Path {
        self.place.path()
    }

    /// The address that metrics are served on, with the port that the kernel chose for port 0.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Answers until `stop` resolves; then lets answers under way finish for half a second and
    /// removes the socket. Dropping the future removes the socket as well.
    ///
    /// # Errors
    /// Where a listening socket fails for good.
    pub async fn serve<G: Gateway>(
        self,
        gateway: Arc<G>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServerError> {
        let Self { listener, metrics, place } = self;
        let (stopping, stopped) = watch::channel(false);
        let wait = |mut stopped: watch::Receiver<bool>| async move {
            // An error means that the sender is gone, which is as good a reason to stop.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let group = group_id(GROUP);
        let guard = move |ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next| {
            admit(peer, group, request, next)
        };
        let router = routes::all(Arc::clone(&gateway)).layer(from_fn(guard));
        let unix = axum::serve(listener, router.into_make_service_with_connect_info::<Peer>())
            .with_graceful_shutdown(wait(stopped.clone()));
        let loopback = async {
            match metrics {
                None => std::future::pending().await,
                Some(listener) => {
                    axum::serve(listener, routes::health(gateway))
                        .with_graceful_shutdown(wait(stopped.clone()))
                        .await
                }
            }
        };
        let deadline = async {
            stop.await;
            // Nobody listening is fine: then both servers have ended already.
            let _ = stopping.send(true);
            tokio::time::sleep(STOP_WITHIN).await;
        };
        let served = tokio::select! {
            served = unix => served,
            served = loopback => served,
            () = deadline => Ok(()),
        };
        drop(place);
        Ok(served?)
    }
}

async fn admit(peer: Peer, group: Option<u32>, request: Request, next: Next) -> Response {
    if peer.may_ask(group) {
        return next.run(request).await;
    }
    tracing::warn!(?peer, "refused on the admin socket");
    let error = format!("only root, the user of the daemon and the group {GROUP} may ask");
    routes::refuse(StatusCode::FORBIDDEN, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_serves_metrics() {
        for good in ["127.0.0.1:9107", "127.8.0.1:1", "[::1]:9107"] {
            assert_eq!(good.parse::<LoopbackAddress>().unwrap().to_string(), good);
        }
        for bad in ["0.0.0.0:9107", "198.18.0.1:9107", "[::]:1", "127.0.0.1", "localhost:1", ""] {
            assert_eq!(bad.parse::<LoopbackAddress>(), Err(NotLoopback(bad.to_owned())));
        }
    }
}
