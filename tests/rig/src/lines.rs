//! Long-lived connections: each sends a numbered line every 100 ms and checks the echo. One line
//! missing means that the connection is broken.

use crate::load::connect;
use crate::namespace::Namespace;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time from line to line.
const INTERVAL: Duration = Duration::from_millis(100);

/// Long-lived connections that run in the background until [`LineClients::stop`].
pub struct LineClients {
    by_backend: BTreeMap<String, u64>,
    first: (SocketAddr, SocketAddr),
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<Report>>,
}

/// What became of long-lived connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections.
    pub connections: u64,
    /// Lines that came back as they were.
    pub lines: u64,
    /// Connections that missed a line.
    pub broken: u64,
    /// How the first of them broke.
    pub errors: Vec<String>,
    /// The longest time that an echo took.
    pub echo_max: Duration,
}

struct Client {
    reader: BufReader<TcpStream>,
    backend: String,
    lines: u64,
}

impl Client {
    fn open(source: Option<IpAddr>, target: SocketAddr) -> Result<Self> {
        let mut reader = BufReader::with_capacity(512, connect(source, target)?);
        let mut name = String::new();
        reader.read_line(&mut name).context("no greeting")?;
        Ok(Self { reader, backend: name.trim_end().to_owned(), lines: 0 })
    }
    fn text(&self) -> String {
        format!("{} line {}\n", self.backend, self.lines)
    }
    fn send(&mut self) -> Result<()> {
        let text = self.text();
        self.reader.get_mut().write_all(text.as_bytes()).context("cannot send")
    }
    fn check(&mut self) -> Result<()> {
        let mut line = String::new();
        let length = self.reader.read_line(&mut line).context("no echo")?;
        if length == 0 {
            bail!("closed by the other side");
        }
        if line != self.text() {
            bail!("sent {:?}, got {line:?}", self.text());
        }
        self.lines += 1;
        Ok(())
    }
}

impl LineClients {
    /// Opens `count` connections to backends that `wanted` says yes to, and starts sending. Those
    /// that reach another backend are closed and opened anew.
    pub fn open(
        namespace: &Namespace,
        sources: &[IpAddr],
        target: SocketAddr,
        count: usize,
        wanted: impl Fn(&str) -> bool + Sync,
    ) -> Result<Self> {
        let clients = namespace.within(|| -> Result<Vec<Client>> {
            let mut clients = Vec::new();
            for index in 0..count * 20 {
                if clients.len() == count {
                    break;
                }
                let source = sources.get(index % sources.len().max(1)).copied();
                let client = Client::open(source, target)
                    .with_context(|| format!("long-lived connection {index} to {target}"))?;
                if wanted(&client.backend) {
                    clients.push(client);
                }
            }
            Ok(clients)
        })??;
        if clients.len() < count {
            bail!("only {} of {count} connections reached the backends wanted", clients.len());
        }
        let mut by_backend = BTreeMap::new();
        for client in &clients {
            *by_backend.entry(client.backend.clone()).or_default() += 1;
        }
        let stream = clients.first().context("no connection was asked for")?.reader.get_ref();
        let first = (stream.local_addr()?, stream.peer_addr()?);
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            move || talk(clients, &stop, &rounds)
        });
        Ok(Self { by_backend, first, stop, rounds, thread: Some(thread) })
    }
    /// Connections by backend.
    pub fn by_backend(&self) -> &BTreeMap<String, u64> {
        &self.by_backend
    }
    /// Addresses of the first connection: the client's, the frontend's.
    pub fn first(&self) -> (SocketAddr, SocketAddr) {
        self.first
    }
    /// Waits until every connection has sent and checked `count` more lines.
    pub fn wait_for_lines(&self, count: u64) {
        self.wait_for_round(self.rounds.load(Ordering::Relaxed) + count);
    }
    /// The same for several, all at a time.
    pub fn wait_for_lines_of_all(all: &[Self], count: u64) {
        let goals = all.iter().map(|one| one.rounds.load(Ordering::Relaxed) + count);
        let goals: Vec<u64> = goals.collect();
        all.iter().zip(goals).for_each(|(one, goal)| one.wait_for_round(goal));
    }
    fn wait_for_round(&self, goal: u64) {
        let finished = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        while self.rounds.load(Ordering::Relaxed) < goal && !finished() {
            thread::sleep(Duration::from_millis(5));
        }
    }
    /// Ends them and says what became of them.
    pub fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        thread.join().map_err(|_| anyhow!("the thread of the long-lived connections panicked"))
    }
}

impl Drop for LineClients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn talk(mut clients: Vec<Client>, stop: &AtomicBool, rounds: &AtomicU64) -> Report {
    let mut report = Report { connections: clients.len() as u64, ..Report::default() };
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) && !clients.is_empty() {
        let begun = Instant::now();
        clients.retain_mut(|client| report.keep(client.backend.clone(), client.send()));
        clients.retain_mut(|client| {
            let good = client.check();
            report.lines += u64::from(good.is_ok());
            report.echo_max = report.echo_max.max(begun.elapsed());
            report.keep(client.backend.clone(), good)
        });
        rounds.fetch_add(1, Ordering::Relaxed);
        next += INTERVAL;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    report
}

impl Report {
    fn keep(&mut self, backend: String, outcome: Result<()>) -> bool {
        if let Err(error) = &outcome {
            self.broken += 1;
            if self.errors.len() < 5 {
                self.errors.push(format!("{backend}: {error:#}"));
            }
        }
        outcome.is_ok()
    }
    /// Fails where a connection was broken.
    pub fn check(&self) -> Result<()> {
        if self.broken > 0 {
            bail!("{} of {} connections broke: {:?}", self.broken, self.connections, self.errors);
        }
        if self.lines < self.connections {
            bail!("{} lines on {} connections: nothing was tested", self.lines, self.connections);
        }
        Ok(())
    }
}
