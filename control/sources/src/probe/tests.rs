//! Probes of real sockets on loopback.

use super::*;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use translate::probes::Check;

const QUICK: Cadence =
    Cadence { interval_ms: 100, timeout_ms: 2_000, healthy_after: 2, unhealthy_after: 2 };

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn key(address: SocketAddr, path: Option<&str>) -> ProbeKey {
    let check = path.map_or(Check::Tcp, |path| Check::Http { path: path.into() });
    ProbeKey { namespace: "default".into(), address, via: None, check }
}

fn start(prober: &mut Prober, key: &ProbeKey) {
    let started = vec![(key.clone(), QUICK)];
    prober.change(ProbeChange { started, stopped: Vec::new() });
}

/// The next health of a probe that differs; a minute is more than any machine needs.
fn next(prober: &mut Prober, key: &ProbeKey) -> Health {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        for (told, health) in prober.results() {
            if told == *key {
                return health;
            }
        }
        assert!(Instant::now() < until, "nothing was told about {key:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Answers every connection by this after it has read a request, until the task ends.
async fn serve(listener: TcpListener, answer: Arc<Mutex<String>>, asked: Arc<Mutex<Vec<String>>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 2_048];
        let count = stream.read(&mut request).await.unwrap_or_default();
        asked.lock().unwrap().push(String::from_utf8_lossy(&request[..count]).into_owned());
        let answer = answer.lock().unwrap().clone();
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[test]
fn tcp_is_healthy_while_it_listens_and_closed_when_it_does_not() {
    let runtime = runtime();
    for ip in ["127.0.0.1:0", "[::1]:0"] {
        let listener = runtime.block_on(TcpListener::bind(ip)).unwrap();
        let key = key(listener.local_addr().unwrap(), None);
        let mut prober = Prober::start(ProbeOptions::default(), runtime.handle());
        start(&mut prober, &key);
        assert_eq!(next(&mut prober, &key), Health::Healthy { weight: None });
        drop(listener);
        assert_eq!(next(&mut prober, &key), Health::Unhealthy { closed: true });
    }
}

#[test]
fn http_follows_status_and_weight() {
    let runtime = runtime();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(Mutex::new("HTTP/1.1 503 no\r\n\r\n".to_owned()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    runtime.spawn(serve(listener, answer.clone(), asked.clone()));
    let key = key(address, Some("/healthz?full=1"));
    let options = ProbeOptions { sources: vec!["127.0.0.2".parse().unwrap()], at_once: 1 };
    let mut prober = Prober::start(options, runtime.handle());
    start(&mut prober, &key);
    assert_eq!(next(&mut prober, &key), Health::Unhealthy { closed: false });
    let weighty = "HTTP/1.1 200 OK\r\nX-Load-Balancing-Endpoint-Weight: 4\r\n\r\nbody";
    *answer.lock().unwrap() = weighty.to_owned();
    assert_eq!(next(&mut prober, &key), Health::Healthy { weight: Some(4) });
    // An answer without end is cut off, and is none.
    *answer.lock().unwrap() = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(40_000));
    assert_eq!(next(&mut prober, &key), Health::Unhealthy { closed: false });
    let asked = asked.lock().unwrap();
    let expected = format!("GET /healthz?full=1 HTTP/1.1\r\nHost: {address}\r\n");
    assert!(asked.iter().all(|one| one.starts_with(&expected)), "{asked:?}");
}

#[test]
fn a_server_that_says_nothing_is_unhealthy_after_its_time() {
    let runtime = runtime();
    // Connections are accepted by the kernel, and nobody reads them.
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let key = key(listener.local_addr().unwrap(), Some("/"));
    let mut prober = Prober::start(ProbeOptions::default(), runtime.handle());
    let cadence = Cadence { timeout_ms: 50, ..QUICK };
    prober.change(ProbeChange { started: vec![(key.clone(), cadence)], stopped: Vec::new() });
    assert_eq!(next(&mut prober, &key), Health::Unhealthy { closed: false });
}

#[test]
fn a_stopped_probe_says_nothing_more_and_begins_anew() {
    let runtime = runtime();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let key = key(listener.local_addr().unwrap(), None);
    let mut prober = Prober::start(ProbeOptions::default(), runtime.handle());
    start(&mut prober, &key);
    // A second start changes the pace alone.
    start(&mut prober, &key);
    assert_eq!((prober.len(), prober.is_empty()), (1, false));
    assert_eq!(next(&mut prober, &key), Health::Healthy { weight: None });
    prober.change(ProbeChange { started: Vec::new(), stopped: vec![key.clone()] });
    assert!(prober.is_empty());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(prober.results(), []);
    start(&mut prober, &key);
    assert_eq!(next(&mut prober, &key), Health::Healthy { weight: None });
}
