//! The host mirror: the kernel is the gateway's slow path.
//!
//! Each interface has a kernel TAP twin in the gateway's network namespace. One thread carries
//! frames between the twins and the workers, follows the kernel's addresses, routes and
//! neighbours by netlink and publishes them, asks the kernel to keep next hops resolved, and
//! announces addresses.
//!
//! ```text
//!  worker 0 --[frames]--> +--------+ --write--> TAP twin --> kernel: ssh, BGP, BFD, probes,
//!           <-[frames]--- | mirror | <--read---          <-- neighbours, routes
//!           --[requests]> | thread | <==netlink========>
//!  worker 1 ...           +--------+ --> publish(AdjacencyChange)
//! ```

mod announce;
mod carry;
mod conflicts;
mod follow;
mod gratuitous;
pub(crate) mod groups;
mod host_ways;
mod ledger;
mod managed;
mod netlink;
mod publication;
mod ring;
mod state;
#[cfg(test)]
mod tests;
mod thread;
mod twin;

pub(crate) use announce::Place;
pub use conflicts::{Conflict, GatewayName};
pub use host_ways::HostWay;
pub use managed::NeighbourUse;
pub use ring::{MirrorFrame, MirrorPort};
pub use twin::{StaticNeighbour, StaticRoute, TwinConfig, TwinError};

use carry::{Carrier, HEADER_BYTES_MAX, Served};
use ledger::MirrorCounters;
use model::answers::MirrorLedger;
use model::ids::InterfaceId;
use model::limits::{INTERFACES_MAX, WORKERS_MAX};
use netlink::NetlinkSocket;
use nix::errno::Errno;
use pipeline::adjacency::{AdjacencyChange, Mac};
use publication::Publications;
use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
pub(crate) use thread::settle;
use thread::{Control, Thread};
use twin::Twin;

/// Frames in each ring, in each direction, of each worker, unless told otherwise: at 1,518 bytes
/// a frame 1.6 MB a worker.
pub const RING_FRAMES: usize = 512;

/// Within this the thread has carried its last frame.
const STOP_MAX: Duration = Duration::from_millis(200);

/// Within this the thread answers a question: its longest round takes some milliseconds.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// What a mirror is made from.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    /// The twins; a place in the list is an [`InterfaceId`].
    pub twins: Vec<TwinConfig>,
    /// Workers, each of which gets a [`MirrorPort`].
    pub workers: usize,
    /// Frames in each ring; [`RING_FRAMES`] is good.
    pub ring_frames: usize,
    /// Cores that the thread may run on: those that no worker has. Empty: those of the caller.
    pub cores: Vec<usize>,
    /// How addresses are announced.
    pub announce: AnnounceConfig,
}

/// How addresses are announced.
#[derive(Clone, Debug, Default)]
pub struct AnnounceConfig {
    /// From one announcement of an address to the next, once it isn't new any more; `None`: there
    /// are none.
    pub period: Option<Duration>,
    /// What other gateways of ours are known by: they are never fought.
    pub gateways: Vec<GatewayName>,
}

