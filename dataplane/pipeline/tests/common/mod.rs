//! The world that the tests forward in: two interfaces, a client and a router in front, backends
//! behind, one Service. Each test file uses a part of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code)]

pub mod counting;
pub mod net;
pub mod packets;
pub mod raw;
pub mod wire;
pub mod workers;

use model::answers::ConnectionFilter;
use model::desired::{
    Backend, BackendState, Delta, Forwarding, Frontend, ObjectName, Origin, Refusal, Scope,
    ServicePort, ServicePortKey, Target,
};
use model::drops::DropReason;
use model::ids::{InterfaceId, PortId, Protocol};
use model::record::ConnectionRecord;
use packets::Mac;
use pipeline::adjacency::{self, Adjacencies, AdjacencyInput, Interface, Role, Route};
use pipeline::arch::memory::HeapMemory;
use pipeline::counters::Counters;
use pipeline::frame::{Frame, Rx, Verdict};
use pipeline::snapshot::{Compiler, Report, Snapshot};
use pipeline::steer::{NatAddress, SteerTable};
use pipeline::tables::Tables;
use pipeline::{Now, Options, Page, Pipeline};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

pub const FRONT: InterfaceId = InterfaceId(0);
pub const BACK: InterfaceId = InterfaceId(1);
pub const FRONT_PORT: PortId = PortId(0);
pub const BACK_PORT: PortId = PortId(1);
pub const FRONT_MAC: Mac = [2, 0, 0, 0, 0, 1];
pub const BACK_MAC: Mac = [2, 0, 0, 0, 0, 2];
/// The next hop of clients that are on no link of ours.
pub const ROUTER_MAC: Mac = [2, 0, 0, 0, 1, 254];
pub const HEADROOM: usize = 128;
pub const BUFFER: usize = 2048;

/// A host on the front link.
pub fn client(v6: bool, n: u8) -> IpAddr {
    on_link(v6, 0, n)
}
/// A host on the back link.
pub fn backend_ip(v6: bool, n: u8) -> IpAddr {
    on_link(v6, 1, n)
}
/// A NAT address.
pub fn nat_ip(v6: bool, n: u8) -> IpAddr {
    on_link(v6, 1, 200 + n)
}
fn on_link(v6: bool, link: u8, n: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 1 + u16::from(link), 0, 0, 0, 0, u16::from(n)).into()
    } else {
        Ipv4Addr::new(198, 18, link, n).into()
    }
}
/// The address that clients send to.
pub fn frontend_ip(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10).into()
    } else {
        Ipv4Addr::new(203, 0, 113, 10).into()
    }
}
pub fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}
/// The MAC of a client or backend of the two links, told by its link and number.
pub fn mac_of(link: u8, n: u8) -> Mac {
    [2, 0, 0, 1, link, n]
}

pub fn key(name: &str, protocol: Protocol) -> ServicePortKey {
    ServicePortKey {
        cluster: "".into(),
        service: ObjectName::new("default", name),
        port_name: "".into(),
        protocol,
        scope: Scope::External,
    }
}

pub fn service(
    key: &ServicePortKey,
    frontends: &[SocketAddr],
    backends: &[(SocketAddr, BackendState)],
) -> ServicePort {
    let mut backends = backends.to_vec();
    backends.sort_unstable();
    ServicePort {
        key: key.clone(),
        uid: "".into(),
        frontends: frontends
            .iter()
            .map(|address| Frontend { address: *address, origin: Origin::ExternalIp })
            .collect(),
        backends: backends
            .into_iter()
            .map(|(address, state)| Backend {
                address,
                node: "".into(),
                via: None,
                name: "".into(),
                weight: 1,
                state,
            })
            .collect(),
        forwarding: Forwarding::Nat,
        target: Target::Endpoint,
        refusal: [Refusal::Reject; 2],
        affinity: None,
        source_ranges: Vec::new(),
        reset_after_s: None,
    }
}

/// All that is published, and the means to publish it anew.
pub struct World {
    pub input: AdjacencyInput,
    pub nat: Vec<NatAddress>,
    pub workers: u8,
    pub compiler: Compiler,
    pub tables: Tables,
}

impl World {
    /// Interfaces, routes, and neighbours 10 to 13 in front and 10 to 109 behind; one NAT address
    /// of each family.
    pub fn new(workers: u8) -> Self {
        let input = input(None, None);
        let mut world = Self {
            input,
            nat: Vec::new(),
            workers,
            compiler: Compiler::default(),
            tables: Tables {
                generation: 0,
                snapshot: Arc::new(Snapshot::default()),
                adjacencies: Arc::new(Adjacencies::default()),
                steer: Arc::new(SteerTable::new(workers, &[])),
            },
        };
        world.set_nat(1);
        world.publish_adjacencies();
        world
    }
    /// This many NAT addresses of each family.
    pub fn set_nat(&mut self, n: u8) {
        let address =
            |n| [false, true].map(|v6| NatAddress { interface: BACK, address: nat_ip(v6, n) });
        self.nat = (0..n).flat_map(address).collect();
        self.tables.steer = Arc::new(SteerTable::new(self.workers, &self.nat));
        self.tables.generation += 1;
    }
    pub fn publish_adjacencies(&mut self) {
        self.tables.adjacencies = Arc::new(self.tables.adjacencies.next(self.input.clone()));
        self.tables.generation += 1;
    }
    pub fn publish(&mut self, delta: &Delta) -> Report {
        let (snapshot, report) = self.compiler.apply(delta);
        self.tables.snapshot = snapshot;
        self.tables.generation += 1;
        report
    }
    pub fn put(&mut self, port: ServicePort) -> Report {
        self.publish(&Delta { changed: vec![Arc::new(port)], removed: vec![] })
    }
}

