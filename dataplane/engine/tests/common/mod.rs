//! A gateway on wires in memory, with the far end of every wire in the test's hand, and the books
//! that the test keeps of what it put on each wire and took off it.
//!
//! Wire n is port n and interface n: the link 198.18.n.0/24 and 2001:db8:n::/64, with the hosts
//! 10 to 40, and 10.n.0.0/16 and 2001:db8:c00n::/48 behind the router 254.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, missing_docs)]

pub mod flows;
pub mod packets;

use dpdk::{Burst, Eal, EalOptions, LogLevel, Mbuf, Pool, RingEnd, RingPort};
use engine::mirror::AnnounceConfig;
use engine::{Device, Engine, EngineConfig, EngineError, Idle, InterfaceSpec, PortSpec};
use model::answers::Ledger;
use model::desired::{
    Backend, BackendState, Delta, Forwarding, Frontend, ObjectName, Origin, Refusal, Scope,
    ServicePort, ServicePortKey, Target,
};
use model::drops::DropReason;
use model::ids::{InterfaceId, PortId, Protocol, WorkerId};
use packets::{Mac, Packet};
use pipeline::Options;
use pipeline::adjacency::{AdjacencyInput, Interface, Mac as Address, Role, Route};
use pipeline::secret::Secret;
use pipeline::snapshot::Compiler;
use pipeline::steer::{NatAddress, TOEPLITZ_KEY};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What never takes so long unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const HOSTS: std::ops::RangeInclusive<u8> = 10..=40;
pub const ROUTER: u8 = 254;
pub const WEB: &str = "203.0.113.10:80";
pub const WEB_V6: &str = "[2001:db8:f::10]:80";
pub const DNS: &str = "203.0.113.10:53";
pub const DNS_V6: &str = "[2001:db8:f::10]:53";

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The MAC of a host on a wire; 1 is the gateway.
pub fn mac(wire: usize, host: u8) -> Mac {
    [2, 0, 0, 0, wire as u8, host]
}

pub fn host_v4(wire: usize, host: u8) -> IpAddr {
    IpAddr::from([198, 18, wire as u8, host])
}

pub fn host_v6(wire: usize, host: u8) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, wire as u16, 0, 0, 0, 0, u16::from(host)])
}

/// What a world is made of.
pub struct Shape {
    /// The core of each worker.
    pub cores: Vec<u32>,
    /// Each with its number of queues.
    pub wires: Vec<(Role, u16)>,
    /// The MTU that the adjacencies say; the ports are made for 1500.
    pub mtu: u16,
    /// Places for connections in each worker, of each family.
    pub connections: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            cores: cores(1),
            wires: vec![(Role::Front, 1), (Role::Back, 1)],
            mtu: 1500,
            connections: 16_384,
        }
    }
}

/// Cores that this process may use, over and over.
pub fn cores(workers: usize) -> Vec<u32> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let usable: Vec<u32> =
        (0..1024).filter(|core| set.is_set(*core).unwrap_or(false)).map(|c| c as u32).collect();
    usable.iter().copied().cycle().take(workers).collect()
}

pub fn eal() -> Eal {
    let options = EalOptions { cpu: cores(1)[0], ..EalOptions::no_huge(192) };
    Eal::init(EalOptions { log_level: LogLevel::Warning, ..options }).unwrap()
}

/// What the test did on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub injected: u64,
    pub drained: u64,
}

/// A frame that the gateway sent.
#[derive(Debug)]
pub struct Arrived {
    pub wire: usize,
    pub queue: usize,
    pub bytes: Vec<u8>,
}

impl Arrived {
    pub fn packet(&self) -> Packet {
        Packet::parse(&self.bytes)
    }
}

pub struct World {
    pub engine: Arc<Engine>,
    pub pool: Pool,
    pub wires: Vec<Vec<RingEnd>>,
    pub books: Vec<Books>,
    pub shape: Shape,
}

