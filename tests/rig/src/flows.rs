//! Clients that go on while things change: datagrams on sockets that stay, and TCP connections that
//! are opened, greeted and closed, over and over.

use crate::load::connect;
use crate::namespace::Namespace;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// From one datagram of a flow to the next.
const INTERVAL: Duration = Duration::from_millis(50);
/// From one connection to the next.
const REST: Duration = Duration::from_millis(10);
/// Errors that are kept.
const ERRORS_KEPT: usize = 5;

/// Flows of datagrams to echo servers, each from a port of its own. Dropped means ended.
pub struct Datagrams {
    stop: Arc<AtomicBool>,
    flows: Arc<Mutex<Vec<Flow>>>,
}

/// How one of them fares.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Where it goes.
    pub target: SocketAddr,
    /// Who answered last.
    pub backend: String,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that came back as they were.
    pub answered: u64,
    /// How often another backend answered than the time before.
    pub moved: u64,
    /// How often it was told that nobody is there (ICMP).
    pub refused: u64,
    /// The longest time without an answer.
    pub silence_max: Duration,
    heard: Instant,
}

impl Flow {
    fn new(target: SocketAddr) -> Self {
        Self {
            target,
            backend: String::new(),
            sent: 0,
            answered: 0,
            moved: 0,
            refused: 0,
            silence_max: Duration::ZERO,
            heard: Instant::now(),
        }
    }
    /// Takes in what came on its socket.
    fn hear(&mut self, text: &str, number: usize) -> Result<()> {
        let (backend, echo) = text.split_once(' ').context("an answer without a name")?;
        if !echo.starts_with(&format!("flow {number} datagram ")) {
            bail!("flow {number} got {echo:?}");
        }
        self.moved += u64::from(!self.backend.is_empty() && self.backend != backend);
        backend.clone_into(&mut self.backend);
        self.answered += 1;
        self.heard = Instant::now();
        Ok(())
    }
    fn look(&mut self, socket: &UdpSocket, number: usize) -> Result<()> {
        self.silence_max = self.silence_max.max(self.heard.elapsed());
        let mut buffer = [0; 2048];
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => self.hear(std::str::from_utf8(&buffer[..length])?, number)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Each error is told once, and then there may be more to read.
                Err(_) => self.refused += 1,
            }
        }
    }
}

