//! A process that is killed leaves whole connections and free places in its tables' memory, and the
//! next one goes on with them: in slots of its own, at the same backends.
//!
//! The process is this very program, started again for one test alone, which makes tables and
//! changes them in a tight loop. It is killed at random, and stopped after each instruction.
#![allow(clippy::unwrap_used, clippy::panic)]

mod before;
#[path = "../common/mod.rs"]
mod common;

use before::{FLOWS, Flow, change, change_bare, client_packet, process};
use common::flows::Random;
use common::packets::{ACK, Packet};
use common::*;
use engine::memory::{TableFile, TableMemory};
use model::answers::ConnectionFilter;
use model::desired::Delta;
use model::ids::{InterfaceId, PortId, Protocol, WorkerId};
use model::record::{ConnectionRecord, ConnectionState};
use nix::fcntl::{OFlag, open};
use nix::sys::ptrace;
use nix::sys::stat::Mode;
use nix::sys::uio::pread;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pipeline::adjacency::Adjacencies;
use pipeline::arch::memory::Block;
use pipeline::connections::{
    Address, Adopted, ByKey, Direction, NotAdopted, Origin, Shard, SlotKeys,
};
use pipeline::counters::Counters;
use pipeline::frame::Verdict;
use pipeline::steer::{NatAddress, SteerTable};
use pipeline::tables::Tables;
use pipeline::{Now, Options, Pipeline};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SEED: &str = "HEADGATE_ADOPT_SEED";
/// Set where the tables alone are changed, without packets: more of their changes in fewer
/// instructions.
const BARE: &str = "HEADGATE_ADOPT_BARE";
const ROUNDS: u64 = 50;
const LONGEST: Duration = Duration::from_secs(40);
/// Images of the memory that differ: some hundred inserts, changes and removals.
const IMAGES: usize = 1_000;
/// Bytes of the tables: header, 64 entries and cold records, 32 buckets.
const TABLE_LEN: [usize; 2] = [4096 + 64 * (64 + 40 + 32), 4096 + 64 * (128 + 52 + 32)];
const KEYS: [u64; 2] = [11, 12];

/// Files of another test's processes would be taken for one's own.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is published by the process before (0) and by the next (1), which has other services first
/// and another backend.
fn tables(process: usize) -> Tables {
    let shape = Shape::default();
    let mut changed = web_and_dns(1, &[11, 12, 13]).changed;
    if process == 1 {
        let more = [host_v4(1, 15), host_v6(1, 15)];
        let more = more.map(|ip| backend(ip, 80, model::desired::BackendState::Active, 1));
        changed = web_and_dns(1, &[10, 11, 12, 13]).changed;
        changed.push(service("api", Protocol::Tcp, &["203.0.113.20:80"], more.to_vec()));
        changed.reverse();
    }
    let (snapshot, report) =
        pipeline::snapshot::Compiler::default().apply(&Delta { changed, removed: Vec::new() });
    assert!(report.problems.is_empty());
    let nat = [host_v4(1, 200), host_v6(1, 200)]
        .map(|address| NatAddress { interface: InterfaceId(1), address });
    Tables {
        generation: 1,
        snapshot,
        adjacencies: Arc::new(Adjacencies::new(adjacencies(&shape, 7 * process))),
        steer: Arc::new(SteerTable::new(1, &nat)),
    }
}

fn options(process: usize, seed: u64) -> Options {
    let secret = seed ^ 0x5eed;
    Options { connections: [64; 2], secret, keys: KEYS[process], epoch_ms: 5, ..Options::default() }
}

fn origin() -> Origin {
    Origin { secret: 0, worker: WorkerId(0), workers: 1, epoch_ms: 0, keys: KEYS[1] }
}