/// Why the mirror could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// More than the limits allow, or nothing.
    #[error("{what}: {given}, expected 1 to {max}")]
    Range {
        /// What there are too many or too few of.
        what: &'static str,
        /// How many were given.
        given: usize,
        /// How many there may be.
        max: usize,
    },
    /// A twin could not be made.
    #[error(transparent)]
    Twin(#[from] TwinError),
    /// No netlink.
    #[error("can't open a route netlink socket: {0}")]
    Netlink(#[source] Errno),
    /// No thread.
    #[error("can't start the mirror thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// The thread didn't stop in time.
#[derive(Debug, thiserror::Error)]
#[error("the mirror thread didn't stop within {STOP_MAX:?}")]
pub struct StopError;

/// A neighbour as the kernel holds it, for `show neighbours`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelNeighbour {
    /// The interface on whose link it is.
    pub interface: InterfaceId,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC, where packets may be sent to it.
    pub mac: Option<Mac>,
    /// The kernel's word: reachable, stale, delay, probe, failed, incomplete, permanent, noarp.
    pub state: &'static str,
    /// The kernel keeps it resolved by itself.
    pub managed: bool,
    /// What the gateway needs it for.
    pub used: NeighbourUse,
}

/// What other threads read of the mirror.
pub(crate) struct Shared {
    counters: Arc<MirrorCounters>,
    /// Neighbours that aren't published, as there are too many.
    left_out: AtomicUsize,
    conflicts: Mutex<Arc<[Conflict]>>,
    /// A bit for each twin that somebody has set down.
    twins_down: AtomicU64,
    /// The thread is to stop.
    stop: AtomicBool,
    /// It has carried its last frame.
    ended: AtomicBool,
}

impl Shared {
    fn set_conflicts(&self, list: Vec<Conflict>) {
        *self.conflicts.lock().unwrap_or_else(PoisonError::into_inner) = list.into();
    }
    fn set_twin_up(&self, id: InterfaceId, up: bool) {
        let bit = 1_u64.checked_shl(u32::from(id.0)).unwrap_or(0);
        if up {
            self.twins_down.fetch_and(!bit, Release);
        } else {
            self.twins_down.fetch_or(bit, Release);
        }
    }
}

/// The host mirror. Dropped, it stops and the twins go.
pub struct Mirror {
    shared: Arc<Shared>,
    control: Sender<Control>,
    holders: Arc<host_ways::Holders>,
    /// Their numbers in the kernel, by interface.
    twins: Vec<u32>,
    thread: Option<JoinHandle<()>>,
    notes: Vec<String>,
}

impl Mirror {
    /// Makes the twins in the caller's network namespace and starts the thread. Gives one port for
    /// each worker.
    ///
    /// `publish` is called in the mirror thread with what workers have to know, first when the
    /// kernel's state has been read, and then with what differs. It must not block for long:
    /// frames and timers wait for it.
    ///
    /// A panic of the thread, or an error that it can't go on from, is logged and aborts the
    /// process: without the mirror the gateway would go on with next hops that nobody follows.
    pub fn start(
        config: MirrorConfig,
        publish: impl FnMut(AdjacencyChange) + Send + 'static,
    ) -> Result<(Self, Vec<MirrorPort>), MirrorError> {
        check_range("interfaces", config.twins.len(), INTERFACES_MAX)?;
        check_range("workers", config.workers, WORKERS_MAX)?;
        check_range("frames in a ring of the mirror", config.ring_frames, 1 << 16)?;
        let mut notes = Vec::new();
        let mut requests = NetlinkSocket::open(0).map_err(MirrorError::Netlink)?;
        let served = make_twins(&config.twins, &mut requests, &mut notes)?;
        twin::check_forwarding(&mut notes);
        for note in &notes {
            tracing::warn!("{note}");
        }
        let link = |(served, config): (&Served, &TwinConfig)| state::Link {
            index: served.twin.index,
            interface: config.interface.clone(),
            mtu: u32::from(config.interface.mtu),
        };
        let twins = served.iter().map(|served| served.twin.index).collect();
        let links = served.iter().zip(&config.twins).map(link).collect();
        let follower = follow::Follower::new(links).map_err(MirrorError::Netlink)?;
        let longest = served.iter().map(|served| served.frame_bytes_max).max().unwrap_or(0);
        let (ports, workers) =
            (0..config.workers).map(|_| ring::worker_link(config.ring_frames, longest)).unzip();
        let counters = Arc::new(MirrorCounters::default());
        let shared = Arc::new(Shared {
            counters: counters.clone(),
            left_out: AtomicUsize::new(0),
            conflicts: Mutex::new(Arc::new([])),
            twins_down: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let (control, orders) = channel();
        let thread = Thread {
            carrier: Carrier::new(served, workers, counters),
            follower,
            requests,
            managed: managed::Managed::new(configured(&config.twins), Instant::now()),
            announcer: announce::Announcer::new(config.announce.period),
            conflicts: conflicts::Conflicts::default(),
            gateways: config.announce.gateways,
            host_ways: host_ways::HostWays::default(),
            waiting: Vec::new(),
            control: orders,
            shared: shared.clone(),
            publications: Publications::new(Box::new(publish)),
        };
        let thread = std::thread::Builder::new()
            .name("mirror".to_owned())
            .spawn(move || guard(thread, &config.cores))
            .map_err(MirrorError::Thread)?;
        let holders = Arc::new(host_ways::Holders::new(control.clone()));
        Ok((Self { shared, control, holders, twins, thread: Some(thread), notes }, ports))
    }

    /// What could not be had and isn't essential, and what the host should change: each one
    /// sentence with its remedy. They have been logged, too.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        let left_out = self.shared.left_out.load(Relaxed);
        if left_out > 0 {
            notes.push(publication::too_many(left_out));
        }
        notes
    }

    /// The ledger. Its equations hold exactly while nothing moves.
    pub fn ledger(&self) -> MirrorLedger {
        self.shared.counters.read()
    }

    /// The kernel's neighbours on the twins, in order of interface and address, as the thread now
    /// knows them; none where it doesn't say so in time.
    pub fn neighbours(&self) -> Arc<[KernelNeighbour]> {
        let (asker, answer) = channel();
        let _ = self.control.send(Control::Neighbours(asker));
        answer.recv_timeout(ANSWER_MAX).unwrap_or_default()
    }

    /// Asks the kernel to keep exactly these next hops resolved, and the gateways of its routes
    /// over the twins, which need not be named. At most [`model::limits::ADJACENCIES_MAX`].
    pub fn set_managed(&self, next_hops: Vec<(InterfaceId, IpAddr)>) {
        // A thread that has gone has taken the process along.
        let _ = self.control.send(Control::Managed(next_hops));
    }

    /// Announces addresses on the link of an interface, by gratuitous ARP or unsolicited neighbour
    /// advertisement: at once, and again after one and three seconds, after each period, and
    /// whenever the link or the twin was down.
    pub fn announce(&self, addresses: Vec<(InterfaceId, IpAddr)>) {
        let _ = self.control.send(Control::Announce(addresses));
    }

    /// Announces addresses no longer.
    pub fn withdraw(&self, addresses: Vec<(InterfaceId, IpAddr)>) {
        let _ = self.control.send(Control::Withdraw(addresses));
    }

    /// What tells the thread that the links of interfaces have come up.
    pub(crate) fn on_link_up(&self) -> impl Fn(Vec<InterfaceId>) + Send + 'static {
        let control = self.control.clone();
        move |interfaces| {
            let _ = control.send(Control::LinkUp(interfaces));
        }
    }

    /// The numbers of the twins in the kernel, by interface.
    pub(crate) fn twin_numbers(&self) -> Vec<u32> {
        self.twins.clone()
    }

    /// True where somebody has set the twin of an interface down.
    pub fn is_twin_down(&self, id: InterfaceId) -> bool {
        self.shared.twins_down.load(Acquire) >> u32::from(id.0).min(63) & 1 == 1
    }

    /// Addresses of ours that other stations use, in order of interface and address.
    pub fn conflicts(&self) -> Arc<[Conflict]> {
        self.shared.conflicts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the host itself a way to an address by a next hop on a link of ours, unless the
    /// address is on one, too. It is there soon, and as long as what this returns. At most
    /// [`model::limits::HOST_WAYS_MAX`].
    pub fn host_way(&self, address: IpAddr, via: IpAddr) -> HostWay {
        HostWay::hold(&self.holders, (address, via))
    }

    /// Waits until the kernel has been told of all ways that were held and let go so far; false
    /// where that takes longer.
    pub fn wait_for_host_ways(&self, longest: Duration) -> bool {
        let (done, wait) = channel();
        let _ = self.control.send(Control::WhenHostWaysSettled(done));
        wait.recv_timeout(longest).is_ok()
    }

    /// Stops the thread and removes the twins. The last frame has been carried within 200 ms; the
    /// kernel then takes about 20 ms for each twin that it removes.
    pub fn stop(mut self) -> Result<(), StopError> {
        self.stop_thread()
    }

    fn stop_thread(&mut self) -> Result<(), StopError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.shared.stop.store(true, Release);
        let since = Instant::now();
        while !self.shared.ended.load(Acquire) {
            if since.elapsed() > STOP_MAX {
                return Err(StopError);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        thread.join().map_err(|_| StopError)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Err(error) = self.stop_thread() {
            tracing::error!(%error, "the twins stay until the process ends");
        }
    }
}

const fn check_range(what: &'static str, given: usize, max: usize) -> Result<(), MirrorError> {
    if given >= 1 && given <= max { Ok(()) } else { Err(MirrorError::Range { what, given, max }) }
}

/// The neighbours whose MAC the configuration gives.
fn configured(twins: &[TwinConfig]) -> HashMap<state::Key, Mac> {
    let of = |(place, twin): (usize, &TwinConfig)| {
        let id = InterfaceId(place as u8);
        twin.neighbours.clone().into_iter().map(move |known| ((id, known.address), known.mac))
    };
    twins.iter().enumerate().flat_map(of).collect()
}

fn make_twins(
    configs: &[TwinConfig],
    requests: &mut NetlinkSocket,
    notes: &mut Vec<String>,
) -> Result<Vec<Served>, TwinError> {
    let mut served: Vec<Served> = Vec::new();
    for config in configs {
        match Twin::create(config, requests, notes) {
            Ok(twin) => served.push(Served {
                twin,
                mac: config.interface.mac,
                frame_bytes_max: usize::from(config.interface.mtu) + HEADER_BYTES_MAX,
            }),
            Err(error) => {
                served.into_iter().for_each(|served| served.twin.remove(requests));
                return Err(error);
            }
        }
    }
    Ok(served)
}

/// Runs the thread so that it never dies alone.
fn guard(mut thread: Thread, cores: &[usize]) {
    thread::settle(cores);
    match std::panic::catch_unwind(AssertUnwindSafe(|| thread.run())) {
        Ok(Ok(())) => {
            thread.shared.ended.store(true, Release);
            thread.remove_twins();
            return;
        }
        Ok(Err(error)) => tracing::error!(%error, "the host mirror failed: the process ends"),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            tracing::error!(panic = text, "the host mirror panicked: the process ends");
        }
    }
    std::process::abort();
}
