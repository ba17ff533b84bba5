//! A worker that is asked neither allocates nor frees: whoever asks brings the memory.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::flows::{Flow, Load, Traffic};
use common::{Shape, World, cores, web_and_dns};
use model::answers::ConnectionFilter;
use model::desired::ObjectName;
use model::ids::FiveTuple;
use nix::unistd::gettid;
use pipeline::adjacency::Role;
use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

/// Counts what one thread allocates and frees.
struct Counting;

static WATCHED: AtomicI32 = AtomicI32::new(0);
static COUNTED: AtomicU64 = AtomicU64::new(0);

fn count() {
    let watched = WATCHED.load(Relaxed);
    if watched != 0 && gettid().as_raw() == watched {
        COUNTED.fetch_add(1, Relaxed);
    }
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What this thread or another allocates and frees while something is done.
fn counted(thread: i32, act: impl FnOnce()) -> u64 {
    COUNTED.store(0, Relaxed);
    WATCHED.store(thread, Relaxed);
    act();
    WATCHED.store(0, Relaxed);
    COUNTED.load(Relaxed)
}

fn thread(name: &str) -> i32 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let mut found = threads.map(|entry| entry.unwrap().path()).filter(|path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    found.next().unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn a_worker_that_is_asked_allocates_nothing() {
    let wires = vec![(Role::Front, 1), (Role::Back, 1)];
    let mut world = World::new(Shape { cores: cores(1), wires, ..Shape::default() });
    world.publish(&web_and_dns(1, &[11, 12, 13]));
    let mut traffic = Traffic::new(Load { flows: 500, packets: 4, ..Load::default() });
    let tuples: Vec<_> = traffic.flows.iter().map(Flow::tuple).collect();
    while !traffic.step(&mut world) {}
    world.settle();
    let engine = &world.engine;
    let filters = [
        ConnectionFilter { limit: 10_000, ..ConnectionFilter::default() },
        ConnectionFilter {
            limit: 10_000,
            service: Some(ObjectName::new("default", "web")),
            state: Some("established".to_owned()),
            ..ConnectionFilter::default()
        },
    ];
    let mut found = 0;
    let mut ask = || {
        for filter in &filters {
            found += engine.connections(filter).unwrap().connections.len();
        }
        for tuple in &tuples {
            engine.explain(*tuple).unwrap();
            let other = FiveTuple { source: SocketAddr::new(tuple.source.ip(), 1), ..*tuple };
            engine.explain(other).unwrap();
        }
    };
    assert_eq!(counted(thread("worker-0"), &mut ask), 0);
    assert!(counted(gettid().as_raw(), &mut ask) > 0, "the allocator counts");
    assert!(found > 500, "{found}");
    world.finish("inquiry_memory");
}