/// The process that is killed. Without a seed this is no test of anything.
#[test]
fn the_process_before() {
    let Ok(seed) = std::env::var(SEED) else { return };
    let seed: u64 = seed.parse().unwrap();
    let (mut memory, mut sparse) =
        (TableMemory::new(seed.is_multiple_of(2)), TableMemory::sparse());
    let mut keys = SlotKeys::new(&mut sparse, 256, KEYS[0], &["wire0", "wire1"]).unwrap();
    let tables = tables(0);
    for service in tables.snapshot.services() {
        keys.begin(service.id, &service.key);
    }
    let with = options(0, seed);
    let mut random = Random(seed);
    let ready = |memory: &TableMemory| {
        let files = memory.files.iter().chain(&sparse.files);
        let files: Vec<_> = files.map(|file| file.as_fd().as_raw_fd().to_string()).collect();
        println!("\nREADY {} {}", nix::unistd::gettid(), files.join(" "));
    };
    if std::env::var(BARE).is_ok() {
        let origin = Origin { secret: with.secret, keys: KEYS[0], ..origin() };
        let mut v4 = Shard::<u32>::new(&mut memory, 64, &origin).unwrap();
        let mut v6 = Shard::<u128>::new(&mut memory, 64, &origin).unwrap();
        ready(&memory);
        let flows =
            (0..FLOWS / 2).map(|n| (Flow::new(&tables, 2 * n), Flow::new(&tables, 2 * n + 1)));
        change_bare((&mut v4, &mut v6), &flows.collect(), &mut random);
    } else {
        let counters = Arc::new(Counters::new(256, 256));
        let mut pipeline = Pipeline::new(&with, counters, &mut memory).unwrap();
        ready(&memory);
        change(&mut pipeline, &tables, &mut random);
    }
}

/// The process before, and the files that its memory is in.
struct Before {
    child: Child,
    thread: Pid,
    files: Vec<OwnedFd>,
}

impl Before {
    fn start(seed: u64) -> Self {
        Self::with(seed, &[])
    }
    fn with(seed: u64, more: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_before", "--nocapture", "--test-threads=1"])
            .env(SEED, seed.to_string())
            .envs(more.iter().map(|name| (name, "1")))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.find_map(|line| Some(line.unwrap().strip_prefix("READY ")?.to_owned()));
        let numbers: Vec<i32> = ready.unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
        let file = |number: &i32| {
            let path = format!("/proc/{}/fd/{number}", child.id());
            open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
        };
        let files = numbers[1..].iter().map(file).collect();
        Self { child, thread: Pid::from_raw(numbers[0]), files }
    }
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
    /// A copy of one file.
    fn image(&self, file: usize, into: &mut Vec<u8>) {
        let len = nix::sys::stat::fstat(&self.files[file]).unwrap().st_size as usize;
        // A huge page is more than a table takes.
        into.resize(len.min(if file < 2 { TABLE_LEN[file] } else { 128 << 10 }), 0);
        let read = pread(&self.files[file], into, 0).unwrap();
        into.truncate(read);
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Where its thread is traced, the end of that is told apart.
        while let Ok(WaitStatus::Stopped(..)) = waitpid(self.thread, Some(WaitPidFlag::__WALL)) {}
        let _ = self.child.wait();
    }
}

/// Aligned as a block has to be.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

/// A block with these bytes.
fn block(bytes: &[u8]) -> Block {
    let mut lines = vec![Line([0; 64]); bytes.len().div_ceil(64)];
    for (line, bytes) in lines.iter_mut().zip(bytes.chunks(64)) {
        line.0[..bytes.len()].copy_from_slice(bytes);
    }
    let start = NonNull::new(lines.as_mut_ptr()).unwrap().cast();
    // SAFETY: aligned, initialised, as long as that, and kept by the block.
    unsafe { Block::from_raw(start, bytes.len(), Box::new(lines)) }
}

/// Adopts the table in an image, and looks at all that was derived. Gives what was found, and the
/// time of the latest packet.
fn examine<A: Address>(image: &[u8], holders: &ByKey<'_>) -> (Adopted, u32) {
    let (shard, adopted) = Shard::<A>::adopt(block(image), &origin(), holders).unwrap();
    let nothing_lost = Adopted { kept: adopted.kept, gone: adopted.gone, ..Adopted::default() };
    assert_eq!(adopted, nothing_lost, "a killed process leaves whole connections");
    assert_eq!(adopted.gone, 0, "each has a slot here");
    let entries: Vec<_> = shard.page(0, usize::MAX >> 1).0.map(|(e, c)| (*e, *c)).collect();
    assert_eq!(entries.len(), adopted.kept);
    let (mut nat, mut targets) = (HashSet::new(), HashMap::<_, u32>::new());
    let (mut ringed, mut half_open) = ([HashSet::new(), HashSet::new()], [0, 0]);
    for (entry, cold) in &entries {
        let (client, reply) = (entry.client_key(), entry.reply_key());
        for (key, direction) in [(client, Direction::ToBackend), (reply, Direction::ToClient)] {
            let found = shard.find_key(&key).unwrap();
            assert_eq!(found.direction, direction);
            assert_eq!(shard.entry(found.entry).unwrap().reply_key(), reply);
        }
        assert!(nat.insert((
            reply.source.to_ip(),
            reply.source_port,
            reply.destination_port,
            reply.protocol
        )));
        *targets.entry((reply.source.to_ip(), reply.source_port, reply.protocol)).or_default() += 1;
        assert_eq!(cold.next_hop(), (InterfaceId(1), reply.source.to_ip()), "its own cold record");
        let ring = usize::from(reply.protocol == 17);
        half_open[ring] += usize::from(entry.state().unwrap().is_half_open());
        assert!(cold.half_open == 0 || ringed[ring].insert(cold.half_open));
    }
    for ring in 0..2 {
        assert_eq!(ringed[ring].len(), half_open[ring].min(8), "an eighth of the places");
    }
    for (entry, _) in &entries {
        let reply = entry.reply_key();
        let own = targets[&(reply.source.to_ip(), reply.source_port, reply.protocol)];
        // Four backends have a place for 64 connections.
        let seed = shard.peek_targets().seed(&reply);
        let counted = shard.peek_targets().peek(&reply, seed).map(|target| target.used);
        assert!(counted == Some(own) || counted.is_none() && targets.len() > 4);
    }
    let latest = entries.iter().map(|(entry, _)| entry.last_seen_ms).max().unwrap_or(10_000);
    (adopted, latest)
}

