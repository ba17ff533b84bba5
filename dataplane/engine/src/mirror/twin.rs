//! The kernel's twin of an interface: a TAP with the port's MAC and the interface's MTU.
//!
//! It isn't persistent: it goes when its descriptor is closed, also after `kill -9`.

use super::netlink::{self, NetlinkSocket};
use ipnet::IpNet;
use model::limits::INTERFACE_NAME_MAX;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use pipeline::adjacency::{Interface, Mac};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A static route over a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// The destination.
    pub to: IpNet,
    /// The gateway, on the twin's link and of the destination's family.
    pub via: IpAddr,
}

/// A neighbour whose MAC is set and never asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticNeighbour {
    /// Its address, on the twin's link.
    pub address: IpAddr,
    /// Its MAC.
    pub mac: Mac,
}

/// What a twin is made from.
#[derive(Clone, Debug)]
pub struct TwinConfig {
    /// The interface; the twin gets its name.
    pub interface: Interface,
    /// Addresses with their prefixes, given to the twin at start.
    pub addresses: Vec<IpNet>,
    /// Routes, added at start.
    pub routes: Vec<StaticRoute>,
    /// Neighbours, set for good at start.
    pub neighbours: Vec<StaticNeighbour>,
}

/// Why a twin could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// The kernel takes no such name.
    #[error(
        "\"{0}\" can't be the name of a network interface: expected 1 to {INTERFACE_NAME_MAX} \
         letters, digits, '-', '_' or '.'"
    )]
    Name(String),
    /// There is an interface of this name already.
    #[error(
        "a network interface {0} exists already in this network namespace: remove it \
         (`ip link delete {0}`), or give the [[interface]] another name"
    )]
    Exists(String),
    /// No TAP without the device file.
    #[error("/dev/net/tun can't be opened: {0}; load it with `modprobe tun`")]
    NoTun(#[source] Errno),
    /// Not allowed.
    #[error("no permission to make the network interface {0}: CAP_NET_ADMIN is needed")]
    Permission(String),
    /// A route that leads nowhere.
    #[error("route to {to} via {via} on {name}: both must be of one family")]
    Families {
        /// The twin.
        name: String,
        /// The destination.
        to: IpNet,
        /// The gateway.
        via: IpAddr,
    },
    /// The kernel refused something else.
    #[error("{name}: can't {what}: {source}")]
    Refused {
        /// The twin.
        name: String,
        /// What was tried, as `add the address 192.0.2.1/24`.
        what: String,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
}

mod ioctl {
    // The request writes an `ifreq`; its number was made with the size of an int.
    nix::ioctl_write_ptr_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
        nix::libc::ifreq
    );
    nix::ioctl_write_ptr_bad!(
        tun_set_carrier,
        nix::request_code_write!(b'T', 226, size_of::<nix::libc::c_int>()),
        nix::libc::c_int
    );
}

/// The flag of `TUNSETIFF` that refuses an interface that exists already.
const IFF_TUN_EXCL: libc::c_short = libc::IFF_TUN_EXCL as libc::c_short;

/// A twin: its descriptor and its number in the kernel. The interface goes with the last copy of
/// the descriptor, and a child that is just being started may hold one: [`Self::remove`].
#[derive(Debug)]
pub(crate) struct Twin {
    fd: OwnedFd,
    pub index: u32,
    pub name: String,
}

impl AsFd for Twin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Twin {
    /// Makes the twin in this thread's network namespace. What could not be had and isn't
    /// essential is added to `notes`.
    pub fn create(
        config: &TwinConfig,
        socket: &mut NetlinkSocket,
        notes: &mut Vec<String>,
    ) -> Result<Self, TwinError> {
        let name = config.interface.name.to_string();
        check_name(&name)?;
        let twin = Self::open(name)?;
        match twin.set_up(config, socket, notes) {
            Ok(()) => Ok(twin),
            Err(error) => {
                twin.remove(socket);
                Err(error)
            }
        }
    }

    /// Removes the interface, through a socket of its network namespace.
    pub fn remove(self, socket: &mut NetlinkSocket) {
        let (message, flags) = netlink::remove_link(self.index);
        if let Err(error) = socket.request(message, flags) {
            tracing::debug!(twin = self.name, %error, "removed by its descriptor's end alone");
        }
    }

