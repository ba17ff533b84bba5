//! Clients and servers: each step of a connection follows the one before by some milliseconds.

use crate::common::net::{LANES, Net, Parcel, macs};
use crate::common::packets::{ACK, FIN, SYN};
use crate::common::wire::Segment;
use crate::common::workers::Random;
use crate::common::{BACK_PORT, FRONT_PORT, at, frontend_ip, nat_ip};
use crate::server::Servers;
use crate::{PER_SECOND, TCP_PORT, UDP_PORT};
use model::record::ConnectionState::{self, CloseWait, Established, FinWait, SynReceived};
use pipeline::frame::Verdict;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const TCP_LANE: usize = 0;
pub const UDP_LANE: usize = 1;
const _: () = assert!(LANES == 2);
/// A connection whose client vanished while it was idle outlives the hour.
pub const LIVES_ON_S: f64 = 86_400.0;
/// Where clients vanish, each as often: the state that the gateway sees, and the seconds for which
/// the backend still sends.
pub const VANISHED_S: [(ConnectionState, f64); 4] =
    [(SynReceived, 31.0), (Established, 0.0), (FinWait, 25.4), (CloseWait, 0.0)];
/// The last step of those clients.
const LAST_STEP: [Step; 4] = [Step::Syn, Step::Ack, Step::Request, Step::FinAcked];
/// When a backend sends its SYN-ACK and its FIN again, in milliseconds after the first.
const SYN_ACKS_MS: [u64; 5] = [1_000, 3_000, 7_000, 15_000, 31_000];
const FINS_MS: [u64; 7] = [200, 600, 1_400, 3_000, 6_200, 12_600, 25_400];
/// Longer than anything is ahead.
const WHEEL: usize = 1 << 15;
/// One in so many packets is verified in full.
const SAMPLE: u64 = 61;
/// One in so many clients knows no timestamps.
const WITHOUT_TIMESTAMPS: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Step {
    Syn,
    SynAck,
    Ack,
    Request,
    Answer,
    ServerFin,
    FinAcked,
    ClientFin,
    LastAck,
    Question,
    Reply,
}

const STEPS: [Step; 11] = [
    Step::Syn,
    Step::SynAck,
    Step::Ack,
    Step::Request,
    Step::Answer,
    Step::ServerFin,
    Step::FinAcked,
    Step::ClientFin,
    Step::LastAck,
    Step::Question,
    Step::Reply,
];

impl Step {
    const fn is_clients(self) -> bool {
        matches!(
            self,
            Self::Syn
                | Self::Ack
                | Self::Request
                | Self::FinAcked
                | Self::ClientFin
                | Self::Question
        )
    }
}

#[derive(Clone, Copy)]
struct Flow {
    client: SocketAddr,
    nat: SocketAddr,
    backend: SocketAddr,
    first: (u32, u32),
    /// What the client's clock is ahead.
    ahead: Option<u32>,
    vanishes_after: Option<Step>,
    worker: Option<usize>,
    /// Steps that are still to come.
    to_come: u8,
}

pub struct Traffic {
    pub net: Net,
    servers: Servers,
    v6: bool,
    flows: Vec<Flow>,
    unused: Vec<u32>,
    wheel: Vec<Vec<(u32, Step)>>,
    begun: [u64; 2],
    finished: [u64; 2],
    vanished: u64,
    packets: u64,
}

impl Traffic {
    pub fn new(net: Net, v6: bool) -> Self {
        Self {
            net,
            servers: Servers::new(),
            v6,
            flows: Vec::new(),
            unused: Vec::new(),
            wheel: vec![Vec::new(); WHEEL],
            begun: [0; 2],
            finished: [0; 2],
            vanished: 0,
            packets: 0,
        }
    }

