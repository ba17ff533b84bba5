//! Plays a case, and says in what it differs from what is expected.

use crate::case::{Case, Given, Step, merge};
use crate::gateway::{Gateway, key, kind};
use crate::probe::{Answer, Question};
use crate::world;
use ipnet::IpNet;
use model::answers::PoolCount;
use model::desired::{BackendState, ObjectName};
use model::ids::Protocol;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use translate::probes::{Check, Health, ProbeKey};
use translate::writes::StatusWrite;
use translate::{Allocations, Built, Kind, ObjectKey};

struct Player<'a> {
    settings: &'a Given,
    gateway: Gateway,
    objects: BTreeMap<ObjectKey, Value>,
    /// Probes that are asked...
    asked: BTreeSet<ProbeKey>,
    /// ...and those that were.
    ended: BTreeSet<ProbeKey>,
    /// What was to be written and doesn't stand in a status yet.
    unwritten: Vec<StatusWrite>,
    wrong: Vec<String>,
}

/// Plays the case; what is wrong, empty where nothing is.
pub fn play(case: &Case, base: &[Value]) -> Vec<String> {
    let mut player = Player {
        gateway: begin(&case.settings, Allocations::default()),
        settings: &case.settings,
        objects: BTreeMap::new(),
        asked: BTreeSet::new(),
        ended: BTreeSet::new(),
        unwritten: Vec::new(),
        wrong: Vec::new(),
    };
    for object in base {
        player.objects.insert(key(object), object.clone());
    }
    let mut changed: Vec<ObjectKey> = player.objects.keys().cloned().collect();
    for (number, step) in case.steps.iter().enumerate() {
        player.step(number + 1, step, std::mem::take(&mut changed));
    }
    player.wrong
}

/// The gateway as the case configures it.
fn begin(settings: &Given, allocations: Allocations) -> Gateway {
    let mut gateway = Gateway::resume(settings.wishes(), allocations);
    if settings.is_writer() {
        gateway.index.set_writer(true);
    }
    gateway
}

impl<'a> Player<'a> {
    fn step(&mut self, number: usize, step: &'a Step, mut changed: Vec<ObjectKey>) {
        let before = self.wrong.len();
        self.gateway.pass(step.after_s);
        if step.written {
            changed.append(&mut self.written());
        }
        if step.restart || step.restart_with.is_some() {
            self.restart(step);
            changed.extend(self.objects.keys().cloned());
        }
        for (name, patch) in &step.patch {
            changed.push(self.patch(name, patch));
        }
        for key in changed {
            match self.objects.get(&key) {
                Some(object) => self.gateway.apply(object),
                None => self.gateway.delete(&key),
            }
        }
        self.hear(step);
        let built = self.gateway.build();
        self.elsewhere(step);
        self.packets(step);
        self.words(step, &built);
        self.counts(step);
        self.unwritten.extend(built.writes);
        for wrong in &mut self.wrong[before..] {
            wrong.insert_str(0, &format!("step {number}: "));
        }
    }

    /// Another process, which has the allocations on disk and has asked nobody yet.
    fn restart(&mut self, step: &'a Step) {
        self.settings = step.restart_with.as_ref().unwrap_or(self.settings);
        let allocations = self.gateway.index.allocations().clone();
        self.gateway = begin(self.settings, allocations);
        self.asked.clear();
        self.ended.clear();
    }

    /// Puts what was to be written into the statuses, as an API server would.
    fn written(&mut self) -> Vec<ObjectKey> {
        let mut changed = Vec::new();
        for write in std::mem::take(&mut self.unwritten) {
            let key = ObjectKey { kind: Kind::Service, name: write.service.clone() };
            if let Some(object) = self.objects.get_mut(&key) {
                object["status"] = status(&write);
                changed.push(key);
            }
        }
        changed
    }

