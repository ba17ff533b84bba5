//! Active probes: asks addresses and says what came of it.
//!
//! Probes are ordinary sockets of the host: what the kernel sends leaves through the interfaces'
//! mirrors, so that a probe goes the way of the traffic that it speaks for. `ask` asks once,
//! `verdict` counts answers, and here each probe has a task that does so at its pace.

mod ask;
#[cfg(test)]
mod tests;
mod verdict;

use crate::kubernetes::pace::Jitter;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use translate::probes::{Cadence, Health, ProbeChange, ProbeKey};
use verdict::Verdict;

/// A probe's first question comes within this: backends that are new together aren't asked all
/// at once. Not later, since clients may be refused until it is answered.
const FIRST_WITHIN: Duration = Duration::from_millis(100);
/// No probe asks more often, whatever its cadence says.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How probes are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Questions of one namespace under way at once. Each has its own, and so have nodes: whose
    /// backends are silent keeps nobody else waiting.
    pub at_once: usize,
    /// Source addresses, at most one a family; without one the kernel chooses.
    pub sources: Vec<IpAddr>,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { at_once: 128, sources: Vec::new() }
    }
}

/// What changed, by probe; with the number of the task that says so.
type News = Arc<Mutex<HashMap<ProbeKey, (u64, Health)>>>;

/// A probe that goes on.
#[derive(Debug)]
struct Running {
    number: u64,
    cadence: watch::Sender<Cadence>,
    task: JoinHandle<()>,
}

/// All probes. Dropping it ends them.
#[derive(Debug)]
pub struct Prober {
    options: Arc<ProbeOptions>,
    runtime: Handle,
    running: HashMap<ProbeKey, Running>,
    news: News,
    /// By namespace: whose turn it is.
    turns: HashMap<Arc<str>, Arc<Semaphore>>,
    jitter: Jitter,
    number: u64,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.running.values().for_each(|one| one.task.abort());
    }
}

impl Prober {
    /// No probe yet. Their tasks run on `runtime`.
    pub fn start(options: ProbeOptions, runtime: &Handle) -> Self {
        Self {
            turns: HashMap::new(),
            options: Arc::new(options),
            runtime: runtime.clone(),
            running: HashMap::new(),
            news: News::default(),
            jitter: Jitter::random(),
            number: 0,
        }
    }

    /// Begins and ends probes. One that goes on takes up its new cadence and keeps what it
    /// counted.
    pub fn change(&mut self, change: ProbeChange) {
        for key in change.stopped {
            if let Some(one) = self.running.remove(&key) {
                one.task.abort();
            }
            self.news.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        }
        // Tasks that were ended a while ago have let go by now.
        self.turns.retain(|_, turns| Arc::strong_count(turns) > 1);
        for (key, cadence) in change.started {
            match self.running.get(&key) {
                Some(one) => drop(one.cadence.send_replace(cadence)),
                None => self.begin(key, cadence),
            }
        }
    }

    /// What differs from what was told before.
    pub fn results(&mut self) -> Vec<(ProbeKey, Health)> {
        let news = std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
        let running = |key: &ProbeKey, number: u64| {
            self.running.get(key).is_some_and(|one| one.number == number)
        };
        let news = news.into_iter().filter(|(key, (number, _))| running(key, *number));
        news.map(|(key, (_, health))| (key, health)).collect()
    }

    /// How many probes there are.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    fn begin(&mut self, key: ProbeKey, cadence: Cadence) {
        self.number += 1;
        let (sender, receiver) = watch::channel(cadence);
        let at_once = self.options.at_once.max(1);
        let turns = self.turns.entry(key.namespace.clone());
        let turns = turns.or_insert_with(|| Arc::new(Semaphore::new(at_once)));
        let probe = Probe {
            key: key.clone(),
            number: self.number,
            cadence: receiver,
            options: self.options.clone(),
            news: self.news.clone(),
            turns: turns.clone(),
            jitter: self.jitter.fork(),
        };
        let task = self.runtime.spawn(probe.run());
        self.running.insert(key, Running { number: self.number, cadence: sender, task });
    }
}

/// One probe's task.
struct Probe {
    key: ProbeKey,
    number: u64,
    cadence: watch::Receiver<Cadence>,
    options: Arc<ProbeOptions>,
    news: News,
    turns: Arc<Semaphore>,
    jitter: Jitter,
}

impl Probe {
    async fn run(mut self) {
        let mut verdict = Verdict::default();
        let first = self.jitter.below(FIRST_WITHIN);
        tokio::time::sleep(first).await;
        loop {
            let cadence = *self.cadence.borrow_and_update();
            // The time for the answer begins when it is this probe's turn.
            let Ok(turn) = self.turns.acquire().await else { return };
            let limit = Duration::from_millis(u64::from(cadence.timeout_ms.max(1)));
            let answer = ask::ask(&self.key, &self.options.sources, limit).await;
            drop(turn);
            if let Some(health) = verdict.count(answer, &cadence) {
                let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
                news.insert(self.key.clone(), (self.number, health));
            }
            let interval = Duration::from_millis(u64::from(cadence.interval_ms));
            let interval = interval.max(INTERVAL_MIN).mul_f64(0.9);
            let interval = self.jitter.stretch(interval);
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                Ok(()) = self.cadence.changed() => {}
            }
        }
    }
}
