//! Asks the pipeline what becomes of the packets to a frontend, by sending them.

use crate::gateway::Gateway;
use crate::world::{self, BACK_MAC, FRONT, FRONT_MAC, ROUTER_MAC};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use golden::drive::{self, Input, Outcome};
use golden::packet::{ACK, Body, SYN, packet, tcp, udp};
use golden::verify;
use model::drops::DropReason;
use model::ids::Protocol;
use pipeline::Now;
use pipeline::frame::{Rx, Verdict};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Packets of one burst.
const BURST: usize = 16;
/// Packets after which a backend that none has reached isn't one.
const PACKETS_MAX: usize = 1024;
/// Packets after which a backend that wasn't expected would have shown.
const PACKETS_ENOUGH: usize = 48;

/// What becomes of new connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Sent to one of these.
    Backends(BTreeSet<SocketAddr>),
    /// RST, or ICMP port unreachable.
    Reject,
    /// Silence, for a reason other than that the address is none of ours.
    Drop(DropReason),
    /// No frontend's packet: the host's, or nobody's.
    NotOurs,
}

impl Answer {
    /// Sent to these.
    pub fn backends<'a>(all: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Backends(all.into_iter().map(|text| text.parse().unwrap()).collect())
    }
    /// The word for it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Backends(_) => "backends",
            Self::Reject => "reject",
            Self::Drop(_) => "drop",
            Self::NotOurs => "not ours",
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backends(all) => {
                let all: Vec<_> = all.iter().map(ToString::to_string).collect();
                write!(f, "{{{}}}", all.join(", "))
            }
            Self::Drop(reason) => write!(f, "drop {}", reason.label()),
            other => f.write_str(other.kind()),
        }
    }
}

/// Where packets go, and who may send them.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The clients: each packet comes from the next of them, from a port of its own.
    pub clients: &'a [IpAddr],
    /// The frontend.
    pub destination: SocketAddr,
}

impl Gateway {
    /// Sends first packets of connections until the answer is sure. `wanted` saves packets where it
    /// is right, and changes nothing where it is wrong.
    ///
    /// # Errors
    /// Packets of one frontend met different kinds of fate, or a packet came out wrong.
    pub fn ask(&mut self, question: &Question<'_>, wanted: &Answer) -> Result<Answer, String> {
        let mut reached = BTreeSet::new();
        let mut packets = 0;
        self.sent_to.clear();
        while packets < PACKETS_MAX {
            for outcome in self.burst(question) {
                match (classify(&outcome, question)?, packets) {
                    (Answer::Backends(all), _) => reached.extend(all),
                    (other, 0) => return Ok(other),
                    (other, _) => return Err(format!("{reached:?}, and then {other}")),
                }
                packets += 1;
            }
            let expected = matches!(wanted, Answer::Backends(all) if *all == reached);
            if expected && packets >= PACKETS_ENOUGH {
                break;
            }
        }
        Ok(Answer::Backends(reached))
    }

    fn burst(&mut self, question: &Question<'_>) -> Vec<Outcome> {
        let inputs: Vec<Input> = (0..BURST)
            .map(|_| {
                self.flows = self.flows.wrapping_add(1);
                let flow = self.flows;
                let client = question.clients[flow as usize % question.clients.len()];
                let port = 1024 + (flow % 60_000) as u16;
                Self::first_packet(SocketAddr::new(client, port), question)
            })
            .collect();
        let outcomes = self.process(&inputs);
        if question.protocol == Protocol::Tcp {
            self.complete(&inputs, &outcomes);
        }
        outcomes
    }

    /// Completes the handshakes of SYNs that reached a backend: affinity keeps what is verified.
    fn complete(&mut self, syns: &[Input], outcomes: &[Outcome]) {
        let (mut answers, mut acks) = (Vec::new(), Vec::new());
        for (syn, outcome) in syns.iter().zip(outcomes) {
            let reached = matches!(outcome.verdict, Verdict::Send(_));
            let (true, Ok((nat, backend)), Ok((client, frontend))) =
                (reached, sockets(&outcome.bytes), sockets(&syn.bytes))
            else {
                continue;
            };
            let frame = packet((ROUTER_MAC, BACK_MAC), backend, nat, tcp(SYN | ACK));
            let rx = Rx { port: world::BACK, ..Rx::default() };
            answers.push(Input::new(frame.bytes(), rx));
            acks.push(input(client, frontend, tcp(ACK)));
        }
        let now = Now { ms: self.now_ms };
        drive::burst(&mut self.pipeline, &self.tables, &answers, now);
        self.process(&acks);
    }

    fn process(&mut self, inputs: &[Input]) -> Vec<Outcome> {
        let now = Now { ms: self.now_ms };
        let outcomes = drive::burst(&mut self.pipeline, &self.tables, inputs, now);
        let sent = outcomes.iter().filter(|one| matches!(one.verdict, Verdict::Send(_)));
        self.sent_to.extend(sent.filter_map(|one| one.bytes.first_chunk::<6>().copied()));
        outcomes
    }

    fn first_packet(client: SocketAddr, question: &Question<'_>) -> Input {
        input(client, question.destination, first_body(question.protocol))
    }

