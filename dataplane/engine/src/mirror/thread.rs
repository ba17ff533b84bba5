//! The mirror thread: one loop over rings, twins and netlink.
//!
//! Workers can't wake it, since that would be a system call of theirs. So it looks at the rings,
//! and sleeps in between for the longer the longer nothing has come; a frame from the kernel or an
//! event of netlink ends the sleep at once.

use super::announce::{Announcer, Place};
use super::carry::{Carrier, CarryError};
use super::conflicts::{Conflicts, Due, GatewayName};
use super::follow::{FollowError, Follower};
use super::host_ways::{Held, HostWays};
use super::managed::Managed;
use super::netlink::NetlinkSocket;
use super::publication::Publications;
use super::state::{self, Key};
use super::{KernelNeighbour, Shared};
use model::ids::InterfaceId;
use netlink_packet_core::NetlinkPayload;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// Looks without a pause after the last one that found something.
const BUSY_LOOKS: u32 = 16;

/// The longest sleep: 2,000 looks a second take 1 to 2 % of a core, and a frame that a worker
/// gives waits for half of it on average.
const SLEEP_MAX: Duration = Duration::from_micros(500);
const SLEEP_MIN: Duration = Duration::from_micros(20);

/// What the control side asks of the thread.
pub(crate) enum Control {
    Managed(Vec<Key>),
    Neighbours(Sender<Arc<[KernelNeighbour]>>),
    Announce(Vec<Place>),
    Withdraw(Vec<Place>),
    LinkUp(Vec<InterfaceId>),
    HostWay { held: Held, holds: bool },
    WhenHostWaysSettled(Sender<()>),
}

/// Why the thread can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Carry(#[from] CarryError),
    #[error("waiting: {0}")]
    Wait(Errno),
    #[error("asking the kernel for neighbours: {0}")]
    Ask(Errno),
}

/// All that the thread works with.
pub(crate) struct Thread {
    pub carrier: Carrier,
    pub follower: Follower,
    pub requests: NetlinkSocket,
    pub managed: Managed,
    pub announcer: Announcer,
    pub conflicts: Conflicts,
    /// What other gateways of ours are known by.
    pub gateways: Vec<GatewayName>,
    pub host_ways: HostWays,
    /// Whoever waits for the host's ways.
    pub waiting: Vec<Sender<()>>,
    pub control: Receiver<Control>,
    pub shared: Arc<Shared>,
    pub publications: Publications,
}

/// The looks that found nothing, one after another.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn note(&mut self, found: bool) {
        self.0 = if found { 0 } else { self.0.saturating_add(1) };
    }
    fn sleep(&self) -> Duration {
        match self.0.checked_sub(BUSY_LOOKS) {
            None => Duration::ZERO,
            Some(doublings) => (SLEEP_MIN * (1 << doublings.min(5))).min(SLEEP_MAX),
        }
    }
}

/// What the poll has found ready.
struct Ready {
    twins: u64,
    netlink: bool,
    requests: bool,
}

impl Thread {
    /// Runs until it is told to stop.
    pub fn run(&mut self) -> Result<(), RunError> {
        let mut backoff = Backoff::default();
        while !self.shared.stop.load(Acquire) {
            let ready = self.wait(backoff.sleep())?;
            let found = self.look(&ready)?;
            backoff.note(found);
        }
        // What workers have given so far still goes to the host.
        self.carrier.feed_kernel()?;
        Ok(())
    }

    /// Removes the twins, when the thread has run.
    pub fn remove_twins(&mut self) {
        for twin in self.carrier.take_twins() {
            twin.remove(&mut self.requests);
        }
    }