fn locked(flows: &Mutex<Vec<Flow>>) -> MutexGuard<'_, Vec<Flow>> {
    flows.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Datagrams {
    /// Begins `count` flows to each of these addresses, from sources of its family.
    pub fn start(
        namespace: &Namespace,
        sources: &[IpAddr],
        targets: &[SocketAddr],
        count: usize,
    ) -> Result<Self> {
        let (mut sockets, mut flows) = (Vec::new(), Vec::new());
        for target in targets {
            let family: Vec<IpAddr> =
                sources.iter().copied().filter(|one| one.is_ipv4() == target.is_ipv4()).collect();
            for index in 0..count {
                let source = *family.get(index % family.len().max(1)).context("no source")?;
                sockets.push(namespace.within(|| -> Result<UdpSocket> {
                    let socket = UdpSocket::bind((source, 0))?;
                    socket.connect(target)?;
                    socket.set_nonblocking(true)?;
                    Ok(socket)
                })??);
                flows.push(Flow::new(*target));
            }
        }
        let (stop, flows) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(flows)));
        std::thread::spawn({
            let (stop, flows) = (Arc::clone(&stop), Arc::clone(&flows));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    // What isn't an echo isn't counted as one, so that it shows as silence.
                    round(&sockets, &flows);
                    sleep(INTERVAL);
                }
            }
        });
        Ok(Self { stop, flows })
    }
    /// How all of them fare, by now.
    pub fn flows(&self) -> Vec<Flow> {
        locked(&self.flows).clone()
    }
    /// Flows by the backend that answered last.
    pub fn by_backend(&self) -> BTreeMap<String, u64> {
        let mut by_backend = BTreeMap::new();
        for flow in self.flows() {
            *by_backend.entry(flow.backend).or_default() += 1;
        }
        by_backend
    }
    /// Begins to measure the longest silence anew.
    pub fn mark(&self) {
        for flow in locked(&self.flows).iter_mut() {
            flow.silence_max = Duration::ZERO;
        }
    }
    /// The longest silence of any flow since the mark.
    pub fn silence_max(&self) -> Duration {
        self.flows().iter().map(|flow| flow.silence_max).max().unwrap_or_default()
    }
    /// Waits until every flow is answered to what it has sent after this was called; gives the time
    /// that it took.
    pub fn wait_for_answers(&self, patience: Duration) -> Result<Duration> {
        let begun = Instant::now();
        // The first answer may be to what was sent before.
        let goals: Vec<u64> = self.flows().iter().map(|flow| flow.answered + 2).collect();
        loop {
            let flows = self.flows();
            let late: Vec<&Flow> = flows
                .iter()
                .zip(&goals)
                .filter(|(flow, goal)| flow.answered < **goal)
                .map(|(flow, _)| flow)
                .collect();
            if late.is_empty() {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > patience {
                bail!(
                    "{} of {} flows are silent after {patience:?}, as {:?}",
                    late.len(),
                    flows.len(),
                    late[0]
                );
            }
            sleep(INTERVAL / 5);
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Reads what has come, and sends one more on each.
fn round(sockets: &[UdpSocket], flows: &Mutex<Vec<Flow>>) {
    for (number, (socket, flow)) in sockets.iter().zip(locked(flows).iter_mut()).enumerate() {
        if flow.look(socket, number).is_err() {
            flow.refused += 1;
        }
        // An error that came by ICMP is told to whoever sends next.
        flow.refused += u64::from(
            socket.send(format!("flow {number} datagram {}", flow.sent).as_bytes()).is_err(),
        );
        flow.sent += 1;
    }
}

/// Short connections to servers of lines: each is opened, greeted and closed.
pub struct Greetings {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Greeted>>>,
}

/// What came of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeted {
    /// Connections.
    pub connections: u64,
    /// Connections that weren't greeted.
    pub failed: u64,
    /// The first errors.
    pub errors: Vec<String>,
    /// Greetings by backend.
    pub by_backend: BTreeMap<String, u64>,
}

impl Greeted {
    /// Fails unless all were greeted.
    pub fn check(&self) -> Result<()> {
        if self.failed > 0 || self.connections == 0 {
            bail!("{} of {} not greeted: {:?}", self.failed, self.connections, self.errors);
        }
        Ok(())
    }
    fn one(&mut self, source: IpAddr, target: SocketAddr) {
        self.connections += 1;
        match greeting(source, target) {
            Ok(name) => *self.by_backend.entry(name).or_default() += 1,
            Err(error) => {
                self.failed += 1;
                if self.errors.len() < ERRORS_KEPT {
                    self.errors.push(format!("{target}: {error:#}"));
                }
            }
        }
    }
}

fn greeting(source: IpAddr, target: SocketAddr) -> Result<String> {
    let mut reader = BufReader::new(connect(Some(source), target)?);
    let mut name = String::new();
    reader.read_line(&mut name).context("no greeting")?;
    if !name.ends_with('\n') {
        bail!("greeted by {name:?}");
    }
    Ok(name.trim_end().to_owned())
}

impl Greetings {
    /// Begins to connect to these addresses in turn, one at a time.
    pub fn start(namespace: &Namespace, sources: &[IpAddr], targets: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = namespace.spawn({
            let stop = Arc::clone(&stop);
            let (sources, targets) = (sources.to_vec(), targets.to_vec());
            move || {
                let mut greeted = Greeted::default();
                for (round, target) in targets.iter().cycle().enumerate() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let family = || sources.iter().filter(|one| one.is_ipv4() == target.is_ipv4());
                    let index = (round / targets.len()) % family().count().max(1);
                    if let Some(source) = family().nth(index) {
                        greeted.one(*source, *target);
                    }
                    sleep(REST);
                }
                greeted
            }
        });
        Self { stop, thread: Some(thread) }
    }
    /// Ends it, and gives what came of all.
    pub fn stop(mut self) -> Result<Greeted> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        thread.join().map_err(|_| anyhow!("a client panicked"))?
    }
}

impl Drop for Greetings {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_takes_its_own_echoes_alone() {
        let mut flow = Flow::new("203.0.113.1:53".parse().unwrap());
        flow.hear("a flow 3 datagram 0", 3).unwrap();
        flow.hear("b flow 3 datagram 1", 3).unwrap();
        assert!(flow.hear("b flow 4 datagram 1", 3).is_err());
        assert!(flow.hear("nonsense", 3).is_err());
        assert_eq!((flow.answered, flow.moved, &*flow.backend), (2, 1, "b"));
    }
}
