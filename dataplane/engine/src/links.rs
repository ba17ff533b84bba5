//! The links: whether they are up, and the groups that we are in on them.
//!
//! A thread of its own asks the devices, since a driver may take its time to answer, and joins
//! groups, since the kernel may. When a link comes up, the mirror is told: neighbours and switches
//! have forgotten who is here.
//!
//! What a driver says is believed. net_tap and net_memif tell what is so; net_af_packet of DPDK
//! 22.11 says that it is up whatever its interface does.

use crate::mirror::Place;
use crate::mirror::groups::{self, Group, Groups};
use crate::publish::Publisher;
use dpdk::{PortMonitor, Reception};
use model::ids::InterfaceId;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// From one look at the links to the next.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Groups follow changes of routes so often at most: 65,536 addresses take some 10 ms. Ports are
/// told of groups as often.
const ROUTES_EVERY: Duration = Duration::from_secs(1);

/// A port to be watched.
pub(crate) struct Watched {
    pub name: Arc<str>,
    pub driver: String,
    pub monitor: PortMonitor,
    pub reception: Reception,
    /// The interfaces that it carries.
    pub interfaces: Vec<InterfaceId>,
}

/// Whether a port has its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortLink {
    /// The port's name.
    pub port: Arc<str>,
    /// Whether the link is up.
    pub up: bool,
    /// Seconds since the Unix epoch at which that was seen first.
    pub since_s: u64,
    /// Times that it came or went since the start.
    pub changes: u64,
}

/// What the thread has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// The ports.
    pub ports: Vec<PortLink>,
    /// Solicited-node groups that are joined.
    pub groups: usize,
    /// Addresses whose group isn't, since there are too many.
    pub groups_left_out: usize,
    /// What is wrong with groups, with the remedy.
    pub problems: Vec<String>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// The addresses that are ours on links, and how often that changed.
    places: Mutex<(BTreeSet<Place>, u64)>,
    report: Mutex<LinkReport>,
}