    /// Tells what came of probes. A name that is no probe's would show nothing.
    fn hear(&mut self, step: &Step) {
        for (name, health) in &step.probed {
            match find(&self.asked, name) {
                Some(key) => self.gateway.index.probed(&key, heard(health)),
                None => self.wrong.push(format!("nobody asks {name}: {:?}", self.asked)),
            }
        }
        for (name, health) in &step.late {
            match find(&self.ended, name) {
                Some(key) => self.gateway.index.probed(&key, heard(health)),
                None => self.wrong.push(format!("no probe {name} has ended: {:?}", self.ended)),
            }
        }
    }

    /// The test that a case names is there.
    fn elsewhere(&mut self, step: &Step) {
        let Some(name) = &step.test else { return };
        let (path, function) = name.split_once(' ').unwrap_or((name, ""));
        let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let before = text.split_once(&format!("fn {function}(")).map_or("", |(before, _)| before);
        let attributes = before.rsplit("\n\n").next().unwrap_or_default();
        let runs = attributes.contains("test]") && !attributes.contains("#[ignore");
        if function.is_empty() || !runs {
            self.wrong.push(format!("there is no test {name} that runs"));
        }
    }

    fn patch(&mut self, name: &str, patch: &Value) -> ObjectKey {
        let parts: Vec<&str> = name.split('/').collect();
        let (kind_name, namespace, name) = match parts[..] {
            [kind, name] => (kind, "default", name),
            [kind, namespace, name] => (kind, namespace, name),
            _ => panic!("{name}: expected Kind/name or Kind/namespace/name"),
        };
        let kind = kind(kind_name).unwrap_or_else(|| panic!("no kind {kind_name}"));
        let of_cluster = matches!(kind, Kind::Node | Kind::Namespace | Kind::ServiceCidr);
        let namespace = if of_cluster { "" } else { namespace };
        let key = ObjectKey { kind, name: ObjectName::new(namespace, name) };
        if patch.is_null() {
            self.objects.remove(&key);
            return key;
        }
        let object = self.objects.entry(key.clone()).or_insert_with(|| {
            let mut new = json!({"kind": kind_name, "metadata": {"name": name}});
            if !of_cluster {
                new["metadata"]["namespace"] = json!(namespace);
                new["metadata"]["uid"] = json!(format!("uid-{name}"));
            }
            new
        });
        merge(object, patch);
        key
    }

    fn packets(&mut self, step: &Step) {
        for (question, expected) in step.ask.iter().flatten() {
            let (answer, via) = expected.split_once(" via ").unwrap_or((expected, ""));
            let mut got = self.ask(question, answer);
            if !via.is_empty() {
                let hops: Vec<_> = self.gateway.sent_to.iter().map(|&mac| neighbour(mac)).collect();
                got.push_str(&format!(" via {}", hops.join(", ")));
            }
            if got != *expected {
                self.wrong.push(format!("{question}: {got}, and not {expected}"));
            }
        }
    }

    /// The answer in the words of the case.
    fn ask(&mut self, question: &str, expected: &str) -> String {
        let words: Vec<&str> = question.split(' ').collect();
        let [protocol, client, "->", frontend] = words[..] else {
            panic!("{question}: expected PROTOCOL CLIENT -> FRONTEND");
        };
        let word = protocol;
        let protocol = match word {
            "tcp" | "open" | "ack" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            other => panic!("no protocol {other}"),
        };
        let destination: SocketAddr = frontend.parse().unwrap();
        let single = expected.starts_with("one of ");
        let set = expected.strip_prefix("one of ").unwrap_or(expected);
        let got = if let Ok(client) = client.parse::<SocketAddr>() {
            match word {
                "open" => self.gateway.open(client, destination),
                "ack" => self.gateway.ask_within(client, destination),
                _ => self.gateway.ask_from(protocol, client, destination),
            }
        } else {
            let clients = clients(client);
            let wanted = wanted(set);
            self.gateway.ask(&Question { protocol, clients: &clients, destination }, &wanted)
        };
        match got {
            Err(what) => what,
            Ok(Answer::Backends(all)) if single => {
                let fits = all.len() == 1
                    && matches!(wanted(set), Answer::Backends(set) if all.is_subset(&set));
                if fits { expected.to_owned() } else { format!("{}", Answer::Backends(all)) }
            }
            Ok(Answer::Drop(_)) if expected == "drop" => "drop".to_owned(),
            Ok(answer) => answer.to_string(),
        }
    }

