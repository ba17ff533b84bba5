//! The numbers by which a packet knows that its backend stands as when its entry was validated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{World, at, backend_ip, frontend_ip};
use model::desired::{BackendState, Delta, ServicePort};
use model::ids::{BackendId, Protocol};
use pipeline::snapshot::{Compiler, HeldBackend, Snapshot};
use pipeline::tables::Tables;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

const SERVICES: usize = 2;
const BACKENDS: usize = 3;
const SLOTS: u32 = 8;

/// What a service has: its backends' states (0: none), whether they are behind another next hop,
/// and the time after which clients of gone ones get a RST. `None`: there is no such service.
type Wanted = [Option<([u8; BACKENDS], [bool; BACKENDS], Option<u32>)>; SERVICES];

fn wanted() -> impl Strategy<Value = Wanted> {
    let one = proptest::option::weighted(
        0.8,
        (
            proptest::array::uniform3(0u8..4),
            proptest::array::uniform3(proptest::bool::weighted(0.2)),
            proptest::option::of(1u32..3),
        ),
    );
    proptest::array::uniform2(one)
}

fn port(n: usize, wanted: &Wanted) -> Option<Arc<ServicePort>> {
    let (states, via, reset_after_s) = wanted[n]?;
    let state = |state: u8| match state {
        1 => BackendState::Unserving,
        2 => BackendState::Draining,
        _ => BackendState::Active,
    };
    let backends: Vec<_> = (0..BACKENDS)
        .filter(|b| states[*b] > 0)
        .map(|b| (at(backend_ip(false, 10 + b as u8), 8000 + n as u16), state(states[b])))
        .collect();
    let key = common::key(["a", "b"][n], Protocol::Tcp);
    let mut port = common::service(&key, &[at(frontend_ip(false), 80 + n as u16)], &backends);
    let kept = (0..BACKENDS).filter(|b| states[*b] > 0);
    for (backend, b) in port.backends.iter_mut().zip(kept) {
        backend.via = via[b].then(|| backend_ip(false, 100));
    }
    port.reset_after_s = reset_after_s;
    Some(Arc::new(port))
}

/// All of the wanted services; the ones that are the same too, where `whole`.
fn delta(before: &Wanted, after: &Wanted, whole: bool) -> Delta {
    let mut delta = Delta::default();
    for n in 0..SERVICES {
        match (port(n, before), port(n, after)) {
            (Some(old), None) => delta.removed.push(old.key.clone()),
            (old, Some(new)) if whole || old.as_deref() != Some(&*new) => delta.changed.push(new),
            _ => {}
        }
    }
    delta
}

/// All that a connection was validated by, slot by slot.
fn records(snapshot: &Snapshot) -> BTreeMap<u32, (BackendId, HeldBackend, Option<u32>)> {
    let of = |(id, held): (BackendId, &HeldBackend)| {
        (id.slot, (id, held.clone(), snapshot.reset_after_s(id, held.service)))
    };
    snapshot.backends().map(of).collect()
}

