//! A network namespace for each test, and a worker that plays the machines on the wire.

use crate::mirror::{AnnounceConfig, Mirror, MirrorConfig, MirrorPort, TwinConfig};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use model::ids::{InterfaceId, PortId};
use nix::sched::{CloneFlags, unshare};
use pipeline::adjacency::{AdjacencyChange, AdjacencyInput, Interface, Links, Mac, Role};
use pipeline::mirror::{NeighbourRequest, Purpose};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Runs a test in a thread with a network namespace of its own; it goes with the thread's end,
/// however that comes.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root, for a network namespace and a TAP");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip`, in the namespace of this thread.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `found` gives something.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A twin with addresses.
pub fn twin(name: &str, addresses: &[&str]) -> TwinConfig {
    TwinConfig {
        interface: Interface {
            name: name.into(),
            port: PortId(0),
            vlan: None,
            mac: OUR_MAC,
            mtu: 1500,
            role: Role::Both,
        },
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        routes: Vec::new(),
        neighbours: Vec::new(),
    }
}

/// What is known after a change.
fn apply(input: &mut AdjacencyInput, change: AdjacencyChange) {
    if let Some(links) = change.links {
        let Links { interfaces, addresses, routes, fixed } = (*links).clone();
        *input = AdjacencyInput { interfaces, addresses, routes, fixed, ..input.clone() };
    }
    let differs: HashSet<_> = change.neighbours.iter().map(|(id, ip, _)| (*id, *ip)).collect();
    input.neighbours.retain(|(id, ip, _)| !differs.contains(&(*id, *ip)));
    let known = change.neighbours.into_iter().filter_map(|(id, ip, mac)| Some((id, ip, mac?)));
    input.neighbours.extend(known);
}

/// A mirror with one worker, and what it has published.
pub struct Bed {
    pub mirror: Mirror,
    pub worker: FakeWorker,
    pub published: Arc<Mutex<Vec<AdjacencyInput>>>,
}

impl Bed {
    pub fn new(twins: Vec<TwinConfig>) -> Self {
        Self::announcing(twins, AnnounceConfig::default())
    }
    pub fn announcing(twins: Vec<TwinConfig>, announce: AnnounceConfig) -> Self {
        let config =
            MirrorConfig { twins, workers: 1, ring_frames: 512, cores: Vec::new(), announce };
        let published = Arc::new(Mutex::new(Vec::new()));
        let copy = published.clone();
        let mut input = AdjacencyInput::default();
        let publish = move |change: AdjacencyChange| {
            apply(&mut input, change);
            copy.lock().unwrap().push(input.clone());
        };
        let (mirror, mut ports) = Mirror::start(config, publish).unwrap();
        let bed = Self { mirror, worker: FakeWorker::start(ports.remove(0)), published };
        bed.wait_published("anything", |_| true);
        bed
    }
    /// Waits for a publication that is as wanted.
    pub fn wait_published(&self, what: &str, good: impl Fn(&AdjacencyInput) -> bool) {
        wait_for(what, || self.published.lock().unwrap().last().is_some_and(&good).then_some(()));
    }
    /// Checks that nothing has vanished, once nothing moves any more.
    pub fn check_ledger(&self) {
        let mut last = None;
        wait_for("the ledger to come to rest", || {
            let now = self.mirror.ledger();
            std::thread::sleep(Duration::from_millis(20));
            (last.replace(now) == Some(now)).then_some(())
        });
        let ledger = self.mirror.ledger();
        let to_workers = ledger.to_workers + ledger.dropped_to_workers;
        assert_eq!(ledger.from_kernel + ledger.generated, to_workers, "{ledger:?}");
        let to_kernel = ledger.to_kernel + ledger.dropped_to_kernel;
        assert_eq!(ledger.from_workers, to_kernel, "{ledger:?}");
        assert_eq!(ledger.from_workers, self.worker.seen.lock().unwrap().given, "{ledger:?}");
        assert_eq!(ledger.to_workers, self.worker.seen.lock().unwrap().frames.len() as u64);
    }
}

/// What the worker has seen.
#[derive(Default)]
pub struct Seen {
    pub frames: Vec<(InterfaceId, Instant, Vec<u8>)>,
    /// Frames that the mirror took.
    pub given: u64,
}

type Order = Box<dyn FnOnce(&mut MirrorPort) + Send>;

