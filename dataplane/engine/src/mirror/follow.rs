//! Following the kernel by netlink.
//!
//! Events and readings from the start ("dumps") come through one socket, so that they are in the
//! order in which the kernel made them. Neighbours change often and one at a time: their events
//! are taken as they come. Links, addresses and routes are read anew when one of them changes:
//! the kernel doesn't tell of all that goes with it (routes vanish unannounced with a link or an
//! address, a replaced route isn't said to be removed), and a reading is always right.

use super::netlink::{NetlinkSocket, Received};
use super::state::{self, KernelRoute, KernelState, Key};
use model::ids::InterfaceId;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Links, neighbours, and addresses and routes of both families (`RTMGRP_*`).
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;

/// Datagrams read in one go, so that frames wait for no longer than these take.
const DATAGRAMS_MAX: usize = 64;

/// A reading that takes as long never ends.
const READING_MAX: Duration = Duration::from_secs(30);

/// Between two readings of a kind lies this many times what one takes, within a limit: routes of a
/// full table may change without end.
const REST_FACTOR: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(1);

/// What is read from the start as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Links,
    Addresses,
    RoutesV4,
    RoutesV6,
    Neighbours,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Links, Self::Addresses, Self::RoutesV4, Self::RoutesV6, Self::Neighbours];

    fn request(self) -> RouteNetlinkMessage {
        let route = |family| {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            RouteNetlinkMessage::GetRoute(message)
        };
        match self {
            Self::Links => RouteNetlinkMessage::GetLink(LinkMessage::default()),
            Self::Addresses => RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            Self::RoutesV4 => route(AddressFamily::Inet),
            Self::RoutesV6 => route(AddressFamily::Inet6),
            Self::Neighbours => RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
        }
    }
}

/// A reading under way.
struct Reading {
    kind: Kind,
    sequence: u32,
    since: Instant,
    /// The kernel says that its tables changed meanwhile, or it broke off.
    interrupted: bool,
    addresses: Vec<(InterfaceId, IpAddr)>,
    routes: Vec<KernelRoute>,
}

/// Why the kernel can't be followed any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    #[error("netlink: {0}")]
    Netlink(#[from] Errno),
    #[error("netlink: the kernel didn't finish listing its {0:?} within {READING_MAX:?}")]
    Endless(String),
    #[error("the network interface {0} was removed; a restart makes it anew")]
    TwinRemoved(String),
}

/// What a look at the socket brought.
#[derive(Default)]
pub(crate) struct News {
    /// Datagrams that were read.
    pub datagrams: usize,
    /// Interfaces, addresses or routes changed, which may have to be published.
    pub changed: bool,
    /// Routes changed.
    pub routes_changed: bool,
    /// Neighbours that the kernel has forgotten.
    pub forgotten: Vec<Key>,
    /// Links that were set up or down, and which of both.
    pub set_up: Vec<(InterfaceId, bool)>,
    /// A link changed, or an address on it.
    pub links_changed: bool,
    /// Addresses whose [`host ways`](super::host_ways) were removed.
    pub host_ways_lost: Vec<IpAddr>,
}

