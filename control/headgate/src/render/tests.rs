//! What a person sees, word for word.

use super::*;
use model::answers::*;
use model::desired::{ObjectName, Scope, ServicePortKey};
use model::drops::DropReason;
use model::ids::{FiveTuple, Protocol, WorkerId};
use model::record::{ConnectionRecord, ConnectionState, RECORD_VERSION};

const WIDE: Look = Look { wide: true, colour: false, now_s: 1_000 };
const NARROW: Look = Look { wide: false, colour: false, now_s: 1_000 };

fn key(port_name: &str) -> ServicePortKey {
    ServicePortKey {
        cluster: "".into(),
        service: ObjectName::new("default", "web"),
        port_name: port_name.into(),
        protocol: Protocol::Tcp,
        scope: Scope::External,
    }
}

fn port(name: &str, port: u16) -> ServicePortRow {
    let key = key(name);
    ServicePortRow { key, port, node_port: None, active: 3, known: 3, not_forwarded: None }
}

fn web() -> ServiceRow {
    ServiceRow {
        status: ServiceStatus {
            name: ObjectName::new("default", "web"),
            service_type: "LoadBalancer".into(),
            addresses: vec!["203.0.113.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
            ports: vec![port("http", 80), port("https", 443)],
            problems: vec![],
            place: "web.yaml:1".into(),
            facts: ServiceFacts::default(),
        },
        traffic: vec![Traffic { connections: 5, bytes_in: 2_048, ..Traffic::default() }; 2],
        live: None,
    }
}

fn odd() -> ServiceRow {
    let mut row = web();
    row.status.name = ObjectName::new("shop", "dns");
    row.status.service_type = "NodePort".into();
    row.status.addresses.clear();
    row.status.ports[0].node_port = Some(30_080);
    row.status.ports[1].key.protocol = Protocol::Sctp;
    row.status.ports[1].active = 0;
    row.status.ports[1].not_forwarded = Some("SCTP isn't forwarded yet.".into());
    row.status.problems = vec!["No \x1b[2Jaddress.".into()];
    row
}

fn record() -> ConnectionRecord {
    ConnectionRecord {
        version: RECORD_VERSION,
        protocol: Protocol::Tcp,
        client: "198.18.0.10:40112".parse().unwrap(),
        frontend: "203.0.113.10:80".parse().unwrap(),
        backend: "198.18.1.11:80".parse().unwrap(),
        nat: "198.18.1.200:20731".parse().unwrap(),
        state: ConnectionState::Established,
        age_s: 3,
        idle_ms: 1_200,
        timeout_ms: 7_200_000,
        service: Some(key("http")),
        backend_alive: true,
        worker: WorkerId(0),
    }
}

fn figures() -> Ledger {
    Ledger {
        received: 41_223,
        from_host: 14,
        sent: 41_194,
        to_host: 31,
        dropped: 12,
        ..Ledger::default()
    }
}

#[test]
fn services_as_kubectl_shows_them() {
    assert_eq!(
        services(&[web()], NARROW),
        "NAMESPACE   NAME   TYPE           ADDRESS                     PORT(S)      BACKENDS\n\
         default     web    LoadBalancer   203.0.113.10,2001:db8::10   80,443/TCP   3/3\n"
    );
    assert_eq!(
        services(&[odd()], NARROW),
        "NAMESPACE   NAME   TYPE       ADDRESS   PORT(S)                 BACKENDS   PROBLEM\n\
         shop        dns    NodePort   <none>    80:30080/TCP,443/SCTP   3/3,0/3    No  [2Jaddress. (and 1 more: -o wide)\n"
    );
    let wide = services(&[web(), odd()], WIDE);
    let lines: Vec<&str> = wide.lines().collect();
    assert!(lines[0].ends_with("CONNECTIONS   IN        OUT   REFUSED   SOURCE       PROBLEM"));
    assert!(lines[1].ends_with("10            4.0 KiB   0 B   0         web.yaml:1"));
    assert!(lines[2].ends_with("No  [2Jaddress.; port 443/SCTP: SCTP isn't forwarded yet."));
    assert_eq!(services(&[], NARROW), "No services.\n");
}

#[test]
fn connections_in_both_widths() {
    let mut answer = Connections { connections: vec![record()], more: true };
    assert_eq!(
        connections(&answer, NARROW),
        "PROTOCOL   CLIENT              FRONTEND          BACKEND          STATE         AGE   SERVICE\n\
         TCP        198.18.0.10:40112   203.0.113.10:80   198.18.1.11:80   established   3s    default/web\n\
         There are more than these 1: narrow it down, or --limit N.\n"
    );
    answer.connections[0].backend_alive = false;
    let wide = connections(&answer, WIDE);
    let end = "198.18.1.200:20731   1.2s   2h0m      0        backend has left";
    assert!(wide.lines().nth(1).unwrap().ends_with(end), "{wide}");
}

#[test]
fn drops_with_meaning_and_remedy() {
    let row = |reason, by_worker: [u64; 2]| DropRow {
        reason,
        by_worker: by_worker.to_vec(),
        packets: by_worker.iter().sum(),
    };
    let rows = [
        row(DropReason::PortZero, [0, 0]),
        row(DropReason::TableFull, [1, 0]),
        row(DropReason::AnswerLimited, [7, 2]),
    ];
    let text = drops(&rows, NARROW);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].starts_with("answer_limited   9         "), "{text}");
    assert!(lines[2].contains("The connection table is full.   "));
    assert!(lines[2].contains("   Raise [connections] ipv4"));
    assert!(drops(&rows, WIDE).lines().nth(1).unwrap().contains("   7,2         "));
    assert_eq!(drops(&rows, WIDE).lines().count(), 4);
    assert_eq!(drops(&rows[..1], NARROW), "No packets were dropped.\n");
    assert!(drop_reason(Some(DropReason::PortZero)).starts_with("port_zero\n  what    "));
    assert_eq!(drop_reason(None).lines().count(), 3 * DropReason::COUNT);
}

