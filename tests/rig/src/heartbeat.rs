//! Packets as BFD sends them: small, at a steady pace, from a host on the link to the gateway's own
//! address. Each is numbered, so that it is known which were lost, and where.

use crate::echo::is_timeout;
use crate::namespace::Namespace;
use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt::Ipv4RecvErr};
use socket2::SockRef;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// Single-hop BFD (RFC 5881).
const PORT: u16 = 3784;
const SOURCE_PORT: u16 = 49_152;
const TTL: u32 = 255;
/// From one packet to the next.
const INTERVAL: Duration = Duration::from_millis(300);
/// After this silence nothing is under way any more.
const SILENCE: Duration = Duration::from_secs(1);

/// Such packets under way. Dropped means ended.
pub struct Heartbeat {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<Result<Vec<bool>>>>,
    receiver: Option<JoinHandle<Result<BTreeSet<usize>>>>,
}

/// What became of each packet, in the order of their sending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beats(pub Vec<Beat>);

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// It came.
    Came,
    /// The sender's device had no place for it.
    Refused,
    /// It was lost behind that.
    Lost,
}

impl Beats {
    /// How many are so.
    pub fn count(&self, what: Beat) -> usize {
        self.0.iter().filter(|beat| **beat == what).count()
    }
    /// The most in a row that didn't come.
    pub fn gap_max(&self) -> usize {
        let gaps = self.0.split(|beat| *beat == Beat::Came);
        gaps.map(<[Beat]>::len).max().unwrap_or(0)
    }
}

impl Heartbeat {
    /// Begins to send from an IPv4 address in a namespace to one in another. It is known
    /// which packets a device refuses where the sender's link has no queue of its own (`noqueue`).
    pub fn start(
        (from, source): (&Namespace, IpAddr),
        (to, target): (&Namespace, IpAddr),
    ) -> Result<Self> {
        let receiver = to.within(|| UdpSocket::bind((target, PORT)))??;
        receiver.set_read_timeout(Some(SILENCE))?;
        let sender =
            from.within(|| open((source, SOURCE_PORT).into(), (target, PORT).into()))??;
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let sender = std::thread::spawn(move || send(&sender, &ended));
        let ended = Arc::clone(&stop);
        let receiver = std::thread::spawn(move || receive(&receiver, &ended));
        Ok(Self { stop, sender: Some(sender), receiver: Some(receiver) })
    }
    /// Ends it, waits for what is under way, and gives what became of each packet.
    pub fn stop(mut self) -> Result<Beats> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.take().context("stopped twice")?.join();
        let sent = sent.map_err(|_| anyhow!("the sender panicked"))??;
        let came = self.receiver.take().context("stopped twice")?.join();
        let came = came.map_err(|_| anyhow!("the receiver panicked"))??;
        let beat = |(number, taken): (usize, &bool)| match (came.contains(&number), taken) {
            (true, _) => Beat::Came,
            (false, false) => Beat::Refused,
            (false, true) => Beat::Lost,
        };
        Ok(Beats(sent.iter().enumerate().map(beat).collect()))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn open(source: SocketAddr, target: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(source)?;
    socket.connect(target)?;
    SockRef::from(&socket).set_ttl_v4(TTL)?;
    // Else nobody is told of a packet that the device refuses.
    setsockopt(&socket, Ipv4RecvErr, &true)?;
    Ok(socket)
}

/// For each packet, whether the device took it.
fn send(socket: &UdpSocket, stop: &AtomicBool) -> Result<Vec<bool>> {
    let mut taken = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let text = format!("beat {}", taken.len());
        let outcome = socket.send(text.as_bytes());
        let refused = outcome.as_ref().is_err_and(|e| e.raw_os_error() == Some(nix::libc::ENOBUFS));
        if !refused {
            outcome.context("send")?;
        }
        taken.push(!refused);
        sleep(INTERVAL);
    }
    Ok(taken)
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Result<BTreeSet<usize>> {
    let mut came = BTreeSet::new();
    let mut buffer = [0; 64];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let text = std::str::from_utf8(&buffer[..length])?;
                let number = text.strip_prefix("beat ").context("what isn't ours")?;
                came.insert(number.parse()?);
            }
            Err(error) if is_timeout(&error) && stop.load(Ordering::Relaxed) => return Ok(came),
            Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("receive"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Beat::{Came, Lost, Refused};
    use super::*;

    #[test]
    fn a_gap_is_what_did_not_come_in_a_row() {
        assert_eq!(Beats::default().gap_max(), 0);
        let beats = Beats(vec![Came, Lost, Refused, Came, Lost, Came]);
        assert_eq!((beats.gap_max(), beats.count(Lost), beats.count(Refused)), (2, 2, 1));
    }
}