    /// Waits for a twin or netlink, for as long as the rings may stay unseen.
    fn wait(&self, timeout: Duration) -> Result<Ready, RunError> {
        let read = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = Vec::with_capacity(model::limits::INTERFACES_MAX + 2);
        fds.push(read(self.follower.as_fd()));
        fds.push(read(self.requests.as_fd()));
        fds.extend(self.carrier.twins().map(|twin| read(twin.as_fd())));
        match ppoll(&mut fds, Some(TimeSpec::from(timeout)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(RunError::Wait(error)),
        }
        let any = |fd: &PollFd| fd.any().unwrap_or(true);
        let is_ready = |place: usize| fds.get(place).is_some_and(any);
        let twins = fds.iter().skip(2).enumerate().filter(|(_, fd)| any(fd));
        Ok(Ready {
            netlink: is_ready(0),
            requests: is_ready(1),
            twins: twins.fold(0, |ready, (place, _)| ready | 1 << place),
        })
    }

    /// One look at everything. True where there was something to do.
    fn look(&mut self, ready: &Ready) -> Result<bool, RunError> {
        let now = Instant::now();
        let mut found = self.carrier.feed_kernel()? > 0;
        for place in 0..u64::BITS as u8 {
            if ready.twins & (1 << place) != 0 {
                found |= self.carrier.feed_workers(InterfaceId(place))? > 0;
            }
        }
        found |= self.take_control(now);
        found |= self.take_requests(now);
        found |= self.take_claims(now);
        if ready.netlink || !self.follower.is_settled(now) {
            let news = self.follower.look(now)?;
            found |= news.datagrams > 0;
            if news.changed {
                self.publications.links_changed();
            }
            if news.routes_changed {
                self.managed.set_gateways(self.follower.state().gateways());
                self.publications.ranks_changed();
                self.host_ways.look_for_ways();
            }
            let changed = self.follower.take_changed();
            let routers = self.publications.neighbours_changed(changed, &self.managed);
            if routers || news.routes_changed {
                self.managed.find_routers(self.follower.state());
            }
            self.managed.forgotten(&news.forgotten, now);
            for (id, up) in news.set_up {
                self.shared.set_twin_up(id, up);
                if up {
                    self.announcer.again(id, now);
                }
            }
            if news.links_changed {
                self.host_ways.links_changed();
            }
            news.host_ways_lost.iter().for_each(|address| self.host_ways.lost(*address));
        }
        for place in self.announcer.take_due(now) {
            self.carrier.announce(place);
            found = true;
        }
        found |= self.ask_kernel(now)?;
        if ready.requests {
            self.read_refusals()?;
        }
        let is_settled = self.follower.has_read_all() && self.follower.is_settled(now);
        self.publications.publish(self.follower.state(), is_settled, &self.managed, now);
        self.shared.left_out.store(self.publications.left_out(), Relaxed);
        Ok(found)
    }

    fn take_control(&mut self, now: Instant) -> bool {
        let mut found = false;
        while let Ok(control) = self.control.try_recv() {
            found = true;
            let refused = match control {
                Control::Managed(list) => {
                    let refused = self.managed.set_wanted(list);
                    self.publications.ranks_changed();
                    ("managed neighbours", refused)
                }
                Control::Neighbours(asker) => {
                    // Who gave up waiting isn't there.
                    let _ = asker.send(neighbours(&self.follower, &self.managed));
                    continue;
                }
                Control::Announce(list) => ("announcements", self.announcer.add(list, now)),
                Control::Withdraw(list) => {
                    self.announcer.remove(list);
                    continue;
                }
                Control::LinkUp(list) => {
                    for id in list {
                        self.carrier.report_groups(id);
                        self.announcer.again(id, now);
                    }
                    continue;
                }
                Control::HostWay { held, holds } => {
                    ("the host's ways to pods", usize::from(!self.host_ways.set(held, holds)))
                }
                Control::WhenHostWaysSettled(done) => {
                    self.waiting.push(done);
                    continue;
                }
            };
            if refused.1 > 0 {
                tracing::warn!(what = refused.0, left_out = refused.1, "over the limit");
            }
        }
        found
    }

    fn take_requests(&mut self, now: Instant) -> bool {
        let mut found = false;
        for worker in self.carrier.workers() {
            while let Ok(request) = worker.requests.pop() {
                found = true;
                self.managed.ask(&request, now, self.follower.state());
            }
        }
        found
    }

    fn take_claims(&mut self, now: Instant) -> bool {
        let mut found = false;
        for worker in self.carrier.workers() {
            while let Ok(claim) = worker.claims.pop() {
                found = true;
                let state = self.follower.state();
                let is_gateway = self.gateways.iter().any(|name| match name {
                    GatewayName::Mac(mac) => *mac == claim.mac,
                    GatewayName::Address(address) => state
                        .neighbour(&(claim.interface, *address))
                        .is_some_and(|known| known.mac == Some(claim.mac)),
                });
                let place = (claim.interface, claim.address);
                match self.conflicts.take(claim, is_gateway, now) {
                    Due::Defend => self.announcer.once(place, now),
                    Due::KeepQuiet => self.announcer.set_quiet(place, true, now),
                    Due::Nothing => {}
                }
            }
        }
        for place in self.conflicts.end(now) {
            self.announcer.set_quiet(place, false, now);
        }
        if let Some(conflicts) = self.conflicts.news() {
            self.shared.set_conflicts(conflicts);
        }
        found
    }

    fn ask_kernel(&mut self, now: Instant) -> Result<bool, RunError> {
        let mut requests = Vec::new();
        if self.follower.knows_neighbours() {
            requests = self.managed.round(now, self.follower.state());
        }
        // Before the kernel's own links are known, no next hop is on one.
        if self.follower.has_read_all() {
            requests.extend(self.host_ways.round(self.follower.state()));
        }
        let found = !requests.is_empty();
        for (message, flags) in requests {
            match self.requests.send(message, flags) {
                Ok(_) => {}
                // Short of memory: the request will be made again.
                Err(Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN | Errno::EINTR) => {
                    self.host_ways.links_changed();
                }
                Err(error) => return Err(RunError::Ask(error)),
            }
        }
        if self.host_ways.is_settled() {
            for done in self.waiting.drain(..) {
                // Who gave up waiting isn't there.
                let _ = done.send(());
            }
        }
        Ok(found)
    }

    /// Reads what the kernel refused: it answers nothing else.
    fn read_refusals(&mut self) -> Result<(), RunError> {
        loop {
            let read = self.requests.receive(|received| {
                let NetlinkPayload::Error(error) = received.message.payload else { return };
                match Errno::from_raw(error.raw_code().saturating_abs()) {
                    // Learnt by the kernel itself in the meantime.
                    // Routes go with their links.
                    Errno::EEXIST | Errno::ESRCH | Errno::UnknownErrno => {}
                    Errno::ENOBUFS => tracing::warn!(
                        "the kernel's neighbour table is full: raise \
                         net.ipv4.neigh.default.gc_thresh3 and net.ipv6.neigh.default.gc_thresh3"
                    ),
                    error => tracing::debug!(%error, "the kernel refused a neighbour or a route"),
                }
            });
            match read {
                Ok(true) | Err(Errno::ENOBUFS) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(RunError::Ask(error)),
            }
        }
    }
}

/// The kernel's neighbours, in order.
fn neighbours(follower: &Follower, managed: &Managed) -> Arc<[KernelNeighbour]> {
    let row = |(key, known): (&Key, &state::Neighbour)| KernelNeighbour {
        interface: key.0,
        address: key.1,
        mac: known.mac.filter(|_| known.usable().is_some()),
        state: known.word(),
        managed: known.managed,
        used: managed.use_of(key),
    };
    follower.state().neighbours().map(row).collect()
}

/// Puts this thread on the given cores, in the ordinary scheduling class: a thread that inherits
/// a worker's core or its real-time class would delay the worker.
pub(crate) fn settle(cores: &[usize]) {
    // SAFETY: an all-zero `sched_param` is a valid value of the plain C struct.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live `sched_param`, which the call only reads; 0 is this thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameters) };
    if let Err(error) = Errno::result(result) {
        tracing::warn!(%error, "the mirror thread keeps the scheduling class that it inherited");
    }
    if cores.is_empty() {
        return;
    }
    let mut set = CpuSet::new();
    let mut result = Ok(());
    for core in cores {
        result = result.and(set.set(*core));
    }
    if let Err(error) = result.and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)) {
        tracing::warn!(%error, ?cores, "the mirror thread can't run on these cores alone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_grows_to_its_limit_and_ends_with_the_first_find() {
        let mut backoff = Backoff::default();
        let mut sleeps = Vec::new();
        for _ in 0..BUSY_LOOKS + 8 {
            backoff.note(false);
            sleeps.push(backoff.sleep().as_micros());
        }
        assert!(sleeps[..BUSY_LOOKS as usize - 1].iter().all(|sleep| *sleep == 0));
        assert_eq!(&sleeps[BUSY_LOOKS as usize - 1..][..6], [20, 40, 80, 160, 320, 500]);
        assert_eq!(sleeps.last(), Some(&500));
        backoff.note(true);
        assert_eq!(backoff.sleep(), Duration::ZERO);
    }
}