fn numbers(tables: &Tables) -> Vec<u32> {
    (0..SLOTS).map(|slot| tables.backend_stamp(slot)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A slot's number changes when, and only when, its backend is another or stands otherwise.
    #[test]
    fn a_number_changes_exactly_with_its_backend(
        steps in proptest::collection::vec((wanted(), any::<bool>()), 1..12),
    ) {
        let mut world = World::new(1);
        world.compiler = Compiler::new(2, SLOTS);
        world.publish(&Delta::default());
        let mut before = Wanted::default();
        let mut seen = HashSet::new();
        for (after, whole) in steps {
            let (was, had) = (numbers(&world.tables), records(&world.tables.snapshot));
            let report = world.publish(&delta(&before, &after, whole));
            prop_assert_eq!(report.problems, []);
            let (is, has) = (numbers(&world.tables), records(&world.tables.snapshot));
            for slot in 0..SLOTS {
                let at = slot as usize;
                let differs = had.get(&slot) != has.get(&slot);
                prop_assert_eq!(was[at] != is[at], differs, "slot {}", slot);
                prop_assert_eq!(world.tables.snapshot.backend_stamp_of(slot), is[at]);
                // Nor does it come back, at another slot neither.
                prop_assert!(!differs || seen.insert(is[at]));
            }
            world.publish_adjacencies();
            prop_assert_eq!(numbers(&world.tables), is, "of other publications they know nothing");
            before = after;
        }
    }

    /// A worker that reads the array and its snapshot at whatever moments between compiling and
    /// publishing: no packet passes on an entry that its snapshot says otherwise of, and with the
    /// latest snapshot one look is enough.
    #[test]
    fn no_interleaving_lets_a_stale_entry_pass(
        steps in proptest::collection::vec(
            prop_oneof![
                2 => wanted().prop_map(Some),
                5 => Just(None),
            ],
            1..40,
        ),
        turns in proptest::collection::vec(0u8..3, 40),
    ) {
        let mut world = World::new(1);
        let mut compiler = Compiler::new(2, SLOTS);
        let mut before: Wanted = [Some(([3; BACKENDS], [false; BACKENDS], None)); SERVICES];
        let (first, _) = compiler.apply(&delta(&Wanted::default(), &before, false));
        world.tables.snapshot = Arc::clone(&first);
        let (mut compiled, mut published) = (Arc::clone(&first), first);
        // An entry: its backend, the number it was validated under, and what was found then.
        let mut entries: Vec<(BackendId, u32, Option<HeldBackend>)> = world
            .tables.snapshot.backends().map(|(id, _)| (id, 0, None)).collect();
        for (step, turn) in steps.into_iter().zip(turns) {
            if let Some(after) = step {
                compiled = compiler.apply(&delta(&before, &after, false)).0;
                before = after;
            }
            match turn {
                0 => published = Arc::clone(&compiled),
                1 => world.tables.snapshot = Arc::clone(&published),
                _ => {}
            }
            let latest = Arc::ptr_eq(&world.tables.snapshot, &compiled);
            for _ in 0..2 {
                let mut looks = 0;
                for (id, number, found) in &mut entries {
                    if *number != world.tables.backend_stamp(id.slot) {
                        looks += 1;
                        *number = world.tables.snapshot.backend_stamp_of(id.slot);
                        *found = world.tables.snapshot.backend(*id).cloned();
                    }
                    prop_assert_eq!(found.as_ref(), world.tables.snapshot.backend(*id));
                }
                if latest {
                    let again = entries.iter().any(|(id, number, _)| {
                        *number != world.tables.backend_stamp(id.slot)
                    });
                    prop_assert!(!again, "{} looks were not enough", looks);
                }
            }
        }
    }
}

/// What no compiler made has numbers too, as have slots beyond all.
#[test]
fn what_is_no_slot_has_a_number_that_stays() {
    let mut world = World::new(1);
    assert_eq!(world.tables.backend_stamp(7), 0);
    world.publish(&Delta::default());
    for slot in [7, u32::MAX] {
        world.tables.prefetch_backend_stamp(slot);
        assert_eq!(world.tables.backend_stamp(slot), world.tables.snapshot.backend_stamp_of(slot));
    }
}

/// Another compiler's numbers are others: its slots are, too.
#[test]
fn another_compilers_numbers_are_others() {
    let wanted: Wanted = [Some(([3; BACKENDS], [false; BACKENDS], None)), None];
    let mut world = World::new(1);
    let mut all = Vec::new();
    for _ in 0..2 {
        world.compiler = Compiler::new(2, SLOTS);
        world.publish(&delta(&Wanted::default(), &wanted, true));
        all.extend(numbers(&world.tables).into_iter().filter(|number| *number != 0));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 2 * BACKENDS);
}
