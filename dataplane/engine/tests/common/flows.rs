//! Thousands of flows whose packets are numbered: each must come out once, at the same backend,
//! and, where a flow keeps to one queue, in order.

use super::packets::{ACK, Packet, SYN};
use super::{Arrived, DNS, DNS_V6, PATIENCE, ROUTER, WEB, WEB_V6, World, at, drops, mac};
use model::ids::{FiveTuple, Protocol};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// splitmix64: the same numbers in every run.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Load {
    pub flows: u32,
    /// Packets of each flow in each direction; at most 64. With TCP the first is the SYN.
    pub packets: u32,
    /// Packets on their way at a time: below the places of any ring, so that none overflows.
    pub window: usize,
    /// Flows at a time.
    pub at_once: usize,
    /// Every packet on a queue at random, instead of each flow on one.
    pub random_queues: bool,
    /// The wires that clients are on.
    pub fronts: Vec<usize>,
    pub seed: u64,
}

impl Default for Load {
    fn default() -> Self {
        let (flows, packets, window, at_once) = (4_000, 20, 256, 400);
        let fronts = vec![0];
        Self { flows, packets, window, at_once, random_queues: false, fronts, seed: 1 }
    }
}

/// A flow, as both ends see it.
#[derive(Clone, Debug)]
pub struct Flow {
    pub client: SocketAddr,
    pub frontend: SocketAddr,
    pub protocol: Protocol,
    pub front: usize,
    /// Queues that it keeps to, on its front wire and on its back wire.
    queues: [usize; 2],
    sent: u32,
    /// What came, each once: a bit for each packet, at the backend and at the client.
    came: [u64; 2],
    /// Backend, NAT source and the wire's queue, from the first packet on.
    pub seen: Option<(SocketAddr, SocketAddr)>,
    /// The queues that its packets come out of.
    out: [Option<usize>; 2],
}

impl Flow {
    fn new(number: u32, load: &Load, random: &mut Random) -> Self {
        let front = load.fronts[number as usize % load.fronts.len()];
        let [high, low] = (number as u16).to_be_bytes();
        let (v6, tcp) = (number & 1 == 1, number & 2 == 2);
        let ip = if v6 {
            let prefix = [0x2001, 0xdb8, 0xc000 + front as u16, 0, 0, 0, 0];
            let mut words = [0; 8];
            words[..7].copy_from_slice(&prefix);
            words[7] = number as u16;
            IpAddr::from(words)
        } else {
            IpAddr::from([10, front as u8, high, low])
        };
        let frontend = match (tcp, v6) {
            (true, false) => WEB,
            (true, true) => WEB_V6,
            (false, false) => DNS,
            (false, true) => DNS_V6,
        };
        Self {
            client: SocketAddr::new(ip, 1024 + random.below(60_000) as u16),
            frontend: at(frontend),
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
            front,
            queues: [random.below(64), random.below(64)],
            sent: 0,
            came: [0; 2],
            seen: None,
            out: [None; 2],
        }
    }
    /// As the client sends it.
    pub fn tuple(&self) -> FiveTuple {
        FiveTuple { protocol: self.protocol, source: self.client, destination: self.frontend }
    }
}

pub struct Traffic {
    pub load: Load,
    pub flows: Vec<Flow>,
    open: Vec<u32>,
    begun: u32,
    random: Random,
    on_their_way: usize,
    moved: Instant,
    /// Packets that came, at backends and at clients.
    pub came: [u64; 2],
    /// Packets that came before an earlier one of their flow.
    pub out_of_order: u64,
    /// Packets that came out of another queue than their flow's first.
    pub strayed: u64,
}

const TO_BACKEND: usize = 0;
const TO_CLIENT: usize = 1;

impl Traffic {
    pub fn new(load: Load) -> Self {
        assert!(load.packets <= 64);
        let mut random = Random(load.seed);
        let flows = (0..load.flows).map(|n| Flow::new(n, &load, &mut random)).collect();
        Self {
            load,
            flows,
            open: Vec::new(),
            begun: 0,
            random,
            on_their_way: 0,
            moved: Instant::now(),
            came: [0; 2],
            out_of_order: 0,
            strayed: 0,
        }
    }

    /// Packets that come in all, in one direction.
    pub fn expected(&self) -> u64 {
        u64::from(self.load.flows) * u64::from(self.load.packets)
    }

    pub fn run(world: &mut World, load: Load) -> Self {
        let mut traffic = Self::new(load);
        while !traffic.step(world) {}
        traffic
    }

