//! The exposition for Prometheus. Counters live with their single writers and are read at scrape;
//! nothing is kept here.
//!
//! Labels are bounded: service port, worker, port, reason, interface, purpose, and backend up to
//! [`BACKENDS_LABELLED_MAX`]. No label ever holds a client's address.

mod control;
mod links;

use crate::gateway::{ControlReadings, Gateway, GatewayError, TrafficReadings};
use model::answers::{BudgetRow, DropRow, PortRow, Status, WorkerRow, Workers};
use model::desired::ServicePortKey;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt::Error;

/// The media type of the exposition.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Backends with time series of their own. Beyond, service ports alone have them: a scrape of
/// 500,000 backends would be 200 MB.
pub const BACKENDS_LABELLED_MAX: usize = 1_000;

type Labels = Vec<(&'static str, String)>;

/// All that one scrape shows.
#[derive(Debug)]
pub struct Scrape {
    status: Status,
    workers: Workers,
    drops: Vec<DropRow>,
    budgets: Vec<BudgetRow>,
    ports: Vec<PortRow>,
    traffic: TrafficReadings,
    control: ControlReadings,
}

impl Scrape {
    /// Reads the gateway's counters.
    ///
    /// # Errors
    /// Where a question has no answer.
    pub async fn read<G: Gateway>(gateway: &G) -> Result<Self, GatewayError> {
        Ok(Self {
            status: gateway.status().await?,
            workers: gateway.workers().await?,
            drops: gateway.drops().await?,
            budgets: gateway.budgets().await?,
            ports: gateway.ports().await?,
            traffic: gateway.traffic().await?,
            control: gateway.control().await?,
        })
    }

    /// The text of the exposition.
    ///
    /// # Errors
    /// Never in practice: writing into a string doesn't fail.
    pub fn text(self) -> Result<String, Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn whole(&self, to: &mut Families<'_>) -> Result<(), Error> {
        let status = &self.status;
        let (version, commit) =
            status.version.rsplit_once(' ').unwrap_or((status.version.as_str(), "unknown"));
        let build = vec![
            ("version", version.to_owned()),
            ("commit", commit.to_owned()),
            ("dpdk", status.dpdk.clone()),
        ];
        to.gauges("build_info", "Version and commit of Headgate, version of DPDK.", [(build, 1.)])?;
        to.gauge("uptime_seconds", "Seconds since start.", status.uptime_s as f64)?;
        to.gauge("degraded", "Things that are wrong; 0 is healthy.", status.degraded.len() as f64)?;
        let [known, served] = status.services;
        to.gauge("services", "Services known.", f64::from(known))?;
        to.gauge("services_served", "Services known that are served.", f64::from(served))?;
        let ports = f64::from(status.service_ports);
        to.gauge("service_ports", "Service ports that are forwarded.", ports)?;
        let [active, known] = status.backends;
        to.gauge("backends", "Backends known.", f64::from(known))?;
        to.gauge("backends_active", "Backends that take new connections.", f64::from(active))?;
        to.gauge("generation", "Latest published generation.", self.workers.generation as f64)?;
        let everywhere = self.workers.generation_everywhere as f64;
        to.gauge("generation_everywhere", "Generation that every worker runs with.", everywhere)?;
        if let Some(microseconds) = status.last_change_us {
            let help = "From the latest change of the source to its use by the last worker.";
            to.gauge("last_change_seconds", help, microseconds as f64 / 1e6)?;
        }
        let stale = self.traffic.source_stale_ms as f64 / 1e3;
        to.gauge(
            "source_stale_seconds",
            "Since the source was last in step; 0 while it is.",
            stale,
        )?;
        control::source(&status.source_state, to)
    }

    fn workers(&self, to: &mut Families<'_>) -> Result<(), Error> {
        let rows = &self.workers.workers;
        let each =
            |value: fn(&WorkerRow) -> f64| rows.iter().map(move |row| (worker(row), value(row)));
        let help = "Share of the time in loops that found packets, over the last second.";
        to.gauges("worker_busy_ratio", help, each(|row| row.busy_ratio))?;
        let help = "Packets in a burst that wasn't empty, on average, over the last second.";
        to.gauges("worker_mean_burst_packets", help, each(|row| row.mean_burst))?;
        let help = "Time of busy loops for each packet, over the last second.";
        to.gauges("worker_packet_seconds", help, each(|row| row.ns_per_packet / 1e9))?;
        let help = "Generation that the worker runs with.";
        to.gauges("worker_generation", help, each(|row| row.generation as f64))?;
        let help = "Packets that the worker holds right now: the ledger's term in_flight.";
        to.gauges("worker_in_flight_packets", help, each(|row| row.ledger.in_flight as f64))?;
        let both = |value: fn(&WorkerRow) -> [u64; 2]| {
            rows.iter().flat_map(move |row| {
                let families = ["IPv4", "IPv6"].into_iter().zip(value(row));
                families.map(|(family, value)| {
                    let mut labels = worker(row);
                    labels.push(("family", family.to_owned()));
                    (labels, value as f64)
                })
            })
        };
        to.gauges("connections", "Connections in the table.", both(|row| row.connections))?;
        let help = "Connections that the table can hold.";
        to.gauges("connections_max", help, both(|row| row.connections_max))?;
        let each =
            |value: fn(&WorkerRow) -> u64| rows.iter().map(move |row| (worker(row), value(row)));
        to.counters("worker_loops", "Loops since start.", each(|row| row.loops))?;
        let help = "Connections inserted.";
        to.counters("connections_inserted", help, each(|row| row.inserts))?;
        let help = "Embryonic connections overwritten by newer ones.";
        to.counters("connections_half_open_evicted", help, each(|row| row.half_open_evicted))?;
        let help = "New connections whose client kept its backend by session affinity.";
        to.counters("affinity_hits", help, each(|row| row.affinity.hits))?;
        let help = "Clients that session affinity began to remember, or gave another backend.";
        to.counters("affinity_begun", help, each(|row| row.affinity.begun))?;
        let help = "New connections whose client session affinity had no place to remember.";
        to.counters("affinity_full", help, each(|row| row.affinity.full))?;
        let help = "RSTs to clients whose backend had gone for long enough.";
        to.counters("connections_reset", help, each(|row| row.resets))?;
        let help = "Segments sent to silent clients whose backend had gone for long enough.";
        to.counters("connections_reset_probes", help, each(|row| row.reset_probes))?;
        let [clients, clients_max] = self.workers.affinity_clients.map(|n| n as f64);
        to.gauge("affinity_clients", "Clients that session affinity remembers.", clients)?;
        let help = "Clients that session affinity has room for.";
        to.gauge("affinity_clients_max", help, clients_max)
    }

    fn ledgers(&self, to: &mut Families<'_>) -> Result<(), Error> {
        let help = "Packets by term of the worker's ledger; came in equals went out.";
        let terms = self.workers.workers.iter().flat_map(|row| {
            let ledger = &row.ledger;
            let terms = [
                ("received", ledger.received),
                ("from_host", ledger.from_host),
                ("handed_in", ledger.handed_in),
                ("generated", ledger.generated),
                ("sent", ledger.sent),
                ("to_host", ledger.to_host),
                ("handed_out", ledger.handed_out),
                ("dropped", ledger.dropped),
            ];
            terms.map(|(term, packets)| {
                let mut labels = worker(row);
                labels.push(("term", term.to_owned()));
                (labels, packets)
            })
        });
        to.counters("ledger_packets", help, terms)?;
        let mirror = &self.workers.mirror;
        let terms = [
            ("from_kernel", mirror.from_kernel),
            ("generated", mirror.generated),
            ("to_workers", mirror.to_workers),
            ("dropped_to_workers", mirror.dropped_to_workers),
            ("from_workers", mirror.from_workers),
            ("to_kernel", mirror.to_kernel),
            ("dropped_to_kernel", mirror.dropped_to_kernel),
        ];
        let terms = terms.map(|(term, frames)| (vec![("term", term.to_owned())], frames));
        to.counters("mirror_packets", "Packets by term of the host mirror's ledger.", terms)?;
        let drops = self.drops.iter().flat_map(|row| {
            row.by_worker.iter().enumerate().map(|(worker, packets)| {
                let reason = ("reason", row.reason.label().to_owned());
                (vec![("worker", worker.to_string()), reason], *packets)
            })
        });
        to.counters("dropped_packets", "Packets dropped, by reason.", drops)?;
        let of = |row: &BudgetRow| {
            vec![("interface", row.interface.clone()), ("purpose", row.purpose.clone())]
        };
        let taken = self.budgets.iter().map(|row| (of(row), row.taken));
        to.counters("budget_taken_packets", "Packets that came out of a budget.", taken)?;
        let refused = self.budgets.iter().map(|row| (of(row), row.refused));
        to.counters("budget_refused_packets", "Packets beyond a budget.", refused)
    }

    fn devices(&self, to: &mut Families<'_>) -> Result<(), Error> {
        type Read = fn(&PortRow) -> u64;
        let counters: [(&str, &str, Read); 8] = [
            ("device_received_packets", "Packets received.", |p| p.device_counters.ipackets),
            ("device_sent_packets", "Packets sent.", |p| p.device_counters.opackets),
            ("device_received_bytes", "Bytes received.", |p| p.device_counters.ibytes),
            ("device_sent_bytes", "Bytes sent.", |p| p.device_counters.obytes),
            ("device_missed_packets", "Not fetched in time.", |p| p.device_counters.imissed),
            ("device_receive_errors", "Received in error.", |p| p.device_counters.ierrors),
            ("device_send_errors", "Could not be sent.", |p| p.device_counters.oerrors),
            ("device_no_buffer", "Lost for want of a buffer.", |p| p.device_counters.rx_nombuf),
        ];
        for (name, help, read) in counters {
            to.counters(name, help, self.ports.iter().map(|row| (port(row), read(row))))?;
        }
        let up = self.ports.iter().map(|row| (port(row), f64::from(u8::from(row.link_up))));
        to.gauges("device_link_up", "1 while the link is up.", up)
    }

    fn services(&self, to: &mut Families<'_>) -> Result<(), Error> {
        let rows = &self.traffic.services;
        macro_rules! each {
            ($name:literal, $help:literal, $field:ident) => {
                to.counters(
                    $name,
                    $help,
                    rows.iter().map(|row| (service(&row.key), row.traffic.$field)),
                )?
            };
        }
        each!("service_connections", "Connections begun.", connections);
        each!("service_received_packets", "Packets from clients.", packets_in);
        each!("service_received_bytes", "Bytes from clients, from the IP header on.", bytes_in);
        each!("service_sent_packets", "Packets to clients.", packets_out);
        each!("service_sent_bytes", "Bytes to clients, from the IP header on.", bytes_out);
        each!("service_refused", "New connections refused for want of a backend.", refused);
        Ok(())
    }

    fn backends(&self, to: &mut Families<'_>) -> Result<(), Error> {
        let rows = &self.traffic.backends;
        let known = self.traffic.backends_known as usize;
        let omitted = if known > BACKENDS_LABELLED_MAX { known } else { 0 };
        let help = "Backends without time series of their own, because there are too many.";
        to.gauge("backends_omitted", help, omitted as f64)?;
        if omitted > 0 {
            return Ok(());
        }
        macro_rules! each {
            ($name:literal, $help:literal, $field:ident) => {
                to.counters(
                    $name,
                    $help,
                    rows.iter().map(|row| {
                        let mut labels = service(&row.service);
                        labels.push(("backend", row.address.to_string()));
                        (labels, row.$field)
                    }),
                )?
            };
        }
        each!("backend_connections", "Connections begun.", connections);
        each!("backend_sent_packets", "Packets towards the backend.", packets_in);
        each!("backend_received_packets", "Packets from the backend.", packets_out);
        Ok(())
    }
}

fn worker(row: &WorkerRow) -> Labels {
    vec![("worker", row.worker.to_string())]
}

fn port(row: &PortRow) -> Labels {
    vec![("port", row.name.clone())]
}

fn service(key: &ServicePortKey) -> Labels {
    vec![
        ("namespace", key.service.namespace.to_string()),
        ("service", key.service.name.to_string()),
        ("port", key.port_name.to_string()),
        ("protocol", key.protocol.to_string()),
    ]
}

/// Writes metric families, each under the prefix `headgate_`.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        self.gauges(name, help, [(Labels::new(), value)])
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) -> Result<(), Error> {
        let values = values.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(name, help, MetricType::Gauge, values)
    }

    /// The encoder adds `_total` to the name.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> Result<(), Error> {
        let values = values.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(name, help, MetricType::Counter, values)
    }

    /// A histogram without labels.
    fn histogram(&mut self, name: &str, help: &str, values: &Histogram) -> Result<(), Error> {
        let name = format!("headgate_{name}");
        let help = help.trim_end_matches('.');
        values.encode(self.0.encode_descriptor(&name, help, None, MetricType::Histogram)?)
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl Iterator<Item = (Labels, impl EncodeMetric)>,
    ) -> Result<(), Error> {
        let name = format!("headgate_{name}");
        let help = help.trim_end_matches('.');
        let mut family = self.0.encode_descriptor(&name, help, None, kind)?;
        for (labels, value) in values {
            if labels.is_empty() {
                // Returns: a family without labels has one value.
                return value.encode(family);
            }
            value.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut to = Families(encoder);
        self.whole(&mut to)?;
        self.workers(&mut to)?;
        self.ledgers(&mut to)?;
        self.devices(&mut to)?;
        links::links(&self.status.links, &self.status.conflicts, &mut to)?;
        self.services(&mut to)?;
        self.backends(&mut to)?;
        control::counts(&self.control, &mut to)
    }
}
