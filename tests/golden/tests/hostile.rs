//! Every packet of every case, cut and bent: whatever comes, each frame ends in one verdict that is
//! counted once, and nothing panics.

#![allow(clippy::panic)]

use golden::case::{self, Case};
use golden::drive::{self, Input, Outcome};
use golden::world::World;
use model::drops::DropReason;
use model::ids::PortId;
use pipeline::counters::Counters;
use pipeline::frame::{ChecksumReport, Rx, Verdict};
use pipeline::{Now, Options, Pipeline};

/// Bit flips, a packet.
const FLIPS: u64 = 64;
/// Frames that are put through before their counters are looked at.
const BURST: usize = 96;

/// A gateway in the middle of a case.
struct Gateway {
    world: World,
    pipeline: Pipeline,
    now: Now,
    frames: u64,
    sent: u64,
    dropped: u64,
}

impl Gateway {
    fn new(case: &Case) -> Self {
        let options = Options { connections: [256, 256], ..drive::options() };
        Self {
            world: World::new(case.meta.workers.unwrap_or(1)),
            pipeline: drive::pipeline(&options),
            now: Now { ms: 0 },
            frames: 0,
            sent: 0,
            dropped: 0,
        }
    }
    /// Puts frames through, and settles their account.
    fn give(&mut self, inputs: &[Input], what: &str) {
        for burst in inputs.chunks(BURST) {
            let outcomes = drive::burst(&mut self.pipeline, &self.world.tables, burst, self.now);
            assert_eq!(outcomes.len(), burst.len(), "{what}");
            for (outcome, input) in outcomes.iter().zip(burst) {
                self.settle(outcome, input, what);
            }
            let counted = dropped(self.pipeline.counters());
            assert_eq!(counted, self.dropped, "{what}: drops counted, and drops told");
        }
    }
    fn settle(&mut self, outcome: &Outcome, input: &Input, what: &str) {
        self.frames += 1;
        match outcome.verdict {
            Verdict::Pending => panic!("{what}: no verdict for {:02x?}", input.bytes),
            Verdict::Drop(_) => self.dropped += 1,
            Verdict::Send(_) | Verdict::Answer(_) => {
                self.sent += 1;
                let v6 = outcome.bytes.len() >= 14 && outcome.bytes[12..14] == [0x86, 0xdd];
                // What is sent has at least its own headers; an ICMP error is longer than what it
                // quotes, anything else never longer than what came and a tag.
                let error = if v6 { 1280 + 18 } else { 576 + 18 };
                let most = input.bytes.len().max(error) + 4;
                assert!((14..=most).contains(&outcome.bytes.len()), "{what}: length");
            }
            Verdict::Host(_) => assert!(outcome.bytes.len() <= input.bytes.len(), "{what}"),
            Verdict::Handover(_) => assert_eq!(outcome.bytes, trimmed(input, outcome), "{what}"),
        }
    }
}

/// A frame that is handed over leaves as it came, but for its padding.
fn trimmed<'a>(input: &'a Input, outcome: &Outcome) -> &'a [u8] {
    &input.bytes[..outcome.bytes.len().min(input.bytes.len())]
}

fn dropped(counters: &Counters) -> u64 {
    DropReason::ALL.iter().map(|reason| counters.dropped(*reason).read()).sum()
}

/// Runs every case (but for what is published in between), and before each of its packets what
/// `bend` makes of that packet: so connections are there when their bent packets come.
fn bend_all(what: &str, bend: impl Fn(&[u8], u64) -> Vec<Vec<u8>>) -> [u64; 3] {
    let mut sum = [0; 3];
    for case in case::all() {
        let mut gateway = Gateway::new(&case);
        let name = format!("{what} of {}", case.name);
        for (number, sent) in case.sent.iter().enumerate() {
            gateway.now = Now { ms: sent.us / 1000 };
            let rx = Rx { port: PortId(sent.port as u8), ..Rx::default() };
            let good =
                Rx { ip_checksum: ChecksumReport::Good, l4_checksum: ChecksumReport::Good, ..rx };
            // As it is, and believed whatever its checksums say.
            let bent = bend(&sent.bytes, number as u64);
            let twice = |bytes: &Vec<u8>| [rx, good].map(|rx| Input::new(bytes.clone(), rx));
            let inputs: Vec<Input> = bent.iter().flat_map(twice).collect();
            gateway.give(&inputs, &name);
            gateway.give(&[Input::new(sent.bytes.clone(), rx)], &name);
        }
        let told = [gateway.frames, gateway.sent, gateway.dropped];
        sum.iter_mut().zip(told).for_each(|(sum, told)| *sum += told);
    }
    println!("{what}: {} frames, {} sent, {} dropped", sum[0], sum[1], sum[2]);
    sum
}

#[test]
fn every_truncation() {
    let [frames, ..] = bend_all("truncations", |bytes, _| {
        // The bytes behind the headers are all alike: of long packets every 16th length will do.
        let wanted = |len: &usize| *len < 160 || len % 16 == 3 || len + 16 > bytes.len();
        (0..bytes.len()).filter(wanted).map(|len| bytes[..len].to_vec()).collect()
    });
    assert!(frames > 100_000, "{frames}");
}

#[test]
fn every_length_field() {
    let [frames, ..] = bend_all("lengths", |bytes, _| {
        // Every pair of bytes of the headers may be a length: below, at and beyond what is there.
        let values = [0u16, 1, 7, 8, 19, 20, 21, 39, 40, 41, 0x7fff, 0x8000, 0xfff8, 0xffff];
        let places = (12..bytes.len().saturating_sub(1).min(100)).step_by(2);
        places
            .flat_map(|at| values.map(|value| (at, value)))
            .map(|(at, value)| {
                let mut bent = bytes.to_vec();
                bent[at..at + 2].copy_from_slice(&value.to_be_bytes());
                bent
            })
            .collect()
    });
    assert!(frames > 100_000, "{frames}");
}

#[test]
fn random_flips() {
    let [frames, ..] = bend_all("flips", |bytes, number| {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ bytes.len() as u64;
        let mut random = move |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % n.max(1)
        };
        (0..FLIPS)
            .map(|_| {
                let mut bent = bytes.to_vec();
                for _ in 0..=random(3) {
                    let at = random(bent.len());
                    if let Some(byte) = bent.get_mut(at) {
                        *byte ^= 1 << random(8);
                    }
                }
                bent
            })
            .collect()
    });
    assert!(frames > 100_000, "{frames}");
}
