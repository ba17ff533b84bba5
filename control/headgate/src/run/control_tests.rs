//! The control loop between a source and a packet path that are made up.

use super::super::gateway::Facts;
use super::*;
use engine::{BackendTraffic, HostWay};
use model::answers::{
    ConflictRow, Event, LinkRow, Links, Severity, SourceState, Traffic, WriteCounts,
};
use model::desired::ObjectName;
use model::ids::{BackendId, ServiceId};
use pipeline::snapshot::{Report, Snapshot};
use sources::directory::{DirectorySource, Options};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use translate::{Pool, Wishes};

/// Workers that take up a snapshot at once, unless they are held.
#[derive(Default)]
struct Path {
    published: AtomicU64,
    held_at: AtomicU64,
    held: AtomicBool,
    links: Mutex<Links>,
    conflicts: Mutex<Vec<ConflictRow>>,
    selection_key: AtomicU64,
}

impl Path {
    /// The workers stay where they are.
    fn hold(&self, hold: bool) {
        self.held_at.store(self.published.load(Relaxed), Relaxed);
        self.held.store(hold, Relaxed);
    }
}

impl PacketPath for Path {
    fn publish(&self, _: Arc<Snapshot>, _: &Report) -> u64 {
        self.published.fetch_add(1, Relaxed) + 1
    }
    fn generations(&self) -> [u64; 2] {
        let published = self.published.load(Relaxed);
        let held = self.held.load(Relaxed);
        [published, if held { self.held_at.load(Relaxed) } else { published }]
    }
    fn set_selection_key(&self, key: u64) {
        self.selection_key.store(key, Relaxed);
    }
    fn refresh_ways(&self) {}
    fn links(&self) -> Links {
        self.links.lock().unwrap().clone()
    }
    fn conflicts(&self) -> Vec<ConflictRow> {
        self.conflicts.lock().unwrap().clone()
    }
    fn host_way(&self, _: IpAddr, _: IpAddr) -> HostWay {
        HostWay::default()
    }
    fn service_traffic(&self, _: ServiceId) -> Traffic {
        Traffic::default()
    }
    fn backend_traffic(&self, _: BackendId) -> BackendTraffic {
        BackendTraffic::default()
    }
}

/// What a test tells the source, and what it hears.
#[derive(Default)]
struct Told {
    changes: VecDeque<Changes>,
    state: SourceState,
    statuses: Vec<StatusWrite>,
    events: Vec<Event>,
    stopped: bool,
    /// Another gateway writes.
    another: bool,
    /// What the Lease says.
    selection_key: Option<u64>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Told>>);

impl Fake {
    fn told<T>(&self, with: impl FnOnce(&mut Told) -> T) -> T {
        with(&mut self.0.lock().unwrap())
    }
    /// The source says what these manifests say.
    fn says(&self, manifests: &str, full: bool) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("all.yaml"), manifests).unwrap();
        let mut read = DirectorySource::open(directory.path(), Options::default()).unwrap();
        let mut changes = read.load();
        changes.full = full;
        self.told(|told| told.changes.push_back(changes));
    }
}

impl Source for Fake {
    fn name(&self) -> String {
        "API server https://192.0.2.1:6443".to_owned()
    }
    fn next(&mut self, _: Duration) -> Option<Changes> {
        self.told(|told| told.changes.pop_front())
    }
    fn state(&self) -> SourceState {
        self.told(|told| told.state.clone())
    }
    fn writes(&self) -> Option<u64> {
        self.told(|told| (!told.another).then_some(0))
    }
    fn selection_key(&self) -> Option<u64> {
        self.told(|told| told.selection_key)
    }
    fn another_writes(&self) -> bool {
        self.told(|told| told.another)
    }
    fn status(&self, write: StatusWrite) {
        self.told(|told| told.statuses.push(write));
    }
    fn event(&self, event: &Event) {
        self.told(|told| told.events.push(event.clone()));
    }
    fn counts(&self) -> Option<WriteCounts> {
        Some(WriteCounts::default())
    }
    fn stop(self: Box<Self>) {
        self.told(|told| told.stopped = true);
    }
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [198.18.1.11]}]
";

