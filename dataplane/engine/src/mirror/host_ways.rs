//! The host's own ways to pods: routes by way of their nodes, for its probes.
//!
//! Workers know a pod's next hop from the control side, the kernel doesn't. While somebody holds
//! the way to an address, the kernel has a route to it by that next hop, in its main table and
//! marked by [`netlink::OWN_PROTOCOL`]: `ip route show proto 72` lists them. Where the address is
//! on a link of ours, or its next hop isn't, there is none. They go with the twins.

use super::netlink::{self, Request};
use super::state::KernelState;
use super::thread::Control;
use model::limits::HOST_WAYS_MAX;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

/// Routes changed in one round of the thread: the kernel takes some ten microseconds for each.
const ROUND_MAX: usize = 32;

/// An address, and the next hop towards it.
pub(crate) type Held = (IpAddr, IpAddr);

/// Who holds ways: counts holders, and tells the thread of the first and the last.
pub(crate) struct Holders {
    counts: Mutex<HashMap<Held, usize>>,
    control: Sender<Control>,
}

impl Holders {
    pub fn new(control: Sender<Control>) -> Self {
        Self { counts: Mutex::default(), control }
    }
    fn change(&self, held: Held, holds: bool) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(held).or_insert(0);
        let before = *count;
        *count = if holds { before + 1 } else { before.saturating_sub(1) };
        let now = *count;
        if now == 0 {
            counts.remove(&held);
        }
        // Told under the lock, so that the thread hears it in this order. One that has gone has
        // taken the process along.
        if (before == 0) != (now == 0) {
            let _ = self.control.send(Control::HostWay { held, holds });
        }
    }
}

/// The host has a way to an address for as long as this lives. One that is made by `default` holds
/// nothing.
#[derive(Default)]
pub struct HostWay(Option<(Arc<Holders>, Held)>);

impl HostWay {
    pub(crate) fn hold(holders: &Arc<Holders>, held: Held) -> Self {
        holders.change(held, true);
        Self(Some((Arc::clone(holders), held)))
    }
}

impl Drop for HostWay {
    fn drop(&mut self) {
        if let Some((holders, held)) = &self.0 {
            holders.change(*held, false);
        }
    }
}

/// A route as the kernel was told it: the link's number and the gateway.
type Installed = (u32, IpAddr);

/// The routes, as they are to be and as they are.
#[derive(Default)]
pub(crate) struct HostWays {
    /// Next hops by address; of several the first counts.
    wanted: BTreeMap<IpAddr, Vec<IpAddr>>,
    installed: HashMap<IpAddr, Installed>,
    /// Those of them that the kernel may have thrown away.
    doubted: HashSet<IpAddr>,
    /// Addresses to be looked at, in turn.
    waiting: VecDeque<IpAddr>,
    is_waiting: HashSet<IpAddr>,
}

impl HostWays {
    /// Takes over that a way is held, or no longer. False where there are too many.
    pub fn set(&mut self, (address, via): Held, holds: bool) -> bool {
        if holds {
            if self.wanted.len() >= HOST_WAYS_MAX && !self.wanted.contains_key(&address) {
                return false;
            }
            self.wanted.entry(address).or_default().push(via);
        } else if let Some(list) = self.wanted.get_mut(&address) {
            list.retain(|one| *one != via);
            if list.is_empty() {
                self.wanted.remove(&address);
            }
        }
        self.look_at(address);
        true
    }
    fn look_at(&mut self, address: IpAddr) {
        if self.is_waiting.insert(address) {
            self.waiting.push_back(address);
        }
    }
    /// A route of ours was removed by somebody.
    pub fn lost(&mut self, address: IpAddr) {
        self.installed.remove(&address);
        self.doubted.remove(&address);
        if self.wanted.contains_key(&address) {
            self.look_at(address);
        }
    }
    /// Links or their addresses changed: the kernel has thrown away routes without a word, and
    /// next hops may be elsewhere.
    pub fn links_changed(&mut self) {
        let all: Vec<IpAddr> = self.installed.keys().copied().collect();
        self.doubted.extend(&all);
        all.into_iter().for_each(|address| self.look_at(address));
        self.look_for_ways();
    }
    /// The kernel's routes changed: there may be a way where there was none.
    pub fn look_for_ways(&mut self) {
        for address in self.wanted.keys().filter(|address| !self.installed.contains_key(address)) {
            if self.is_waiting.insert(*address) {
                self.waiting.push_back(*address);
            }
        }
    }
    /// The requests to make now.
    pub fn round(&mut self, state: &KernelState) -> Vec<Request> {
        let mut requests = Vec::new();
        for _ in 0..ROUND_MAX {
            let Some(address) = self.waiting.pop_front() else { break };
            self.is_waiting.remove(&address);
            let via = self.wanted.get(&address).and_then(|list| list.first().copied());
            let target = via.and_then(|via| Some((state.link_towards(address, via)?, via)));
            let before = match target {
                Some(target) => self.installed.insert(address, target),
                None => self.installed.remove(&address),
            };
            if before == target && !self.doubted.remove(&address) {
                continue;
            }
            self.doubted.remove(&address);
            match (target, before) {
                (Some((index, via)), _) => {
                    requests.push(netlink::put_host_way(index, address, via));
                }
                (None, Some((index, via))) => {
                    requests.push(netlink::remove_host_way(index, address, via));
                }
                (None, None) => {}
            }
        }
        requests
    }
    /// The kernel has been told everything.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{KernelRoute, Link};
    use super::*;
    use model::ids::PortId;
    use pipeline::adjacency::{Interface, Mac, Role};

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn state() -> KernelState {
        let interface = Interface {
            name: "back".into(),
            port: PortId(0),
            vlan: None,
            mac: Mac::default(),
            mtu: 1500,
            role: Role::Both,
        };
        let mut state = KernelState::new(vec![Link { index: 7, interface, mtu: 1500 }]);
        let on_link = |prefix: &str| KernelRoute {
            prefix: prefix.parse().unwrap(),
            metric: 0,
            index: 7,
            via: None,
        };
        state.set_routes(false, vec![on_link("198.18.1.0/24")]);
        state
    }

