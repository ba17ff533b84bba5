//! What a change costs the control side in memory: from the bytes of a watch event to the last
//! worker that uses it.
//!
//! The steps are those of `headgate run`, by the same code: a watch event is decoded, `translate`
//! takes the object in and builds, the change is compiled and published, and the workers let go of
//! what they had. What is missing is the network before it and the packets after it.

mod objects;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use engine::publish::{Publisher, Reader};
use hdrhistogram::Histogram;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use model::ids::WorkerId;
use objects::{Shape, World};
use pipeline::adjacency::Adjacencies;
use pipeline::snapshot::{Compiler, Snapshot};
use pipeline::steer::SteerTable;
use pipeline::tables::Tables;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;
use translate::{Allocations, Index, Object, Place, Settings};

/// What a change costs the control side in memory.
#[derive(Debug, Parser)]
#[command(name = "control-bench")]
struct Arguments {
    /// Services.
    #[arg(long, default_value_t = 10_000)]
    services: u32,
    /// Endpoints of each.
    #[arg(long, default_value_t = 10)]
    endpoints: u32,
    /// Endpoints of one more Service each, to be changed on their own.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 5_000])]
    large: Vec<u32>,
    /// Changes of one endpoint, of each kind of Service.
    #[arg(long, default_value_t = 2_000)]
    changes: usize,
    /// Seed of all that is chosen at random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Changes of Services of one size, in microseconds.
#[derive(Debug, Serialize)]
struct Changes {
    endpoints: u32,
    changes: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    /// The medians of its parts: decoding, `translate`, compiling, and the way to the worker.
    parts_p50_us: [u64; 4],
}

/// All of it.
#[derive(Debug, Serialize)]
struct Report {
    services: u32,
    endpoints: u32,
    seed: u64,
    /// Everything taken in, built, compiled and published, objects decoded already.
    cold_ms: f64,
    /// Decoding those objects from JSON.
    decode_ms: f64,
    /// Of `cold_ms`: `translate`.
    translate_ms: f64,
    /// Of `cold_ms`: the compiler.
    compile_ms: f64,
    changes: Vec<Changes>,
}

/// The control side of a gateway with one worker.
struct Control {
    index: Index,
    compiler: Compiler,
    publisher: Publisher,
}

/// As an API server sends it.
#[derive(Deserialize)]
struct WatchEvent {
    #[serde(rename = "type")]
    kind: String,
    object: EndpointSlice,
}

impl Control {
    /// Takes objects in, builds, compiles, publishes, and waits until every worker runs with it.
    /// Returns when each of the three was done.
    fn take_in(&mut self, objects: impl IntoIterator<Item = Object>) -> Result<[Instant; 3]> {
        for object in objects {
            self.index.apply(object);
        }
        let built = self.index.build();
        let translated = Instant::now();
        let (snapshot, report) = self.compiler.apply(&built.delta);
        let compiled = Instant::now();
        ensure!(report.problems.is_empty(), "{:?}", report.problems);
        let generation = self.publisher.update(|tables| tables.snapshot = snapshot);
        while self.publisher.generation_of(WorkerId(0)) < generation {
            std::hint::spin_loop();
        }
        Ok([translated, compiled, Instant::now()])
    }
    /// One event, all the way: when it began, was decoded, translated, compiled, and in use.
    fn change(&mut self, event: &[u8]) -> Result<[Instant; 5]> {
        let begun = Instant::now();
        let event: WatchEvent = serde_json::from_slice(event)?;
        ensure!(event.kind == "MODIFIED", "an event of type {}", event.kind);
        let object = Object::EndpointSlice(Box::new(event.object), Place::default());
        let decoded = Instant::now();
        let [translated, compiled, used] = self.take_in([object])?;
        Ok([begun, decoded, translated, compiled, used])
    }
    /// Many changes of Services of one shape.
    fn changes(&mut self, world: &mut World, shape: &Shape, changes: usize) -> Result<Changes> {
        let histogram = || Histogram::<u64>::new(3);
        let mut whole = histogram()?;
        let mut parts = [histogram()?, histogram()?, histogram()?, histogram()?];
        for _ in 0..changes {
            let times = self.change(&world.change(shape)?)?;
            let us = |from: Instant, to: Instant| to.duration_since(from).as_micros() as u64;
            whole.record(us(times[0], times[4]))?;
            for (part, ends) in parts.iter_mut().zip(times.windows(2)) {
                part.record(us(ends[0], ends[1]))?;
            }
        }
        Ok(Changes {
            endpoints: shape.endpoints,
            changes: whole.len(),
            p50_us: whole.value_at_quantile(0.5),
            p99_us: whole.value_at_quantile(0.99),
            max_us: whole.max(),
            parts_p50_us: parts.map(|part| part.value_at_quantile(0.5)),
        })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (publisher, mut readers) = Publisher::new(empty(), 1);
    let reader = readers.pop().context("a reader for the worker")?;
    let stop = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| work(reader, &stop));
        let report = measure(&arguments, publisher);
        stop.store(true, Relaxed);
        report
    })?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        show(&report);
    }
    Ok(())
}