fn settings() -> Settings {
    let pool = Pool {
        name: "demo".into(),
        ranges: vec!["203.0.113.10".parse().unwrap()],
        ..Pool::default()
    };
    Settings::new(Wishes { pools: vec![pool], ..Wishes::default() }).unwrap()
}

/// A gateway with nothing but a control side.
struct World {
    running: Arc<Running<Path>>,
    fake: Fake,
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let facts = Facts {
            dpdk: String::new(),
            huge_pages: String::new(),
            cores: Vec::new(),
            source: "API server".to_owned(),
            class: String::new(),
            node_ports: Vec::new(),
            backends_anywhere: true,
            fronts: Vec::new(),
            started: Instant::now(),
        };
        let directory = tempfile::tempdir().unwrap();
        let running = Arc::new(Running::new(Path::default(), facts));
        Self { running, fake: Fake::default(), directory }
    }
    fn control(&self) -> Control<'_, Path> {
        let store = Arc::new(Store::open(self.directory.path()).unwrap());
        let keeper = Keeper::start(Arc::clone(&store), Arc::clone(&self.running)).unwrap();
        let source = Box::new(self.fake.clone());
        let allocations = Allocations::default();
        Control::new(&self.running, store, Some(keeper), source, settings(), allocations)
    }
    fn degraded(&self) -> Vec<String> {
        self.running.books().degraded().into_iter().map(|row| row.what).collect()
    }
    fn ports(&self) -> usize {
        self.running.books().desired.service_ports.len()
    }
}

/// One turn of the loop, without waiting for changes.
fn turn(control: &mut Control<'_, Path>) {
    control.turn(Duration::ZERO);
}

#[test]
fn a_change_goes_all_the_way_and_is_measured() {
    let world = World::new();
    let mut control = world.control();
    turn(&mut control);
    let waiting = "API server https://192.0.2.1:6443 has not been read yet";
    assert_eq!((world.degraded(), world.ports()), (vec![waiting.to_owned()], 0));
    world.fake.says(SERVICE, true);
    turn(&mut control);
    assert_eq!((world.degraded(), world.ports()), (vec![], 1));
    let name = ObjectName::new("shop", "web");
    let events = world.fake.told(|told| std::mem::take(&mut told.events));
    assert!(events.iter().any(|event| event.reason == "IPAllocated" && event.time_s > 0));
    assert_eq!(world.running.books().events().len(), events.len());
    // The first load is no change whose time says anything.
    assert_eq!(world.running.books().live[&name].took_us, None);
    world.fake.says(&SERVICE.replace("198.18.1.11", "198.18.1.12"), false);
    turn(&mut control);
    let live = world.running.books().live[&name];
    assert_eq!((live.generation, live.took_us.is_some()), (2, true));
}

#[test]
fn nothing_is_said_to_be_programmed_before_every_worker_runs_with_it() {
    let world = World::new();
    let mut control = world.control();
    let write = || StatusWrite {
        service: ObjectName::new("shop", "web"),
        uid: "u".into(),
        ingress: Vec::new(),
        programmed: None,
        finalizer: false,
        take_over: false,
    };
    world.running.engine.publish(Arc::default(), &Report::default());
    world.running.engine.hold(true);
    let mut wait_for = |generation| {
        let (delta, writes) = (Delta::default(), vec![write()]);
        control.pending.push_back(Pending { generation, detected: None, delta, writes });
        control.settle();
        world.fake.told(|told| told.statuses.len())
    };
    assert_eq!(wait_for(1), 1);
    assert_eq!(wait_for(2), 1, "a worker is behind");
    assert_eq!(wait_for(2), 1);
    world.running.engine.publish(Arc::default(), &Report::default());
    world.running.engine.hold(false);
    control.settle();
    assert_eq!(world.fake.told(|told| told.statuses.len()), 3);
    assert!(control.pending.is_empty());
}

#[test]
fn a_start_beside_one_that_writes_withdraws_nothing() {
    let world = World::new();
    let mut control = world.control();
    world.fake.says(SERVICE, true);
    turn(&mut control);
    assert_eq!(world.ports(), 1);
    drop(control);
    // Who holds the Lease is known before anything has been listed.
    world.fake.told(|told| told.another = true);
    let mut control = world.control();
    turn(&mut control);
    assert_eq!(world.ports(), 1);
    world.fake.says(SERVICE, true);
    turn(&mut control);
    assert_eq!(world.ports(), 1);
}

