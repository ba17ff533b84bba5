//! What the process does that is killed.

use crate::common::flows::Random;
use crate::common::packets::{ACK, FIN, Packet, RST, SYN};
use crate::common::*;
use model::ids::{PortId, Protocol, ServiceId};
use model::record::ConnectionState;
use pipeline::connections::{Address, Cold, Entry, Key, Shard};
use pipeline::frame::{Frame, Rx, Verdict};
use pipeline::tables::Tables;
use pipeline::{Now, Pipeline};
use std::time::Instant;

/// Half of them of IPv6.
pub const FLOWS: usize = 48;

/// A packet's verdict, and what it has become.
pub fn process(
    pipeline: &mut Pipeline,
    tables: &Tables,
    wire: u8,
    bytes: &[u8],
    ms: u64,
) -> (Verdict, Vec<u8>) {
    let mut buffer = [0; 512];
    buffer[128..128 + bytes.len()].copy_from_slice(bytes);
    let rx = Rx { port: PortId(wire), ..Rx::default() };
    let mut frames = [Frame::new(&mut buffer, 128, 128 + bytes.len(), 0, rx)];
    pipeline.process_burst(tables, &mut frames, Now { ms });
    (frames[0].verdict, frames[0].bytes().to_vec())
}

/// A client's packet of flow n.
pub fn client_packet(n: usize, flags: u8) -> Packet {
    let (v6, tcp, on_link) = (n & 1 == 1, n & 2 == 2, n & 4 == 4);
    let host = 10 + (n / 8) as u8;
    let ip = match (v6, on_link) {
        (false, true) => host_v4(0, host),
        (true, true) => host_v6(0, host),
        (false, false) => format!("10.0.1.{n}").parse().unwrap(),
        (true, false) => format!("2001:db8:c000::{n:x}").parse().unwrap(),
    };
    let frontend = match (v6, tcp) {
        (false, true) => WEB,
        (true, true) => WEB_V6,
        (false, false) => DNS,
        (true, false) => DNS_V6,
    };
    Packet {
        from: mac(0, if on_link { host } else { ROUTER }),
        to: mac(0, 1),
        protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
        source: std::net::SocketAddr::new(ip, 20_000 + n as u16),
        destination: at(frontend),
        ttl: 64,
        flags,
        payload: b"question".to_vec(),
    }
}

/// Packets of a few flows, in no order, until the parent kills this process.
pub fn change(pipeline: &mut Pipeline, tables: &Tables, random: &mut Random) {
    let mut at_backend: Vec<Option<Packet>> = vec![None; FLOWS];
    let (mut ms, begun) = (10_000, Instant::now());
    while begun.elapsed() < PATIENCE {
        let n = random.below(FLOWS);
        ms += random.below(3_000) as u64;
        let flags = [SYN, ACK, ACK, FIN | ACK, RST];
        let packet = client_packet(n, flags[random.below(flags.len())]);
        if let (Verdict::Send(_), bytes) = process(pipeline, tables, 0, &packet.build(), ms) {
            at_backend[n] = Some(Packet::parse(&bytes));
        }
        if let Some(got) = &at_backend[n] {
            let flags = [SYN | ACK, SYN | ACK, ACK, FIN | ACK, RST];
            let reply = got.reply(flags[random.below(flags.len())], b"answer".to_vec());
            process(pipeline, tables, 1, &reply.build(), ms);
        }
        pipeline.sweep(tables, Now { ms });
        while pipeline.take_generated().is_some() {}
        pipeline.take_requests().for_each(drop);
    }
}

/// The same of the tables alone.
pub fn change_bare(
    (v4, v6): (&mut Shard<u32>, &mut Shard<u128>),
    flows: &(Vec<Flow<u32>>, Vec<Flow<u128>>),
    random: &mut Random,
) {
    let (mut ms, begun) = (10_000, Instant::now());
    while begun.elapsed() < PATIENCE {
        let (n, kind) = (random.below(FLOWS / 2), random.below(3));
        ms += random.below(3_000) as u64;
        change_one(v4, &flows.0[n], kind, ms);
        change_one(v6, &flows.1[n], kind, ms);
    }
}

/// What is known of a flow before it begins.
pub struct Flow<A> {
    client: Key<A>,
    backend: A,
    reply: Key<A>,
    service: ServiceId,
}

impl<A: Address> Flow<A> {
    pub fn new(tables: &Tables, n: usize) -> Self {
        let packet = client_packet(n, SYN);
        let (to, protocol) = (packet.destination, packet.protocol.number());
        let service = tables.snapshot.frontend(to.ip(), protocol, to.port()).unwrap().id;
        let address = |ip| A::from_ip(ip).unwrap();
        let client = Key {
            source: address(packet.source.ip()),
            destination: address(to.ip()),
            source_port: packet.source.port(),
            destination_port: to.port(),
            protocol,
        };
        let hosts = if n & 1 == 1 { host_v6 } else { host_v4 };
        let backend = address(hosts(1, 11 + (n % 3) as u8));
        let reply = Key {
            source: backend,
            destination: address(hosts(1, 200)),
            source_port: if protocol == 17 { 5353 } else { 8080 },
            destination_port: 1024 + n as u16,
            protocol,
        };
        Self { client, backend, reply, service }
    }
}

/// Begins a connection, or takes it on or out.
fn change_one<A: Address>(shard: &mut Shard<A>, flow: &Flow<A>, kind: usize, ms: u64) {
    use ConnectionState::{
        Established, Replied, Stream, SynReceived, SynSent, TimeWait, Unreplied,
    };
    let udp = flow.client.protocol == 17;
    if let Some(found) = shard.find_key(&flow.client) {
        let states = if udp { [Replied, Stream] } else { [SynReceived, Established] };
        match kind {
            0 => shard.remove(found.entry),
            1 => shard.set_state(found.entry, states[ms as usize & 1], ms),
            _ => {
                let (entry, cold) = shard.whole_mut(found.entry).unwrap();
                entry.last_seen_ms = ms as u32;
                cold.expected = ms as u32;
                if !udp {
                    shard.set_state(found.entry, TimeWait, ms);
                }
            }
        }
        return;
    }
    let mut entry = Entry::new(&flow.client, &flow.reply);
    (entry.kind, entry.service_slot, entry.last_seen_ms) = (1, flow.service.slot, ms as u32);
    let cold = Cold {
        next_hop: flow.backend.to_wire(),
        next_hop_interface: 1,
        created_s: (ms / 1000) as u32,
        service_generation: flow.service.generation,
        ..Cold::default()
    };
    let _ = shard.insert(entry, cold, if udp { Unreplied } else { SynSent }, ms);
}
