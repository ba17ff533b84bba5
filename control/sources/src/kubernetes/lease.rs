//! Which of several gateways allocates and writes: the holder of a Lease.
//!
//! Times of other hosts are never compared: a Lease is over when it hasn't changed here for its
//! duration. The holder stops writing after two thirds of that without a renewal, so that what it
//! sent last arrives before another may begin. Whoever takes a Lease over from a holder that went
//! silent waits one duration more and then wants a quorum list; one that was given back, or that
//! is our own from before a restart, needs the list alone.
//!
//! A gateway that starts can't tell its own Lease from that of another of the same name. The other
//! one can: its Lease says a time that it didn't write. It leaves it then.

use super::connect::{Connection, Line};
use super::health::Watches;
use super::inbox::{Inbox, now};
use super::locked;
use super::options::{LeaseOptions, SelectionKey, Timing};
use super::pace::Jitter;
use super::said::{
    HOLDER_ANNOTATION, POOLS_ANNOTATION, SELECTION_ANNOTATION, annotation, holder, missing, other,
    renewed, selection,
};
use super::trouble::{Doing, Sort, Trouble};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;

/// How soon a turn that failed is made again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Times of ours that are known again at most.
const WROTE_MAX: usize = 16;

/// Who may allocate addresses and write statuses and Events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// This gateway may. Without a Lease it always may.
    pub holder: bool,
    /// Who holds the Lease, as far as is known; empty where nobody does or none is configured.
    pub holder_identity: String,
    /// Renewals by this gateway.
    pub renewals: u64,
    /// How often this gateway took it over...
    pub taken: u64,
    /// ...and how often it lost it.
    pub lost: u64,
    /// Why this gateway may not, in one sentence; empty while it may.
    pub what: String,
}

/// How this gateway stands.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// Until when the Lease is ours for certain.
    valid_until: Option<Instant>,
    /// A list to be handed out before we are the holder; `None` until it has been asked for.
    list: Option<u64>,
    /// The list that was asked for when this gateway lost the Lease.
    list_after: u64,
    holder: String,
    renewals: u64,
    taken: u64,
    lost: u64,
    what: String,
    selection: Option<u64>,
}

/// What everybody asks.
pub(super) struct Lead {
    standing: Option<Mutex<Standing>>,
    inbox: Arc<Inbox>,
}

impl Lead {
    pub(super) fn new(needed: bool, inbox: Arc<Inbox>) -> Self {
        Self { standing: needed.then(Mutex::default), inbox }
    }

    /// Whether this gateway may write now.
    pub(super) fn holds(&self) -> bool {
        self.term().is_some()
    }

    /// Since which list it may, without a break; `None` while it mayn't. Each time that it begins
    /// to has another number.
    pub(super) fn term(&self) -> Option<u64> {
        let Some(standing) = &self.standing else { return Some(0) };
        let standing = locked(standing);
        standing.valid_until.filter(|until| now() < *until)?;
        standing.list.filter(|list| self.inbox.handed_list() >= *list)
    }

    /// Whether another gateway holds the Lease, and what it found there has been handed out: a list
    /// from after this gateway lost it.
    pub(super) fn is_anothers(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| {
            let standing = locked(standing);
            let is = standing.valid_until.is_none() && !standing.holder.is_empty();
            is && self.inbox.handed_list() >= standing.list_after
        })
    }

    /// The key of the choice of backends that the Lease says.
    pub(super) fn selection_key(&self) -> Option<u64> {
        locked(self.standing.as_ref()?).selection
    }

    pub(super) fn leadership(&self) -> Leadership {
        let holder = self.holds();
        let standing = match &self.standing {
            Some(standing) => locked(standing).clone(),
            None => Standing::default(),
        };
        Leadership {
            holder,
            holder_identity: standing.holder,
            renewals: standing.renewals,
            taken: standing.taken,
            lost: standing.lost,
            what: if holder { String::new() } else { standing.what },
        }
    }

    fn with(&self, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = &self.standing {
            change(&mut locked(standing));
        }
    }
}

/// What the Lease looked like, and since when it has.
struct Observed {
    lease: Lease,
    since: Instant,
}

