//! Tables of `show`.

use super::table::Table;
use super::{Look, age, bytes};
use model::answers::{
    BackendRow, Connections, DropRow, Event, PortRow, ServicePortRow, ServiceRow, Severity,
};
use std::net::IpAddr;

pub(super) fn header<'a>(narrow: &[&'a str], more: &[&'a str], look: Look) -> Table {
    let more: &[&str] = if look.wide { more } else { &[] };
    Table::new(&[narrow, more].concat())
}

/// `80,443/TCP`, and `80:30080/TCP` where there is a node port.
fn ports_of(ports: &[ServicePortRow]) -> String {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for row in ports {
        let port = match row.node_port {
            Some(node_port) => format!("{}:{node_port}", row.port),
            None => row.port.to_string(),
        };
        let protocol = row.key.protocol.name();
        match groups.last_mut() {
            Some((last, list)) if *last == protocol => list.push(port),
            _ => groups.push((protocol, vec![port])),
        }
    }
    let group = |(protocol, list): (&str, Vec<String>)| format!("{}/{protocol}", list.join(","));
    or_none(groups.into_iter().map(group).collect::<Vec<_>>().join(","))
}

pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// `3/3`; one for each port where they differ.
fn backends_of(ports: &[ServicePortRow]) -> String {
    let mut each: Vec<String> =
        ports.iter().map(|row| format!("{}/{}", row.active, row.known)).collect();
    if each.iter().all(|count| each.first() == Some(count)) {
        each.truncate(1);
    }
    or_none(each.join(","))
}

fn problems_of(row: &ServiceRow) -> Vec<String> {
    let mut all = row.status.problems.clone();
    for port in &row.status.ports {
        let Some(why) = &port.not_forwarded else { continue };
        if !all.iter().any(|told| told.contains(why.as_str())) {
            all.push(format!("port {}/{}: {why}", port.port, port.key.protocol));
        }
    }
    all
}

/// `show services`.
pub fn services(rows: &[ServiceRow], look: Look) -> String {
    const NARROW: &[&str] = &["NAMESPACE", "NAME", "TYPE", "ADDRESS", "PORT(S)", "BACKENDS"];
    const WIDE: &[&str] = &["CONNECTIONS", "IN", "OUT", "REFUSED", "SOURCE"];
    let mut columns = NARROW.to_vec();
    if look.wide {
        columns.extend(WIDE);
    }
    columns.push("PROBLEM");
    let mut table = Table::new(&columns);
    for row in rows {
        let status = &row.status;
        let addresses: Vec<String> = status.addresses.iter().map(IpAddr::to_string).collect();
        let mut cells = vec![
            status.name.namespace.to_string(),
            status.name.name.to_string(),
            status.service_type.clone(),
            or_none(addresses.join(",")),
            ports_of(&status.ports),
            backends_of(&status.ports),
        ];
        if look.wide {
            let sum = |field: fn(&model::answers::Traffic) -> u64| {
                row.traffic.iter().map(field).fold(0_u64, u64::saturating_add)
            };
            cells.push(sum(|traffic| traffic.connections).to_string());
            cells.push(bytes(sum(|traffic| traffic.bytes_in)));
            cells.push(bytes(sum(|traffic| traffic.bytes_out)));
            cells.push(sum(|traffic| traffic.refused).to_string());
            cells.push(or_none(status.place.clone()));
        }
        let problems = problems_of(row);
        cells.push(match problems.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            [first, rest @ ..] if !look.wide => {
                format!("{first} (and {} more: -o wide)", rest.len())
            }
            all => all.join("; "),
        });
        table.row(cells);
    }
    table.without_empty(columns.len() - 1).text("services")
}

/// `show backends`.
pub fn backends(rows: &[BackendRow], look: Look) -> String {
    const NARROW: &[&str] =
        &["NAMESPACE", "SERVICE", "PORT", "BACKEND", "ADDRESS", "STATE", "CONNECTIONS", "WAY"];
    let mut table = header(NARROW, &["NODE", "WEIGHT", "PACKETS TO", "PACKETS FROM"], look);
    for row in rows {
        let key = &row.service;
        let mut cells = vec![
            key.service.namespace.to_string(),
            key.service.name.to_string(),
            format!("{}/{}", key.port_name, key.protocol).trim_start_matches('/').to_owned(),
            or_none(row.name.clone()),
            row.address.to_string(),
            row.state.clone(),
            row.connections.to_string(),
            row.way.clone(),
        ];
        if look.wide {
            cells.extend([
                or_none(row.node.clone()),
                row.weight.to_string(),
                row.packets_in.to_string(),
                row.packets_out.to_string(),
            ]);
        }
        table.row(cells);
    }
    table.text("backends")
}

