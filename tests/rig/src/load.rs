//! HTTP load: one connection a request, from several client addresses, with bounded concurrency.

use crate::namespace::Namespace;
use anyhow::{Context, Result, anyhow, bail};
use hdrhistogram::Histogram;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Load {
    /// Asked in turn.
    pub targets: Vec<SocketAddr>,
    /// Client addresses; for each request one of the target's family.
    pub sources: Vec<IpAddr>,
    /// Requests in all.
    pub requests: usize,
    /// Requests that are open at a time.
    pub concurrency: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests that were made.
    pub requests: u64,
    /// Requests without a whole and right answer.
    pub failed: u64,
    /// The first errors.
    pub errors: Vec<String>,
    /// Answers by the backend that gave them.
    pub by_backend: BTreeMap<String, u64>,
    /// The same for each target.
    pub by_target: BTreeMap<SocketAddr, TargetOutcome>,
    /// Connect times in microseconds, also of those that failed later.
    pub connect_us: Histogram<u64>,
    /// The same to the end of the answer.
    pub whole_us: Histogram<u64>,
    /// Time that all took.
    pub elapsed: Duration,
}

/// What came of the requests to one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetOutcome {
    /// Requests without a whole and right answer.
    pub failed: u64,
    /// Answers by backend.
    pub by_backend: BTreeMap<String, u64>,
}

/// Longest time for connecting and for each read; far beyond what is allowed, so that a slow
/// request is seen as slow.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where silence is what is expected.
const SILENCE: Duration = Duration::from_secs(5);
/// More requests than anybody makes, and far from the end of the numbers.
const ENDLESS: usize = usize::MAX / 2;
/// What a client of an endless load rests for.
const REST: Duration = Duration::from_millis(5);
/// Errors that are kept.
const ERRORS_KEPT: usize = 5;

impl Outcome {
    fn new() -> Result<Self> {
        Ok(Self {
            requests: 0,
            failed: 0,
            errors: Vec::new(),
            by_backend: BTreeMap::new(),
            by_target: BTreeMap::new(),
            connect_us: Histogram::new(3)?,
            whole_us: Histogram::new(3)?,
            elapsed: Duration::ZERO,
        })
    }
    /// Takes in what came of another load beside it.
    pub fn add(&mut self, other: Self) -> Result<()> {
        self.requests += other.requests;
        self.failed += other.failed;
        self.errors.extend(other.errors);
        self.errors.truncate(ERRORS_KEPT);
        merge(&mut self.by_backend, &other.by_backend);
        for (target, outcome) in other.by_target {
            let mine = self.by_target.entry(target).or_default();
            mine.failed += outcome.failed;
            merge(&mut mine.by_backend, &outcome.by_backend);
        }
        self.connect_us.add(&other.connect_us)?;
        self.whole_us.add(&other.whole_us)?;
        self.elapsed = self.elapsed.max(other.elapsed);
        Ok(())
    }
    fn record(&mut self, connect: Duration, whole: Duration) -> Result<()> {
        self.connect_us.record(connect.as_micros().try_into()?)?;
        Ok(self.whole_us.record(whole.as_micros().try_into()?)?)
    }
    fn count(&mut self, target: SocketAddr, answer: Result<String>) {
        self.requests += 1;
        let at = self.by_target.entry(target).or_default();
        match answer {
            Ok(name) => {
                *at.by_backend.entry(name.clone()).or_default() += 1;
                *self.by_backend.entry(name).or_default() += 1;
            }
            Err(error) => {
                at.failed += 1;
                self.failed += 1;
                if self.errors.len() < ERRORS_KEPT {
                    self.errors.push(format!("{target}: {error:#}"));
                }
            }
        }
    }
    /// The longest connect.
    pub fn connect_max(&self) -> Duration {
        Duration::from_micros(self.connect_us.max())
    }
    /// Fails unless every backend of `names` got its share, within `tolerance` (0.1 is 10 %).
    pub fn check_even(&self, names: &[String], tolerance: f64) -> Result<()> {
        let answers: u64 = self.by_backend.values().sum();
        let share = answers as f64 / names.len().max(1) as f64;
        for name in names {
            let got = self.by_backend.get(name).copied().unwrap_or(0) as f64;
            if (got - share).abs() > share * tolerance {
                bail!("{name} got {got} of {answers}, expected {share:.0}: {:?}", self.by_backend);
            }
        }
        if let Some(other) = self.by_backend.keys().find(|name| !names.contains(name)) {
            bail!("an answer from \"{other}\", which is none of {names:?}");
        }
        Ok(())
    }
    /// Fails unless all requests were answered.
    pub fn check_complete(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("{} of {} requests failed: {:?}", self.failed, self.requests, self.errors);
        }
        Ok(())
    }
}

fn merge(into: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
    for (name, count) in from {
        *into.entry(name.clone()).or_default() += count;
    }
}

/// Runs a load from a namespace.
pub fn run(namespace: &Namespace, load: &Load) -> Result<Outcome> {
    Running::start(namespace, load, Pace::Free).join()
}

/// When the next request begins.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// At once.
    Free,
    /// After a rest of its client.
    Rest(Duration),
    /// So many begin a second, or as many as the machine does.
    Rate(u32),
}

/// A load that is under way.
pub struct Running {
    begun: Instant,
    next: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<Result<Outcome>>>>,
}

