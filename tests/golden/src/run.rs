//! Runs a case and says in what it differs from what is expected.

use crate::capture::Stamped;
use crate::case::{Case, Change, Rx as CaseRx, ServiceCounts};
use crate::drive::{self, HEADROOM, Input, Outcome};
use crate::packet::{ACK, SYN, packet, tcp};
use crate::verify;
use crate::world::{self, INTERFACES, PORTS, World};
use model::drops::DropReason;
use model::ids::PortId;
use pipeline::answer::{Class, Rate, Rates};
use pipeline::frame::{ChecksumReport, Rx, Verdict};
use pipeline::mirror::Purpose;
use pipeline::{Now, Options, Pipeline};

/// How the packets of a case are put through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One by one.
    Single,
    /// Those of one millisecond between two changes as one burst.
    Burst,
}

/// What a case did.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Where it differs from what is expected; empty where it passed.
    pub problems: Vec<String>,
    /// The verdicts in order.
    pub verdicts: Vec<Verdict>,
}

/// A verdict as the cases write it.
pub fn verdict_text(verdict: Verdict) -> String {
    match verdict {
        Verdict::Pending => "pending".to_owned(),
        Verdict::Send(port) => format!("send {}", PORTS[port.index()]),
        Verdict::Answer(port) => format!("answer {}", PORTS[port.index()]),
        Verdict::Host(interface) => format!("host {}", INTERFACES[interface.index()]),
        Verdict::Handover(worker) => format!("handover {worker}"),
        Verdict::Drop(reason) => format!("drop {}", reason.label()),
    }
}

/// Runs the case.
pub fn run(case: &Case, mode: Mode) -> Run {
    let mut run = Run::default();
    let mut world = World::new(case.meta.workers.unwrap_or(1));
    let mut pipeline = drive::pipeline(&options_of(case));
    if let Some(service) = &case.meta.exhausted {
        exhaust(&mut pipeline, &world, service);
    }
    let before = drive::counts(pipeline.counters());
    let mut outcomes = Vec::new();
    let mut generated = [const { Vec::new() }; PORTS.len()];
    for (first, last) in bursts(case, mode) {
        for change in case.meta.change.iter().filter(|change| change.before == first + 1) {
            apply(&mut world, change);
            if let Some(frame) = &change.host_sends {
                let now = Now { ms: case.sent[first].us / 1000 };
                pipeline.host_flows().note(&parse_bytes(frame), now);
            }
            if change.sweep {
                let us = case.sent[first].us;
                sweep(&mut pipeline, &world, us, &mut generated);
            }
        }
        let inputs: Vec<Input> = (first..=last).map(|at| input(case, at)).collect();
        let now = Now { ms: case.sent[first].us / 1000 };
        outcomes.extend(drive::burst(&mut pipeline, &world.tables, &inputs, now));
    }
    check_outputs(case, &outcomes, &mut run);
    if generated != case.generated {
        let (have, wanted) = (frames_text(&generated), frames_text(&case.generated));
        run.problems.push(format!("made by the gateway:\n{have}but expected\n{wanted}"));
    }
    for (_, frame) in generated.iter().flatten() {
        run.problems.extend(verify::checksums(frame).err());
    }
    check_state(case, &world, &mut pipeline, &before, &mut run);
    run.verdicts = outcomes.iter().map(|outcome| outcome.verdict).collect();
    run
}

/// Sweeps the tables as a whole, and gathers what that makes.
fn sweep(
    pipeline: &mut Pipeline,
    world: &World,
    us: u64,
    generated: &mut [Vec<Stamped>; PORTS.len()],
) {
    pipeline.sweep(&world.tables, Now { ms: us / 1000 });
    while let Some(frame) = pipeline.take_generated() {
        generated[frame.port.index()].push((us, frame.bytes().to_vec()));
    }
}

fn frames_text(ports: &[Vec<Stamped>]) -> String {
    let lines = ports.iter().zip(PORTS).flat_map(|(frames, port)| {
        frames.iter().map(move |(us, bytes)| format!("{port} {us} us {}\n", marked(bytes, bytes)))
    });
    lines.collect()
}

fn options_of(case: &Case) -> Options {
    let mut rates = Rates::default();
    for (class, [per_second, burst]) in &case.meta.rates {
        let class =
            Class::from_label(class).unwrap_or_else(|| panic!("{}: no class {class}", case.name));
        rates = rates.with(class, Rate { per_second: *per_second, burst: *burst });
    }
    let connections = case.meta.capacity.unwrap_or([1024, 1024]);
    let peers = case.meta.peers.iter().map(|peer| world::ip(peer)).collect();
    let mut options = Options { connections, rates, peers, ..drive::options() };
    if let Some([per_second, burst]) = case.meta.new_connections {
        options.new_connections = Rate { per_second, burst };
    }
    options
}