/// `show connections`.
pub fn connections(answer: &Connections, look: Look) -> String {
    const NARROW: &[&str] =
        &["PROTOCOL", "CLIENT", "FRONTEND", "BACKEND", "STATE", "AGE", "SERVICE"];
    let mut table = header(NARROW, &["NAT SOURCE", "IDLE", "TIMEOUT", "WORKER", "NOTE"], look);
    for row in &answer.connections {
        let service = row.service.as_ref().map(|key| key.service.to_string()).unwrap_or_default();
        let mut cells = vec![
            row.protocol.to_string(),
            row.client.to_string(),
            row.frontend.to_string(),
            row.backend.to_string(),
            row.state.to_string(),
            age(u64::from(row.age_s)),
            or_none(service),
        ];
        if look.wide {
            cells.extend([
                row.nat.to_string(),
                format!("{:.1}s", f64::from(row.idle_ms) / 1e3),
                age(u64::from(row.timeout_ms / 1_000)),
                row.worker.to_string(),
                if row.backend_alive { "" } else { "backend has left" }.to_owned(),
            ]);
        }
        table.row(cells);
    }
    let mut text = table.text("connections that match");
    if answer.more {
        let shown = answer.connections.len();
        text.push_str(&format!(
            "There are more than these {shown}: narrow it down, or --limit N.\n"
        ));
    }
    text
}

/// `show drops`: those that happened; all with `wide`.
pub fn drops(rows: &[DropRow], look: Look) -> String {
    let columns: &[&str] = if look.wide {
        &["REASON", "PACKETS", "BY WORKER", "MEANING", "REMEDY"]
    } else {
        &["REASON", "PACKETS", "MEANING", "REMEDY"]
    };
    let mut table = Table::new(columns);
    let mut shown: Vec<&DropRow> = rows.iter().filter(|row| look.wide || row.packets > 0).collect();
    shown.sort_by_key(|row| std::cmp::Reverse(row.packets));
    for row in shown {
        let mut cells = vec![row.reason.label().to_owned(), row.packets.to_string()];
        if look.wide {
            let each: Vec<String> = row.by_worker.iter().map(u64::to_string).collect();
            cells.push(each.join(","));
        }
        cells.push(row.reason.meaning().to_owned());
        cells.push(row.reason.remedy().to_owned());
        table.row(cells);
    }
    table.text("packets were dropped")
}

/// `show ports`.
pub fn ports(rows: &[PortRow], look: Look) -> String {
    const NARROW: &[&str] =
        &["NAME", "DRIVER", "MAC", "LINK", "QUEUES", "RECEIVED", "SENT", "MISSED", "ERRORS"];
    const WIDE: &[&str] = &["BYTES IN", "BYTES OUT", "NO BUFFER", "DEVICE"];
    let mut table = header(NARROW, WIDE, look);
    for row in rows {
        let counters = &row.device_counters;
        let mut cells = vec![
            row.name.clone(),
            row.driver.clone(),
            row.mac.clone(),
            if row.link_up { "up" } else { "DOWN" }.to_owned(),
            format!("{} rx {} tx", row.rx_queues, row.tx_queues),
            counters.ipackets.to_string(),
            counters.opackets.to_string(),
            counters.imissed.to_string(),
            format!("{} in {} out", counters.ierrors, counters.oerrors),
        ];
        if look.wide {
            cells.extend([
                bytes(counters.ibytes),
                bytes(counters.obytes),
                counters.rx_nombuf.to_string(),
                row.device.clone(),
            ]);
        }
        table.row(cells);
    }
    table.text("ports")
}

/// `show events`.
pub fn events(rows: &[Event], look: Look) -> String {
    let mut table = Table::new(&["LAST SEEN", "TYPE", "REASON", "OBJECT", "SOURCE", "MESSAGE"]);
    for row in rows {
        table.row(vec![
            age(look.now_s.saturating_sub(row.time_s)),
            match row.severity {
                Severity::Normal => "Normal",
                Severity::Warning => "Warning",
            }
            .to_owned(),
            row.reason.clone(),
            format!("{}/{}", row.kind.to_lowercase(), row.object),
            or_none(row.place.clone()),
            row.message.clone(),
        ]);
    }
    table.text("events")
}