impl Running {
    fn start(namespace: &Namespace, load: &Load, pace: Pace) -> Self {
        let load = Arc::new(load.clone());
        let next = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let threads = (0..load.concurrency.max(1))
            .map(|_| {
                let (load, next) = (Arc::clone(&load), Arc::clone(&next));
                namespace.spawn(move || work(&load, &next, (begun, pace)))
            })
            .collect();
        Self { begun, next, threads }
    }
    /// Begins one of `rate` requests a second.
    pub fn paced(namespace: &Namespace, load: &Load, rate: u32) -> Self {
        Self::start(namespace, load, Pace::Rate(rate))
    }
    /// Begins one that goes on until [`Self::stop`], and leaves the machine time for other things.
    /// `requests` doesn't count.
    pub fn endless(namespace: &Namespace, load: &Load) -> Self {
        let load = Load { requests: ENDLESS, ..load.clone() };
        Self::start(namespace, &load, Pace::Rest(REST))
    }
    /// Requests that were begun so far.
    pub fn begun(&self) -> usize {
        self.next.load(Ordering::Relaxed)
    }
    /// Lets the requests that are open come to their end, and gives what came of all.
    pub fn stop(self) -> Result<Outcome> {
        self.next.store(ENDLESS, Ordering::Relaxed);
        self.join()
    }
    /// Waits for the last request, and gives what came of all.
    pub fn join(mut self) -> Result<Outcome> {
        let mut outcome = Outcome::new()?;
        for thread in self.threads.drain(..) {
            outcome.add(thread.join().map_err(|_| anyhow!("a client panicked"))???)?;
        }
        outcome.elapsed = self.begun.elapsed();
        Ok(outcome)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.next.store(ENDLESS, Ordering::Relaxed);
    }
}

fn work(load: &Load, next: &AtomicUsize, (start, pace): (Instant, Pace)) -> Result<Outcome> {
    let mut outcome = Outcome::new()?;
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= load.requests {
            return Ok(outcome);
        }
        let target = load.targets[index % load.targets.len()];
        let sources: Vec<&IpAddr> =
            load.sources.iter().filter(|source| source.is_ipv4() == target.is_ipv4()).collect();
        let round = index / load.targets.len();
        let source = sources.get(round % sources.len().max(1)).copied().copied();
        if let Pace::Rate(rate) = pace {
            let due = start + Duration::from_secs_f64(index as f64 / f64::from(rate));
            sleep(due.saturating_duration_since(Instant::now()));
        }
        let begun = Instant::now();
        let connected = connect(source, target);
        let connect = begun.elapsed();
        let answer = connected.and_then(|stream| ask(stream, "/"));
        outcome.record(connect, begun.elapsed())?;
        outcome.count(target, answer.map(|body| body.trim_end().to_owned()));
        if let Pace::Rest(rest) = pace {
            sleep(rest);
        }
    }
}

/// Connects to `target`, from `source` where given.
pub fn connect(source: Option<IpAddr>, target: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        let source = SockAddr::from(SocketAddr::new(source, 0));
        socket.bind(&source).with_context(|| format!("cannot bind to {source:?}"))?;
    }
    socket.connect_timeout(&target.into(), PATIENCE).context("connect")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Asks for `path` on a new connection and gives the body, which must be as long as announced.
pub fn ask(mut stream: TcpStream, path: &str) -> Result<String> {
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    read_answer(&mut stream)
}

/// Reads an answer to its end.
pub fn read_answer(stream: &mut TcpStream) -> Result<String> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).context("read")?;
    let text = String::from_utf8(text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no end of header")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("answered {:?}", head.lines().next().unwrap_or(""));
    }
    if content_length(head)? != body.len() as u64 {
        bail!("the answer was cut: {} bytes", body.len());
    }
    Ok(body.to_owned())
}

/// `Content-Length` of a header.
pub(crate) fn content_length(head: &str) -> Result<u64> {
    let value = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    Ok(value.context("no Content-Length")?.trim().parse()?)
}

/// How long a connect took and how it ended: for ports that are to refuse at once.
pub fn attempt(
    namespace: &Namespace,
    target: SocketAddr,
) -> Result<(Duration, std::io::Result<()>)> {
    namespace.within(|| {
        let begun = Instant::now();
        let outcome = TcpStream::connect_timeout(&target, SILENCE).map(drop);
        (begun.elapsed(), outcome)
    })
}

/// Opens `count` connections to `target` that are all open at the same time, asks on each of them
/// once all are, and gives the answers by backend.
pub fn all_at_once(
    namespace: &Namespace,
    sources: &[IpAddr],
    target: SocketAddr,
    count: usize,
) -> Result<BTreeMap<String, u64>> {
    namespace.within(|| {
        let mut streams = Vec::new();
        for index in 0..count {
            let source = sources.get(index % sources.len().max(1)).copied();
            let stream = connect(source, target).with_context(|| format!("connection {index}"))?;
            streams.push(stream);
        }
        for stream in &mut streams {
            let request = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
            stream.write_all(request)?;
        }
        let mut by_backend = BTreeMap::new();
        for (index, stream) in streams.iter_mut().enumerate() {
            let body = read_answer(stream).with_context(|| format!("connection {index}"))?;
            *by_backend.entry(body.trim_end().to_owned()).or_default() += 1;
        }
        Ok(by_backend)
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_connect_is_seen_as_slow() {
        let mut all = Outcome::new().unwrap();
        for slow in [Duration::from_micros(90), Duration::from_millis(1_100)] {
            let mut outcome = Outcome::new().unwrap();
            outcome.record(slow, 2 * slow).unwrap();
            all.add(outcome).unwrap();
        }
        assert!(all.connect_max() >= Duration::from_secs(1), "{:?}", all.connect_max());
        assert!(all.whole_us.max() >= 2_200_000, "{}", all.whole_us.max());
    }
}