fn explanation() -> FlowExplanation {
    FlowExplanation {
        flow: FiveTuple {
            protocol: Protocol::Tcp,
            source: "198.18.0.10:40112".parse().unwrap(),
            destination: "203.0.113.10:80".parse().unwrap(),
        },
        answer: FlowAnswer {
            owner: WorkerId(0),
            service: Some(key("http")),
            connection: Some(record()),
            selected: None,
            chosen_by: "maglev".into(),
            affinity_left_s: None,
            reset_in_s: None,
            way: None,
            drop: None,
        },
        origin: Some("LoadBalancer, pool demo".into()),
        backend_name: Some("web-1".into()),
        remedy: None,
    }
}

#[test]
fn a_flow_is_explained_in_sentences() {
    let mut flow = explanation();
    let frontend =
        "frontend 203.0.113.10:80/tcp <- default/web port http (LoadBalancer, pool demo)\n";
    assert_eq!(
        flow_explanation(&flow),
        format!(
            "{frontend}connection established, worker 0, age 3s; backend web-1 198.18.1.11:80, \
             NAT source 198.18.1.200:20731; chosen by maglev\n"
        )
    );
    flow.answer.connection = None;
    flow.answer.selected = Some("198.18.1.11:80".parse().unwrap());
    flow.answer.way = Some("back 198.18.1.11 unresolved".into());
    flow.answer.drop = Some(DropReason::NeighbourUnresolved);
    assert_eq!(
        flow_explanation(&flow),
        format!(
            "{frontend}no connection yet; worker 0 would send a new one to web-1 198.18.1.11:80; \
             chosen by maglev\n\
             way back 198.18.1.11 unresolved\n\
             dropped neighbour_unresolved: {}\n\
             remedy {}\n",
            DropReason::NeighbourUnresolved.meaning(),
            DropReason::NeighbourUnresolved.remedy()
        )
    );
    flow.answer.service = None;
    flow.answer.selected = None;
    flow.answer.drop = None;
    flow.answer.way = None;
    flow.answer.chosen_by = "own_address".into();
    assert_eq!(
        flow_explanation(&flow),
        "203.0.113.10:80/tcp is no frontend\n\
         no connection (worker 0): an address of the gateway itself, its host answers\n"
    );
}