/// The links, on these VLANs.
pub fn input(front_vlan: Option<u16>, back_vlan: Option<u16>) -> AdjacencyInput {
    let interface = |name: &str, port, vlan, mac, role| Interface {
        name: name.into(),
        port,
        vlan,
        mac: adjacency::Mac(mac),
        mtu: 1500,
        role,
    };
    let mut input = AdjacencyInput {
        interfaces: vec![
            interface("front", FRONT_PORT, front_vlan, FRONT_MAC, Role::Front),
            interface("back", BACK_PORT, back_vlan, BACK_MAC, Role::Back),
        ],
        ..AdjacencyInput::default()
    };
    for v6 in [false, true] {
        for (link, interface) in [(0, FRONT), (1, BACK)] {
            let prefix = if v6 { 64 } else { 24 };
            let net = ipnet::IpNet::new(on_link(v6, link, 0), prefix).unwrap();
            input.routes.push((net, Route { interface, via: None }));
            input.addresses.push((interface, on_link(v6, link, 1)));
        }
        let all: ipnet::IpNet = if v6 { "::/0" } else { "0.0.0.0/0" }.parse().unwrap();
        let router = client(v6, 254);
        input.routes.push((all, Route { interface: FRONT, via: Some(router) }));
        input.neighbours.push((FRONT, router, adjacency::Mac(ROUTER_MAC)));
        for n in 10..14 {
            input.neighbours.push((FRONT, client(v6, n), adjacency::Mac(mac_of(0, n))));
        }
        for n in 10..110 {
            input.neighbours.push((BACK, backend_ip(v6, n), adjacency::Mac(mac_of(1, n))));
        }
    }
    input
}

/// A pipeline with counters for so many services and backends.
pub fn pipeline(options: &Options) -> Pipeline {
    Pipeline::new(options, Arc::new(Counters::new(64, 1024)), &mut HeapMemory).unwrap()
}

pub fn rx(port: PortId) -> Rx {
    Rx { port, ..Rx::default() }
}

/// A frame with the buffer that it owns.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub bytes: Box<[u8]>,
    pub start: usize,
    pub end: usize,
    pub tail_len: usize,
    pub rx: Rx,
    pub verdict: Verdict,
}

impl Default for Buffer {
    /// Stands in for one that is elsewhere.
    fn default() -> Self {
        let (bytes, rx, verdict) = (Box::default(), Rx::default(), Verdict::Pending);
        Self { bytes, start: 0, end: 0, tail_len: 0, rx, verdict }
    }
}

impl Buffer {
    pub fn new(bytes: &[u8], rx: Rx) -> Self {
        let mut buffer = vec![0; BUFFER.max(2 * HEADROOM + bytes.len())].into_boxed_slice();
        let (start, end) = (HEADROOM, HEADROOM + bytes.len());
        buffer[start..end].copy_from_slice(bytes);
        Self { bytes: buffer, start, end, tail_len: 0, rx, verdict: Verdict::Pending }
    }
    /// The last `tail` bytes in a segment of their own, which the pipeline doesn't see.
    pub fn split(mut self, tail: usize) -> Self {
        self.tail_len = tail.min(self.end - self.start);
        self.end -= self.tail_len;
        self
    }
    pub fn frame(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

/// Processes the buffers as one burst, and leaves in them what came out.
pub fn process(pipeline: &mut Pipeline, tables: &Tables, buffers: &mut [Buffer], now: Now) {
    let mut frames: Vec<Frame<'_>> = buffers
        .iter_mut()
        .map(|b| Frame::new(&mut b.bytes, b.start, b.end, b.tail_len, b.rx))
        .collect();
    pipeline.process_burst(tables, &mut frames, now);
    let outcome: Vec<_> =
        frames.iter().map(|f| (f.span(), f.tail_len(), f.rx, f.verdict)).collect();
    drop(frames);
    for (buffer, ((start, end), tail_len, rx, verdict)) in buffers.iter_mut().zip(outcome) {
        (buffer.start, buffer.end, buffer.tail_len) = (start, end, tail_len);
        (buffer.rx, buffer.verdict) = (rx, verdict);
    }
}

/// Processes one packet.
pub fn one(
    pipeline: &mut Pipeline,
    tables: &Tables,
    bytes: &[u8],
    port: PortId,
    now: Now,
) -> Buffer {
    let mut buffer = [Buffer::new(bytes, rx(port))];
    process(pipeline, tables, &mut buffer, now);
    let [buffer] = buffer;
    buffer
}

/// All connections, in the order of the table.
pub fn records(pipeline: &Pipeline, tables: &Tables, now: Now) -> Vec<ConnectionRecord> {
    let filter = ConnectionFilter { limit: usize::MAX, ..ConnectionFilter::default() };
    let mut records = Vec::new();
    let mut next = Some((0, 0));
    while let Some(at) = next {
        let mut page = Page::of(4096);
        pipeline.page(tables, &filter, at, now, &mut page);
        records.extend(page.connections);
        next = page.next;
    }
    records
}

/// Drops by reason.
pub fn drops(counters: &Counters) -> Vec<(DropReason, u64)> {
    DropReason::ALL
        .iter()
        .map(|reason| (*reason, counters.dropped(*reason).read()))
        .filter(|(_, n)| *n > 0)
        .collect()
}
