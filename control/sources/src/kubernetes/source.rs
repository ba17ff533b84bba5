//! The parts put together.

use super::KubeError;
use super::connect::{Connector, Line};
use super::health::{SourceHealth, Watches};
use super::inbox::Inbox;
use super::kinds::Watched;
use super::known::Known;
use super::lease::{Elector, Lead, Leadership};
use super::options::Options;
use super::pace::{Backoff, Jitter};
use super::reflect::Reflector;
use super::statuses::Statuses;
use super::trouble::{Sort, Trouble};
use super::writer::{self, Names, Writer};
use crate::Changes;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use translate::Kind;

/// How often it is looked whether the last writes have been answered.
const LOOK: Duration = Duration::from_millis(10);

/// A watched API server. Dropping it ends its tasks.
pub struct KubernetesSource {
    line: Line,
    inbox: Arc<Inbox>,
    watches: Arc<Watches>,
    lead: Arc<Lead>,
    writer: Writer,
    tasks: Vec<JoinHandle<()>>,
    elector: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl std::fmt::Debug for KubernetesSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesSource").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Drop for KubernetesSource {
    fn drop(&mut self) {
        self.tasks.iter().chain(&self.elector).for_each(JoinHandle::abort);
    }
}

impl KubernetesSource {
    /// Reads the credentials and begins to watch, on tasks of `runtime`. An API server that is
    /// away is waited for. Not to be called from a task of the runtime.
    ///
    /// # Errors
    /// The credentials are missing or make no sense.
    pub fn start(options: Options, runtime: &Handle) -> Result<Self, KubeError> {
        let (connector, line) = runtime.block_on(Connector::start(&options))?;
        let mut source = Self::with(options, line, runtime, &Jitter::random());
        let watches = source.watches.clone();
        source.tasks.push(runtime.spawn(connector.run(move |problem| {
            if let Some(problem) = &problem {
                tracing::warn!("{problem}");
            }
            // What is said now stands for what was said before.
            watches.problem("credentials", None);
            if let Some(what) = problem {
                watches.problem("credentials", Some(&Trouble::new(Sort::Credentials, what)));
            }
        })));
        Ok(source)
    }

    /// The same over a line that is there.
    pub(super) fn with(options: Options, line: Line, runtime: &Handle, jitter: &Jitter) -> Self {
        let mut kinds = vec![Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr];
        if options.namespaces_needed {
            kinds.push(Kind::Namespace);
        }
        let inbox = Arc::new(Inbox::new(kinds.iter().copied(), options.timing.gather));
        let watches = Arc::new(Watches::new(kinds.iter().copied()));
        let known: Names = Arc::new(
            kinds.iter().map(|kind| (*kind, Arc::new(Mutex::new(Known::new(*kind))))).collect(),
        );
        let lead = Arc::new(Lead::new(options.lease.is_some(), inbox.clone()));
        let statuses = Arc::new(Statuses::default());
        let (want_list, wanted) = watch::channel(0);
        let mut parts = Parts {
            line: line.clone(),
            inbox: inbox.clone(),
            watches: watches.clone(),
            known: known.clone(),
            options: &options,
            wanted,
            jitter: jitter.clone(),
            statuses: statuses.clone(),
            runtime,
            tasks: Vec::new(),
        };
        parts.watch::<Service>();
        parts.watch::<EndpointSlice>();
        parts.watch::<Node>();
        parts.watch::<ServiceCIDR>();
        if options.namespaces_needed {
            parts.watch::<Namespace>();
        }
        let mut tasks = std::mem::take(&mut parts.tasks);
        let jitter = parts.jitter;
        let (writer, run) = writer::make(writer::Parts {
            line: line.clone(),
            lead: lead.clone(),
            watches: watches.clone(),
            statuses,
            known,
            inbox: inbox.clone(),
            jitter: jitter.clone(),
            options: options.clone(),
        });
        tasks.push(runtime.spawn(run));
        let (stop, stopped) = watch::channel(false);
        let elector = options.lease.clone().map(|lease| {
            let elector = Elector {
                options: lease,
                identity: options.identity.clone(),
                pools_hash: options.pools_hash.clone(),
                selection: options.selection,
                line: line.clone(),
                lead: lead.clone(),
                watches: watches.clone(),
                timing: options.timing,
                jitter,
                want_list,
            };
            runtime.spawn(elector.run(stopped))
        });
        Self { line, inbox, watches, lead, writer, tasks, elector, stop }
    }

