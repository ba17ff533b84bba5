//! Established connections, made by the pipeline itself, and streams of packets over them.

use crate::memory::HugeMemory;
use crate::packet::{Buffer, End, Packet, ends, is_sound, tcp};
use crate::random::Random;
use crate::world::{OURS, THEIRS, client, frontend};
use anyhow::{Result, ensure};
use model::ids::PortId;
use pipeline::arch::memory::Slab;
use pipeline::frame::{Frame, Rx, Verdict};
use pipeline::parse::{TCP_ACK, TCP_SYN};
use pipeline::tables::Tables;
use pipeline::{Now, Pipeline};

use crate::packet::{HEADROOM, PACKET_LEN};

/// The time of all packets.
pub const NOW: Now = Now { ms: 1_000 };

/// A connection as its packets tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client.
    pub client: End,
    /// What it sends to.
    pub frontend: End,
    /// The source that the backend sees.
    pub nat: End,
    /// The backend.
    pub backend: End,
}

impl Flow {
    /// A packet from the client.
    pub fn request(&self, flags: u8) -> Packet {
        tcp((OURS[0], THEIRS), self.client, self.frontend, flags)
    }
    /// A packet from the backend.
    pub fn reply(&self, flags: u8) -> Packet {
        tcp((OURS[1], THEIRS), self.backend, self.nat, flags)
    }
}

/// Sends one packet through; what comes out, where it is forwarded.
pub fn send(
    pipeline: &mut Pipeline,
    tables: &Tables,
    packet: &Packet,
    port: u8,
) -> (Verdict, [u8; 64]) {
    let mut buffer = Buffer([0; _]);
    buffer.load(packet);
    let rx = Rx { port: PortId(port), ..Rx::default() };
    let mut frames = [Frame::new(&mut buffer.0, HEADROOM, HEADROOM + PACKET_LEN, 0, rx)];
    pipeline.process_burst(tables, &mut frames, NOW);
    let verdict = frames[0].verdict;
    (verdict, *buffer.line())
}

/// The port that a packet of this destination MAC came in by.
#[inline(always)]
pub fn port_of(packet: &Packet) -> u8 {
    packet.0[5] - OURS[0][5]
}

/// Opens `count` connections from the clients `first..`, spread over `services` frontends, with
/// handshakes through the pipeline.
pub fn establish(
    pipeline: &mut Pipeline,
    tables: &Tables,
    first: u32,
    count: u32,
    services: u32,
) -> Result<Vec<Flow>> {
    establish_by(|packet, port| send(pipeline, tables, packet, port), first, count, services)
}

/// The same, where `through` sends one packet that came in by a port, and says what came out.
pub fn establish_by(
    mut through: impl FnMut(&Packet, u8) -> (Verdict, [u8; 64]),
    first: u32,
    count: u32,
    services: u32,
) -> Result<Vec<Flow>> {
    (first..first + count)
        .map(|number| {
            let (client, frontend) = (client(number), frontend(number % services));
            let open = Flow { client, frontend, nat: End::default(), backend: End::default() };
            let (verdict, out) = through(&open.request(TCP_SYN), 0);
            ensure!(
                verdict == Verdict::Send(PortId(1)),
                "SYN of connection {number}: {verdict:?}, expected to be sent to a backend"
            );
            let (nat, backend) = ends(&out);
            let flow = Flow { nat, backend, ..open };
            let (verdict, out) = through(&flow.reply(TCP_SYN | TCP_ACK), 1);
            ensure!(
                verdict == Verdict::Send(PortId(0)) && ends(&out) == (frontend, client),
                "SYN-ACK of connection {number}: {verdict:?}, expected to be sent to the client"
            );
            let (verdict, _) = through(&flow.request(TCP_ACK), 0);
            ensure!(verdict == Verdict::Send(PortId(1)), "ACK of connection {number}: {verdict:?}");
            Ok(flow)
        })
        .collect()
}

/// `packets` packets of connections at random, half of them in each direction.
pub fn stream(
    memory: &mut HugeMemory,
    flows: &[Flow],
    packets: usize,
    random: &mut Random,
) -> Result<Slab<Packet>> {
    let mut stream = Slab::<Packet>::new(memory, packets)?;
    for place in stream.iter_mut() {
        let flow = &flows[random.below(flows.len())];
        *place = if random.next() & 1 == 0 { flow.request(TCP_ACK) } else { flow.reply(TCP_ACK) };
    }
    Ok(stream)
}

/// Sends some packets of the stream one by one, and checks what comes out byte by byte: the other
/// side's addresses and ports, and right checksums.
pub fn check_rewrites(
    pipeline: &mut Pipeline,
    tables: &Tables,
    flows: &[Flow],
    random: &mut Random,
) -> Result<()> {
    for _ in 0..1_000 {
        let flow = flows[random.below(flows.len())];
        let (verdict, out) = send(pipeline, tables, &flow.request(TCP_ACK), 0);
        ensure!(verdict == Verdict::Send(PortId(1)), "{flow:?}: {verdict:?} to the backend");
        ensure!(ends(&out) == (flow.nat, flow.backend) && is_sound(&out), "{flow:?}: {out:02x?}");
        let (verdict, out) = send(pipeline, tables, &flow.reply(TCP_ACK), 1);
        ensure!(verdict == Verdict::Send(PortId(0)), "{flow:?}: {verdict:?} to the client");
        ensure!(
            ends(&out) == (flow.frontend, flow.client) && is_sound(&out),
            "{flow:?}: {out:02x?}"
        );
    }
    Ok(())
}