/// Ports in memory and their far ends, not started yet.
pub fn ring_ports(eal: &Eal, prefix: &str, shape: &Shape) -> (Vec<PortSpec>, Vec<Vec<RingEnd>>) {
    let made = shape.wires.iter().enumerate().map(|(number, (_, queues))| {
        let (port, ends) = RingPort::create(eal, &format!("{prefix}{number}"), *queues).unwrap();
        let spec = PortSpec {
            name: format!("wire{number}").into(),
            device: Device::Made(port),
            rx_queues: Some(*queues),
            mac: None,
            descriptors: 512,
        };
        (spec, ends)
    });
    made.unzip()
}

pub fn config(shape: &Shape, ports: Vec<PortSpec>) -> EngineConfig {
    let interfaces = shape.wires.iter().enumerate().map(|(number, (role, _))| InterfaceSpec {
        name: format!("wire{number}").into(),
        port: PortId(number as u8),
        vlan: None,
        mtu: 1500,
        role: *role,
        addresses: Vec::new(),
        routes: Vec::new(),
        neighbours: Vec::new(),
    });
    let back = shape.wires.iter().enumerate().filter(|(_, (role, _))| *role != Role::Front);
    let nat = back.flat_map(|(number, _)| {
        [host_v4(number, 200), host_v6(number, 200)]
            .map(|address| NatAddress { interface: InterfaceId(number as u8), address })
    });
    EngineConfig {
        cores: shape.cores.clone(),
        ports,
        interfaces: interfaces.collect(),
        nat: nat.collect(),
        pipeline: Options {
            connections: [shape.connections; 2],
            selection_key: 7,
            ..Options::default()
        },
        secret: Secret::new([0x5e; 16]),
        toeplitz: TOEPLITZ_KEY,
        idle: Idle::Backoff,
        mbufs: 2047,
        huge_pages: false,
        mirror: false,
        announce: AnnounceConfig::default(),
        mirror_cores: Vec::new(),
    }
}

/// The adjacencies of all wires; the neighbours' order turns by `turn`.
pub fn adjacencies(shape: &Shape, turn: usize) -> AdjacencyInput {
    let mut input = AdjacencyInput::default();
    for (number, (role, _)) in shape.wires.iter().enumerate() {
        let id = InterfaceId(number as u8);
        input.interfaces.push(Interface {
            name: format!("wire{number}").into(),
            port: PortId(number as u8),
            vlan: None,
            mac: Address(mac(number, 1)),
            mtu: shape.mtu,
            role: *role,
        });
        input.addresses.extend([(id, host_v4(number, 1)), (id, host_v6(number, 1))]);
        let on_link = Route { interface: id, via: None };
        let v4 = Route { interface: id, via: Some(host_v4(number, ROUTER)) };
        let v6 = Route { interface: id, via: Some(host_v6(number, ROUTER)) };
        for (prefix, route) in [
            (format!("198.18.{number}.0/24"), on_link),
            (format!("2001:db8:{number}::/64"), on_link),
            (format!("10.{number}.0.0/16"), v4),
            (format!("2001:db8:c00{number}::/48"), v6),
        ] {
            input.routes.push((prefix.parse().unwrap(), route));
        }
        for host in HOSTS.chain([ROUTER]) {
            let address = Address(mac(number, host));
            input.neighbours.push((id, host_v4(number, host), address));
            input.neighbours.push((id, host_v6(number, host), address));
        }
    }
    let turn = turn % input.neighbours.len();
    input.neighbours.rotate_left(turn);
    input
}

/// A backend on a wire.
pub fn backend(address: IpAddr, port: u16, state: BackendState, weight: u16) -> Backend {
    Backend {
        address: SocketAddr::new(address, port),
        node: "".into(),
        via: None,
        name: "".into(),
        weight,
        state,
    }
}

pub fn service(
    name: &str,
    protocol: Protocol,
    frontends: &[&str],
    mut backends: Vec<Backend>,
) -> Arc<ServicePort> {
    backends.sort();
    let origin = Origin::LoadBalancer { pool: "test".into() };
    let frontends = frontends.iter().map(|f| Frontend { address: at(f), origin: origin.clone() });
    Arc::new(ServicePort {
        key: ServicePortKey {
            cluster: "".into(),
            service: ObjectName::new("default", name),
            port_name: "".into(),
            protocol,
            scope: Scope::External,
        },
        uid: "".into(),
        frontends: frontends.collect(),
        backends,
        forwarding: Forwarding::Nat,
        target: Target::Endpoint,
        refusal: [Refusal::Reject; 2],
        affinity: None,
        source_ranges: Vec::new(),
        reset_after_s: None,
    })
}