    fn put(via: &str) -> Request {
        netlink::put_host_way(7, addr("198.19.0.5"), addr(via))
    }

    #[test]
    fn a_way_is_there_while_somebody_holds_it() {
        let (state, mut ways) = (state(), HostWays::default());
        let (first, second) = ("198.18.1.11", "198.18.1.12");
        let pod = addr("198.19.0.5");
        assert!(ways.set((pod, addr(first)), true));
        assert_eq!(ways.round(&state), [put(first)]);
        // Another's next hop waits until the first one has gone.
        ways.set((pod, addr(second)), true);
        assert_eq!(ways.round(&state), []);
        ways.set((pod, addr(first)), false);
        assert_eq!(ways.round(&state), [put(second)]);
        ways.set((pod, addr(second)), false);
        assert_eq!(ways.round(&state), [netlink::remove_host_way(7, pod, addr(second))]);
        assert!(ways.is_settled() && ways.wanted.is_empty() && ways.installed.is_empty());
    }

    #[test]
    fn what_is_on_our_links_or_behind_nobody_on_them_gets_no_route() {
        let (state, mut ways) = (state(), HostWays::default());
        ways.set((addr("198.18.1.77"), addr("198.18.1.11")), true);
        ways.set((addr("198.19.0.5"), addr("192.0.2.11")), true);
        ways.set((addr("2001:db8:d::5"), addr("2001:db8::11")), true);
        assert_eq!(ways.round(&state), []);
    }

    #[test]
    fn what_the_kernel_has_thrown_away_is_put_back() {
        let (state, mut ways) = (state(), HostWays::default());
        let pod = addr("198.19.0.5");
        ways.set((pod, addr("198.18.1.11")), true);
        assert_eq!(ways.round(&state).len(), 1);
        ways.lost(pod);
        ways.lost(addr("198.19.0.6"));
        assert_eq!(ways.round(&state), [put("198.18.1.11")]);
        ways.links_changed();
        // Its link is known again a moment later.
        assert_eq!(
            ways.round(&KernelState::default()),
            [netlink::remove_host_way(7, pod, addr("198.18.1.11"))]
        );
        ways.look_for_ways();
        assert_eq!(ways.round(&state), [put("198.18.1.11")]);
        ways.look_for_ways();
        assert_eq!(ways.round(&state), []);
        // Links change while one is let go: it goes nevertheless.
        ways.set((pod, addr("198.18.1.11")), false);
        ways.links_changed();
        assert_eq!(ways.round(&state), [netlink::remove_host_way(7, pod, addr("198.18.1.11"))]);
        assert!(ways.installed.is_empty() && ways.doubted.is_empty());
    }

    #[test]
    fn a_round_is_short_and_the_number_bounded() {
        let (state, mut ways) = (state(), HostWays::default());
        let pod = |n: usize| IpAddr::from(std::net::Ipv4Addr::from_bits(0xc613_0000 + n as u32));
        for n in 0..HOST_WAYS_MAX {
            assert!(ways.set((pod(n), addr("198.18.1.11")), true));
        }
        assert!(!ways.set((addr("203.0.113.9"), addr("198.18.1.11")), true));
        assert_eq!(ways.round(&state).len(), ROUND_MAX);
        assert!(!ways.is_settled());
    }

    #[test]
    fn holders_are_counted() {
        let (control, told) = std::sync::mpsc::channel();
        let holders = Arc::new(Holders::new(control));
        let held = (addr("198.19.0.5"), addr("198.18.1.11"));
        let ways = [HostWay::hold(&holders, held), HostWay::hold(&holders, held)];
        drop((ways, HostWay::default()));
        let told: Vec<bool> = told
            .try_iter()
            .map(|one| match one {
                Control::HostWay { held: told, holds } if told == held => holds,
                _ => panic!("something else was told"),
            })
            .collect();
        assert_eq!(told, [true, false]);
        assert!(holders.counts.lock().unwrap().is_empty());
    }
}
