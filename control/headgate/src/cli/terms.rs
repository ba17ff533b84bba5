//! The filters of every `show`: which rows, said in one way for all lists.

use ipnet::IpNet;
use model::answers::{
    BackendRow, BudgetRow, DropRow, Event, NeighbourRow, PoolRow, PortRow, ServiceRow, Severity,
    WorkerRow,
};
use model::record::ConnectionRecord;
use std::net::{IpAddr, SocketAddr};

/// One condition: the row's value under a key is one of these, or is none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    key: String,
    wanted: bool,
    values: Vec<String>,
}

impl std::str::FromStr for Term {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected KEY=VALUE, as state=reachable, or KEY!=VALUE";
        let (key, values) = text.split_once('=').ok_or(EXPECTED)?;
        let (key, wanted) = key.strip_suffix('!').map_or((key, true), |key| (key, false));
        if key.is_empty() || values.is_empty() {
            return Err(EXPECTED);
        }
        let values = values.split(',').map(str::to_owned).collect();
        Ok(Self { key: key.to_owned(), wanted, values })
    }
}

/// A row of a list, as filters see it.
pub trait Row {
    /// What a row can be chosen by.
    const KEYS: &'static [&'static str];
    /// The row's values under one of the keys.
    fn values(&self, key: &str) -> Vec<String>;
}

/// Keeps the rows that fit all terms.
pub fn sift<R: Row>(rows: &mut Vec<R>, terms: &[Term]) -> anyhow::Result<()> {
    if let Some(term) = terms.iter().find(|term| !R::KEYS.contains(&term.key.as_str())) {
        let (key, keys) = (&term.key, R::KEYS.join(", "));
        anyhow::bail!("{key}: there is no such key in this list; there are {keys}");
    }
    rows.retain(|row| terms.iter().all(|term| term.fits(&row.values(&term.key))));
    Ok(())
}

impl Term {
    fn fits(&self, of_row: &[String]) -> bool {
        let any = of_row.iter().any(|value| self.values.iter().any(|wanted| fits(wanted, value)));
        any == self.wanted
    }
}

/// An address fits its prefix, and with a port the address alone; else `*` stands for anything.
fn fits(wanted: &str, value: &str) -> bool {
    let net = wanted.parse().or_else(|_| wanted.parse::<IpAddr>().map(IpNet::from));
    if let Ok(net) = net {
        let address = value.parse::<IpAddr>();
        let address = address.or_else(|_| value.parse::<SocketAddr>().map(|both| both.ip()));
        return address.is_ok_and(|address| net.contains(&address));
    }
    like(wanted.as_bytes(), value.as_bytes())
}

