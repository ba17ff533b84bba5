//! A route netlink socket, and the requests that the mirror makes of the kernel.
//!
//! The crates below `rtnetlink` build and read the messages. The socket is our own: the mirror
//! thread polls it together with the twins, needs to see overruns, and sleeps for shorter than an
//! asynchronous runtime's timer can.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily as SocketFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind,
    getsockname, recvfrom, sendto, setsockopt, socket, sockopt,
};
use pipeline::adjacency::Mac;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes of the largest datagram: the kernel builds dumps in buffers of at most 32 KiB.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Bytes of events that may wait while the thread is busy: some 20,000 neighbour events.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// How long an answer may take that the kernel gives at once.
const ANSWER_MS_MAX: u16 = 1_000;

/// A message from the kernel, and whether it is for us alone.
pub(crate) struct Received {
    pub message: NetlinkMessage<RouteNetlinkMessage>,
    /// It answers a request that was made on this socket.
    pub is_answer: bool,
}

/// A route netlink socket that never blocks.
pub(crate) struct NetlinkSocket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl NetlinkSocket {
    /// A socket in this thread's network namespace, subscribed to the groups of the mask.
    pub fn open(groups: u32) -> Result<Self, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkRoute;
        let fd = socket(SocketFamily::Netlink, SockType::Raw, flags, protocol)?;
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            // Without CAP_NET_ADMIN over the first namespace the limit of the host holds; overruns
            // are mended by reading all again.
            let _ = setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES);
        }
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let port = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        Ok(Self { fd, port, sequence: 0, buffer: vec![0; DATAGRAM_BYTES_MAX] })
    }
    /// Sends a request without waiting for its answer; gives its sequence number.
    pub fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> Result<u32, Errno> {
        let mut message = NetlinkMessage::from(request);
        self.sequence = self.sequence.wrapping_add(1).max(1);
        message.header.flags = flags | NLM_F_REQUEST;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.fd.as_raw_fd(), &bytes, &kernel, MsgFlags::empty())?;
        Ok(self.sequence)
    }
    /// Sends a request and waits for the kernel's yes or no.
    pub fn request(&mut self, request: RouteNetlinkMessage, flags: u16) -> Result<(), Errno> {
        let sequence = self.send(request, flags | NLM_F_ACK)?;
        loop {
            let mut answer = None;
            let received = self.receive(|received| {
                if let NetlinkPayload::Error(error) = &received.message.payload
                    && received.message.header.sequence_number == sequence
                {
                    answer = Some(error.raw_code());
                }
            })?;
            match answer {
                Some(0) => return Ok(()),
                Some(code) => return Err(Errno::from_raw(code.saturating_abs())),
                None if received => {}
                None => self.wait()?,
            }
        }
    }
    fn wait(&self) -> Result<(), Errno> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(ANSWER_MS_MAX)) {
            Ok(0) => Err(Errno::ETIMEDOUT),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
    /// Reads one datagram and shows each of its messages. False where none was waiting. `ENOBUFS`
    /// means that events were lost.
    pub fn receive(&mut self, mut show: impl FnMut(Received)) -> Result<bool, Errno> {
        let (length, sender) = match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut self.buffer)
        {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            Err(error) => return Err(error),
        };
        if sender.is_some_and(|sender| sender.pid() != 0) {
            // Another process, not the kernel.
            return Ok(true);
        }
        let mut rest = self.buffer.get(..length).unwrap_or(&[]);
        while let Ok(header) = NetlinkBuffer::new_checked(rest) {
            let length = header.length() as usize;
            let is_answer = header.port_number() == self.port;
            match NetlinkMessage::deserialize(rest) {
                Ok(message) => show(Received { message, is_answer }),
                Err(error) => tracing::debug!(%error, "netlink message not understood"),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
        Ok(true)
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A request and its flags.
pub(crate) type Request = (RouteNetlinkMessage, u16);

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Sets a link's MAC and MTU.
pub(crate) fn set_link(index: u32, mac: Mac, mtu: u16) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes =
        vec![LinkAttribute::Address(mac.0.to_vec()), LinkAttribute::Mtu(u32::from(mtu))];
    (RouteNetlinkMessage::SetLink(link), 0)
}

/// Sets a link up.
pub(crate) fn set_up(index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    (RouteNetlinkMessage::SetLink(link), 0)
}

/// Removes a link.
pub(crate) fn remove_link(index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    (RouteNetlinkMessage::DelLink(link), 0)
}

/// Adds an address with its prefix; IPv6 without duplicate address detection.
pub(crate) fn add_address(index: u32, net: ipnet::IpNet) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![AddressAttribute::Address(net.addr())];
    match net {
        ipnet::IpNet::V4(net) => {
            message.attributes.push(AddressAttribute::Local(net.addr().into()));
            if net.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
        }
        ipnet::IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Adds a static route through a gateway. Both are of one family.
pub(crate) fn add_route(index: u32, to: ipnet::IpNet, via: IpAddr) -> Request {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(via),
        destination_prefix_length: to.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(to.network())),
        RouteAttribute::Gateway(RouteAddress::from(via)),
        RouteAttribute::Oif(index),
    ];
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Who put a route into the kernel, where it was [`put_host_way`]: such a route is for the host's
/// own packets, and nothing that workers follow.
pub(crate) const OWN_PROTOCOL: RouteProtocol = RouteProtocol::Other(72);
/// After routes that were put there by hand: the metric of such a route is 0, or 1024 for IPv6.
const OWN_METRIC: u32 = 2_048;

fn host_way(index: u32, to: IpAddr, via: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(to),
        destination_prefix_length: if to.is_ipv4() { 32 } else { 128 },
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: OWN_PROTOCOL,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(to)),
        RouteAttribute::Gateway(RouteAddress::from(via)),
        RouteAttribute::Oif(index),
        RouteAttribute::Priority(OWN_METRIC),
    ];
    message
}