/// First and last packet of each burst.
fn bursts(case: &Case, mode: Mode) -> Vec<(usize, usize)> {
    let mut bursts: Vec<(usize, usize)> = Vec::new();
    for (at, frame) in case.sent.iter().enumerate() {
        let changed = case.meta.change.iter().any(|change| change.before == at + 1);
        match bursts.last_mut() {
            Some((first, last))
                if mode == Mode::Burst
                    && !changed
                    && case.sent[*first].us / 1000 == frame.us / 1000 =>
            {
                *last = at;
            }
            _ => bursts.push((at, at)),
        }
    }
    bursts
}

fn apply(world: &mut World, change: &Change) {
    match (&change.service, &change.backends) {
        (Some(service), Some(backends)) => {
            let list: Vec<&str> = backends.iter().map(String::as_str).collect();
            world.set_backends(service, &list);
        }
        (Some(service), None) if change.source_ranges.is_none() => world.remove_service(service),
        _ => {}
    }
    if let (Some(service), Some(ranges)) = (&change.service, &change.source_ranges) {
        world.set_source_ranges(service, ranges);
    }
    if let Some([interface, address]) = &change.neighbour {
        let mac = change.mac.as_deref().map(parse_mac);
        world.set_neighbour(interface, world::ip(address), mac);
    }
}

