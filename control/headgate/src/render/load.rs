//! Tables of `show` about the gateway's own work: workers, budgets, neighbours.

use super::Look;
use super::listings::{header, or_none};
use super::status::ledger;
use super::table::Table;
use model::answers::{BudgetRow, NeighbourRow, WorkerRow, Workers};

/// `show workers`.
pub fn workers(answer: &Workers, look: Look) -> String {
    const NARROW: &[&str] =
        &["WORKER", "CORE", "BUSY", "BURST", "NS/PACKET", "IPV4", "IPV6", "INSERTED", "LEDGER"];
    let mut table = header(NARROW, &["EVICTED", "LOOPS", "GENERATION"], look);
    for row in &answer.workers {
        let table_of = |family: usize| {
            let [used, most] = [row.connections, row.connections_max]
                .map(|counts| counts.get(family).copied().unwrap_or_default());
            format!("{used}/{most}")
        };
        let mut cells = vec![
            row.worker.to_string(),
            row.core.to_string(),
            format!("{:.0}%", row.busy_ratio * 100.),
            format!("{:.1}", row.mean_burst),
            nanoseconds(row.ns_per_packet),
            table_of(0),
            table_of(1),
            row.inserts.to_string(),
            ledger(&row.ledger),
        ];
        if look.wide {
            let more = [row.half_open_evicted, row.loops, row.generation];
            cells.extend(more.map(|count| count.to_string()));
        }
        table.row(cells);
    }
    let mirror = &answer.mirror;
    table.text("workers")
        + &passes(&answer.workers)
        + &format!(
            "generation {} published, {} on every worker\n\
             host mirror: from kernel {} + generated {} = to workers {} + dropped {}; \
             from workers {} = to kernel {} + dropped {}\n",
            answer.generation,
            answer.generation_everywhere,
            mirror.from_kernel,
            mirror.generated,
            mirror.to_workers,
            mirror.dropped_to_workers,
            mirror.from_workers,
            mirror.to_kernel,
            mirror.dropped_to_kernel,
        )
}

/// What is shown of a time for each packet; nothing without packets.
fn nanoseconds(ns: f64) -> String {
    if ns > 0. { format!("{ns:.0}") } else { "-".to_owned() }
}

/// What workers spend their time on, where that was measured.
fn passes(rows: &[WorkerRow]) -> String {
    let mut table = Table::new(&["WORKER", "PASS", "NS/PACKET", "SHARE"]);
    for row in rows {
        for pass in &row.passes {
            table.row(vec![
                row.worker.to_string(),
                pass.pass.clone(),
                format!("{:.1}", pass.ns_per_packet),
                format!("{:.0}%", pass.share * 100.),
            ]);
        }
    }
    if rows.iter().all(|row| row.passes.is_empty()) { String::new() } else { table.text("passes") }
}

/// `show budgets`: those that were used; all with `wide`.
pub fn budgets(rows: &[BudgetRow], look: Look) -> String {
    const NARROW: &[&str] = &["INTERFACE", "PURPOSE", "TAKEN", "REFUSED", "MEANING"];
    let mut table = header(NARROW, &["A SECOND", "AT ONCE"], look);
    for row in rows.iter().filter(|row| look.wide || row.taken + row.refused > 0) {
        let mut cells = vec![
            row.interface.clone(),
            row.purpose.clone(),
            row.taken.to_string(),
            row.refused.to_string(),
            row.meaning.clone(),
        ];
        if look.wide {
            cells.extend(row.rate.map(|rate| rate.to_string()));
        }
        table.row(cells);
    }
    table.text("budgets were used")
}

/// `show neighbours`: next hops of backends and routers, and clients one by one or counted.
pub fn neighbours(rows: &[NeighbourRow], all: bool) -> String {
    let mut table = Table::new(&["INTERFACE", "ADDRESS", "MAC", "STATE", "KIND", "BACKENDS"]);
    let is_shown = |row: &&NeighbourRow| all || row.kind != "client";
    for row in rows.iter().filter(is_shown) {
        table.row(vec![
            row.interface.clone(),
            row.address.to_string(),
            or_none(row.mac.clone()),
            row.state.clone(),
            row.kind.clone(),
            row.backends.to_string(),
        ]);
    }
    let mut text = table.text("neighbours");
    let clients = rows.iter().filter(|row| !is_shown(row)).count();
    if clients > 0 {
        text.push_str(&format!("And {clients} clients: headgate show neighbours --all\n"));
    }
    text
}