/// `web` (TCP) and `dns` (UDP) in both families, with these hosts of a wire behind them.
pub fn web_and_dns(wire: usize, hosts: &[u8]) -> Delta {
    let of = |port: u16| {
        hosts
            .iter()
            .flat_map(|host| [host_v4(wire, *host), host_v6(wire, *host)])
            .map(|address| backend(address, port, BackendState::Active, 1))
            .collect::<Vec<_>>()
    };
    let web = service("web", Protocol::Tcp, &[WEB, WEB_V6], of(8080));
    let dns = service("dns", Protocol::Udp, &[DNS, DNS_V6], of(5353));
    Delta { changed: vec![web, dns], removed: Vec::new() }
}

impl World {
    pub fn new(shape: Shape) -> Self {
        Self::start(&eal(), "", shape).unwrap()
    }

    /// A world on an EAL that is there; `prefix` makes its names its own.
    pub fn start(eal: &Eal, prefix: &str, shape: Shape) -> Result<Self, EngineError> {
        let pool = Pool::new(eal, &format!("{prefix}test"), 8191, 0, 2048 + 128).unwrap();
        let (ports, wires) = ring_ports(eal, prefix, &shape);
        let engine = Engine::start(eal.clone(), config(&shape, ports))?;
        engine.publish_adjacencies(adjacencies(&shape, 0));
        let books = vec![Books::default(); wires.len()];
        let engine = Arc::new(engine);
        Ok(Self { engine, pool, wires, books, shape })
    }

    /// Publishes what a compiler makes of the change, and waits until all workers have it.
    pub fn publish(&self, delta: &Delta) -> Compiler {
        let mut compiler = Compiler::default();
        let (snapshot, report) = compiler.apply(delta);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let generation = self.engine.publish(snapshot);
        wait("the workers have the snapshot", || {
            (self.engine.generations()[1] >= generation).then_some(())
        });
        compiler
    }

    /// An mbuf with these bytes, a segment each.
    pub fn mbuf(&self, segments: &[&[u8]]) -> Mbuf {
        let mut mbufs = segments.iter().map(|bytes| {
            let mut mbuf = wait("a free mbuf", || self.pool.alloc());
            mbuf.copy_from_slice(bytes).unwrap();
            mbuf
        });
        let mut whole = mbufs.next().unwrap();
        mbufs.for_each(|segment| whole.chain(segment).unwrap());
        whole
    }

    /// Puts a frame on a wire; false where that is full.
    pub fn try_send(&mut self, wire: usize, queue: usize, mbuf: Mbuf) -> bool {
        let mut burst = Burst::<1>::new();
        burst.push(mbuf).unwrap();
        let taken = self.wires[wire][queue].inject(&mut burst) == 1;
        self.books[wire].injected += u64::from(taken);
        taken
    }

    pub fn send(&mut self, wire: usize, queue: usize, bytes: &[u8]) {
        self.send_segments(wire, queue, &[bytes]);
    }

