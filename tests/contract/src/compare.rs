//! Schedules given to kube-proxy and to a gateway, and what the two say to each question.

use crate::differences::{self, Asked, DIFFERENCES, Origin, Owner, SecondHop, Wanted};
use crate::gateway::{Gateway, key};
use crate::kube_proxy::{KubeProxy, Packet, Reference, Said, Step};
use crate::probe::{Answer, Question};
use crate::schedule::{self, CLIENTS, Op, Schedule, external_ranges, pool_ranges};
use crate::tally::Tally;
use crate::world::{self, OWN};
use golden::world::ip;
use ipnet::IpNet;
use model::desired::ObjectName;
use model::ids::{Family, Protocol};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use translate::{ForwardingSettings, NodePortSettings, ObjectKey, Wishes};

/// The label of nodes that names their zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// One schedule under way.
struct Running {
    schedule: Schedule,
    gateway: Gateway,
    objects: BTreeMap<ObjectKey, Value>,
    /// Every frontend that there has ever been.
    frontends: BTreeSet<(Protocol, SocketAddr)>,
    /// Whose they are now.
    owners: BTreeMap<(Protocol, SocketAddr), Owner>,
    asked: Vec<Asking>,
}

/// One question, and where kube-proxy's answers to it will stand.
struct Asking {
    protocol: Protocol,
    destination: SocketAddr,
    group: usize,
    /// The question from outside; the one from inside follows it.
    at: usize,
    /// The question about the second hop, where the Service has nodes as backends.
    hop: Option<usize>,
}

/// A packet of the gateway to a node.
struct Hop {
    protocol: Protocol,
    family: Family,
    node_port: u16,
}

impl Hop {
    fn packet(&self, number: u8) -> Packet {
        let address = ip(&world::node_addresses(number)[self.family.index()]);
        let source = ip(world::NAT[self.family.index()]);
        Packet::new(self.protocol, source, SocketAddr::new(address, self.node_port), false)
    }
}

/// What all kube-proxies said.
struct AllSaid {
    gateway: Vec<Said>,
    nowhere: Option<Vec<Said>>,
    nodes: Vec<Vec<Said>>,
}

/// A kube-proxy, and what it has been told.
#[derive(Debug)]
struct Told {
    kube_proxy: KubeProxy,
    objects: BTreeMap<ObjectKey, Value>,
}

/// The kube-proxies that are asked.
#[derive(Debug)]
pub struct Bench {
    /// Of the gateway, were it a node without pods, in the gateway's zone.
    gateway: Told,
    /// The same in no zone.
    nowhere: Told,
    /// Of the nodes, for the second hop.
    nodes: Vec<Told>,
    clients: [[Vec<IpAddr>; 2]; 2],
}

impl Told {
    fn start(program: &Path, node: &str, addresses: [&str; 2]) -> Self {
        let kube_proxy = KubeProxy::start(program, node, addresses);
        Self { kube_proxy, objects: BTreeMap::new() }
    }

    /// Tells it what differs from what it knows, and asks.
    fn tell(&mut self, objects: &BTreeMap<ObjectKey, Value>, zone: Option<&str>, ask: Vec<Packet>) {
        let gone = self.objects.keys().filter(|key| !objects.contains_key(*key));
        let delete = gone.map(|key| Reference {
            kind: key.kind.name().to_owned(),
            namespace: key.name.namespace.to_string(),
            name: key.name.name.to_string(),
        });
        let delete = delete.collect();
        let new = objects.iter().filter(|(key, object)| self.objects.get(*key) != Some(*object));
        let apply = new.map(|(_, object)| object.clone()).collect();
        let label = |zone: &str| (ZONE.to_owned(), zone.to_owned());
        let topology = Some(zone.map(label).into_iter().collect());
        self.kube_proxy.send(&Step { topology, apply, delete, ask });
        self.objects.clone_from(objects);
    }
}

impl Bench {
    /// Starts the kube-proxies from the program of the test cluster.
    pub fn start(program: &Path) -> Self {
        let hosts = |text: &str| text.parse::<IpNet>().unwrap().hosts().take(500).collect();
        let node = |number| {
            let [v4, v6] = world::node_addresses(number);
            Told::start(program, &format!("node-{number}"), [&v4, &v6])
        };
        Self {
            gateway: Told::start(program, "gateway", OWN),
            nowhere: Told::start(program, "nowhere", OWN),
            nodes: (1..=world::NODES).map(node).collect(),
            clients: CLIENTS.map(|groups| groups.map(hosts)),
        }
    }