#[test]
fn what_ails_the_source_is_told_while_it_lasts() {
    let world = World::new();
    let mut control = world.control();
    world.fake.told(|told| told.state.problem = "nothing listens there: start it".to_owned());
    turn(&mut control);
    assert_eq!(world.degraded(), ["nothing listens there: start it"]);
    assert!(!world.running.books().source.loaded);
    world.fake.says(SERVICE, true);
    world.fake.told(|told| told.state = SourceState { in_step: true, ..SourceState::default() });
    turn(&mut control);
    assert!(world.degraded().is_empty());
    world.fake.told(|told| {
        told.state.in_step = false;
        told.state.stale_ms = 1_000;
        told.state.problem = "the API server is silent".to_owned();
    });
    turn(&mut control);
    assert_eq!(world.degraded(), ["the API server is silent"]);
    // Nothing else changes: what was forwarded is.
    let books = world.running.books();
    assert_eq!((books.desired.service_ports.len(), books.source.stale_ms), (1, 1_000));
    assert!(books.source.loaded);
}

#[test]
fn a_failure_is_told_and_survived() {
    let world = World::new();
    world.fake.says(SERVICE, true);
    let (opened, fake) = (Arc::new(AtomicU64::new(0)), world.fake.clone());
    let (times, running) = (Arc::clone(&opened), Arc::clone(&world.running));
    let plan = Plan {
        started: None,
        settings: Box::new(|_| Ok(settings())),
        source: Box::new(move || match times.fetch_add(1, Relaxed) {
            0 => anyhow::bail!("the kubeconfig /k can't be read"),
            1 => panic!("a bug"),
            _ => Ok(Box::new(fake.clone())),
        }),
        state_dir: world.directory.path().to_owned(),
        runtime: None,
    };
    let supervised = std::thread::spawn(move || supervise(&plan, &running));
    let until = Instant::now() + Duration::from_secs(60);
    let mut said = BTreeSet::new();
    while world.ports() == 0 && Instant::now() < until {
        said.extend(world.degraded());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(said.contains("the kubeconfig /k can't be read"), "{said:?}");
    assert!(said.iter().any(|what| what.contains("panicked")), "{said:?}");
    world.running.draining.store(true, Relaxed);
    supervised.join().unwrap();
    assert_eq!((opened.load(Relaxed), world.degraded()), (3, vec![]));
    assert!(world.fake.told(|told| told.stopped));
    // What is forwarded is on the disk by then.
    let stored = Store::open(world.directory.path()).unwrap().load().stored;
    assert_eq!(stored.desired.service_ports.len(), 1);
    let running = World::new().running;
    resume(world.directory.path(), &settings(), &running).unwrap();
    assert_eq!(running.books().desired.service_ports.len(), 1);
}

fn link(up: bool, twin_up: bool) -> Links {
    let (interface, port) = ("hg-front".to_owned(), "front".to_owned());
    let row = LinkRow { interface, port, is_front: true, up, twin_up };
    Links { interfaces: vec![row], ..Links::default() }
}

fn conflict(address: [u8; 4], is_gateway: bool) -> ConflictRow {
    ConflictRow {
        interface: "hg-front".to_owned(),
        address: IpAddr::from(address),
        mac: "02:00:00:00:00:66".to_owned(),
        is_gateway,
        since_s: 1,
        claims: 1,
        defences: 1,
    }
}

#[test]
fn a_front_that_is_down_is_something_wrong_until_it_is_up() {
    let world = World::new();
    let mut control = world.control();
    world.fake.says(SERVICE, true);
    for (links, word) in [
        (link(false, true), "the link of port front is down"),
        (link(true, false), "ip link set hg-front up"),
    ] {
        *world.running.engine.links.lock().unwrap() = links;
        turn(&mut control);
        turn(&mut control);
        let wrong = world.degraded();
        assert!(wrong.len() == 1 && wrong[0].contains(word), "{wrong:?}");
    }
    *world.running.engine.links.lock().unwrap() = link(true, true);
    turn(&mut control);
    assert!(world.degraded().is_empty());
    let events = world.running.books().events();
    let told = events.iter().filter(|event| event.reason.starts_with("Link"));
    let told: Vec<&str> = told.map(|event| event.reason.as_str()).collect();
    assert_eq!(told, ["LinkDown", "LinkDown", "LinkUp"]);
}

#[test]
fn another_station_with_our_address_is_an_event_of_its_service() {
    let world = World::new();
    let mut control = world.control();
    world.fake.says(SERVICE, true);
    turn(&mut control);
    world.fake.told(|told| told.events.clear());
    let ours = conflict([203, 0, 113, 10], false);
    *world.running.engine.conflicts.lock().unwrap() = vec![ours.clone()];
    turn(&mut control);
    turn(&mut control);
    let events = world.fake.told(|told| std::mem::take(&mut told.events));
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.reason.as_str(), event.kind.as_str()), ("AddressConflict", "Service"));
    assert_eq!((event.object.to_string(), event.severity), ("shop/web".into(), Severity::Warning));
    assert!(event.message.contains("02:00:00:00:00:66"), "{}", event.message);
    assert!(world.degraded()[0].contains("203.0.113.10 on hg-front is ours"));
    let shared = ConflictRow { is_gateway: true, ..ours };
    *world.running.engine.conflicts.lock().unwrap() = vec![shared];
    turn(&mut control);
    let events = world.fake.told(|told| std::mem::take(&mut told.events));
    assert!(events[0].reason == "AddressShared" && events[0].severity == Severity::Normal);
    assert!(world.degraded().is_empty(), "another gateway is nothing wrong");
}