    pub fn millisecond(&mut self) {
        self.net.tick(u64::MAX);
        for _ in 0..PER_SECOND / 1000 {
            self.begin(TCP_LANE, Step::Syn);
            self.begin(UDP_LANE, Step::Question);
        }
        let slot = self.net.now.ms as usize % WHEEL;
        let mut due = std::mem::take(&mut self.wheel[slot]);
        for (n, step) in due.drain(..) {
            self.send(n, step);
        }
        self.wheel[slot] = due;
        self.net.run();
        let mut out = std::mem::take(&mut self.net.out);
        for parcel in out.drain(..) {
            // The gateway asks a client that has vanished: nobody answers.
            if parcel.tag != u64::MAX {
                self.arrived(&parcel);
            }
        }
        self.net.out = out;
    }

    fn begin(&mut self, lane: usize, step: Step) {
        let count = self.begun[lane];
        self.begun[lane] += 1;
        let random = self.net.random.next();
        // No client uses a port twice in 2^25 connections.
        let place = (count.wrapping_mul(0x9e37_79b1) & ((1 << 25) - 1)) as u32;
        let (host, port) = (place >> 15, 32_768 + (place & 0x7fff) as u16);
        let ip: IpAddr = if self.v6 {
            Ipv6Addr::from_bits(0x2001_0db8_aaaa << 80 | u128::from(host + 1)).into()
        } else {
            Ipv4Addr::from_bits(0x0a00_0001 + host).into()
        };
        let vanishes = lane == TCP_LANE && random.is_multiple_of(100);
        self.vanished += u64::from(vanishes);
        let unknown = at(ip, 0);
        let flow = Flow {
            client: at(ip, port),
            nat: unknown,
            backend: unknown,
            first: ((random >> 8) as u32, (random >> 32) as u32),
            ahead: (host % WITHOUT_TIMESTAMPS != 0).then(|| Random(u64::from(host)).next() as u32),
            vanishes_after: vanishes.then(|| LAST_STEP[(random / 100 % 4) as usize]),
            worker: None,
            to_come: 1,
        };
        let n = match self.unused.pop() {
            Some(n) => {
                self.flows[n as usize] = flow;
                n
            }
            None => {
                self.flows.push(flow);
                self.flows.len() as u32 - 1
            }
        };
        self.send(n, step);
    }

    fn send(&mut self, n: u32, step: Step) {
        let flow = self.flows[n as usize];
        let now = self.net.now.ms as u32;
        let frontend = at(frontend_ip(self.v6), if step < Step::Question { 80 } else { 53 });
        let (mine, other) =
            if step.is_clients() { flow.first } else { (flow.first.1, flow.first.0) };
        let (from, to) =
            if step.is_clients() { (flow.client, frontend) } else { (flow.backend, flow.nat) };
        let tcp = |flags, sent: u32, heard: u32| {
            Segment::tcp(from, to, flags)
                .numbers(mine.wrapping_add(sent), other.wrapping_add(heard))
        };
        let segment = match step {
            Step::Syn => Segment::tcp(from, to, SYN).numbers(mine, 0),
            Step::SynAck => tcp(SYN | ACK, 0, 1),
            Step::Ack => tcp(ACK, 1, 1),
            Step::Request => tcp(ACK, 1, 1).data(u64::from(n)),
            Step::Answer => tcp(ACK, 1, 9).data(u64::from(n)),
            Step::ServerFin => tcp(FIN | ACK, 9, 9),
            Step::FinAcked => tcp(ACK, 9, 10),
            Step::ClientFin => tcp(FIN | ACK, 9, 10),
            Step::LastAck => tcp(ACK, 10, 10),
            Step::Question | Step::Reply => Segment::udp(from, to, u64::from(n)),
        };
        let timestamp = flow.ahead.map(|ahead| if step.is_clients() { ahead } else { 77 });
        let segment = segment.timestamp(timestamp.map(|ahead| now.wrapping_add(ahead)));
        let (lane, port) = (
            if step < Step::Question { TCP_LANE } else { UDP_LANE },
            if step.is_clients() { FRONT_PORT } else { BACK_PORT },
        );
        let worker = flow.worker.unwrap_or_else(|| self.net.random.below(2));
        let tag = u64::from(n) << 8 | step as u64;
        self.net.push_at(worker, lane, tag, port, |into| segment.write(into, macs(port, &segment)));
        self.packets += 1;
    }