    /// Runs schedules of one batch side by side; no two may be of one slot.
    pub fn run(&mut self, seeds: &[u64]) -> Tally {
        let mut tally = Tally { differences: vec![0; DIFFERENCES.len()], ..Tally::default() };
        let mut all: Vec<Running> =
            seeds.iter().map(|&seed| Running::new(Schedule::new(seed))).collect();
        let (zone, second_hop) = (schedule::zone(seeds[0]), schedule::target_node(seeds[0]));
        for step in 0..schedule::STEPS {
            let (mut packets, mut visible, mut hops) = (Vec::new(), BTreeMap::new(), Vec::new());
            for running in &mut all {
                running.step(step);
                visible.extend(running.visible());
                running.prepare(&mut packets, &mut hops, &self.clients);
            }
            self.gateway.tell(&visible, zone, packets.clone());
            if zone.is_some() {
                self.nowhere.tell(&visible, None, packets);
            }
            if second_hop {
                for (number, node) in self.nodes.iter_mut().enumerate() {
                    let of_node =
                        hops.iter().map(|hop: &Hop| hop.packet(number as u8 + 1)).collect();
                    node.tell(&visible, None, of_node);
                }
            }
            let nodes = self.nodes.iter_mut().filter(|_| second_hop);
            let said = AllSaid {
                gateway: self.gateway.kube_proxy.answers(),
                nowhere: zone.map(|_| self.nowhere.kube_proxy.answers()),
                nodes: nodes.map(|one| one.kube_proxy.answers()).collect(),
            };
            for running in &mut all {
                running.compare(step, &said, &self.clients, &mut tally);
            }
        }
        tally
    }
}

fn wishes(schedule: &Schedule) -> Wishes {
    let slot = schedule.slot;
    let zone = schedule::zone(schedule.seed).map(str::to_owned);
    let ranges = pool_ranges(slot);
    Wishes {
        pools: vec![world::pool("demo", &[&ranges[0], &ranges[1]])],
        node_port: NodePortSettings { allocate: false, ..world::wishes().node_port },
        external_ip_ranges: external_ranges(slot).map(|text| text.parse().unwrap()).to_vec(),
        default_class: true,
        forwarding: ForwardingSettings {
            cluster_ips: true,
            node_name: zone.as_ref().map(|_| "gateway".to_owned()),
            zone,
            ..ForwardingSettings::default()
        },
        ..world::wishes()
    }
}

impl Running {
    fn new(schedule: Schedule) -> Self {
        Self {
            gateway: Gateway::new(wishes(&schedule)),
            schedule,
            objects: BTreeMap::new(),
            frontends: BTreeSet::new(),
            owners: BTreeMap::new(),
            asked: Vec::new(),
        }
    }

    fn step(&mut self, step: usize) {
        for op in &self.schedule.steps[step] {
            match op {
                Op::Apply(object) => {
                    self.gateway.apply(object);
                    self.objects.insert(key(object), object.clone());
                }
                Op::Delete(kind, name) => {
                    let namespace = if *kind == "Node" { "" } else { &self.schedule.namespace };
                    let name = ObjectName::new(namespace, name);
                    let key = ObjectKey { kind: crate::gateway::kind(kind).unwrap(), name };
                    self.gateway.delete(&key);
                    self.objects.remove(&key);
                }
            }
        }
        self.gateway.now_ms += 1000;
        self.gateway.build();
    }

    fn services(&self) -> impl Iterator<Item = &Value> {
        self.objects.values().filter(|object| object["kind"] == "Service")
    }

    /// The LoadBalancer addresses that a Service was given.
    fn balanced(&self, service: &Value) -> Vec<IpAddr> {
        let held = self.gateway.index.allocations().get(&key(service).name);
        held.into_iter().flat_map(|held| &held.addresses).map(|one| one.address).collect()
    }

    /// What kube-proxy is told of: the differences in what the two are told stand in
    /// [`differences::TOLD`].
    fn visible(&self) -> BTreeMap<ObjectKey, Value> {
        let services: Vec<&Value> = self.services().collect();
        let mut visible = BTreeMap::new();
        for (key, object) in &self.objects {
            let told = match object["kind"].as_str().unwrap() {
                "Service" => differences::service_as_told(object, &self.balanced(object)),
                "EndpointSlice" => differences::slice_as_told(object, &services),
                _ => continue,
            };
            visible.insert(key.clone(), told);
        }
        visible
    }