#[test]
fn many_conflicts_are_neither_many_events_nor_many_lines() {
    let world = World::new();
    let mut control = world.control();
    world.fake.says(SERVICE, true);
    turn(&mut control);
    world.fake.told(|told| told.events.clear());
    for round in 0..20_u8 {
        let all = (0..=255).map(|n| conflict([198, 18, round % 2, n], false));
        *world.running.engine.conflicts.lock().unwrap() = all.collect();
        turn(&mut control);
    }
    let events = world.fake.told(|told| std::mem::take(&mut told.events));
    assert!((16..=18).contains(&events.len()), "{} events", events.len());
    assert_eq!(world.degraded().len(), 17, "sixteen, and how many more");
    world.running.engine.conflicts.lock().unwrap().clear();
    turn(&mut control);
    assert!(world.degraded().is_empty());
}

/// What the Lease says is followed and kept, unless the configuration says otherwise: then that is
/// told.
#[test]
fn gateways_choose_backends_by_one_key_or_say_that_they_do_not() {
    let world = World::new();
    let keys = sources::store::Keys { selection: 0xa, toeplitz: [7; 40] };
    let secret = pipeline::secret::Secret::new([0; 16]);
    let started = |configured| Started { keys: keys.clone(), configured, secret, problems: vec![] };
    let mut control = world.control();
    world.fake.says(SERVICE, true);
    control.selection = Some(Selection::new(&started(false)));
    turn(&mut control);
    let key = || world.running.engine.selection_key.load(Relaxed);
    assert_eq!(key(), 0, "nothing was said");
    world.fake.told(|told| told.selection_key = Some(0xb));
    turn(&mut control);
    assert_eq!((key(), world.degraded()), (0xb, vec![]));
    let kept = control.store.load_keys().unwrap().unwrap();
    assert_eq!((kept.selection, kept.toeplitz), (0xb, [7; 40]));
    // The control side begins anew with what the process started with, and workers have another.
    control.selection = Some(Selection::new(&started(false)));
    world.fake.told(|told| told.selection_key = Some(0xa));
    turn(&mut control);
    assert_eq!(key(), 0xa);
    world.fake.told(|told| told.selection_key = Some(0xb));
    turn(&mut control);
    control.selection = Some(Selection::new(&started(true)));
    world.fake.told(|told| told.selection_key = Some(0xc));
    turn(&mut control);
    turn(&mut control);
    assert_eq!(key(), 0xb, "the configuration's goes first");
    let wrong = world.degraded();
    assert!(wrong.len() == 1 && wrong[0].contains("gateway.selection_key"), "{wrong:?}");
    let told = |event: &&Event| event.reason == "SelectionKeyDiffers";
    assert_eq!(world.running.books().events().iter().filter(told).count(), 1);
    world.fake.told(|told| told.selection_key = Some(0xa));
    turn(&mut control);
    assert_eq!(world.degraded(), [] as [String; 0]);
}