/// How far this process has come with the Lease.
#[derive(Default)]
struct Term {
    observed: Option<Observed>,
    /// It is ours, by what the server answered last.
    held: bool,
    /// When the wait after taking it is over; `None` when nothing is waited for.
    settled_at: Option<Instant>,
    /// The last turn failed: the next one comes soon.
    failed: bool,
    /// It was tried to take it: that it is ours then may be news to us, and no restart.
    tried: bool,
    /// The times that we have written, or may have, since the last answer.
    wrote: Vec<MicroTime>,
    /// Another gateway has our identity, and holds it.
    double: bool,
}

impl Term {
    /// Whether a Lease that names us is as we wrote it.
    fn is_by_us(&self, lease: &Lease) -> bool {
        let is = renewed(lease);
        let acknowledged = self.observed.as_ref().and_then(|seen| renewed(&seen.lease));
        is == acknowledged || self.wrote.iter().any(|time| Some(time.0.as_microsecond()) == is)
    }
}

/// Acquires and renews.
pub(super) struct Elector {
    pub options: LeaseOptions,
    pub identity: String,
    pub pools_hash: String,
    pub selection: SelectionKey,
    pub line: Line,
    pub lead: Arc<Lead>,
    pub watches: Arc<Watches>,
    pub timing: Timing,
    pub jitter: Jitter,
    /// Asks for a quorum list by growing.
    pub want_list: watch::Sender<u64>,
}

/// What is to be done about the Lease.
enum Plan {
    /// It is ours already, by this process.
    Renew,
    /// It may be taken; `wait` where another held it until it went silent.
    Take { wait: bool },
    /// It may not, for this reason.
    Leave(String),
}