    /// Every frontend of a Service, with its port and origin.
    fn frontends_of(&self, service: &Value) -> Vec<(Protocol, SocketAddr, Origin, usize)> {
        let spec = &service["spec"];
        let mut all = Vec::new();
        for (place, port) in spec["ports"].as_array().into_iter().flatten().enumerate() {
            let number = |key: &str| port[key].as_u64().unwrap_or(0) as u16;
            let protocol = match port["protocol"].as_str().unwrap() {
                "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                _ => Protocol::Sctp,
            };
            let mut add = |address, number, origin| {
                all.push((protocol, SocketAddr::new(address, number), origin, place));
            };
            for address in self.balanced(service) {
                add(address, number("port"), Origin::LoadBalancer);
            }
            for address in addresses(&spec["externalIPs"]) {
                add(address, number("port"), Origin::ExternalIp);
            }
            for address in addresses(&spec["clusterIPs"]) {
                add(address, number("port"), Origin::ClusterIp);
            }
            if number("nodePort") != 0 {
                for address in OWN {
                    add(ip(address), number("nodePort"), Origin::NodePort);
                }
            }
        }
        all
    }

    fn owner(&self, protocol: Protocol, destination: SocketAddr) -> Option<Owner> {
        self.owners.get(&(protocol, destination)).cloned()
    }

    /// Notes what is to be asked after this step.
    fn prepare(
        &mut self,
        packets: &mut Vec<Packet>,
        hops: &mut Vec<Hop>,
        clients: &[[Vec<IpAddr>; 2]; 2],
    ) {
        let mut found = Vec::new();
        let mut owners = BTreeMap::new();
        for service in self.services() {
            let shared = Arc::new(service.clone());
            for (protocol, address, origin, port) in self.frontends_of(service) {
                found.push((protocol, address));
                let owner = Owner { service: Arc::clone(&shared), origin, port };
                owners.entry((protocol, address)).or_insert(owner);
                if origin != Origin::NodePort {
                    // A port that nobody has.
                    found.push((Protocol::Tcp, SocketAddr::new(address.ip(), 9)));
                }
            }
        }
        self.frontends.extend(found);
        self.owners = owners;
        self.asked.clear();
        for &(protocol, destination) in &self.frontends {
            let family = Family::of(destination.ip());
            let owner = self.owner(protocol, destination);
            let node_port = owner.as_ref().and_then(Owner::to_nodes);
            let hop = node_port.map(|node_port| {
                hops.push(Hop { protocol, family, node_port });
                hops.len() - 1
            });
            // Clients differ where source ranges tell them apart.
            let guarded =
                owner.is_some_and(|one| one.service["spec"]["loadBalancerSourceRanges"].is_array());
            let groups = clients[family.index()].iter().enumerate();
            for (group, sources) in groups.take(1 + usize::from(guarded)) {
                let source = sources[0];
                let at = packets.len();
                packets.push(Packet::new(protocol, source, destination, false));
                packets.push(Packet::new(protocol, source, destination, true));
                self.asked.push(Asking { protocol, destination, group, at, hop });
            }
        }
    }

    fn compare(
        &mut self,
        step: usize,
        said: &AllSaid,
        clients: &[[Vec<IpAddr>; 2]; 2],
        tally: &mut Tally,
    ) {
        for asking in std::mem::take(&mut self.asked) {
            let clients = &clients[Family::of(asking.destination.ip()).index()][asking.group];
            let asked = self.asked(&asking, said, clients[0]);
            tally.questions += 1;
            *tally.answers.entry(asked.outside.answer.kind()).or_default() += 1;
            let mut all = DIFFERENCES.iter().enumerate();
            let difference = all.find_map(|(at, one)| Some((at, (one.wanted)(&asked)?)));
            let wanted = match difference {
                Some((at, wanted)) => {
                    tally.differences[at] += 1;
                    wanted
                }
                None => Wanted::Exactly(asked.outside.answer.clone()),
            };
            let owned = asked.owner.is_some();
            tally.owned += usize::from(owned);
            tally.exact += usize::from(owned && matches!(wanted, Wanted::Exactly(_)));
            tally.exact_backends +=
                usize::from(matches!(wanted, Wanted::Exactly(Answer::Backends(_))));
            tally.anything += usize::from(matches!(wanted, Wanted::Anything));
            let described = describe(&asked);
            let affinity = asked.outside.affinity_s.max(asked.inside.affinity_s);
            let owner = asked.owner.clone();
            let question =
                Question { protocol: asking.protocol, clients, destination: asking.destination };
            self.gateway.now_ms += 20;
            let got = self.gateway.ask(&question, wanted.first());
            let verdict = wanted.judge(got).and_then(|()| match (&wanted, owner) {
                (Wanted::Exactly(Answer::Backends(_)), Some(owner)) => {
                    let have = self.affinity(&owner);
                    let same = have == affinity;
                    same.then_some(())
                        .ok_or_else(|| format!("affinity of {have} s, not {affinity}"))
                }
                _ => Ok(()),
            });
            if let Err(what) = verdict {
                tally.failures.push(self.failure(step, &described, &what));
            }
        }
    }

