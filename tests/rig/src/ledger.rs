//! The ledger and its outside witnesses: after traffic has settled, nothing may have vanished.
//!
//! Four parties count the same packets: each worker, the host mirror, the device (`rte_eth_stats`)
//! and the kernel at the far end of each port. None is derived from another.

use crate::admin::Admin;
use crate::net::{KernelCounters, Net};
use anyhow::{Result, bail};
use model::answers::{DropRow, Ledger, PortRow, Workers};
use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One reading of all counters.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Workers and mirror.
    pub workers: Workers,
    /// Drops by reason.
    pub drops: Vec<DropRow>,
    /// Ports, front first.
    pub ports: Vec<PortRow>,
    /// The kernel at the far ends, front first.
    pub kernel: [KernelCounters; 2],
}

impl Reading {
    /// Reads them all.
    pub fn take(admin: &Admin, net: &Net) -> Result<Self> {
        Ok(Self {
            workers: admin.workers()?,
            drops: admin.drops()?,
            ports: admin.ports()?,
            kernel: net.kernel_counters()?,
        })
    }
    /// All workers' ledgers summed.
    pub fn total(&self) -> Ledger {
        let mut total = Ledger::default();
        self.workers.workers.iter().for_each(|row| total.add(&row.ledger));
        total
    }
    /// What differs, in words; empty means exact.
    pub fn differences(&self) -> Vec<String> {
        let total = self.total();
        let mirror = &self.workers.mirror;
        let mut found = Found(Vec::new());
        for row in &self.workers.workers {
            let name = format!("worker {} in less out", row.worker);
            found.zero(&name, row.ledger.difference());
            found
                .zero(&format!("worker {} in flight", row.worker), as_signed(row.ledger.in_flight));
        }
        found.equal("handed in and out", total.handed_in, total.handed_out);
        let by_reason = self.drops.iter().map(|row| row.packets).sum();
        found.equal("dropped and drops by reason", total.dropped, by_reason);
        found.equal("to host and the mirror's", total.to_host, mirror.from_workers);
        found.equal("from host and the mirror's", total.from_host, mirror.to_workers);
        found.equal(
            "mirror towards the workers",
            mirror.from_kernel + mirror.generated,
            mirror.to_workers + mirror.dropped_to_workers,
        );
        found.equal(
            "mirror towards the kernel",
            mirror.from_workers,
            mirror.to_kernel + mirror.dropped_to_kernel,
        );
        let device = |count: fn(&PortRow) -> u64| self.ports.iter().map(count).sum();
        found.equal(
            "received and ipackets",
            total.received,
            device(|p| p.device_counters.ipackets),
        );
        found.equal("sent and opackets", total.sent, device(|p| p.device_counters.opackets));
        for (port, kernel) in self.ports.iter().zip(&self.kernel) {
            let counters = &port.device_counters;
            let name = format!("{} opackets and its far end", port.name);
            found.equal(&name, counters.opackets, kernel.from_gateway);
            let name = format!("{} ipackets and its far end", port.name);
            let fetched = counters.ipackets + counters.rx_nombuf + counters.ierrors;
            found.equal(&name, fetched, kernel.to_gateway);
        }
        found.0
    }
}

struct Found(Vec<String>);

impl Found {
    fn equal(&mut self, what: &str, one: u64, other: u64) {
        if one != other {
            self.0.push(format!("{what}: {one} and {other}"));
        }
    }
    fn zero(&mut self, what: &str, value: i64) {
        if value != 0 {
            self.0.push(format!("{what}: {value}"));
        }
    }
}