/// A thread that holds a [`MirrorPort`] and answers for the machines that are on the wire.
pub struct FakeWorker {
    pub peers: Arc<Mutex<HashMap<IpAddr, Mac>>>,
    pub seen: Arc<Mutex<Seen>>,
    pub paused: Arc<AtomicBool>,
    orders: Sender<Order>,
    thread: Option<std::thread::JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl FakeWorker {
    pub fn start(mut port: MirrorPort) -> Self {
        let peers = Arc::new(Mutex::new(HashMap::new()));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (paused, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (orders, taken) = channel::<Order>();
        let shared = (peers.clone(), seen.clone(), paused.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            let (peers, seen, paused, ended) = shared;
            while !ended.load(SeqCst) {
                for order in taken.try_iter() {
                    order(&mut port);
                }
                if paused.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let frame = port.from_host().map(|f| (f.interface(), f.bytes().to_vec()));
                let Some((interface, frame)) = frame else {
                    std::thread::sleep(Duration::from_micros(20));
                    continue;
                };
                let answer = answer(&frame, &peers.lock().unwrap());
                let mut seen = seen.lock().unwrap();
                seen.frames.push((interface, Instant::now(), frame));
                if let Some(answer) = answer {
                    seen.given += u64::from(port.to_host(interface, &answer));
                }
            }
        });
        Self { peers, seen, paused, orders, thread: Some(thread), ended }
    }
    pub fn add_peer(&self, address: &str, last: u8) -> Mac {
        let mac = Mac([2, 0, 0, 0, 1, last]);
        self.peers.lock().unwrap().insert(addr(address), mac);
        mac
    }
    /// Does something with the port, in the worker's thread.
    pub fn with_port<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut MirrorPort) -> T + Send + 'static,
    ) -> T {
        let (give, take) = channel();
        self.orders.send(Box::new(move |port| give.send(order(port)).unwrap())).unwrap();
        take.recv_timeout(Duration::from_secs(20)).unwrap()
    }
    pub fn request(&self, interface: u8, address: &str, purpose: Purpose) {
        let interface = InterfaceId(interface);
        let request = NeighbourRequest { interface, address: addr(address), purpose };
        assert!(self.with_port(move |port| port.request(request)));
    }
    /// The frames for which `wanted` holds.
    pub fn frames(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<(InterfaceId, Instant, Vec<u8>)> {
        let seen = self.seen.lock().unwrap();
        seen.frames.iter().filter(|(_, _, frame)| wanted(frame)).cloned().collect()
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// True for an ARP request for the address.
pub fn asks_by_arp(frame: &[u8], address: &str) -> bool {
    let IpAddr::V4(address) = addr(address) else { return false };
    frame.get(12..14) == Some(&[0x08, 0x06])
        && frame.get(20..22) == Some(&[0, 1])
        && frame.get(38..42) == Some(&address.octets())
}

fn answer(frame: &[u8], peers: &HashMap<IpAddr, Mac>) -> Option<Vec<u8>> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let asker: [u8; 6] = frame.get(6..12)?.try_into().unwrap();
    match (packet.net?, packet.transport) {
        (NetSlice::Arp(arp), _) => {
            let arp = arp.to_packet().try_eth_ipv4().ok()?;
            let mac = peers.get(&IpAddr::from(arp.target_ipv4))?;
            if arp.operation.0 != 1 {
                return None;
            }
            let mut reply = asker.to_vec();
            reply.extend(mac.0);
            reply.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
            reply.extend(mac.0);
            reply.extend(arp.target_ipv4);
            reply.extend(asker);
            reply.extend(arp.sender_ipv4);
            Some(reply)
        }
        (NetSlice::Ipv4(ip), Some(TransportSlice::Icmpv4(icmp))) => {
            let (to, from) = (ip.header().source(), ip.header().destination());
            let mac = peers.get(&IpAddr::from(from))?;
            let [8, _, _, _, i, d, s, e, payload @ ..] = icmp.slice() else { return None };
            let id = (u16::from_be_bytes([*i, *d]), u16::from_be_bytes([*s, *e]));
            let builder = PacketBuilder::ethernet2(mac.0, asker)
                .ipv4(from, to, 64)
                .icmpv4_echo_reply(id.0, id.1);
            Some(write(payload, |to| builder.write(to, payload).unwrap()))
        }
        (NetSlice::Ipv6(ip), Some(TransportSlice::Icmpv6(icmp))) => {
            let (to, from) = (ip.header().source(), ip.header().destination());
            match icmp.slice() {
                [128, _, _, _, i, d, s, e, payload @ ..] => {
                    let mac = peers.get(&IpAddr::from(from))?;
                    let id = (u16::from_be_bytes([*i, *d]), u16::from_be_bytes([*s, *e]));
                    let builder = PacketBuilder::ethernet2(mac.0, asker)
                        .ipv6(from, to, 64)
                        .icmpv6_echo_reply(id.0, id.1);
                    Some(write(payload, |to| builder.write(to, payload).unwrap()))
                }
                [135, _, _, _, _, _, _, _, rest @ ..] => {
                    let target: [u8; 16] = rest.get(..16)?.try_into().unwrap();
                    let mac = peers.get(&IpAddr::from(target))?;
                    let mut body = target.to_vec();
                    body.extend([2, 1]);
                    body.extend(mac.0);
                    let builder = PacketBuilder::ethernet2(mac.0, asker)
                        .ipv6(target, to, 255)
                        .icmpv6_raw(136, 0, [0x60, 0, 0, 0]);
                    Some(write(&body, |to| builder.write(to, &body).unwrap()))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn write(payload: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 64);
    write(&mut frame);
    frame
}