    /// Statuses, problems, events, probes and writes.
    fn words(&mut self, step: &Step, built: &Built) {
        for (name, expected) in &step.addresses {
            let status = self.gateway.status(&ObjectName::new("default", name));
            let have: Vec<String> = status
                .map(|one| one.addresses.iter().map(ToString::to_string).collect())
                .unwrap_or_default();
            if have != *expected {
                self.wrong.push(format!("{name} has {have:?}, and not {expected:?}"));
            }
        }
        for (name, expected) in &step.problems {
            let status = self.gateway.status(&ObjectName::new("default", name));
            let have = status.map(|one| one.problems.clone()).unwrap_or_default();
            for part in expected {
                if !have.iter().any(|one| one.contains(part)) {
                    self.wrong.push(format!("{name}: no problem says \"{part}\": {have:?}"));
                }
            }
            if expected.is_empty() && !have.is_empty() {
                self.wrong.push(format!("{name} has problems: {have:?}"));
            }
        }
        let events: Vec<String> =
            built.events.iter().map(|one| format!("{}: {}", one.reason, one.message)).collect();
        for expected in &step.events {
            let (reason, part) = expected.split_once(": ").unwrap_or((expected, ""));
            let fits = |one: &String| one.starts_with(&format!("{reason}: ")) && one.contains(part);
            if !events.iter().any(fits) {
                self.wrong.push(format!("no event \"{expected}\": {events:#?}"));
            }
        }
        for reason in &step.no_events {
            if events.iter().any(|one| one.starts_with(&format!("{reason}: "))) {
                self.wrong.push(format!("an event {reason}: {events:#?}"));
            }
        }
        self.probes(step, built);
        self.writes(step, built);
    }

    /// Probes that begin.
    fn probes(&mut self, step: &Step, built: &Built) {
        let begun: BTreeSet<ProbeKey> =
            built.probes.started.iter().map(|(key, _)| key.clone()).collect();
        for name in &step.probes {
            if find(&begun, name).is_none() {
                self.wrong.push(format!("probe {name} doesn't begin: {begun:?}"));
            }
        }
        if step.no_probes && !begun.is_empty() {
            self.wrong.push(format!("probes begin: {begun:?}"));
        }
        for key in &built.probes.stopped {
            self.asked.remove(key);
            self.ended.insert(key.clone());
        }
        self.ended.retain(|key| !begun.contains(key));
        self.asked.extend(begun);
    }

    /// Weights of backends, addresses in use, endpoints refused.
    fn counts(&mut self, step: &Step) {
        let index = &self.gateway.index;
        for (name, expected) in &step.weights {
            let service = ObjectName::new("default", name);
            let ports = index.desired().service_ports.values();
            let ports =
                ports.filter(|port| port.key.service == service && port.key.scope.is_external());
            let active = ports.flat_map(|port| &port.backends);
            let active = active.filter(|backend| backend.state == BackendState::Active);
            let have: BTreeMap<String, u16> =
                active.map(|backend| (backend.address.to_string(), backend.weight)).collect();
            if expected.iter().any(|(address, weight)| have.get(address) != Some(weight)) {
                self.wrong.push(format!("{name} has weights {have:?}, and not {expected:?}"));
            }
        }
        let rows = index.pools();
        for (name, expected) in &step.pools {
            let count = |one: &PoolCount| format!("{}/{}", one.used, one.total);
            let row = rows.iter().find(|row| row.name == *name);
            let have = row.map(|row| format!("{}, {}", count(&row.ipv4), count(&row.ipv6)));
            if have.as_ref() != Some(expected) {
                self.wrong.push(format!("pool {name} has {have:?} in use, and not {expected}"));
            }
        }
        let refused = index.counts().endpoints_refused;
        if step.refused.is_some_and(|expected| expected != refused) {
            self.wrong.push(format!("{refused} endpoints are refused, and not {:?}", step.refused));
        }
    }

