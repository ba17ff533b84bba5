//! Servers for long-lived connections: TCP by lines, UDP by datagrams. Each begins with the name
//! of its backend, so that a client knows where it is.

use crate::net::Host;
use crate::plan::ECHO_PORT;
use anyhow::Result;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often a waiting server looks whether it shall end.
const TICK: Duration = Duration::from_millis(100);
/// For a client that reads no more.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// A TCP and a UDP server in a backend's namespace, both families. Dropped means gone.
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts both on [`ECHO_PORT`]. Sockets stay in the namespace that they were made in, so the
    /// threads need not enter it.
    pub fn start(host: &Host) -> Result<Self> {
        let (tcp, udp) = host.namespace.within(|| -> Result<_> {
            let any = (Ipv6Addr::UNSPECIFIED, ECHO_PORT);
            Ok((TcpListener::bind(any)?, UdpSocket::bind(any)?))
        })??;
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicU64::new(0));
        socket2::SockRef::from(&tcp).set_read_timeout(Some(TICK))?;
        udp.set_read_timeout(Some(TICK))?;
        let threads = vec![
            thread::spawn({
                let (stop, name) = (Arc::clone(&stop), host.name.clone());
                let accepted = Arc::clone(&accepted);
                move || serve_tcp(&tcp, &name, &stop, &accepted)
            }),
            thread::spawn({
                let (stop, name) = (Arc::clone(&stop), host.name.clone());
                move || serve_udp(&udp, &name, &stop)
            }),
        ];
        Ok(Self { stop, accepted, threads })
    }
    /// TCP connections that were accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_tcp(listener: &TcpListener, name: &str, stop: &Arc<AtomicBool>, accepted: &AtomicU64) {
    let mut handlers = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            accepted.fetch_add(1, Ordering::Relaxed);
            let (stop, name) = (Arc::clone(stop), name.to_owned());
            let handler = move || drop(echo_lines(stream, &name, &stop));
            handlers.extend(thread::Builder::new().stack_size(64 << 10).spawn(handler));
            handlers.retain(|handler: &JoinHandle<()>| !handler.is_finished());
        }
    }
    for handler in handlers {
        let _ = handler.join();
    }
}

fn echo_lines(stream: TcpStream, name: &str, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(512, stream);
    writeln!(writer, "{name}")?;
    let mut line = String::new();
    while !stop.load(Ordering::Relaxed) {
        match reader.read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => {
                writer.write_all(line.as_bytes())?;
                line.clear();
            }
            // What came of the line so far stays in it.
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn serve_udp(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, sender)) = socket.recv_from(&mut buffer) {
            let mut answer = format!("{name} ").into_bytes();
            answer.extend_from_slice(&buffer[..length]);
            // A lost answer is the client's to notice.
            let _ = socket.send_to(&answer, sender);
        }
    }
}

/// Whether a read ended for its time-out.
pub(crate) fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