    fn asked<'a>(&'a self, asking: &Asking, said: &'a AllSaid, client: IpAddr) -> Asked<'a> {
        let Asking { protocol, destination, at, hop, .. } = *asking;
        let family = Family::of(destination.ip()).index();
        let node = |number: usize, hop: usize| {
            let address = ip(&world::node_addresses(number as u8 + 1)[family]);
            let name = ObjectName::new("", &format!("node-{}", number + 1));
            let key = ObjectKey { kind: translate::Kind::Node, name };
            let answer = said.nodes[number][hop].answer.clone();
            SecondHop { object: self.objects.get(&key), address, answer }
        };
        Asked {
            protocol,
            destination,
            owner: self.owner(protocol, destination),
            slices: self.objects.values().filter(|one| one["kind"] == "EndpointSlice").collect(),
            taken: self.frontends_at(destination.ip()),
            cluster_of: self.services().find(|service| {
                addresses(&service["spec"]["clusterIPs"]).contains(&destination.ip())
            }),
            outside: &said.gateway[at],
            inside: &said.gateway[at + 1],
            nowhere: said.nowhere.as_ref().map(|said| &said[at + 1]),
            nodes: hop.map(|hop| (0..said.nodes.len()).map(|n| node(n, hop)).collect()),
            client,
        }
    }

    /// Whether the gateway has a frontend at the address.
    fn frontends_at(&self, address: IpAddr) -> bool {
        let ports = self.gateway.index.desired().service_ports.values();
        ports.flat_map(|port| &port.frontends).any(|one| {
            one.address.ip() == address && !matches!(one.origin, model::desired::Origin::NodePort)
        })
    }

    fn affinity(&self, owner: &Owner) -> u32 {
        let port = &owner.service["spec"]["ports"][owner.port];
        let name = port["name"].as_str().unwrap_or_default();
        let service = key(&owner.service).name;
        let internal = owner.origin == Origin::ClusterIp;
        let all = &self.gateway.index.desired().service_ports;
        let found = all.values().find(|one| {
            let protocol = one.key.protocol.to_string();
            one.key.service == service
                && *one.key.port_name == *name
                && port["protocol"]
                    .as_str()
                    .is_some_and(|text| text.eq_ignore_ascii_case(&protocol))
                && one.key.scope.is_external() != internal
        });
        found.and_then(|one| one.affinity).map_or(0, |affinity| affinity.timeout_s)
    }

    fn failure(&self, step: usize, question: &str, got: &str) -> String {
        let mut text = format!(
            "seed {} after step {step}: {question}\n  the gateway: {got}\n",
            self.schedule.seed
        );
        for object in self.objects.values() {
            text.push_str("---\n");
            text.push_str(&serde_saphyr::to_string(object).unwrap_or_default());
        }
        if let Some(status) = self.gateway.index.statuses().next() {
            text.push_str(&format!("first status: {status:?}\n"));
        }
        text
    }
}

fn addresses(texts: &Value) -> Vec<IpAddr> {
    let texts = texts.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn describe(asked: &Asked<'_>) -> String {
    let owner = asked.owner.as_ref().map_or_else(
        || "nobody's".to_owned(),
        |owner| format!("{} {:?}", owner.service["metadata"]["name"], owner.origin),
    );
    let Asked { protocol, client, destination, outside, inside, .. } = asked;
    let mut text = format!(
        "{protocol} {client} -> {destination} ({owner})\n  kube-proxy: {}; to the node itself: {}",
        outside.answer, inside.answer
    );
    if let Some(nowhere) = asked.nowhere {
        text.push_str(&format!("; in no zone: {}", nowhere.answer));
    }
    for node in asked.nodes.iter().flatten() {
        text.push_str(&format!("; {}: {}", node.address, node.answer));
    }
    text
}