/// The keys that the process before has left.
fn keys_of(before: &Before) -> SlotKeys {
    let mut bytes = Vec::new();
    before.image(2, &mut bytes);
    SlotKeys::open(block(&bytes)).unwrap()
}

fn records(pipeline: &Pipeline, tables: &Tables, now: Now) -> Vec<ConnectionRecord> {
    let filter = ConnectionFilter { limit: usize::MAX, ..ConnectionFilter::default() };
    let pages = [(0, 0), (1, 0)].map(|at| {
        let mut page = pipeline::Page::of(1 << 16);
        pipeline.page(tables, &filter, at, now, &mut page);
        page
    });
    pages.into_iter().flat_map(|page| page.connections).collect()
}

/// Each connection goes on in the next process: a packet each way, at the same backend from the same
/// NAT address and port, counted under the slots of this process.
fn goes_on(pipeline: &mut Pipeline, counters: &Counters, ms: u64) -> u64 {
    let (tables, now) = (tables(1), Now { ms });
    let records = records(pipeline, &tables, now);
    let (mut to_backend, mut to_client) = (0, 0);
    for record in records.iter().filter(|r| r.idle_ms < r.timeout_ms) {
        let n = usize::from(record.client.port() - 20_000);
        let packet = client_packet(n, ACK);
        assert_eq!((packet.source, packet.destination), (record.client, record.frontend));
        let (verdict, bytes) = process(pipeline, &tables, 0, &packet.build(), ms);
        assert_eq!(verdict, Verdict::Send(PortId(1)), "{record:?}");
        let got = Packet::parse(&bytes);
        assert_eq!((got.source, got.destination), (record.nat, record.backend));
        to_backend += 1;
        let reply = got.reply(ACK, b"answer".to_vec());
        let (verdict, bytes) = process(pipeline, &tables, 1, &reply.build(), ms);
        assert_eq!(verdict, Verdict::Send(PortId(0)), "{record:?}");
        let got = Packet::parse(&bytes);
        assert_eq!((got.source, got.destination), (record.frontend, record.client));
        to_client += 1;
    }
    let sums = tables.snapshot.services().fold([0; 2], |[to, from], service| {
        let counted = &counters.services[service.id.slot as usize];
        [to + counted.packets_in.read(), from + counted.packets_out.read()]
    });
    assert_eq!(sums, [to_backend, to_client], "none is counted elsewhere");
    let backends = counters.backends.iter().map(|b| b.packets_in.read() + b.packets_out.read());
    assert_eq!(backends.sum::<u64>(), to_backend + to_client);
    assert_eq!(counters.inserts.read(), 0, "nothing began anew");
    to_backend
}