    /// Moves on a bit; true at the end.
    pub fn step(&mut self, world: &mut World) -> bool {
        let mut progress = self.produce(world);
        for arrived in world.drain_all() {
            progress = true;
            self.arrive(world, &arrived);
        }
        if progress {
            self.moved = Instant::now();
        } else {
            let state = (self.on_their_way, world.engine.workers(), drops(&world.engine));
            assert!(self.moved.elapsed() < PATIENCE, "packets are lost: {state:?}");
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
        self.came == [self.expected(); 2]
    }

    fn produce(&mut self, world: &mut World) -> bool {
        while self.open.len() < self.load.at_once && self.begun < self.load.flows {
            self.open.push(self.begun);
            self.begun += 1;
        }
        let mut any = false;
        // A TCP flow waits for its SYN-ACK: then another has its turn.
        for _ in 0..2 * self.load.window {
            if self.open.is_empty() || self.on_their_way >= self.load.window {
                break;
            }
            let place = self.random.below(self.open.len());
            let number = self.open[place];
            let flow = &mut self.flows[number as usize];
            if flow.protocol == Protocol::Tcp && flow.sent == 1 && flow.came[TO_CLIENT] == 0 {
                continue;
            }
            let packet = Packet {
                from: mac(flow.front, ROUTER),
                to: mac(flow.front, 1),
                protocol: flow.protocol,
                source: flow.client,
                destination: flow.frontend,
                ttl: 64,
                flags: if flow.sent == 0 { SYN } else { ACK },
                payload: payload(number, flow.sent),
            };
            flow.sent += 1;
            if flow.sent == self.load.packets {
                self.open.swap_remove(place);
            }
            let front = flow.front;
            self.put(world, number, (TO_BACKEND, front), &packet);
            any = true;
        }
        any
    }

    fn put(
        &mut self,
        world: &mut World,
        number: u32,
        (way, wire): (usize, usize),
        packet: &Packet,
    ) {
        let queues = world.wires[wire].len();
        let queue = match self.load.random_queues {
            true => self.random.below(queues),
            false => self.flows[number as usize].queues[way] % queues,
        };
        world.send(wire, queue, &packet.build());
        self.on_their_way += 1;
    }

    fn arrive(&mut self, world: &mut World, arrived: &Arrived) {
        let packet = arrived.packet();
        self.on_their_way -= 1;
        let (number, sequence) = read(&packet.payload);
        let flow = &mut self.flows[number as usize];
        let way = if arrived.wire == flow.front { TO_CLIENT } else { TO_BACKEND };
        let (bit, wire) = (1u64 << sequence, arrived.wire);
        assert_eq!(flow.came[way] & bit, 0, "doubled: {packet:?}");
        self.out_of_order += u64::from(flow.came[way] >= bit);
        self.strayed += u64::from(*flow.out[way].get_or_insert(arrived.queue) != arrived.queue);
        flow.came[way] |= bit;
        self.came[way] += 1;
        assert_eq!((packet.protocol, packet.ttl), (flow.protocol, 63));
        assert_eq!(packet.from, mac(wire, 1));
        assert_eq!(packet.payload, payload(number, sequence));
        if way == TO_CLIENT {
            assert_eq!((packet.source, packet.destination), (flow.frontend, flow.client));
            assert_eq!(packet.to, mac(wire, ROUTER));
            return;
        }
        let ends = (packet.destination, packet.source);
        assert_eq!(*flow.seen.get_or_insert(ends), ends, "misdirected: {packet:?}");
        let host = match packet.destination.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        assert_eq!(packet.to, mac(wire, host), "the MAC is the backend's");
        let flags = if sequence == 0 { SYN | ACK } else { ACK };
        let reply = packet.reply(flags, packet.payload.clone());
        self.put(world, number, (TO_CLIENT, wire), &reply);
    }
}

/// Number of flow and packet, and bytes up to some length of its own.
fn payload(flow: u32, sequence: u32) -> Vec<u8> {
    let mut bytes = vec![0; 8 + ((flow + 7 * sequence) % 64) as usize];
    bytes[..4].copy_from_slice(&flow.to_be_bytes());
    bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
    for (place, byte) in bytes[8..].iter_mut().enumerate() {
        *byte = (place as u32 + flow + sequence) as u8;
    }
    bytes
}

fn read(payload: &[u8]) -> (u32, u32) {
    let word = |from: usize| u32::from_be_bytes(payload[from..from + 4].try_into().unwrap());
    (word(0), word(4))
}