    /// Sends one first packet from this very client.
    ///
    /// # Errors
    /// The packet came out wrong.
    pub fn ask_from(
        &mut self,
        protocol: Protocol,
        client: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Answer, String> {
        let question = Question { protocol, clients: &[], destination };
        let input = Self::first_packet(client, &question);
        self.one(&input, &question)
    }

    /// Sends one packet of a TCP connection that this client has.
    ///
    /// # Errors
    /// The packet came out wrong.
    pub fn ask_within(
        &mut self,
        client: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Answer, String> {
        let question = Question { protocol: Protocol::Tcp, clients: &[], destination };
        self.one(&input(client, destination, tcp(ACK)), &question)
    }

    /// Opens a TCP connection: SYN, the backend's SYN-ACK, ACK.
    ///
    /// # Errors
    /// A packet came out wrong.
    pub fn open(&mut self, client: SocketAddr, destination: SocketAddr) -> Result<Answer, String> {
        let question = Question { protocol: Protocol::Tcp, clients: &[], destination };
        let syn = self.process(&[input(client, destination, tcp(SYN))]).remove(0);
        let answer = classify(&syn, &question)?;
        if matches!(answer, Answer::Backends(_)) {
            let (nat, backend) = sockets(&syn.bytes)?;
            let frame = packet((ROUTER_MAC, BACK_MAC), backend, nat, tcp(SYN | ACK));
            let rx = Rx { port: world::BACK, ..Rx::default() };
            let back = self.process(&[Input::new(frame.bytes(), rx)]).remove(0);
            if back.verdict != Verdict::Send(FRONT) {
                return Err(format!("the backend's answer: {:?}", back.verdict));
            }
            self.ask_within(client, destination)?;
        }
        Ok(answer)
    }

    fn one(&mut self, input: &Input, question: &Question<'_>) -> Result<Answer, String> {
        self.sent_to.clear();
        let outcomes = self.process(std::slice::from_ref(input));
        classify(&outcomes[0], question)
    }
}

fn input(client: SocketAddr, frontend: SocketAddr, body: Body) -> Input {
    let frame = packet((ROUTER_MAC, FRONT_MAC), client, frontend, body);
    Input::new(frame.bytes(), Rx { port: FRONT, ..Rx::default() })
}

fn first_body(protocol: Protocol) -> Body {
    match protocol {
        Protocol::Tcp => tcp(SYN),
        Protocol::Udp => udp(b"question"),
        Protocol::Sctp => Body::Raw { protocol: 132, data: vec![0; 20] },
    }
}

fn classify(outcome: &Outcome, question: &Question<'_>) -> Result<Answer, String> {
    match outcome.verdict {
        Verdict::Send(world::BACK) => {
            let (source, destination) = sockets(&outcome.bytes)?;
            if !world::NAT.iter().any(|nat| source.ip().to_string() == *nat) {
                return Err(format!("sent from {source}, which is no NAT address"));
            }
            Ok(Answer::Backends(BTreeSet::from([destination])))
        }
        Verdict::Answer(FRONT) => refusal(&outcome.bytes, question),
        Verdict::Host(_) | Verdict::Drop(DropReason::NotOurs) => Ok(Answer::NotOurs),
        Verdict::Drop(reason) => Ok(Answer::Drop(reason)),
        other => Err(format!("{other:?}")),
    }
}

fn sliced(frame: &[u8]) -> Result<SlicedPacket<'_>, String> {
    verify::checksums(frame)?;
    SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())
}

fn addresses(packet: &SlicedPacket<'_>) -> Result<(IpAddr, IpAddr), String> {
    match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            Ok((ip.header().source_addr().into(), ip.header().destination_addr().into()))
        }
        Some(NetSlice::Ipv6(ip)) => {
            Ok((ip.header().source_addr().into(), ip.header().destination_addr().into()))
        }
        _ => Err("no IP packet".to_owned()),
    }
}

fn sockets(frame: &[u8]) -> Result<(SocketAddr, SocketAddr), String> {
    let packet = sliced(frame)?;
    let (source, destination) = addresses(&packet)?;
    let (from, to) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => return Err("neither TCP nor UDP".to_owned()),
    };
    Ok((SocketAddr::new(source, from), SocketAddr::new(destination, to)))
}

/// A RST, or port unreachable, from the frontend to the client; nothing else is a refusal.
fn refusal(frame: &[u8], question: &Question<'_>) -> Result<Answer, String> {
    let packet = sliced(frame)?;
    let (source, _) = addresses(&packet)?;
    let frontend = question.destination.ip();
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) if tcp.rst() && source == frontend => Ok(Answer::Reject),
        Some(TransportSlice::Icmpv4(icmp)) if (icmp.type_u8(), icmp.code_u8()) == (3, 3) => {
            Ok(Answer::Reject)
        }
        Some(TransportSlice::Icmpv6(icmp)) if (icmp.type_u8(), icmp.code_u8()) == (1, 4) => {
            Ok(Answer::Reject)
        }
        _ => Err("an answer that refuses nothing".to_owned()),
    }
}