#[test]
fn connections_of_a_killed_process_go_on() {
    let _alone = alone();
    let (mut kept, mut forwarded, mut states) = (0, 0, HashSet::<ConnectionState>::new());
    for seed in 0..ROUNDS {
        let mut before = Before::start(seed);
        std::thread::sleep(Duration::from_micros(500 + Random(seed).next() % 20_000));
        before.kill();
        let keys = keys_of(&before);
        let snapshot = tables(1);
        let holders = ByKey::new(&keys, &snapshot.snapshot, snapshot.adjacencies.interfaces());
        let mut image = Vec::new();
        before.image(0, &mut image);
        let (v4, latest_v4) = examine::<u32>(&image, &holders);
        before.image(1, &mut image);
        let (v6, latest_v6) = examine::<u128>(&image, &holders);
        let mut files = std::mem::take(&mut before.files).into_iter();
        let mut map = || {
            let file = TableFile::open(files.next().unwrap()).unwrap();
            // SAFETY: whose it was is dead, and it is mapped here once.
            unsafe { file.map() }.unwrap()
        };
        let counters = Arc::new(Counters::new(256, 256));
        let (mut pipeline, adopted) =
            Pipeline::adopt(&options(1, 99), Arc::clone(&counters), [map(), map()], &holders)
                .unwrap();
        assert_eq!(adopted, [v4, v6]);
        assert_eq!(pipeline.epoch_ms(), 5);
        let ms = u64::from(latest_v4.max(latest_v6));
        states.extend(records(&pipeline, &snapshot, Now { ms }).iter().map(|record| record.state));
        kept += v4.kept + v6.kept;
        forwarded += goes_on(&mut pipeline, &counters, ms);
    }
    println!("{ROUNDS} processes killed: {kept} connections kept, {forwarded} live, in {states:?}");
    assert!(kept > 500 && forwarded > 300 && states.len() >= 8);
}

/// Whatever instruction it is at.
#[test]
fn there_is_no_wrong_moment_to_be_killed() {
    let _alone = alone();
    let before = Before::with(7, &[BARE]);
    std::thread::sleep(Duration::from_millis(20));
    ptrace::attach(before.thread).unwrap();
    let keys = keys_of(&before);
    let snapshot = tables(1);
    let holders = ByKey::new(&keys, &snapshot.snapshot, snapshot.adjacencies.interfaces());
    let (mut images, mut image) = ([Vec::new(), Vec::new()], Vec::new());
    let (mut seen, mut steps, since) = (0, 0_u64, Instant::now());
    while seen < IMAGES && since.elapsed() < LONGEST {
        let status = waitpid(before.thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
        for (file, last) in images.iter_mut().enumerate() {
            before.image(file, &mut image);
            if image == *last {
                continue;
            }
            std::mem::swap(&mut image, last);
            seen += 1;
            match file {
                0 => drop(examine::<u32>(last, &holders)),
                _ => drop(examine::<u128>(last, &holders)),
            }
        }
        steps += 1;
        ptrace::step(before.thread, None).unwrap();
    }
    println!("{seen} images of the memory in {steps} instructions, {:?}", since.elapsed());
    // A machine with much else to do gets less far.
    assert!(seen >= IMAGES / 4, "{seen} images in {steps} instructions");
}

#[test]
fn another_layout_is_refused() {
    let _alone = alone();
    let mut before = Before::start(1);
    before.kill();
    let keys = keys_of(&before);
    let snapshot = tables(1);
    let holders = ByKey::new(&keys, &snapshot.snapshot, snapshot.adjacencies.interfaces());
    let mut image = Vec::new();
    before.image(0, &mut image);
    // After the magic number.
    image[8] += 1;
    let refused = Shard::<u32>::adopt(block(&image), &origin(), &holders).err().unwrap();
    assert!(matches!(refused, NotAdopted::Differs { what: "layout version", .. }), "{refused}");
}

/// The engine's own tables and keys are files too, which whoever keeps them finds behind this
/// process's numbers; a service port stands beside its slot once it is published.
#[test]
fn an_engine_has_tables_and_keys_in_files() {
    let _alone = alone();
    let world = World::new(Shape { connections: 1024, ..Shape::default() });
    let delta = web_and_dns(1, &[11]);
    let compiler = world.publish(&delta);
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let own = |path: &std::path::PathBuf| {
        let name = std::fs::read_link(path).unwrap_or_default();
        name.to_string_lossy().contains("memfd:headgate-connections")
    };
    let files: Vec<Vec<u8>> =
        numbers.filter(own).map(|path| std::fs::read(path).unwrap()).collect();
    let begin = |with: &'static [u8]| files.iter().filter(move |bytes| bytes.starts_with(with));
    assert_eq!(begin(b"headgate").count(), 2, "of each family one");
    let keys = SlotKeys::open(block(begin(b"hg-slots").next().unwrap())).unwrap();
    for port in &delta.changed {
        let name = format!("/default/{}//{}/External", port.key.service.name, port.key.protocol);
        assert_eq!(keys.service(compiler.service(&port.key).unwrap()), Some(&*name));
    }
    assert_eq!(keys.interface(InterfaceId(1)), Some("wire1"));
    world.finish("tables in files");
}