    pub fn send_segments(&mut self, wire: usize, queue: usize, segments: &[&[u8]]) {
        let since = Instant::now();
        while !self.try_send(wire, queue, self.mbuf(segments)) {
            assert!(since.elapsed() < PATIENCE, "wire {wire} queue {queue} stays full");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// What has come off a wire since.
    pub fn drain(&mut self, wire: usize) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        for (queue, end) in self.wires[wire].iter_mut().enumerate() {
            let mut burst = Burst::<32>::new();
            while end.drain(&mut burst) > 0 {
                for mbuf in burst.drain() {
                    let mut bytes = vec![0; mbuf.len()];
                    assert_eq!(mbuf.read_into(&mut bytes), bytes.len());
                    arrived.push(Arrived { wire, queue, bytes });
                }
            }
        }
        self.books[wire].drained += arrived.len() as u64;
        arrived
    }

    pub fn drain_all(&mut self) -> Vec<Arrived> {
        (0..self.wires.len()).flat_map(|wire| self.drain(wire)).collect()
    }

    /// The one frame that comes next, on whichever wire.
    pub fn next(&mut self) -> Arrived {
        let since = Instant::now();
        loop {
            let mut arrived = self.drain_all();
            assert!(arrived.len() < 2, "one frame was expected: {arrived:?}");
            if let Some(one) = arrived.pop() {
                return one;
            }
            let books = (&self.books, self.engine.workers(), drops(&self.engine));
            assert!(since.elapsed() < PATIENCE, "no frame came: {books:?}");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Sends one frame and gives the one that comes of it.
    pub fn exchange(&mut self, wire: usize, queue: usize, bytes: &[u8]) -> Arrived {
        self.send(wire, queue, bytes);
        self.next()
    }

    /// What stands between the books and each other, while nothing moves. Empty where all is well.
    pub fn disagreements(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut differ = |what: String, a: u64, b: u64| {
            if a != b {
                wrong.push(format!("{what}: {a} and {b}"));
            }
        };
        let workers = self.engine.workers().workers;
        let mut sum = Ledger::default();
        let rows = self.engine.drops();
        for row in &workers {
            let (id, ledger) = (row.worker, row.ledger);
            sum.add(&ledger);
            differ(format!("worker {id} came and went"), ledger.difference().unsigned_abs(), 0);
            let by_reason = rows.iter().map(|reason| reason.by_worker[id.index()]).sum();
            differ(format!("worker {id} dropped, and by reason"), ledger.dropped, by_reason);
            differ(format!("worker {id} in flight"), ledger.in_flight, 0);
        }
        let total = |of: fn(&Books) -> u64| self.books.iter().map(of).sum::<u64>();
        differ("received and injected".into(), sum.received, total(|books| books.injected));
        differ("sent and drained".into(), sum.sent, total(|books| books.drained));
        differ("handed out and in".into(), sum.handed_out, sum.handed_in);
        for (port, books) in self.engine.ports().iter().zip(&self.books) {
            let device = port.device_counters;
            differ(format!("{} ipackets", port.name), device.ipackets, books.injected);
            differ(format!("{} opackets", port.name), device.opackets, books.drained);
        }
        differ("packets in the test's pool".into(), self.pool.in_use().into(), 0);
        let (free, size) = self.engine.mbufs();
        differ("free packets in the engine's pool".into(), free.into(), size.into());
        wrong
    }

    /// Waits until all books agree. What still comes is thrown away, but counted.
    pub fn settle(&mut self) {
        let since = Instant::now();
        loop {
            self.drain_all();
            let wrong = self.disagreements();
            if wrong.is_empty() {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "the books don't agree: {wrong:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Settles, stops, and sees that nothing is left. Gives each worker's ledger.
    pub fn finish(mut self, what: &str) -> Vec<Ledger> {
        self.settle();
        let ledgers: Vec<_> = self.engine.workers().workers.iter().map(|row| row.ledger).collect();
        for (worker, ledger) in ledgers.iter().enumerate() {
            println!("{what}: worker {worker} {ledger:?}");
        }
        println!("{what}: drops {:?}, wires {:?}", drops(&self.engine), self.books);
        let Ok(engine) = Arc::try_unwrap(self.engine) else { panic!("somebody has the engine") };
        engine.stop();
        drop(self.wires);
        assert_eq!(self.pool.in_use(), 0);
        ledgers
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.engine.drops().iter().find(|row| row.reason == reason).unwrap().packets
    }

    pub fn inserts(&self, worker: u8) -> u64 {
        let rows = self.engine.workers().workers;
        rows.iter().find(|row| row.worker == WorkerId(worker)).unwrap().inserts
    }
}

/// The drop reasons that were seen.
pub fn drops(engine: &Engine) -> Vec<(&'static str, u64)> {
    let seen = engine.drops().into_iter().filter(|row| row.packets > 0);
    seen.map(|row| (row.reason.label(), row.packets)).collect()
}

/// Waits until `found` gives something.
pub fn wait<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(since.elapsed() < PATIENCE, "waited in vain until: {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}