    fn writes(&mut self, step: &Step, built: &Built) {
        if step.no_writes && !built.writes.is_empty() {
            self.wrong.push(format!("statuses are to be written: {:?}", built.writes));
        }
        for (name, expected) in &step.writes {
            let name = ObjectName::new("default", name);
            let Some(write) = built.writes.iter().find(|write| write.service == name) else {
                self.wrong.push(format!("nothing is written to the status of {name}"));
                continue;
            };
            let ingress: Vec<String> = write
                .ingress
                .iter()
                .map(|one| format!("{} {}", one.address, one.mode.name()))
                .collect();
            let programmed = write
                .programmed
                .as_ref()
                .map(|one| format!("{} {}", if one.status { "True" } else { "False" }, one.reason));
            if ingress != expected.ingress || programmed != expected.programmed {
                let have = format!("{ingress:?} and {programmed:?}");
                self.wrong.push(format!("{name}: {have} are written, and not {expected:?}"));
            }
        }
    }
}

/// The clients of a prefix, or the one client.
fn clients(text: &str) -> Vec<IpAddr> {
    match text.parse::<IpNet>() {
        Ok(prefix) => prefix.hosts().take(200).collect(),
        Err(_) => vec![text.parse().unwrap_or_else(|_| panic!("no client {text}"))],
    }
}

fn wanted(text: &str) -> Answer {
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    match inside {
        Some(list) => Answer::backends(list.split(", ")),
        None => Answer::NotOurs,
    }
}

fn heard(text: &str) -> Health {
    match text.split(' ').collect::<Vec<_>>()[..] {
        ["good"] => Health::Healthy { weight: None },
        ["good", weight] => Health::Healthy { weight: Some(weight.parse().unwrap()) },
        ["bad"] => Health::Unhealthy { closed: false },
        ["closed"] => Health::Unhealthy { closed: true },
        _ => panic!("a probe's answer \"{text}\": expected good, good WEIGHT, bad or closed"),
    }
}

/// The probe that a case calls by this name.
fn find(probes: &BTreeSet<ProbeKey>, name: &str) -> Option<ProbeKey> {
    probes.iter().find(|key| is_called(key, name)).cloned()
}

/// Whether a probe is the one that a case calls by this name.
fn is_called(key: &ProbeKey, name: &str) -> bool {
    match &key.check {
        Check::Tcp => name == format!("tcp {}", key.address),
        Check::Http { path } => name == format!("http {}{path}", key.address),
    }
}

/// The status as it stands in the API server once it is written.
fn status(write: &StatusWrite) -> Value {
    let mut ingress = Vec::new();
    for one in &write.ingress {
        let mut entry = json!({"ip": one.address, "ipMode": one.mode.name()});
        let mut ports = Vec::new();
        for port in &one.ports {
            let mut given = json!({"port": port.port, "protocol": port.protocol.name()});
            if let Some(error) = port.error {
                given["error"] = json!(error);
            }
            ports.push(given);
        }
        if !ports.is_empty() {
            entry["ports"] = json!(ports);
        }
        ingress.push(entry);
    }
    let mut status = json!({"loadBalancer": {"ingress": ingress}});
    if let Some(programmed) = &write.programmed {
        status["conditions"] = json!([{
            "type": "headgate.dev/Programmed",
            "status": if programmed.status { "True" } else { "False" },
            "reason": programmed.reason,
            "message": programmed.message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
    }
    status
}

/// Who has a MAC.
fn neighbour(mac: [u8; 6]) -> String {
    match mac {
        world::ROUTER_MAC => "router".to_owned(),
        [2, 0, 0, 0, 2, number] => format!("node-{number}"),
        other => format!("{other:?}"),
    }
}