impl Elector {
    /// Goes on until `stop` says so; then gives the Lease back.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut term = Term::default();
        loop {
            self.turn(&mut term).await;
            self.settle(&mut term);
            let pace = self.options.duration / 4;
            let pace = if term.failed { pace.min(AFTER_FAILURE) } else { pace };
            let pace = self.jitter.stretch(pace);
            let pace = match term.settled_at {
                Some(at) => pace.min(at.saturating_duration_since(now())),
                None => pace,
            };
            tokio::select! {
                () = tokio::time::sleep(pace) => {}
                Ok(_) = stop.wait_for(|stop| *stop) => break,
            }
        }
        if term.held
            && let Some(observed) = term.observed
        {
            self.give_back(observed.lease).await;
        }
    }

    /// Asks for the list when the wait is over.
    fn settle(&self, term: &mut Term) {
        if term.held && term.settled_at.take_if(|at| now() >= *at).is_some() {
            let list = self.ask_for_list();
            self.lead.with(|standing| {
                standing.list = Some(list);
                standing.what = "listing the Services after taking the Lease over".to_owned();
            });
        }
    }

    /// Asks for a quorum list; gives its number.
    fn ask_for_list(&self) -> u64 {
        self.want_list.send_modify(|list| *list += 1);
        *self.want_list.borrow()
    }

    /// Looks at the Lease once and does what is to be done.
    async fn turn(&self, term: &mut Term) {
        let began = now();
        let connection = self.line.get();
        let stepped = self.step(&connection, term).await;
        term.failed = stepped.is_err();
        if let Some(seen) = &term.observed {
            let says = selection(&seen.lease);
            // One that is gone or no key says nothing: what all go by still holds.
            self.lead.with(|standing| standing.selection = says.or(standing.selection));
        }
        match stepped {
            Ok(plan) => {
                if term.double {
                    let double = Trouble::new(Sort::Conflict, self.double());
                    if self.watches.problem("lease", Some(&double)) {
                        tracing::warn!(lease = %self.options.name, "{}", double.what);
                    }
                } else {
                    self.watches.problem("lease", None);
                }
                self.stand(plan, began, term);
            }
            Err(trouble) => {
                if matches!(trouble.sort, Sort::Silent | Sort::Credentials) {
                    self.line.doubt(connection.number);
                }
                if self.watches.problem("lease", Some(&trouble)) {
                    tracing::warn!(lease = %self.options.name, "{}", trouble.what);
                }
                self.lead.with(|standing| standing.what = trouble.what);
            }
        }
    }

    /// Notes what came of a turn that began at `began`.
    fn stand(&self, plan: Plan, began: Instant, term: &mut Term) {
        let valid_until = began + self.options.duration * 2 / 3;
        match plan {
            Plan::Renew => self.lead.with(|standing| {
                if standing.valid_until.is_none_or(|until| now() >= until) {
                    // Nobody took it meanwhile, but we had stopped: look before going on.
                    standing.list = None;
                    term.settled_at.get_or_insert(now());
                }
                standing.valid_until = Some(valid_until);
                standing.renewals += 1;
            }),
            Plan::Take { wait } => {
                term.held = true;
                let wait = if wait { self.options.duration } else { Duration::ZERO };
                term.settled_at = Some(now() + wait);
                self.lead.with(|standing| {
                    standing.valid_until = Some(valid_until);
                    standing.list = None;
                    standing.taken += 1;
                    standing.holder.clone_from(&self.identity);
                    standing.what = "the Lease was taken over: waiting until what its former \
                                     holder wrote has arrived"
                        .to_owned();
                });
                tracing::info!(lease = %self.options.name, "the Lease is ours");
            }
            Plan::Leave(what) => {
                let lost = std::mem::replace(&mut term.held, false);
                if lost {
                    tracing::warn!(lease = %self.options.name, "the Lease is lost: {what}");
                }
                term.settled_at = None;
                let list = lost.then(|| self.ask_for_list());
                let holder = term.observed.as_ref().map(|seen| holder(&seen.lease).to_owned());
                self.lead.with(|standing| {
                    standing.lost += u64::from(lost);
                    standing.list_after = list.unwrap_or(standing.list_after);
                    standing.valid_until = None;
                    standing.list = None;
                    standing.holder = holder.unwrap_or_default();
                    standing.what = what;
                });
            }
        }
    }

    /// Reads the Lease where it must, decides, and writes it where it may.
    async fn step(&self, connection: &Connection, term: &mut Term) -> Result<Plan, Trouble> {
        let LeaseOptions { namespace, name, .. } = &self.options;
        let api: Api<Lease> = Api::namespaced(connection.client.clone(), namespace);
        if !term.held || term.observed.is_none() {
            let doing = Doing::lease("reading", &self.options);
            let lease = self.answer(connection, &doing, api.get(name)).await?;
            let version = |lease: &Lease| lease.metadata.resource_version.clone();
            let known = term.observed.as_ref().map(|seen| version(&seen.lease));
            if known != Some(version(&lease)) {
                term.observed = Some(Observed { lease, since: now() });
            }
        }
        let Some(seen) = &term.observed else {
            return Ok(Plan::Leave("the Lease hasn't been read".to_owned()));
        };
        term.double &= holder(&seen.lease) == self.identity;
        let plan = self.plan(seen, term);
        if matches!(plan, Plan::Leave(_)) {
            return Ok(plan);
        }
        term.tried = true;
        let time = MicroTime(Timestamp::now());
        let ours = self.ours(&seen.lease, &time, matches!(plan, Plan::Take { .. }));
        if term.wrote.len() == WROTE_MAX {
            term.wrote.remove(0);
        }
        term.wrote.push(time);
        let doing = Doing::lease("updating", &self.options);
        let params = PostParams::default();
        let written = api.replace(name, &params, &ours);
        match self.answer(connection, &doing, written).await {
            Ok(lease) => {
                term.observed = Some(Observed { lease, since: now() });
                term.wrote.clear();
                (term.tried, term.double) = (false, false);
                Ok(plan)
            }
            Err(trouble) if trouble.sort == Sort::Conflict => {
                // Somebody else was faster, or an answer to us was lost: read it anew.
                let lease = self.answer(connection, &doing, api.get(name)).await?;
                let named = term.held && holder(&lease) == self.identity;
                let mine = named && term.is_by_us(&lease);
                term.double = named && !mine;
                let other = if term.double { self.double() } else { other(&lease) };
                let other = Plan::Leave(other);
                term.observed = Some(Observed { lease, since: now() });
                if mine { Err(trouble) } else { Ok(other) }
            }
            Err(trouble) => Err(trouble),
        }
    }

    async fn answer<T>(
        &self,
        connection: &Connection,
        doing: &Doing,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Trouble> {
        // A quarter of the duration: a renewal that hangs must leave time for another.
        let patience = self.timing.answer.min(self.options.duration / 4);
        match timeout(patience, request).await {
            Err(_) => Err(Trouble::silent(doing, patience, &connection.facts)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let mut trouble = Trouble::of(&error, doing, &connection.facts);
                if trouble.sort == Sort::Missing {
                    trouble.what = missing(&self.options);
                }
                Err(trouble)
            }
        }
    }

    fn plan(&self, observed: &Observed, term: &Term) -> Plan {
        let lease = &observed.lease;
        let holder = holder(lease);
        if holder == self.identity && !term.double {
            return if term.held { Plan::Renew } else { Plan::Take { wait: term.tried } };
        }
        let says = |key| annotation(lease, key);
        let (hash, last) = (says(POOLS_ANNOTATION), says(HOLDER_ANNOTATION));
        // Without a word whose it is, it is one of an earlier release, made of less.
        let differs = !hash.is_empty() && !last.is_empty() && hash != self.pools_hash;
        // One that comes back with another configuration has nobody else's to keep to.
        if !term.held && differs && last != self.identity {
            let LeaseOptions { namespace, name, .. } = &self.options;
            return Plan::Leave(format!(
                "the pools, the class or the aliases of {} differ from ours, so this gateway \
                 doesn't take the Lease over: make [[pool]], [service] and [aliases] alike in \
                 every gateway, or, where they changed on purpose, \
                 kubectl -n {namespace} annotate lease {name} {POOLS_ANNOTATION}-",
                last
            ));
        }
        if holder.is_empty() {
            return Plan::Take { wait: false };
        }
        let spec = lease.spec.as_ref();
        let told = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        let lasts = self.options.duration.max(Duration::from_secs(told.max(0) as u64));
        if now().saturating_duration_since(observed.since) >= lasts {
            return Plan::Take { wait: true };
        }
        Plan::Leave(if term.double { self.double() } else { other(lease) })
    }

    /// What is wrong where another gateway goes by our name.
    fn double(&self) -> String {
        format!(
            "another gateway has the identity {} of this one and holds the Lease: it allocates and \
             writes; give each gateway an identity of its own (kubernetes.identity)",
            self.identity
        )
    }

    /// The Lease as it is written.
    fn ours(&self, lease: &Lease, now: &MicroTime, take: bool) -> Lease {
        let said = selection(lease);
        let mut lease = lease.clone();
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(POOLS_ANNOTATION.to_owned(), self.pools_hash.clone());
        annotations.insert(HOLDER_ANNOTATION.to_owned(), self.identity.clone());
        // What is there already holds, but for a configured key: others have it by now.
        if self.selection.configured || said.is_none() {
            let known = self.lead.selection_key();
            let key = known.filter(|_| !self.selection.configured).unwrap_or(self.selection.key);
            let key = format!("{key:016x}");
            annotations.insert(SELECTION_ANNOTATION.to_owned(), key);
        }
        lease.metadata.managed_fields = None;
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if take {
            let transitions = spec.lease_transitions.unwrap_or_default();
            spec.lease_transitions = Some(transitions.saturating_add(1));
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(self.options.duration.as_secs().max(1) as i32);
        spec.renew_time = Some(now.clone());
        lease
    }

    /// Lets another take it at once.
    async fn give_back(&self, mut lease: Lease) {
        self.lead.with(|standing| standing.valid_until = None);
        lease.metadata.managed_fields = None;
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let connection = self.line.get();
        let LeaseOptions { namespace, name, .. } = &self.options;
        let api: Api<Lease> = Api::namespaced(connection.client.clone(), namespace);
        let params = PostParams::default();
        let doing = Doing::lease("giving back", &self.options);
        let written = api.replace(name, &params, &lease);
        match self.answer(&connection, &doing, written).await {
            Ok(_) => tracing::info!(lease = %name, "the Lease is given back"),
            Err(trouble) => {
                tracing::warn!("{}; another gateway takes it when it is over", trouble.what);
            }
        }
    }
}