/// A MAC as the cases write it.
fn parse_mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text.split(':').map(|t| u8::from_str_radix(t, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// Bytes as the cases write them.
fn parse_bytes(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn input(case: &Case, at: usize) -> Input {
    let sent = &case.sent[at];
    let default = CaseRx::default();
    let given = case.meta.rx.iter().find(|rx| rx.packet == at + 1).unwrap_or(&default);
    let report = |word: &Option<String>| match word.as_deref() {
        None => ChecksumReport::Unknown,
        Some("good") => ChecksumReport::Good,
        Some("bad") => ChecksumReport::Bad,
        Some(other) => panic!("{}: checksum {other}", case.name),
    };
    let rx = Rx {
        port: PortId(sent.port as u8),
        vlan: given.vlan,
        hash: None,
        ip_checksum: report(&given.ip_checksum),
        l4_checksum: report(&given.l4_checksum),
        hops: given.hops.unwrap_or(0),
        fragment_ports: given.fragment_ports.map(|[source, destination]| (source, destination)),
        fragment_id: 0,
    };
    Input {
        bytes: sent.bytes.clone(),
        rx,
        headroom: case.meta.headroom.unwrap_or(HEADROOM),
        tail: given.tail.unwrap_or(0),
    }
}

fn check_outputs(case: &Case, outcomes: &[Outcome], run: &mut Run) {
    let mut problem = |text: String| run.problems.push(text);
    if case.meta.verdicts.len() != outcomes.len() {
        problem(format!("{} verdicts for {} packets", case.meta.verdicts.len(), outcomes.len()));
    }
    let mut left = case.expected.clone();
    let mut host = case.host.clone();
    let mut out = 0;
    for (at, (outcome, sent)) in outcomes.iter().zip(&case.sent).enumerate() {
        let number = at + 1;
        let text = verdict_text(outcome.verdict);
        let wanted = case.meta.verdicts.get(at).map_or("", String::as_str);
        if text != wanted {
            problem(format!("packet {number}: {text}, but expected {wanted}"));
        }
        let queue = match outcome.verdict {
            Verdict::Send(port) | Verdict::Answer(port) => {
                out += 1;
                &mut left[port.index()]
            }
            Verdict::Host(interface) => &mut host[interface.index()],
            _ => continue,
        };
        if queue.is_empty() || queue[0].0 != sent.us {
            problem(format!("packet {number}: {text}, but nothing is expected there then"));
            continue;
        }
        let (_, expected) = queue.remove(0);
        if expected != outcome.bytes {
            problem(format!(
                "packet {number}: {text} differs\n     got {}\nexpected {}",
                marked(&outcome.bytes, &expected),
                marked(&expected, &outcome.bytes)
            ));
        }
        let checked = verify::checksums(&outcome.bytes);
        let leaves = !matches!(outcome.verdict, Verdict::Host(_));
        let stays_wrong = leaves && case.meta.wrong_checksums.contains(&out);
        match checked {
            Err(what) if leaves && !stays_wrong => {
                problem(format!("packet {number}: {text}: {what}"));
            }
            Ok(()) if stays_wrong => {
                problem(format!("packet {number}: a wrong checksum has become right"));
            }
            _ => {}
        }
    }
    for (name, frames) in PORTS.iter().zip(&left).chain(INTERFACES.iter().zip(&host)) {
        if !frames.is_empty() {
            problem(format!("{} frames expected at {name} didn't come", frames.len()));
        }
    }
}

/// The bytes as hex, with those that differ from `other` in brackets.
fn marked(bytes: &[u8], other: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if other.get(at) == Some(byte) {
            text.push_str(&format!("{byte:02x}"));
        } else {
            text.push_str(&format!("[{at}:{byte:02x}]"));
        }
    }
    text
}

fn check_state(
    case: &Case,
    world: &World,
    pipeline: &mut Pipeline,
    before: &[(String, u64)],
    run: &mut Run,
) {
    let requests: Vec<String> = drive::requests(pipeline)
        .iter()
        .map(|request| {
            let seen = match request.purpose {
                Purpose::Resolve => String::new(),
                Purpose::Seen(mac) => format!(" {mac}"),
                Purpose::InUse => " in use".to_owned(),
            };
            format!("{} {}{seen}", INTERFACES[request.interface.index()], request.address)
        })
        .collect();
    let mut differs = |what: &str, have: String, wanted: String| {
        if have != wanted {
            run.problems.push(format!("{what}: {have}, but expected {wanted}"));
        }
    };
    differs("requests", format!("{requests:?}"), format!("{:?}", case.meta.requests));
    let connections = pipeline.connections();
    differs("connections", format!("{connections:?}"), format!("{:?}", case.meta.connections));
    let old = |name: &str| before.iter().find(|(n, _)| n == name).map_or(0, |(_, count)| *count);
    for reason in DropReason::ALL {
        let text = format!("drop {}", reason.label());
        let wanted = case.meta.verdicts.iter().filter(|verdict| **verdict == text).count() as u64;
        let have = pipeline.counters().dropped(*reason).read() - old(&text);
        differs(&text, have.to_string(), wanted.to_string());
    }
    let mut begun = 0;
    for port in world::services() {
        let name = &*port.key.service.name;
        // A service that the case takes away has no slot any more.
        let Some(slot) = world.slot(name) else { continue };
        let counters = &pipeline.counters().services[slot];
        let since = |what: &str, count: u64| count - old(&format!("service {slot} {what}"));
        let have = ServiceCounts {
            connections: since("connections", counters.connections.read()),
            packets_in: since("packets_in", counters.packets_in.read()),
            bytes_in: since("bytes_in", counters.bytes_in.read()),
            packets_out: since("packets_out", counters.packets_out.read()),
            bytes_out: since("bytes_out", counters.bytes_out.read()),
            refused: since("refused", counters.refused.read()),
        };
        begun += have.connections;
        let wanted = case.meta.services.get(name).copied().unwrap_or_default();
        differs(&format!("service {name}"), format!("{have:?}"), format!("{wanted:?}"));
    }
    let inserts = pipeline.counters().inserts.read() - old("inserts");
    let removed = case
        .meta
        .change
        .iter()
        .any(|c| c.service.is_some() && c.backends.is_none() && c.source_ranges.is_none());
    if !removed {
        differs("inserts", inserts.to_string(), begun.to_string());
    }
}

/// Opens connections to the service's IPv4 frontend until no NAT port is left.
fn exhaust(pipeline: &mut Pipeline, world: &World, service: &str) {
    const PORTS_EACH: u32 = 64_512;
    let port = world.services().iter().find(|port| &*port.key.service.name == service).unwrap();
    let frontend = port.frontends[0].address;
    let rx = Rx { port: PortId(0), ..Rx::default() };
    let back = Rx { port: PortId(1), ..Rx::default() };
    let mut open = 0;
    for n in 0..1_000_000u32 {
        let client = format!("198.51.100.{}:{}", n % 250 + 1, 1024 + n / 250);
        let macs = (world::ROUTER_MAC, world::FRONT_MAC);
        let syn = packet(macs, world::at(&client), frontend, tcp(SYN));
        let one = |pipeline: &mut Pipeline, bytes: Vec<u8>, rx: Rx| {
            drive::burst(pipeline, &world.tables, &[Input::new(bytes, rx)], Now { ms: 0 }).remove(0)
        };
        let out = one(pipeline, syn.bytes(), rx);
        if out.verdict != Verdict::Send(PortId(1)) {
            assert_eq!(out.verdict, Verdict::Drop(DropReason::NatPortsExhausted));
            continue;
        }
        // The SYN-ACK: what went out, turned round.
        let ip: [u8; 4] = out.bytes[26..30].try_into().unwrap();
        let nat = (ip, u16::from_be_bytes([out.bytes[34], out.bytes[35]])).into();
        let macs = (world::backend_mac(11), world::BACK_MAC);
        let answer = packet(macs, port.backends[0].address, nat, tcp(SYN | ACK));
        assert_eq!(one(pipeline, answer.bytes(), back).verdict, Verdict::Send(PortId(0)));
        let ack = syn.body(tcp(ACK)).bytes();
        assert_eq!(one(pipeline, ack, rx).verdict, Verdict::Send(PortId(1)));
        open += 1;
        if open == PORTS_EACH {
            return;
        }
    }
    panic!("{open} of {PORTS_EACH} ports in use");
}