#[test]
fn a_service_is_walked() {
    let step = |question: &str, good, remedy: Option<&str>| Step {
        question: question.into(),
        good,
        finding: "found".into(),
        remedy: remedy.map(str::to_owned),
    };
    let explanation = ServiceExplanation {
        service: ObjectName::new("default", "web"),
        steps: vec![step("is ours", true, None), step("has an address", false, Some("add a pool"))],
    };
    assert_eq!(
        service_explanation(&explanation, NARROW),
        "default/web\n  yes  is ours: found\n  NO   has an address: found\n       -> add a pool\n"
    );
    let coloured = service_explanation(&explanation, Look { colour: true, ..NARROW });
    assert!(coloured.contains("\x1b[32myes\x1b[0m"));
}

fn link(interface: &str) -> LinkRow {
    let (interface, port) = (interface.to_owned(), "front".to_owned());
    LinkRow { interface, port, is_front: true, up: true, twin_up: true }
}

#[test]
fn the_state_on_one_screen() {
    let mut whole = Status {
        version: "0.1.0 abc1234".into(),
        dpdk: "22.11".into(),
        drivers: vec!["net_tap".into()],
        huge_pages: "256 x 2 MiB".into(),
        cores: vec![1],
        uptime_s: 192,
        source: "directory /etc/headgate/manifests".into(),
        source_state: SourceState { loaded: true, in_step: true, ..SourceState::default() },
        services: [4, 3],
        service_ports: 5,
        backends: [3, 4],
        backends_anywhere: false,
        connections: 12,
        generation: [7, 7],
        last_change_us: Some(900),
        degraded: vec![],
        links: Links { interfaces: vec![link("hg-front"), link("hg-back")], ..Links::default() },
        conflicts: vec![],
        ledger: figures(),
    };
    assert_eq!(
        status(&whole, NARROW),
        "Headgate 0.1.0 abc1234 · DPDK 22.11 net_tap · 1 worker on core 1 · huge pages 256 x 2 MiB\n\
         up           3m12s\n\
         source       directory /etc/headgate/manifests, in step\n\
         services     3 of 4 served, 5 ports\n\
         backends     3 of 4 active\n\
         links        hg-front up, hg-back up, in 0 IPv6 groups\n\
         connections  12\n\
         generation   7 on every worker, last change took 0.9 ms\n\
         ledger       received 41223 + from host 14 = sent 41194 + to host 31 + dropped 12\n\
         health       good\n"
    );
    whole.source_state = SourceState {
        stale_ms: 61_000,
        leadership: Some(Leadership {
            lease: "headgate-system/headgate".into(),
            holder: "gate-b".into(),
            problem: "gate-b holds the Lease".into(),
            ..Leadership::default()
        }),
        ..whole.source_state
    };
    let text = status(&whole, NARROW);
    assert!(text.contains("source       directory /etc/headgate/manifests, in step\n"), "{text}");
    assert!(
        text.contains("writes       no: gate-b holds the Lease (headgate-system/headgate)\n"),
        "{text}"
    );
    whole.source_state.in_step = false;
    if let Some(leadership) = &mut whole.source_state.leadership {
        leadership.ours = true;
    }
    let text = status(&whole, NARROW);
    assert!(text.contains(", not in step for 1m1s\n"), "{text}");
    assert!(text.contains("writes       yes, holds headgate-system/headgate\n"), "{text}");
    whole.degraded = vec![Degraded { what: "port front is down".into(), since_s: 940 }];
    whole.links.interfaces[0].up = false;
    whole.conflicts = vec![ConflictRow {
        interface: "hg-front".into(),
        address: "203.0.113.10".parse().unwrap(),
        mac: "02:00:00:00:00:77".into(),
        is_gateway: true,
        since_s: 0,
        claims: 1,
        defences: 0,
    }];
    whole.generation = [8, 7];
    whole.ledger.received += 1;
    let text = status(&whole, NARROW);
    assert!(text.contains("DEGRADED     port front is down (for 1m0s)\n"));
    assert!(text.contains("links        hg-front DOWN, hg-back up, in 0 IPv6 groups\n"));
    let shared = "shared       203.0.113.10 on hg-front with another gateway, 02:00:00:00:00:77\n";
    assert!(text.contains(shared), "{text}");
    assert!(text.contains("8 published, 7 on every worker"));
    assert!(text.contains("OUT OF BALANCE by 1\n"));
}

