//! The admin API over a real Unix socket, with a gateway that answers from constants.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use admin::server::ServerError;
use admin::{Client, ClientError, Options, Server, SocketError};
use common::{Fake, Running, key};
use model::answers::ConnectionFilter;
use model::desired::ObjectName;
use model::ids::{FiveTuple, Protocol};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn refused(error: &ClientError) -> (u16, &str) {
    match error {
        ClientError::Refused { status, message } => (*status, message),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn answers_come_back_as_they_were_given() {
    let running = Running::start(Fake { backends: 2, ..Fake::default() }).await;
    let client = running.client();
    let status = client.status().await.unwrap();
    assert_eq!((status.services, status.last_change_us), ([2, 1], Some(900)));
    assert_eq!(client.backends().await.unwrap(), [common::backend(0), common::backend(1)]);
    assert_eq!(client.workers().await.unwrap().workers, [common::worker()]);
    let measured = client.workers_measured(7).await.unwrap().workers;
    assert_eq!(measured[0].passes[0].ns_per_packet, 7.);
    assert!(client.workers_measured(61).await.is_err());
    assert_eq!(client.budgets().await.unwrap(), [common::budget()]);
    assert_eq!(client.drops().await.unwrap()[0].packets, 2);
    assert_eq!(client.ports().await.unwrap()[0].device_counters.ipackets, 10);
    assert!(client.events().await.unwrap().is_empty());
    for (source, destination) in
        [("198.18.0.10:40112", "203.0.113.10:80"), ("[2001:db8::1]:4", "[2001:db8::10]:80")]
    {
        let flow = FiveTuple {
            protocol: Protocol::Udp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        let explained = client.explain_flow(flow).await.unwrap();
        assert_eq!((explained.flow, explained.answer.service), (flow, Some(key())));
    }
    let name = ObjectName::new("default", "web");
    assert_eq!(client.explain_service(&name).await.unwrap().service, name);
}

#[tokio::test]
async fn refusals_keep_their_sentence() {
    let running = Running::start(Fake::default()).await;
    let client = running.client();
    let error = client.services().await.unwrap_err();
    assert_eq!(refused(&error), (504, "worker 3 did not answer in time"));
    let error = client.neighbours().await.unwrap_err();
    assert_eq!(refused(&error), (503, "starting"));
    let error = client.explain_service(&ObjectName::new("a", "b")).await.unwrap_err();
    assert_eq!(refused(&error), (404, "no Service a/b is known"));
    let error = client.text("/v1/connections?source=nowhere").await.unwrap_err();
    assert_eq!(refused(&error), (400, "\"nowhere\" is neither an address nor ADDRESS:PORT"));
    let error = client.text("/v1/connections?sourc=1.1.1.1").await.unwrap_err();
    assert_eq!(refused(&error).0, 400);
    assert_eq!(refused(&client.text("/v2/status").await.unwrap_err()).0, 404);
}

#[tokio::test]
async fn a_filter_arrives_whole() {
    let running = Running::start(Fake::default()).await;
    let full = ConnectionFilter {
        source: Some(("2001:db8::1".parse().unwrap(), Some(40_112))),
        destination: Some(("203.0.113.10".parse().unwrap(), None)),
        service: Some(ObjectName::new("default", "web")),
        state: Some("established".into()),
        protocol: Some(Protocol::Tcp),
        limit: 17,
    };
    assert!(running.client().connections(&full).await.unwrap().more);
    running.client().text("/v1/connections").await.unwrap();
    running.client().text("/v1/connections?limit=99999999999").await.unwrap();
    let asked = running.gateway.asked.lock().unwrap();
    assert_eq!(asked[0], full);
    assert_eq!(asked[1], ConnectionFilter { limit: 100, ..ConnectionFilter::default() });
    assert_eq!(asked[2].limit, 100_000);
}

#[tokio::test]
async fn health_follows_the_gateway() {
    let running = Running::start(Fake::default()).await;
    let client = running.client();
    assert_eq!(client.text("/livez").await.unwrap(), "ok\n");
    assert_eq!(client.text("/readyz").await.unwrap(), "ok\n");
    running.gateway.draining.store(true, Ordering::Relaxed);
    assert_eq!(client.text("/livez").await.unwrap(), "ok\n");
    assert_eq!(refused(&client.text("/readyz").await.unwrap_err()), (503, "draining"));
    running.gateway.dead.store(true, Ordering::Relaxed);
    assert_eq!(refused(&client.text("/livez").await.unwrap_err()), (503, "worker 0 stands still"));
    assert_eq!(refused(&client.text("/readyz").await.unwrap_err()), (503, "worker 0 stands still"));
}

#[tokio::test]
async fn metrics_hold_what_operations_need() {
    let running = Running::start(Fake { backends: 2, ..Fake::default() }).await;
    let text = running.client().text("/metrics").await.unwrap();
    let labels = "namespace=\"default\",service=\"web\",port=\"http\",protocol=\"TCP\"";
    for line in [
        "headgate_build_info{version=\"0.1.0\",commit=\"abc1234\",dpdk=\"22.11.7\"} 1.0",
        "headgate_generation 7.0",
        "headgate_last_change_seconds 0.0009",
        "headgate_source_stale_seconds 1.5",
        "headgate_worker_busy_ratio{worker=\"0\"} 0.25",
        "headgate_budget_refused_packets_total{interface=\"front\",purpose=\"host_other\"} 3",
        "headgate_worker_mean_burst_packets{worker=\"0\"} 3.5",
        "headgate_connections{worker=\"0\",family=\"IPv6\"} 1.0",
        "headgate_ledger_packets_total{worker=\"0\",term=\"received\"} 10",
        "headgate_mirror_packets_total{term=\"to_kernel\"} 0",
        "headgate_dropped_packets_total{worker=\"0\",reason=\"answer_limited\"} 2",
        "headgate_device_received_packets_total{port=\"front\"} 10",
        &format!("headgate_service_received_bytes_total{{{labels}}} 640"),
        &format!("headgate_backend_connections_total{{{labels},backend=\"198.18.0.1:80\"}} 5"),
        "headgate_backends_omitted 0.0",
        "headgate_source_in_step 1.0",
        "headgate_source_relists_total 2",
        "headgate_leader 1.0",
        "headgate_lease_holder_info{lease=\"headgate-system/headgate\",holder=\"gate-a\"} 1.0",
        "headgate_pool_addresses{pool=\"demo\",family=\"IPv4\"} 64.0",
        "headgate_pool_addresses_used{pool=\"demo\",family=\"IPv4\"} 2.0",
        "headgate_status_writes_total{result=\"conflict\"} 1",
        "headgate_event_writes_total{result=\"written\"} 0",
        "headgate_probes{state=\"unknown\"} 1.0",
        "headgate_endpoints_refused 2.0",
        "headgate_probes_overruled 0.0",
        "headgate_network_programming_seconds_bucket{le=\"0.002\"} 0",
        "headgate_network_programming_seconds_bucket{le=\"0.005\"} 1",
        "headgate_network_programming_seconds_count 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    let names = text.lines().filter(|line| !line.starts_with('#'));
    assert!(names.clone().count() > 50);
    assert!(names.clone().all(|line| line.starts_with("headgate_")));
    for kind in text.lines().filter(|line| line.starts_with("# TYPE")) {
        assert_eq!(text.lines().filter(|line| *line == kind).count(), 1, "{kind} twice");
    }
}

#[tokio::test]
async fn too_many_backends_have_no_series_of_their_own() {
    let running = Running::start(Fake { backends: 1_001, ..Fake::default() }).await;
    let text = running.client().text("/metrics").await.unwrap();
    assert!(text.contains("headgate_backends_omitted 1001.0"));
    assert!(!text.contains("backend=\""));
}

#[tokio::test]
async fn loopback_serves_health_and_metrics_alone() {
    let running = Running::start(Fake::default()).await;
    let ask = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(running.metrics.unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(ask("/metrics").await.contains("headgate_generation 7.0"));
    assert!(ask("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(ask("/v1/status").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn the_socket_lives_and_dies_with_the_server() {
    let running = Running::start(Fake::default()).await;
    let socket = running.socket();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // An idle connection must not hold up the end.
    let _idle = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let client = running.client();
    client.status().await.unwrap();
    let begin = Instant::now();
    running.stop.send(()).unwrap();
    running.served.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(!socket.exists());
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning(path) if path == socket));
}

#[tokio::test]
async fn a_living_socket_is_respected_and_a_dead_one_replaced() {
    let running = Running::start(Fake::default()).await;
    let options = Options { socket: running.socket(), metrics: None };
    let error = Server::bind(&options).await.unwrap_err();
    let own = std::process::id().cast_signed();
    match &error {
        ServerError::Socket(SocketError::AnotherRuns { pid, .. }) => assert_eq!(*pid, own),
        other => panic!("{other}"),
    }
    assert!(error.to_string().starts_with(&format!("another headgate runs: pid {own}")));
    running.client().status().await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let options = Options { socket: directory.path().join("headgate.sock"), metrics: None };
    // What a process that was killed leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&options.socket).unwrap());
    assert!(matches!(Client::new(&options.socket).status().await, Err(ClientError::NotRunning(_))));
    let server = Server::bind(&options).await.unwrap();
    assert_eq!(server.socket(), options.socket);
    drop(server);
    assert!(!options.socket.exists());

    std::fs::write(&options.socket, "precious").unwrap();
    let error = Server::bind(&options).await.unwrap_err();
    assert!(matches!(error, ServerError::Socket(SocketError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&options.socket).unwrap(), "precious");
}
