//! A way from this machine's own network into a namespace: what connects here to 127.0.0.1 is
//! connected there to the API server. It is for a person's kubectl and for clients in tests; the
//! namespaces themselves have no way out.

use crate::namespace::Namespace;
use anyhow::Result;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// For a connection inside. One that waits keeps those behind it waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listener in front of one address in a namespace. Dropped means that it accepts no more.
pub(super) struct Forward {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Forward {
    pub(super) fn start(namespace: &Namespace, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let (inside, ended) = (namespace.clone(), Arc::clone(&stop));
        thread::spawn(move || {
            for accepted in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(outer) = accepted else { continue };
                let connected = inside.within(|| TcpStream::connect_timeout(&target, PATIENCE));
                // Where nobody listens in there, the connection ends, as a refused one would.
                if let Ok(Ok(inner)) = connected {
                    join(outer, inner);
                }
            }
        });
        Ok(Self { port, stop })
    }
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener, so that it sees that it shall end.
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let _ = TcpStream::connect_timeout(&own, PATIENCE);
    }
}

/// Copies both ways until both have ended.
fn join(outer: TcpStream, inner: TcpStream) {
    let (Ok(outer_too), Ok(inner_too)) = (outer.try_clone(), inner.try_clone()) else { return };
    for (mut from, mut to) in [(outer, inner), (inner_too, outer_too)] {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            // The other side's reader learns of the end.
            let _ = to.shutdown(Shutdown::Write);
            let _ = from.shutdown(Shutdown::Read);
        });
    }
}