fn like(wanted: &[u8], value: &[u8]) -> bool {
    // Of several stars each takes as little as it can; the last one may have to take more.
    let (mut w, mut v, mut star) = (0, 0, None);
    while v < value.len() {
        if wanted.get(w) == Some(&b'*') {
            star = Some((w, v));
            w += 1;
        } else if wanted.get(w) == value.get(v) {
            (w, v) = (w + 1, v + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (w, v) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    wanted[w..].iter().all(|byte| *byte == b'*')
}

macro_rules! rows {
    ($($row:ty { $($key:literal $of:expr;)* })*) => {$(
        impl Row for $row {
            const KEYS: &'static [&'static str] = &[$($key,)*];
            fn values(&self, key: &str) -> Vec<String> {
                match key {
                    $($key => {
                        let of: fn(&Self) -> Vec<String> = $of;
                        of(self)
                    })*
                    _ => Vec::new(),
                }
            }
        }
    )*};
}

fn one(value: impl ToString) -> Vec<String> {
    vec![value.to_string()]
}

fn all<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

rows! {
    ServiceRow {
        "namespace" |row| one(&row.status.name.namespace);
        "name" |row| one(&row.status.name.name);
        "type" |row| one(&row.status.service_type);
        "address" |row| all(&row.status.addresses);
        "port" |row| all(row.status.ports.iter().map(|port| port.port));
        "state" |row| one(service_state(row));
    }
    BackendRow {
        "namespace" |row| one(&row.service.service.namespace);
        "service" |row| one(&row.service.service.name);
        "name" |row| one(&row.name);
        "address" |row| one(row.address);
        "node" |row| one(&row.node);
        "state" |row| one(&row.state);
        "way" |row| one(&row.way);
    }
    ConnectionRecord {
        "namespace" |row| all(row.service.iter().map(|key| &key.service.namespace));
        "service" |row| all(row.service.iter().map(|key| &key.service.name));
        "protocol" |row| one(row.protocol);
        "client" |row| one(row.client);
        "frontend" |row| one(row.frontend);
        "backend" |row| one(row.backend);
        "nat" |row| one(row.nat);
        "state" |row| one(row.state);
        "worker" |row| one(row.worker);
    }
    DropRow {
        "reason" |row| one(row.reason.label());
        "state" |row| one(if row.packets > 0 { "seen" } else { "unseen" });
    }
    NeighbourRow {
        "interface" |row| one(&row.interface);
        "address" |row| one(row.address);
        "mac" |row| one(&row.mac);
        "state" |row| one(&row.state);
        "kind" |row| one(&row.kind);
    }
    PortRow {
        "name" |row| one(&row.name);
        "driver" |row| one(&row.driver);
        "mac" |row| one(&row.mac);
        "state" |row| one(if row.link_up { "up" } else { "down" });
    }
    WorkerRow {
        "name" |row| one(row.worker);
        "core" |row| one(row.core);
    }
    BudgetRow {
        "interface" |row| one(&row.interface);
        "purpose" |row| one(&row.purpose);
        "state" |row| one(budget_state(row));
    }
    PoolRow {
        "name" |row| one(&row.name);
    }
    Event {
        "namespace" |row| one(&row.object.namespace);
        "name" |row| one(&row.object.name);
        "kind" |row| one(row.kind.to_lowercase());
        "reason" |row| one(&row.reason);
        "state" |row| one(if row.severity == Severity::Normal { "normal" } else { "warning" });
    }
}

fn service_state(row: &ServiceRow) -> &'static str {
    let problem = !row.status.problems.is_empty()
        || row.status.ports.iter().any(|port| port.not_forwarded.is_some());
    if problem { "problem" } else { "served" }
}

fn budget_state(row: &BudgetRow) -> &'static str {
    match (row.taken, row.refused) {
        (0, 0) => "unused",
        (_, 0) => "within",
        _ => "exceeded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, mac: &str, link_up: bool) -> PortRow {
        PortRow {
            name: name.into(),
            device: String::new(),
            driver: "net_tap".into(),
            mac: mac.into(),
            link_up,
            rx_queues: 1,
            tx_queues: 1,
            device_counters: Default::default(),
        }
    }

    fn kept(terms: &[&str]) -> Vec<String> {
        let mut rows = vec![
            port("front", "02:00:00:00:00:01", true),
            port("back", "02:00:00:00:00:02", true),
            port("backup", "02:00:00:00:00:03", false),
        ];
        let terms: Vec<Term> = terms.iter().map(|text| text.parse().unwrap()).collect();
        sift(&mut rows, &terms).unwrap();
        rows.into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn terms_choose_rows() {
        assert_eq!(kept(&[]).len(), 3);
        assert_eq!(kept(&["name=back"]), ["back"]);
        assert_eq!(kept(&["name=back*"]), ["back", "backup"]);
        assert_eq!(kept(&["name=back*", "state=up"]), ["back"]);
        assert_eq!(kept(&["name=front,backup"]), ["front", "backup"]);
        assert_eq!(kept(&["name!=front,backup"]), ["back"]);
        assert_eq!(kept(&["mac=*:0*:03"]), ["backup"]);
        assert!(kept(&["name=fr*x"]).is_empty());
    }

    #[test]
    fn addresses_fit_prefixes() {
        for (wanted, value) in [
            ("198.18.1.0/24", "198.18.1.7"),
            ("198.18.1.7", "198.18.1.7:80"),
            ("2001:db8::/32", "[2001:db8::1]:80"),
            ("198.18.1.7:80", "198.18.1.7:80"),
            ("198.18.*", "198.18.1.7"),
        ] {
            assert!(fits(wanted, value), "{wanted} {value}");
        }
        for (wanted, value) in [
            ("198.18.1.0/24", "198.18.2.7"),
            ("198.18.1.7", "198.18.1.70"),
            ("2001:db8::/32", "198.18.1.7"),
            ("198.18.1.7:80", "198.18.1.7:8080"),
        ] {
            assert!(!fits(wanted, value), "{wanted} {value}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        assert!("state".parse::<Term>().is_err());
        assert!("=up".parse::<Term>().is_err());
        assert!("state=".parse::<Term>().is_err());
        let error = sift(&mut vec![port("a", "", true)], &["stat=up".parse().unwrap()]);
        assert!(error.unwrap_err().to_string().ends_with("there are name, driver, mac, state"));
    }
}