    fn set_up(
        &self,
        config: &TwinConfig,
        socket: &mut NetlinkSocket,
        notes: &mut Vec<String>,
    ) -> Result<(), TwinError> {
        let twin = self;
        set_sysctls(&twin.name, notes);
        let has_ipv6 = has_ipv6(&twin.name);
        let (mac, mtu) = (config.interface.mac, config.interface.mtu);
        let ask = &mut |what: String, (message, flags): netlink::Request| {
            socket.request(message, flags).map_err(|source| TwinError::Refused {
                name: twin.name.clone(),
                what,
                source,
            })
        };
        ask(format!("set the MAC {mac} and the MTU {mtu}"), {
            netlink::set_link(twin.index, mac, mtu)
        })?;
        ask("set it up".to_owned(), netlink::set_up(twin.index))?;
        for address in &config.addresses {
            if address.addr().is_ipv6() && !has_ipv6 {
                notes.push(without_ipv6(&twin.name, &format!("address {address}")));
                continue;
            }
            ask(format!("add the address {address}"), netlink::add_address(twin.index, *address))?;
        }
        for StaticNeighbour { address, mac } in config.neighbours.iter().copied() {
            if address.is_ipv6() && !has_ipv6 {
                notes.push(without_ipv6(&twin.name, &format!("neighbour {address}")));
                continue;
            }
            ask(format!("set the neighbour {address} at {mac}"), {
                netlink::fix_neighbour(twin.index, address, mac)
            })?;
        }
        for StaticRoute { to, via } in config.routes.iter().copied() {
            if to.addr().is_ipv6() != via.is_ipv6() {
                return Err(TwinError::Families { name: twin.name.clone(), to, via });
            }
            if via.is_ipv6() && !has_ipv6 {
                notes.push(without_ipv6(&twin.name, &format!("route to {to}")));
                continue;
            }
            ask(format!("add the route to {to} via {via}"), {
                netlink::add_route(twin.index, to, via)
            })?;
        }
        Ok(())
    }

    fn open(name: String) -> Result<Self, TwinError> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open("/dev/net/tun", flags, Mode::empty()).map_err(
            |error| match error {
                Errno::EACCES | Errno::EPERM => TwinError::Permission(name.clone()),
                error => TwinError::NoTun(error),
            },
        )?;
        let request = interface_request(&name);
        // SAFETY: the descriptor is open, and `request` is an `ifreq` with a terminated name that
        // outlives the call, which is what TUNSETIFF reads.
        let made = unsafe { ioctl::tun_set_iff(fd.as_raw_fd(), &raw const request) };
        match made {
            Ok(_) => {}
            Err(Errno::EBUSY) => return Err(TwinError::Exists(name)),
            Err(Errno::EPERM | Errno::EACCES) => return Err(TwinError::Permission(name)),
            Err(source) => {
                return Err(TwinError::Refused { name, what: "make it".to_owned(), source });
            }
        }
        match nix::net::if_::if_nametoindex(name.as_str()) {
            Ok(index) => Ok(Self { fd, index, name }),
            Err(source) => Err(TwinError::Refused { name, what: "find it".to_owned(), source }),
        }
    }

    /// Takes the twin's carrier away and gives it back: the kernel then reports the groups that it
    /// is in once more (MLD), which a switch has forgotten while the link was away. A kernel before
    /// 5.0 refuses, and waits for a querier.
    pub fn pulse_carrier(&self) {
        for carrier in [0, 1] {
            // SAFETY: the descriptor is open, and the pointer is to an int that outlives the call.
            let set = unsafe { ioctl::tun_set_carrier(self.fd.as_raw_fd(), &raw const carrier) };
            if let Err(error) = set {
                tracing::debug!(twin = self.name, %error, "its carrier can't be set");
            }
        }
    }

    /// Reads a frame that the kernel sends. `None`: none is waiting.
    pub fn read(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        match nix::unistd::read(&self.fd, buffer) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a frame to the kernel. False where it refuses it, as while the twin is down.
    pub fn write(&self, frame: &[u8]) -> Result<bool, Errno> {
        match nix::unistd::write(&self.fd, frame) {
            Ok(length) => Ok(length == frame.len()),
            Err(Errno::EBADFD) => Err(Errno::EBADFD),
            Err(_) => Ok(false),
        }
    }
}

