//! Puts frames through a pipeline.

use crate::world::SECRET;
use model::record::ConnectionRecord;
use pipeline::arch::memory::HeapMemory;
use pipeline::counters::Counters;
use pipeline::frame::{Frame, Rx, Verdict};
use pipeline::mirror::NeighbourRequest;
use pipeline::tables::Tables;
use pipeline::{Now, Options, Page, Pipeline};
use std::sync::Arc;

/// Bytes in front of a frame, as DPDK leaves them.
pub const HEADROOM: usize = 128;
/// Bytes of a frame's buffer.
const BUFFER: usize = 2304;

/// A frame to be processed.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How it came in.
    pub rx: Rx,
    /// Bytes in front.
    pub headroom: usize,
    /// How many of its last bytes lie in another segment.
    pub tail: usize,
}

impl Input {
    /// A frame in one segment.
    pub const fn new(bytes: Vec<u8>, rx: Rx) -> Self {
        Self { bytes, rx, headroom: HEADROOM, tail: 0 }
    }
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its verdict.
    pub verdict: Verdict,
    /// Its bytes afterwards, trailing segments included.
    pub bytes: Vec<u8>,
    /// How it came in, and what the next worker has to know.
    pub rx: Rx,
}

/// Options for tests: the key of the cases, small tables.
pub fn options() -> Options {
    Options { secret: SECRET, ..Options::default() }
}

/// A pipeline with its tables on the heap.
pub fn pipeline(options: &Options) -> Pipeline {
    Pipeline::new(options, Arc::new(Counters::new(256, 512)), &mut HeapMemory).unwrap()
}

/// Processes the frames as one burst.
pub fn burst(pipeline: &mut Pipeline, tables: &Tables, inputs: &[Input], now: Now) -> Vec<Outcome> {
    let mut buffers: Vec<Vec<u8>> = inputs
        .iter()
        .map(|input| {
            let head = input.bytes.len().saturating_sub(input.tail);
            let mut buffer = vec![0xa5; BUFFER.max(input.headroom + head)];
            buffer[input.headroom..input.headroom + head].copy_from_slice(&input.bytes[..head]);
            buffer
        })
        .collect();
    let mut frames: Vec<Frame<'_>> = buffers
        .iter_mut()
        .zip(inputs)
        .map(|(buffer, input)| {
            let tail = input.tail.min(input.bytes.len());
            let end = input.headroom + input.bytes.len() - tail;
            Frame::new(buffer, input.headroom, end, tail, input.rx)
        })
        .collect();
    pipeline.process_burst(tables, &mut frames, now);
    frames
        .iter()
        .zip(inputs)
        .map(|(frame, input)| {
            let tail = &input.bytes[input.bytes.len() - frame.tail_len()..];
            let bytes = [frame.bytes(), tail].concat();
            Outcome { verdict: frame.verdict, bytes, rx: frame.rx }
        })
        .collect()
}

/// All connections of a pipeline, in the order of its tables.
pub fn records(pipeline: &Pipeline, tables: &Tables, now: Now) -> Vec<ConnectionRecord> {
    let mut all = Vec::new();
    let mut at = Some((0, 0));
    while let Some(from) = at {
        let mut page = Page::of(1000);
        pipeline.page(tables, &Default::default(), from, now, &mut page);
        all.extend(page.connections);
        at = page.next;
    }
    all
}

/// The requests about next hops that have gathered.
pub fn requests(pipeline: &mut Pipeline) -> Vec<NeighbourRequest> {
    pipeline.take_requests().collect()
}

/// Every counter of a pipeline, as text, without those that are 0.
pub fn counts(counters: &Counters) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for (slot, c) in counters.services.iter().enumerate() {
        all.extend([
            (format!("service {slot} connections"), c.connections.read()),
            (format!("service {slot} packets_in"), c.packets_in.read()),
            (format!("service {slot} bytes_in"), c.bytes_in.read()),
            (format!("service {slot} packets_out"), c.packets_out.read()),
            (format!("service {slot} bytes_out"), c.bytes_out.read()),
            (format!("service {slot} refused"), c.refused.read()),
        ]);
    }
    for (slot, c) in counters.backends.iter().enumerate() {
        all.extend([
            (format!("backend {slot} connections"), c.connections.read()),
            (format!("backend {slot} packets_in"), c.packets_in.read()),
            (format!("backend {slot} packets_out"), c.packets_out.read()),
        ]);
    }
    for reason in model::drops::DropReason::ALL {
        all.push((format!("drop {}", reason.label()), counters.dropped(*reason).read()));
    }
    all.push(("inserts".to_owned(), counters.inserts.read()));
    all.push(("half_open_evicted".to_owned(), counters.half_open_evicted.read()));
    all.retain(|(_, count)| *count > 0);
    all
}