fn as_signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Waits until the counters stand still and agree. Neighbour discovery goes on by itself, so that
/// a reading may fall into a packet's journey: they get 30 s for one reading that is exact.
pub fn settle(admin: &Admin, net: &Net) -> Result<Reading> {
    let begun = Instant::now();
    loop {
        let reading = Reading::take(admin, net)?;
        let differences = reading.differences();
        if differences.is_empty() {
            return Ok(reading);
        }
        if begun.elapsed() > Duration::from_secs(30) {
            bail!("the ledger is not exact: {}; {:#?}", differences.join("; "), reading);
        }
        sleep(Duration::from_millis(200));
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(f, "received {} + from host {}", total.received, total.from_host)?;
        if self.workers.workers.len() > 1 {
            write!(f, " + handed in {}", total.handed_in)?;
        }
        if total.generated > 0 {
            write!(f, " + generated {}", total.generated)?;
        }
        write!(f, " = sent {} + to host {}", total.sent, total.to_host)?;
        if self.workers.workers.len() > 1 {
            write!(f, " + handed out {}", total.handed_out)?;
        }
        write!(f, " + dropped {}", total.dropped)?;
        let reasons: Vec<String> = self
            .drops
            .iter()
            .filter(|row| row.packets > 0)
            .map(|row| format!("{} {}", row.reason.label(), row.packets))
            .collect();
        if !reasons.is_empty() {
            write!(f, " ({})", reasons.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::answers::{DeviceCounters, MirrorLedger, WorkerRow};
    use model::ids::WorkerId;

    fn exact() -> Reading {
        let ledger = Ledger {
            received: 7,
            from_host: 2,
            sent: 6,
            to_host: 2,
            dropped: 1,
            ..Ledger::default()
        };
        let worker = WorkerRow {
            worker: WorkerId(0),
            core: 1,
            generation: 1,
            busy_ratio: 0.0,
            ns_per_packet: 0.0,
            busy_and_idle_s: [0.0; 2],
            passes: vec![],
            mean_burst: 0.0,
            loops: 1,
            connections: [0; 2],
            connections_max: [1; 2],
            inserts: 0,
            half_open_evicted: 0,
            affinity: Default::default(),
            resets: 0,
            reset_probes: 0,
            ledger,
        };
        let mirror = MirrorLedger {
            from_kernel: 1,
            generated: 1,
            to_workers: 2,
            from_workers: 2,
            to_kernel: 2,
            ..MirrorLedger::default()
        };
        let port = PortRow {
            name: "front".into(),
            device: "net_tap0".into(),
            driver: "net_tap".into(),
            mac: String::new(),
            link_up: true,
            rx_queues: 1,
            tx_queues: 1,
            device_counters: DeviceCounters { ipackets: 7, opackets: 6, ..Default::default() },
        };
        let reason = model::drops::DropReason::NotOurMac;
        let workers = Workers {
            generation: 1,
            generation_everywhere: 1,
            affinity_clients: [0; 2],
            workers: vec![worker],
            mirror,
        };
        let front = KernelCounters { from_gateway: 6, to_gateway: 7, missed: 0 };
        Reading {
            workers,
            drops: vec![DropRow { reason, by_worker: vec![1], packets: 1 }],
            ports: vec![port],
            kernel: [front, KernelCounters::default()],
        }
    }

    #[test]
    fn an_exact_ledger_has_no_differences() {
        assert_eq!(exact().differences(), Vec::<String>::new());
    }

    /// A packet that vanishes must show, wherever it does.
    #[test]
    fn one_lost_packet_shows_in_every_place() {
        let lose: [fn(&mut Reading); 8] = [
            |r| r.workers.workers[0].ledger.sent -= 1,
            |r| r.workers.workers[0].ledger.received += 1,
            |r| r.workers.workers[0].ledger.in_flight += 1,
            |r| r.workers.mirror.to_kernel -= 1,
            |r| r.workers.mirror.from_kernel += 1,
            |r| r.drops[0].packets = 0,
            |r| r.ports[0].device_counters.opackets += 1,
            |r| r.kernel[0].to_gateway += 1,
        ];
        for (index, change) in lose.iter().enumerate() {
            let mut reading = exact();
            change(&mut reading);
            assert!(!reading.differences().is_empty(), "case {index}");
        }
    }
}