/// Follows the kernel.
pub(crate) struct Follower {
    socket: NetlinkSocket,
    state: KernelState,
    /// By [`Kind`]: to be read from the start.
    due: [bool; Kind::ALL.len()],
    /// By [`Kind`]: not before.
    not_before: [Option<Instant>; Kind::ALL.len()],
    reading: Option<Reading>,
    /// By [`Kind`]: has been read once.
    has_read: [bool; Kind::ALL.len()],
    removed: Option<InterfaceId>,
    /// Times that events were lost.
    overruns: u64,
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Follower {
    /// Subscribes. Everything is then read from the start.
    pub fn new(links: Vec<state::Link>) -> Result<Self, Errno> {
        Ok(Self {
            socket: NetlinkSocket::open(GROUPS)?,
            state: KernelState::new(links),
            due: [true; Kind::ALL.len()],
            not_before: [None; Kind::ALL.len()],
            reading: None,
            has_read: [false; Kind::ALL.len()],
            removed: None,
            overruns: 0,
        })
    }
    /// What the kernel holds, as far as it has been read.
    pub const fn state(&self) -> &KernelState {
        &self.state
    }
    /// The neighbours that may have to be published anew.
    pub fn take_changed(&mut self) -> impl Iterator<Item = Key> + '_ {
        self.state.take_changed()
    }
    /// Times that events were lost.
    #[cfg(test)]
    pub const fn overruns(&self) -> u64 {
        self.overruns
    }
    /// True when everything has been read once.
    pub fn has_read_all(&self) -> bool {
        self.has_read.iter().all(|read| *read)
    }
    /// True while all neighbours are known as the kernel holds them.
    pub fn knows_neighbours(&self) -> bool {
        let kind = Kind::Neighbours as usize;
        let reads = self.reading.as_ref().is_some_and(|reading| reading.kind == Kind::Neighbours);
        self.has_read[kind] && !self.due[kind] && !reads
    }
    /// True when everything has been read that is known to have changed and may be read now.
    pub fn is_settled(&self, now: Instant) -> bool {
        let may = |kind: usize| self.due[kind] && self.not_before[kind].is_none_or(|at| now >= at);
        self.reading.is_none() && !(0..Kind::ALL.len()).any(may)
    }
    /// Takes in what the kernel has sent, and asks for what has to be read.
    pub fn look(&mut self, now: Instant) -> Result<News, FollowError> {
        let mut news = News::default();
        while news.datagrams < DATAGRAMS_MAX {
            let Self { socket, state, reading, due, removed, .. } = self;
            let mut taker = Taker { state, reading, due, removed, news: &mut news };
            match socket.receive(|received| taker.take(received)) {
                Ok(true) => news.datagrams += 1,
                Ok(false) => break,
                Err(Errno::ENOBUFS) => {
                    self.overruns += 1;
                    tracing::warn!(overruns = self.overruns, "netlink events lost; reading all");
                    self.due = [true; Kind::ALL.len()];
                    news.links_changed = true;
                    news.datagrams += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(id) = self.removed {
            let link = self.state.link(id);
            let name = link.map(|link| link.interface.name.to_string()).unwrap_or_default();
            return Err(FollowError::TwinRemoved(name));
        }
        self.finish_reading(now, &mut news)?;
        self.begin_reading(now)?;
        Ok(news)
    }
    /// Closes a reading whose end has come (its sequence number is then 0).
    fn finish_reading(&mut self, now: Instant, news: &mut News) -> Result<(), FollowError> {
        let Some(reading) = self.reading.take_if(|reading| reading.sequence == 0) else {
            return match &self.reading {
                Some(reading) if now - reading.since > READING_MAX => {
                    Err(FollowError::Endless(format!("{:?}", reading.kind)))
                }
                _ => Ok(()),
            };
        };
        let kind = reading.kind as usize;
        self.not_before[kind] = Some(now + ((now - reading.since) * REST_FACTOR).min(REST_MAX));
        if reading.interrupted {
            self.due[kind] = true;
            return Ok(());
        }
        self.has_read[kind] = true;
        let changed = match reading.kind {
            Kind::Links => false,
            Kind::Addresses => self.state.set_addresses(reading.addresses),
            Kind::RoutesV4 => self.state.set_routes(false, reading.routes),
            Kind::RoutesV6 => self.state.set_routes(true, reading.routes),
            Kind::Neighbours => self.state.end_neighbours(),
        };
        news.changed |= changed;
        news.routes_changed |= changed && matches!(reading.kind, Kind::RoutesV4 | Kind::RoutesV6);
        Ok(())
    }
    fn begin_reading(&mut self, now: Instant) -> Result<(), FollowError> {
        if self.reading.is_some() {
            return Ok(());
        }
        let may = |kind: &Kind| {
            let kind = *kind as usize;
            self.due[kind] && self.not_before[kind].is_none_or(|at| now >= at)
        };
        let Some(kind) = Kind::ALL.into_iter().find(may) else { return Ok(()) };
        let sequence = match self.socket.send(kind.request(), NLM_F_DUMP) {
            Ok(sequence) => sequence,
            // The one before isn't quite over, or memory is short: again at the next look.
            Err(Errno::EBUSY | Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.due[kind as usize] = false;
        if kind == Kind::Neighbours {
            self.state.begin_neighbours();
        }
        self.reading = Some(Reading {
            kind,
            sequence,
            since: now,
            interrupted: false,
            addresses: Vec::new(),
            routes: Vec::new(),
        });
        Ok(())
    }
}

/// Takes in one message after another.
struct Taker<'a> {
    state: &'a mut KernelState,
    reading: &'a mut Option<Reading>,
    due: &'a mut [bool; Kind::ALL.len()],
    removed: &'a mut Option<InterfaceId>,
    news: &'a mut News,
}

impl Taker<'_> {
    fn take(&mut self, received: Received) {
        let (header, payload) = received.message.into_parts();
        let running = self
            .reading
            .as_mut()
            .filter(|reading| received.is_answer && header.sequence_number == reading.sequence);
        if let Some(reading) = running {
            reading.interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
            match payload {
                NetlinkPayload::Done(done) => {
                    reading.interrupted |= done.code < 0;
                    reading.sequence = 0;
                }
                NetlinkPayload::Error(error) => {
                    tracing::debug!(kind = ?reading.kind, error = %error.to_io(), "netlink");
                    reading.interrupted = true;
                    reading.sequence = 0;
                }
                NetlinkPayload::InnerMessage(message) => self.take_read(message),
                _ => {}
            }
        } else if let NetlinkPayload::InnerMessage(message) = payload {
            self.take_event(message);
        }
    }
    /// A message of a reading.
    fn take_read(&mut self, message: RouteNetlinkMessage) {
        let Some(reading) = self.reading.as_mut() else { return };
        match message {
            RouteNetlinkMessage::NewLink(link) => self.take_link(&link),
            RouteNetlinkMessage::NewAddress(address) => {
                if let Some((index, ip)) = state::read_address(&address) {
                    let id = self.state.interface_of(index);
                    reading.addresses.extend(id.map(|id| (id, ip)));
                }
            }
            RouteNetlinkMessage::NewRoute(route) => {
                let of_twin = |route: &KernelRoute| self.state.interface_of(route.index).is_some();
                reading.routes.extend(state::read_route(&route).filter(of_twin));
            }
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.take_neighbour(&neighbour),
            _ => {}
        }
    }
    fn take_event(&mut self, message: RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(link) if self.is_twin(link.header.index) => {
                self.take_link(&link);
                self.news.links_changed = true;
                // Down takes addresses and routes along, and up brings some back.
                self.mark(&[Kind::Addresses, Kind::RoutesV4, Kind::RoutesV6]);
            }
            RouteNetlinkMessage::DelLink(link) => {
                let id = self.state.interface_of(link.header.index);
                // A bridge tells of a port that leaves it by the same message.
                let is_removal = link.header.interface_family == AddressFamily::Unspec;
                *self.removed = id.filter(|_| is_removal).or(*self.removed);
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address)
                if self.is_twin(address.header.index) =>
            {
                self.news.links_changed = true;
                self.mark(&[Kind::Addresses, Kind::RoutesV4, Kind::RoutesV6]);
            }
            RouteNetlinkMessage::DelRoute(route) if state::is_host_way(&route) => {
                self.news.host_ways_lost.extend(state::destination_of(&route));
            }
            RouteNetlinkMessage::NewRoute(route) if state::is_host_way(&route) => {}
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)
                if state::table_of(&route) == u32::from(RouteHeader::RT_TABLE_MAIN) =>
            {
                self.mark(&[match route.header.address_family {
                    AddressFamily::Inet6 => Kind::RoutesV6,
                    _ => Kind::RoutesV4,
                }]);
            }
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.take_neighbour(&neighbour),
            RouteNetlinkMessage::DelNeighbour(neighbour) => self.forget_neighbour(&neighbour),
            _ => {}
        }
    }
    fn is_twin(&self, index: u32) -> bool {
        self.state.interface_of(index).is_some()
    }
    fn forget_neighbour(&mut self, message: &NeighbourMessage) {
        let Some((index, ip, _)) = state::read_neighbour(message) else { return };
        let Some(id) = self.state.interface_of(index) else { return };
        self.news.changed |= self.state.neighbour(&(id, ip)).is_some_and(|known| known.is_fixed());
        if self.state.forget_neighbour(&(id, ip)) {
            self.news.forgotten.push((id, ip));
        }
    }
    fn mark(&mut self, kinds: &[Kind]) {
        for kind in kinds {
            self.due[*kind as usize] = true;
        }
    }
    fn take_link(&mut self, link: &LinkMessage) {
        let Some(id) = self.state.interface_of(link.header.index) else { return };
        let up = link.header.flags.contains(LinkFlags::Up);
        if self.state.set_up(id, up) {
            self.news.set_up.push((id, up));
        }
        for attribute in &link.attributes {
            if let LinkAttribute::Mtu(mtu) = attribute {
                self.news.changed |= self.state.set_mtu(id, *mtu);
            }
        }
    }
    fn take_neighbour(&mut self, message: &NeighbourMessage) {
        let Some((index, ip, neighbour)) = state::read_neighbour(message) else { return };
        let Some(id) = self.state.interface_of(index) else { return };
        self.news.changed |= self.state.set_neighbour((id, ip), neighbour);
    }
}
