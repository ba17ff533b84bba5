//! What the control side pays: loading everything, and one change among everything.

use crate::random::Random;
use crate::world::{Shape, desired};
use anyhow::{Result, ensure};
use model::desired::{BackendState, Delta};
use pipeline::snapshot::Compiler;
use std::sync::Arc;
use std::time::Instant;

/// Times of the compiler, in milliseconds.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Services, each with ten backends.
    pub services: u32,
    /// Compiling all of it from nothing.
    pub cold_ms: f64,
    /// One backend of one service changed: each of the changes, in order of time.
    pub changes_ms: Vec<f64>,
}

/// Compiles `services` services of ten backends, and then `changes` changes of one backend.
pub fn measure(services: u32, changes: usize, seed: u64) -> Result<Compiled> {
    let state = desired(&Shape { services, backends: 10, nat_addresses: 0 });
    let mut ports: Vec<_> = state.service_ports.values().cloned().collect();
    let mut compiler = Compiler::default();
    let start = Instant::now();
    let (mut snapshot, report) = compiler.apply(&state.as_delta());
    let cold_ms = start.elapsed().as_secs_f64() * 1e3;
    ensure!(report.problems.is_empty(), "{:?}", report.problems);
    ensure!(snapshot.services().count() == services as usize, "all services are compiled");
    let mut random = Random(seed);
    let mut changes_ms = Vec::with_capacity(changes);
    for _ in 0..changes {
        let at = random.below(ports.len());
        let mut port = (*ports[at]).clone();
        let backends = port.backends.len();
        let backend = &mut port.backends[random.below(backends)];
        backend.state = match backend.state {
            BackendState::Active => BackendState::Draining,
            BackendState::Draining | BackendState::Unserving => BackendState::Active,
        };
        ports[at] = Arc::new(port);
        let delta = Delta { changed: vec![Arc::clone(&ports[at])], removed: Vec::new() };
        let start = Instant::now();
        // With the end of the snapshot before it: both are work of the control side.
        snapshot = compiler.apply(&delta).0;
        changes_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    ensure!(snapshot.services().count() == services as usize, "no service is lost");
    changes_ms.sort_by(f64::total_cmp);
    Ok(Compiled { services, cold_ms, changes_ms })
}