    fn arrived(&mut self, parcel: &Parcel) {
        let (n, step) = ((parcel.tag >> 8) as u32, STEPS[(parcel.tag & 255) as usize]);
        let out = if step.is_clients() { BACK_PORT } else { FRONT_PORT };
        let flow = &mut self.flows[n as usize];
        if parcel.verdict != Verdict::Send(out) {
            // It is told at the end, by its reason.
            flow.to_come = 0;
            return;
        }
        let segment = parcel.segment(self.packets.is_multiple_of(SAMPLE));
        if matches!(step, Step::Syn | Step::Question) {
            assert_eq!(segment.source.ip(), nat_ip(self.v6, 0));
            let port = if step == Step::Syn { TCP_PORT } else { UDP_PORT };
            assert_eq!(segment.destination.port(), port);
            (flow.nat, flow.backend) = (segment.source, segment.destination);
            flow.worker = Some(parcel.worker);
        } else if step.is_clients() {
            assert_eq!((segment.source, segment.destination), (flow.nat, flow.backend));
        } else {
            assert_eq!(segment.destination, flow.client);
        }
        let now = self.net.now.ms;
        match step {
            Step::Syn => self.servers.syn(&segment, now),
            Step::ClientFin => self.servers.fin(&segment, now),
            _ => {}
        }
        flow.to_come -= 1;
        self.go_on(n, step, &segment);
    }

    /// What follows the step that was made.
    fn go_on(&mut self, n: u32, step: Step, segment: &Segment) {
        let flow = &mut self.flows[n as usize];
        let gone = flow.vanishes_after;
        let now = self.net.now.ms;
        let mut again: &[u64] = &[];
        let next = match step {
            Step::SynAck if gone == Some(Step::Syn) => None,
            Step::ServerFin if gone == Some(Step::Request) => None,
            Step::Ack | Step::FinAcked if gone == Some(step) => None,
            Step::LastAck | Step::Reply => None,
            _ => STEPS.get(step as usize + 1).copied(),
        };
        match (step, gone) {
            (Step::Syn, Some(Step::Syn)) => {
                again = &SYN_ACKS_MS;
                self.servers.gives_up(segment, now + 63_000);
            }
            (Step::Answer, Some(Step::Request)) => again = &FINS_MS,
            (Step::Request, Some(Step::Request)) => self.servers.gives_up(segment, now + 51_200),
            (Step::FinAcked, Some(Step::FinAcked)) => self.servers.gives_up(segment, now + 60_000),
            _ => {}
        }
        if let Some(next) = next {
            let think = if step == Step::Request { self.net.random.below(20) as u64 } else { 0 };
            let first = now + 1 + think;
            for at_ms in std::iter::once(first).chain(again.iter().map(|ms| first + ms)) {
                self.wheel[at_ms as usize % WHEEL].push((n, next));
                flow.to_come += 1;
            }
        }
        if flow.to_come == 0 {
            self.finished[usize::from(step >= Step::Question)] += 1;
            self.unused.push(n);
        }
    }

    pub fn summary(&self) -> String {
        let servers = &self.servers;
        format!(
            "{} connections and {} questions begun, {} clients vanished, {} packets; backends saw SYNs \
             on {} free ports, {} used again in TIME_WAIT, {} too old by timestamp, {} by sequence, \
             {} on connections",
            self.begun[TCP_LANE],
            self.begun[UDP_LANE],
            self.vanished,
            self.packets,
            servers.free,
            servers.used_again,
            servers.old_timestamp,
            servers.old_sequence,
            servers.occupied,
        )
    }
    /// Every SYN was one that its backend takes, and all but the last moments' have come to an end.
    pub fn all_served(&self) {
        let servers = &self.servers;
        let not_taken = [servers.old_timestamp, servers.old_sequence, servers.occupied];
        assert_eq!(not_taken, [0; 3], "by timestamp, by sequence, as a connection is there");
        assert!(servers.used_again > 0, "re-use is forced");
        let under_way = [TCP_LANE, UDP_LANE].map(|lane| self.begun[lane] - self.finished[lane]);
        assert!(under_way[TCP_LANE] < PER_SECOND && under_way[UDP_LANE] < 100, "{under_way:?}");
    }
}