/// The thread. Dropped, it ends, and leaves the groups.
pub(crate) struct Links {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Links {
    /// Begins to watch. `twins` are the kernel's numbers of the interfaces' twins; `on_up` is called
    /// with the interfaces whose link has come up.
    pub fn start(
        ports: Vec<Watched>,
        twins: Vec<u32>,
        publisher: Arc<Publisher>,
        on_up: impl Fn(Vec<InterfaceId>) + Send + 'static,
        cores: Vec<usize>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut watch = Watch {
            ports: ports.into_iter().map(|port| (port, None)).collect(),
            members: Members::new(twins),
            publisher,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new().name("links".to_owned()).spawn(move || {
            crate::mirror::settle(&cores);
            while !watch.shared.stop.load(Acquire) {
                if watch.look(&on_up) {
                    std::thread::park_timeout(LOOK_EVERY);
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }
    /// Some addresses are ours on links from now on, and some no longer.
    pub fn change(&self, new: &[Place], gone: &[Place]) {
        let mut places = self.shared.places.lock().unwrap_or_else(PoisonError::into_inner);
        for place in gone {
            places.0.remove(place);
        }
        places.0.extend(new);
        places.1 += 1;
        drop(places);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
    /// What was found last.
    pub fn report(&self) -> LinkReport {
        self.shared.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shared.stop.store(true, Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that watches links ended by a panic");
            }
        }
    }
}

/// What the thread works with.
struct Watch {
    ports: Vec<(Watched, Option<PortLink>)>,
    members: Members,
    publisher: Arc<Publisher>,
    shared: Arc<Shared>,
}

impl Watch {
    /// One look. True where nothing is left to do.
    fn look(&mut self, on_up: &impl Fn(Vec<InterfaceId>)) -> bool {
        for (port, known) in &mut self.ports {
            if look_at(port, known) {
                on_up(port.interfaces.clone());
            }
        }
        let now = Instant::now();
        let is_settled = self.members.follow(&self.shared, &self.publisher, now);
        self.members.tell_ports(&self.ports, now);
        let report = LinkReport {
            ports: self.ports.iter().filter_map(|(_, known)| known.clone()).collect(),
            groups: self.members.groups.len(),
            groups_left_out: self.members.left_out,
            problems: self.members.problems(),
        };
        *self.shared.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
        is_settled
    }
}

/// Looks at a port's link. True where it has come up.
fn look_at(port: &Watched, known: &mut Option<PortLink>) -> bool {
    // A driver that doesn't tell says nothing new.
    let Ok(up) = port.monitor.link_up() else { return false };
    let since_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let Some(known) = known else {
        *known = Some(PortLink { port: Arc::clone(&port.name), up, since_s, changes: 0 });
        return false;
    };
    if known.up == up {
        return false;
    }
    if up {
        tracing::info!(port = &*port.name, "the link is up");
    } else {
        tracing::warn!(port = &*port.name, "the link is down");
    }
    (known.up, known.since_s, known.changes) = (up, since_s, known.changes + 1);
    up
}

/// The groups that we are in.
struct Members {
    groups: Groups,
    twins: Vec<u32>,
    wanted: BTreeSet<Group>,
    left_out: usize,
    /// The version of the places and the stamp of the routes that `wanted` was made of, and when.
    made_of: Option<(u64, u32, Instant)>,
    refused: Option<String>,
    /// What each port was told, and what it said.
    told: Vec<(Vec<[u8; 6]>, Option<String>)>,
    told_at: Option<Instant>,
}

impl Members {
    fn new(twins: Vec<u32>) -> Self {
        Self {
            groups: Groups::new(twins.clone()),
            twins,
            wanted: BTreeSet::new(),
            left_out: 0,
            made_of: None,
            refused: None,
            told: Vec::new(),
            told_at: None,
        }
    }
    /// Comes closer to being in the groups of all our addresses. True when it is.
    fn follow(&mut self, shared: &Shared, publisher: &Publisher, now: Instant) -> bool {
        let adjacencies = Arc::clone(&publisher.latest().adjacencies);
        let places = shared.places.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = self.made_of.as_ref().is_none_or(|(version, of, at)| {
            let moved = *of != adjacencies.routes_stamp();
            *version != places.1 || moved && now.saturating_duration_since(*at) >= ROUTES_EVERY
        });
        if is_due {
            (self.wanted, self.left_out) = groups::wanted(places.0.iter(), &adjacencies);
            self.made_of = Some((places.1, adjacencies.routes_stamp(), now));
        }
        drop(places);
        match self.groups.follow(&self.wanted, now) {
            Ok(settled) => {
                // While the kernel is left alone after a refusal, that stands.
                if settled && self.groups.len() == self.wanted.len() {
                    self.refused = None;
                }
                settled
            }
            Err(error) => {
                tracing::warn!(%error, "the kernel refuses a solicited-node group");
                self.refused = Some(format!(
                    "the kernel refuses solicited-node groups ({error}): behind a switch that \
                     snoops MLD nobody finds some IPv6 addresses; is IPv6 on, and \
                     net.core.optmem_max large enough?"
                ));
                true
            }
        }
    }
    /// Ports that filter groups let in those that their twins listen to.
    fn tell_ports(&mut self, ports: &[(Watched, Option<PortLink>)], now: Instant) {
        let filters = |port: &Watched| port.reception == Reception::ToldGroups;
        let since = self.told_at.map(|at| now.saturating_duration_since(at));
        if !ports.iter().any(|(port, _)| filters(port)) || since.is_some_and(|s| s < ROUTES_EVERY) {
            return;
        }
        self.told_at = Some(now);
        self.told.resize(ports.len(), (Vec::new(), None));
        // Of this thread's network namespace, where the twins are.
        let listed = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").unwrap_or_default();
        for ((port, _), (told, problem)) in ports.iter().zip(&mut self.told) {
            let twins: Vec<u32> = port
                .interfaces
                .iter()
                .filter_map(|id| self.twins.get(id.index()).copied())
                .collect();
            let groups = listened_to(&listed, &twins);
            if !filters(port) || *told == groups {
                continue;
            }
            let set = port.monitor.set_groups(&groups);
            // A software device that has no filter lets everything in.
            *problem = set.err().filter(|_| !port.driver.starts_with("net_")).map(|error| {
                format!(
                    "port {} lets in neither everything nor chosen groups ({error}): nobody finds \
                     IPv6 addresses there; let it (of a virtual function: ip link set DEVICE vf \
                     NUMBER trust on)",
                    port.name
                )
            });
            *told = groups;
        }
    }
    fn problems(&self) -> Vec<String> {
        let too_many = (self.left_out > 0).then(|| {
            format!(
                "{} IPv6 addresses have no solicited-node group of their own, {} are joined at \
                 most: behind a switch that snoops MLD nobody finds them",
                self.left_out,
                model::limits::GROUPS_MAX
            )
        });
        let ports = self.told.iter().filter_map(|(_, problem)| problem.clone());
        self.refused.clone().into_iter().chain(too_many).chain(ports).collect()
    }
}

/// The MACs of groups that these twins listen to, by a list as `/proc/net/dev_mcast` has it: number,
/// name, users, global users and address.
fn listened_to(listed: &str, twins: &[u32]) -> Vec<[u8; 6]> {
    let group = |line: &str| {
        let mut fields = line.split_whitespace();
        let twin: u32 = fields.next()?.parse().ok()?;
        let address = u64::from_str_radix(fields.nth(3)?, 16).ok()?;
        let [_, _, mac @ ..] = address.to_be_bytes();
        twins.contains(&twin).then_some(mac)
    };
    let groups: BTreeSet<[u8; 6]> = listed.lines().filter_map(group).collect();
    groups.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_told_what_its_twins_listen_to() {
        let listed = "3    hg-front        1     0     3333ff000010\n\
                      3    hg-front        2     0     01005e000001\n\
                      4    hg-back         1     0     3333ff000020\n\
                      4    hg-back         1     0     333300000001\n\
                      7    eth0            1     0     333300000001\n";
        let front = [[1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0xff, 0, 0, 0x10]];
        assert_eq!(listened_to(listed, &[3]), front);
        assert_eq!(listened_to(listed, &[3, 4]).len(), 4);
        assert!(listened_to("", &[3]).is_empty());
    }
}
