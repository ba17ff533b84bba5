//! Packets where they have no business: those for some addresses, on the links of a namespace.

use crate::namespace::Namespace;
use anyhow::{Result, anyhow, bail};
use nix::libc::{AF_PACKET, ETH_P_ALL, SOCK_RAW};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often the watch looks whether it shall end.
const TICK: Duration = Duration::from_millis(100);

/// Watches the links of a namespace until [`Strays::check`].
pub struct Strays {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<Seen>>>,
}

#[derive(Default)]
struct Seen {
    packets: u64,
    strays: BTreeMap<IpAddr, u64>,
}

impl Strays {
    /// Begins to watch for packets to these addresses.
    pub fn watch(namespace: &Namespace, addresses: Vec<IpAddr>) -> Result<Self> {
        let all = Protocol::from(i32::from(u16::try_from(ETH_P_ALL)?.to_be()));
        let socket = namespace
            .within(|| Socket::new(Domain::from(AF_PACKET), Type::from(SOCK_RAW), Some(all)))??;
        socket.set_read_timeout(Some(TICK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || watch(socket, &addresses, &told));
        Ok(Self { stop, thread: Some(thread) })
    }
    /// Fails where one was seen, or nothing at all.
    pub fn check(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| anyhow!("stopped twice"))?;
        let seen = thread.join().map_err(|_| anyhow!("the watch for strays panicked"))??;
        if !seen.strays.is_empty() {
            bail!("packets where they have no business, by destination: {:?}", seen.strays);
        }
        if seen.packets == 0 {
            bail!("no packet was seen: nothing was tested");
        }
        Ok(())
    }
}

impl Drop for Strays {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn watch(mut socket: Socket, addresses: &[IpAddr], stop: &AtomicBool) -> std::io::Result<Seen> {
    let (mut seen, mut frame) = (Seen::default(), [0; 64]);
    while !stop.load(Ordering::Relaxed) {
        match socket.read(&mut frame) {
            Ok(length) => {
                seen.packets += 1;
                let to = destination(&frame[..length]).filter(|to| addresses.contains(to));
                if let Some(to) = to {
                    *seen.strays.entry(to).or_default() += 1;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(seen)
}

/// Where an IP packet goes.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    let bytes = |range: std::ops::Range<usize>| frame.get(range);
    match bytes(12..14)? {
        [0x08, 0x00] => {
            let address: [u8; 4] = bytes(30..34)?.try_into().ok()?;
            Some(Ipv4Addr::from(address).into())
        }
        [0x86, 0xdd] => {
            let address: [u8; 16] = bytes(38..54)?.try_into().ok()?;
            Some(Ipv6Addr::from(address).into())
        }
        _ => None,
    }
}