/// A worker without packets.
fn work(mut reader: Reader, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let _ = reader.read();
        std::hint::spin_loop();
    }
}

fn empty() -> Tables {
    Tables {
        generation: 1,
        snapshot: Arc::new(Snapshot::default()),
        adjacencies: Arc::new(Adjacencies::default()),
        steer: Arc::new(SteerTable::new(1, &[])),
    }
}

fn measure(arguments: &Arguments, publisher: Publisher) -> Result<Report> {
    let Arguments { services, endpoints, .. } = *arguments;
    let mut shapes = vec![Shape { first: 0, services, endpoints }];
    for (&endpoints, first) in arguments.large.iter().zip(services..) {
        shapes.push(Shape { first, services: 1, endpoints });
    }
    let mut world = World::new(arguments.seed, &shapes);
    let texts = world.texts()?;
    let begun = Instant::now();
    let objects = texts.iter().map(|text| text.decode()).collect::<Result<Vec<_>>>()?;
    let decode_ms = begun.elapsed().as_secs_f64() * 1e3;
    drop(texts);
    let settings = Settings::new(World::wishes())?;
    let mut control = Control {
        index: Index::new(settings, Allocations::default()),
        compiler: Compiler::default(),
        publisher,
    };
    let ms = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e3;
    let begun = Instant::now();
    let [translated, compiled, used] = control.take_in(objects)?;
    let counts = control.index.counts();
    ensure!(counts.backends as u64 == world.endpoints(), "every endpoint is a backend: {counts:?}");
    let mut changes = Vec::new();
    for shape in &shapes {
        changes.push(control.changes(&mut world, shape, arguments.changes)?);
    }
    ensure!(control.index.counts() == counts, "no backend is lost");
    Ok(Report {
        services,
        endpoints,
        seed: arguments.seed,
        cold_ms: ms(begun, used),
        decode_ms,
        translate_ms: ms(begun, translated),
        compile_ms: ms(translated, compiled),
        changes,
    })
}

fn show(report: &Report) {
    let Report { services, endpoints, cold_ms, decode_ms, translate_ms, compile_ms, .. } = report;
    println!("{services} Services of {endpoints} endpoints, seed {}", report.seed);
    println!(
        "cold load {cold_ms:.0} ms: translate {translate_ms:.0}, compile {compile_ms:.0}; decoding \
         the objects before it {decode_ms:.0} ms"
    );
    println!("one endpoint changed, watch event's bytes to the worker's use, us:");
    println!(
        "  {:>9} {:>8} {:>8} {:>8} {:>8}   medians of: decode, translate, compile, to the worker",
        "endpoints", "changes", "p50", "p99", "largest"
    );
    for Changes { endpoints, changes, p50_us, p99_us, max_us, parts_p50_us } in &report.changes {
        println!(
            "  {endpoints:>9} {changes:>8} {p50_us:>8} {p99_us:>8} {max_us:>8}   {}",
            parts_p50_us.map(|part| part.to_string()).join(", ")
        );
    }
}