/// Puts the host's own way to one address, in the place of another one of ours.
pub(crate) fn put_host_way(index: u32, to: IpAddr, via: IpAddr) -> Request {
    let message = host_way(index, to, via);
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Removes it.
pub(crate) fn remove_host_way(index: u32, to: IpAddr, via: IpAddr) -> Request {
    (RouteNetlinkMessage::DelRoute(host_way(index, to, via)), 0)
}

fn neighbour(index: u32, address: IpAddr, state: NeighbourState) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = state;
    message.header.kind = RouteType::Unspec;
    let address = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes = vec![NeighbourAttribute::Destination(address)];
    message
}

/// Makes the kernel resolve a neighbour now and, from 5.16 on, keep it resolved. An older kernel
/// reads of this only "use it". Externally learnt, so that garbage collection leaves it alone.
pub(crate) fn keep_neighbour(index: u32, address: IpAddr) -> Request {
    let mut message = neighbour(index, address, NeighbourState::None);
    message.header.flags = NeighbourFlags::Use | NeighbourFlags::ExtLearned;
    message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
}

/// Makes the kernel resolve a neighbour now. One that was kept resolved is so no longer: the
/// request sets the flags that it doesn't name to nothing.
pub(crate) fn use_neighbour(index: u32, address: IpAddr) -> Request {
    let mut message = neighbour(index, address, NeighbourState::None);
    message.header.flags = NeighbourFlags::Use;
    (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
}

/// What becomes of a neighbour that the kernel holds already, and that we tell it of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It stays as it is.
    Stays,
    /// It keeps a valid MAC.
    KeepsMac,
    /// It gets the new MAC.
    Moves,
}

/// Tells the kernel of a neighbour's MAC as ARP would: to be confirmed before long.
pub(crate) fn learn_neighbour(index: u32, address: IpAddr, mac: Mac, known: Known) -> Request {
    let mut message = neighbour(index, address, NeighbourState::Stale);
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    let flags = match known {
        Known::Stays => NLM_F_CREATE | NLM_F_EXCL,
        Known::KeepsMac => NLM_F_CREATE,
        Known::Moves => NLM_F_CREATE | NLM_F_REPLACE,
    };
    (RouteNetlinkMessage::NewNeighbour(message), flags)
}

/// Sets a neighbour for good: the kernel never asks for it.
pub(crate) fn fix_neighbour(index: u32, address: IpAddr, mac: Mac) -> Request {
    let mut message = neighbour(index, address, NeighbourState::Permanent);
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}