fn check_name(name: &str) -> Result<(), TwinError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = (1..=INTERFACE_NAME_MAX).contains(&name.len());
    if fits && name.chars().all(good) && name != "." && name != ".." {
        Ok(())
    } else {
        Err(TwinError::Name(name.to_owned()))
    }
}

/// The request to make a TAP of this name, without packet information. Names that fit have been
/// checked.
fn interface_request(name: &str) -> libc::ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes().take(INTERFACE_NAME_MAX)) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TAP as libc::c_short | libc::IFF_NO_PI as libc::c_short | IFF_TUN_EXCL;
    libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } }
}

/// The settings of a twin. Those of IPv6 have to be there before it is set up.
const SYSCTLS: [(&str, &str, &str); 11] = [
    // A twin answers for its own addresses alone, and asks with them.
    ("ipv4", "arp_ignore", "1"),
    ("ipv4", "arp_announce", "2"),
    // The way back may be another interface. The stricter of this and `all` would be 1; the
    // greater number counts, and 2 is the loose one.
    ("ipv4", "rp_filter", "2"),
    // Next hops that a redirect teaches aren't published.
    ("ipv4", "accept_redirects", "0"),
    // With the addresses of a gateway there is nothing to detect: DAD would only hold them back,
    // and another port of ours that hears it would end them.
    ("ipv6", "disable_ipv6", "0"),
    ("ipv6", "accept_dad", "0"),
    ("ipv6", "dad_transmits", "0"),
    // Addresses and routes come from the configuration or a routing daemon.
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "autoconf", "0"),
    ("ipv6", "router_solicitations", "0"),
    ("ipv6", "accept_redirects", "0"),
];

fn sysctl_path(family: &str, twin: &str, key: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{twin}/{key}")
}

fn set_sysctls(twin: &str, notes: &mut Vec<String>) {
    for (family, key, value) in SYSCTLS {
        let path = sysctl_path(family, twin, key);
        let is = |wanted: &str| std::fs::read_to_string(&path).is_ok_and(|v| v.trim() == wanted);
        match std::fs::write(&path, value) {
            Ok(()) => {}
            Err(error) if family == "ipv6" && error.kind() == io::ErrorKind::NotFound => {}
            Err(_) if is(value) => {}
            Err(error) => notes.push(format!(
                "{twin}: can't set {path} to {value}: {error}; set it as the default of this \
                 network namespace instead: `sysctl -w net.{family}.conf.default.{key}={value}`"
            )),
        }
    }
}

/// True where the kernel has IPv6 and lets the twin have it.
fn has_ipv6(twin: &str) -> bool {
    let path = sysctl_path("ipv6", twin, "disable_ipv6");
    std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "0")
}

fn without_ipv6(twin: &str, what: &str) -> String {
    format!(
        "{twin}: {what} left out, since IPv6 is off: start the kernel without ipv6.disable=1 and \
         set net.ipv6.conf.default.disable_ipv6=0"
    )
}

/// Adds a note where the kernel forwards: it would forward what reaches it through the twins,
/// past the gateway's own rules.
pub(crate) fn check_forwarding(notes: &mut Vec<String>) {
    for (path, key) in [
        ("/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("/proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
    ] {
        if std::fs::read_to_string(Path::new(path)).is_ok_and(|value| value.trim() != "0") {
            notes.push(format!(
                "the kernel forwards packets ({key} is on): set it to 0, unless another program \
                 on this host needs it"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_refuses_are_refused_with_the_remedy() {
        for name in ["", "0123456789abcdef", "a/b", "a b", "..", ".", "a:b", "ü", "a%d"] {
            let error = check_name(name).unwrap_err();
            assert!(error.to_string().contains("1 to 15"), "{name}: {error}");
        }
        for name in ["front", "0123456789abcde", "eth0.100", "a-b_c"] {
            check_name(name).unwrap();
        }
    }
}