    /// Waits for changes, at most for `wait`. The first ones are everything there is, and come
    /// when every watch has listed once. The first change of a burst comes at once; a storm is
    /// gathered for [`super::Timing::gather`] at most.
    pub fn next(&mut self, wait: Duration) -> Option<Changes> {
        self.inbox.next(wait)
    }

    /// What there is now.
    #[cfg(test)]
    pub(super) fn take(&self) -> Option<Changes> {
        self.inbox.take()
    }

    /// How the watches are.
    pub fn health(&self) -> SourceHealth {
        self.watches.health(&self.line.get().facts.server)
    }

    /// Writes statuses and Events.
    pub fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Whether this gateway allocates and writes. It turns true with the [`Self::next`] that
    /// hands out (or would have, had something changed) the list that a new holder needs.
    pub fn leadership(&self) -> Leadership {
        self.lead.leadership()
    }

    /// Which time this is that this gateway allocates and writes without a break; `None` while it
    /// doesn't. What it wanted to be written in another term is forgotten.
    pub fn term(&self) -> Option<u64> {
        self.lead.term()
    }

    /// The key of the choice of backends that the Lease says, where it says one.
    pub fn selection_key(&self) -> Option<u64> {
        self.lead.selection_key()
    }

    /// Whether another gateway allocates and writes, and what there was when it began to has been
    /// handed out.
    pub fn another_holds(&self) -> bool {
        self.lead.is_anothers()
    }

    /// Writes what can be written now and gives the Lease back, as far as `wait` allows. Not to be
    /// called from a task of the runtime.
    pub fn stop(mut self, runtime: &Handle, wait: Duration) {
        runtime.block_on(self.end(wait));
    }

    /// Half of the time is for writing, and the end of it for the Lease: whoever waits for it
    /// writes more than is left here. Nothing of ours may arrive after it was given back, since
    /// the next holder writes at once.
    pub(super) async fn end(&mut self, wait: Duration) {
        let began = Instant::now();
        while self.writer.is_busy() && self.lead.holds() && began.elapsed() < wait / 2 {
            sleep(LOOK).await;
        }
        self.writer.close();
        while self.writer.statuses_on_their_way() > 0 && began.elapsed() < wait * 3 / 4 {
            sleep(LOOK).await;
        }
        let Some(elector) = self.elector.take() else { return };
        if self.writer.statuses_on_their_way() > 0 {
            elector.abort();
            tracing::warn!(
                "what was written last may still arrive, so the Lease isn't given back: it runs \
                 out by itself"
            );
            return;
        }
        self.stop.send_replace(true);
        let left = wait.saturating_sub(began.elapsed());
        if timeout(left, elector).await.is_err() {
            tracing::warn!("the Lease couldn't be given back in time: it runs out by itself");
        }
    }
}

/// What every watch is made from.
struct Parts<'a> {
    line: Line,
    inbox: Arc<Inbox>,
    watches: Arc<Watches>,
    known: Arc<BTreeMap<Kind, Arc<Mutex<Known>>>>,
    options: &'a Options,
    wanted: watch::Receiver<u64>,
    jitter: Jitter,
    statuses: Arc<Statuses>,
    runtime: &'a Handle,
    tasks: Vec<JoinHandle<()>>,
}

impl Parts<'_> {
    fn watch<K: Watched>(&mut self) {
        let Some(known) = self.known.get(&K::KIND) else { return };
        let timing = self.options.timing;
        let jitter = self.jitter.fork();
        // Only Services have what a new holder must look at.
        let services = K::KIND == Kind::Service;
        let wanted = if services { self.wanted.clone() } else { watch::channel(0).1 };
        let reflector = Reflector::<K> {
            kind: PhantomData,
            line: self.line.clone(),
            inbox: self.inbox.clone(),
            watches: self.watches.clone(),
            known: known.clone(),
            timing,
            backoff: Backoff::new(timing.retry_first, timing.retry_longest, jitter),
            wanted,
            statuses: services.then(|| self.statuses.clone()),
        };
        self.tasks.push(self.runtime.spawn(reflector.run()));
    }
}