#[test]
fn the_other_lists() {
    let row = WorkerRow {
        worker: WorkerId(0),
        core: 1,
        generation: 7,
        busy_ratio: 0.254,
        ns_per_packet: 97.4,
        busy_and_idle_s: [1., 3.],
        passes: vec![],
        mean_burst: 3.46,
        loops: 9,
        connections: [3, 1],
        connections_max: [262_144, 65_536],
        inserts: 4,
        half_open_evicted: 0,
        affinity: Default::default(),
        resets: 0,
        reset_probes: 0,
        ledger: Ledger::default(),
    };
    let answer = Workers {
        generation: 7,
        generation_everywhere: 6,
        affinity_clients: [0; 2],
        workers: vec![row.clone()],
        mirror: MirrorLedger { from_kernel: 2, to_workers: 2, ..MirrorLedger::default() },
    };
    assert_eq!(
        workers(&answer, NARROW),
        "WORKER   CORE   BUSY   BURST   NS/PACKET   IPV4       IPV6      INSERTED   LEDGER\n\
         0        1      25%    3.5     97          3/262144   1/65536   4          received 0 = sent 0\n\
         generation 7 published, 6 on every worker\n\
         host mirror: from kernel 2 + generated 0 = to workers 2 + dropped 0; from workers 0 = to kernel 0 + dropped 0\n"
    );
    let pass = PassRow { pass: "pipeline".into(), ns_per_packet: 61.24, share: 0.63 };
    let measured = Workers { workers: vec![WorkerRow { passes: vec![pass], ..row }], ..answer };
    let text = workers(&measured, NARROW);
    assert!(text.contains("0        pipeline   61.2        63%\n"), "{text}");
    let neighbour = NeighbourRow {
        interface: "back".into(),
        address: "198.18.1.11".parse().unwrap(),
        mac: String::new(),
        state: "incomplete".into(),
        kind: "backend".into(),
        backends: 2,
    };
    let client = NeighbourRow { kind: "client".into(), backends: 0, ..neighbour.clone() };
    let rows = [vec![neighbour], vec![client; 1_000]].concat();
    assert_eq!(
        neighbours(&rows, false),
        "INTERFACE   ADDRESS       MAC      STATE        KIND      BACKENDS\n\
         back        198.18.1.11   <none>   incomplete   backend   2\n\
         And 1000 clients: headgate show neighbours --all\n"
    );
    assert_eq!(neighbours(&rows, true).lines().count(), 1_002);
    let event = Event {
        time_s: 880,
        severity: Severity::Warning,
        reason: "AddressRefused".into(),
        kind: "Service".into(),
        object: ObjectName::new("default", "web"),
        uid: String::new(),
        place: "web.yaml:4".into(),
        message: "no".into(),
    };
    assert_eq!(
        events(&[event], NARROW),
        "LAST SEEN   TYPE      REASON           OBJECT                SOURCE       MESSAGE\n\
         2m0s        Warning   AddressRefused   service/default/web   web.yaml:4   no\n"
    );
    let device = PortRow {
        name: "front".into(),
        device: "net_tap0".into(),
        driver: "net_tap".into(),
        mac: "02:00:00:00:00:01".into(),
        link_up: true,
        rx_queues: 1,
        tx_queues: 2,
        device_counters: DeviceCounters::default(),
    };
    assert!(ports(&[device], WIDE).contains("up     1 rx 2 tx"));
    assert_eq!(backends(&[], NARROW), "No backends.\n");
}

#[test]
fn measures() {
    assert_eq!([0, 59, 60, 7_500, 90_000].map(age), ["0s", "59s", "1m0s", "2h5m", "1d1h"]);
    assert_eq!(
        [0, 1_023, 1_536, 1 << 30, u64::MAX].map(bytes),
        ["0 B", "1023 B", "1.5 KiB", "1.0 GiB", "16384.0 PiB"]
    );
}
