//! One watch: list, follow, and list again when following isn't possible.
//!
//! kube has a watcher of its own. This one is here because a list must tell its version (one
//! from before what was seen is refused) and bookmarks must be seen (they say that a quiet server
//! lives), and that one keeps both to itself.

use super::connect::{Connection, Line};
use super::health::Watches;
use super::inbox::{Inbox, now};
use super::kinds::{Watched, arrived, version};
use super::known::{Arrived, Known, Listing, Told};
use super::locked;
use super::options::Timing;
use super::pace::Backoff;
use super::statuses::Statuses;
use super::trouble::{Doing, Sort, Trouble};
use crate::Change;
use futures_util::StreamExt;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Objects in one page of a list.
const PAGE: u32 = 500;
/// How often an API that isn't there is looked for.
const ABSENT_AGAIN: Duration = Duration::from_secs(60);
/// How soon something is tried again that won't go well before a person has done something.
const NOT_SOON: Duration = Duration::from_secs(3);
/// A watch follows when it has been open for this long: what is wrong is said at its beginning.
const SETTLES: Duration = Duration::from_millis(500);
/// A stream that ends sooner is followed by a wait, or it could end again and again.
const SHORT_STREAM: Duration = Duration::from_secs(1);

/// One watch.
pub(super) struct Reflector<K> {
    pub kind: PhantomData<K>,
    pub line: Line,
    pub inbox: Arc<Inbox>,
    pub watches: Arc<Watches>,
    pub known: Arc<Mutex<Known>>,
    pub timing: Timing,
    pub backoff: Backoff,
    /// Grows when somebody wants a quorum list.
    pub wanted: watch::Receiver<u64>,
    /// Where what stands in the objects' status is kept for whoever writes it.
    pub statuses: Option<Arc<Statuses>>,
}

/// How following ended without trouble.
enum End {
    /// The server closed the watch when its time was over.
    Over,
    /// A list is needed.
    Relist,
}

impl<K: Watched> Reflector<K> {
    /// Lists and follows for ever.
    pub(super) async fn run(mut self) {
        let mut from: Option<String> = None;
        loop {
            let connection = self.line.get();
            let ended = match from.take() {
                None => self.list(&connection).await.map(|version| from = version),
                Some(version) => {
                    let began = Instant::now();
                    let mut at = version;
                    let ended = self.follow(&connection, &mut at).await;
                    let short = began.elapsed() < SHORT_STREAM;
                    match ended {
                        Ok(End::Relist) => Ok(()),
                        Ok(End::Over) => {
                            from = Some(at);
                            if short {
                                self.pause(Duration::ZERO, connection.number).await;
                            }
                            Ok(())
                        }
                        Err(trouble) => {
                            if trouble.sort != Sort::Gone {
                                from = Some(at);
                            }
                            Err(trouble)
                        }
                    }
                }
            };
            match ended {
                Ok(()) => {}
                Err(trouble) => self.fail(&trouble, &connection).await,
            }
        }
    }

    /// Notes what went wrong, and waits.
    async fn fail(&mut self, trouble: &Trouble, connection: &Connection) {
        if self.watches.failed(K::KIND, trouble) {
            tracing::warn!(kind = %K::KIND, "{}", trouble.what);
        }
        if matches!(
            trouble.sort,
            Sort::Silent | Sort::Credentials | Sort::Certificate | Sort::Older
        ) {
            self.line.doubt(connection.number);
        }
        let at_least = match trouble.sort {
            // What is forbidden may be allowed any moment: an API server that has just started
            // refuses everything until it has read its rules.
            Sort::Missing | Sort::Invalid => NOT_SOON,
            _ => trouble.retry_after.unwrap_or_default(),
        };
        self.pause(at_least, connection.number).await;
    }

    /// Waits, and releases meanwhile what is due. A new client ends it.
    async fn pause(&mut self, at_least: Duration, number: u64) {
        let until = Instant::now() + self.backoff.wait().max(at_least);
        loop {
            let due = self.due();
            tokio::select! {
                () = sleep_until(until) => return,
                () = sleep_until(due.unwrap_or(until)), if due.is_some() => self.release(),
                () = self.line.renewed(number) => return,
            }
        }
    }

    fn api(connection: &Connection) -> Api<K> {
        Api::all(connection.client.clone())
    }

    /// Reads everything, page by page, as a quorum read. Gives the version to follow from.
    async fn list(&mut self, connection: &Connection) -> Result<Option<String>, Trouble> {
        let wanted = *self.wanted.borrow_and_update();
        let api = Self::api(connection);
        let doing = K::doing("listing");
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = K::LABEL.map(str::to_owned);
        let mut listing = None;
        let mut from = None;
        loop {
            let answer = timeout(self.timing.list, api.list(&params));
            let page = match self.meanwhile(answer).await {
                Err(_) => {
                    let facts = &connection.facts;
                    return Err(Trouble::silent(&doing, self.timing.list, facts));
                }
                Ok(Err(error)) => {
                    let trouble = Trouble::of(&error, &doing, &connection.facts);
                    if K::OPTIONAL && trouble.sort == Sort::Missing {
                        self.absent(wanted).await;
                        return Ok(None);
                    }
                    return Err(trouble);
                }
                Ok(Ok(page)) => page,
            };
            let read = match &mut listing {
                Some(listing) => listing,
                empty => {
                    let text = page.metadata.resource_version.clone().unwrap_or_default();
                    let begun = self.begin(&text, &doing)?;
                    from = Some(text);
                    empty.insert(begun)
                }
            };
            let objects = page.items.into_iter().map(|object| arrived(object, 0)).collect();
            let changes = self.page(read, objects);
            self.inbox.put(changes);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        if let Some(listing) = listing {
            let changes = locked(&self.known).finish(listing, now(), self.timing.hold);
            self.removed(changes);
        }
        self.watches.listed(K::KIND);
        self.inbox.listed(K::KIND, wanted);
        Ok(from)
    }

    fn begin(&self, version: &str, doing: &Doing) -> Result<Listing, Trouble> {
        let number = version.parse().unwrap_or(u64::MAX);
        let mut known = locked(&self.known);
        let begun = match version.parse::<u64>() {
            Ok(number) => known.begin(number, now(), self.timing.refuse_older),
            // A version that is no number can't be compared.
            Err(_) => known.begin(number, now(), Duration::ZERO),
        };
        begun.map_err(|older| {
            let what = format!(
                "{doing}: the API server's list is of version {}, and {} has been seen: it has \
                 fallen behind (or its storage was restored); it is asked again over a new \
                 connection",
                older.listed, older.seen
            );
            Trouble::new(Sort::Older, what)
        })
    }

    /// Clusters without this API have none of its objects.
    async fn absent(&mut self, wanted: u64) {
        self.watches.absent(K::KIND);
        self.inbox.listed(K::KIND, wanted);
        sleep(ABSENT_AGAIN).await;
    }

    /// Takes events until the watch ends; `at` is how far it came.
    async fn follow(&mut self, connection: &Connection, at: &mut String) -> Result<End, Trouble> {
        let api = Self::api(connection);
        let doing = K::doing("watching");
        let mut params = WatchParams::default().timeout(self.timing.watch.as_secs().max(1) as u32);
        params.label_selector = K::LABEL.map(str::to_owned);
        let of = |error: kube::Error| Trouble::of(&error, &doing, &connection.facts);
        let opened = timeout(self.timing.answer, api.watch(&params, at)).await;
        let stream = opened
            .map_err(|_| Trouble::silent(&doing, self.timing.answer, &connection.facts))?
            .map_err(of)?;
        let mut stream = std::pin::pin!(stream);
        let settled = Instant::now() + SETTLES;
        let mut unsettled = true;
        let end = Instant::now() + self.timing.watch + self.timing.watch_grace;
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                event = stream.next() => match event {
                    None => return Ok(End::Over),
                    Some(Err(error)) => return Err(of(error)),
                    Some(Ok(WatchEvent::Error(status))) => {
                        return Err(Trouble::answered(&status, &doing, &connection.facts));
                    }
                    Some(Ok(event)) => {
                        unsettled = false;
                        self.backoff.reset();
                        if !self.take(event, at) {
                            return Ok(End::Relist);
                        }
                    }
                },
                () = sleep_until(due.unwrap_or(end)), if due.is_some() => self.release(),
                () = sleep_until(settled), if unsettled => {
                    unsettled = false;
                    self.backoff.reset();
                    self.watches.heard(K::KIND, 0);
                }
                Ok(()) = self.wanted.changed() => return Ok(End::Relist),
                () = sleep_until(end) => {
                    let open = self.timing.watch + self.timing.watch_grace;
                    return Err(Trouble::silent(&doing, open, &connection.facts));
                }
            }
        }
    }

    /// Takes one event in. False where only a list can tell what is.
    fn take(&self, event: WatchEvent<K>, at: &mut String) -> bool {
        let metadata = match &event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => object.meta(),
            WatchEvent::Deleted(object) => object.meta(),
            WatchEvent::Bookmark(bookmark) => {
                if let Ok(version) = bookmark.metadata.resource_version.parse() {
                    locked(&self.known).bookmarked(version);
                }
                at.clone_from(&bookmark.metadata.resource_version);
                self.watches.heard(K::KIND, 0);
                return true;
            }
            WatchEvent::Error(_) => return true,
        };
        let text = metadata.resource_version.clone();
        let told = match event {
            WatchEvent::Deleted(object) => {
                let mut known = locked(&self.known);
                let version = version(object.meta()).unwrap_or(known.next_version());
                known.deleted(arrived(object, version).name, version)
            }
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let mut known = locked(&self.known);
                let mut arrived = arrived(object, known.next_version());
                let (name, seen) = (arrived.name.clone(), arrived.seen.take());
                let told = known.applied(arrived);
                if let (Told::News(_), Some(statuses)) = (&told, &self.statuses) {
                    statuses.put(&name, seen);
                }
                told
            }
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => Told::Known,
        };
        self.watches.heard(K::KIND, 1);
        match told {
            Told::OutOfOrder => return false,
            Told::Known => {}
            Told::News(change) => {
                if let Some(text) = text {
                    *at = text;
                }
                self.removed(vec![change]);
            }
        }
        true
    }

    /// Takes a page in. What stands in the objects' status is noted when the objects are known:
    /// whoever writes looks at both.
    fn page(&self, listing: &mut Listing, mut objects: Vec<Arrived>) -> Vec<Change> {
        let mut seen = Vec::new();
        if self.statuses.is_some() {
            seen.extend(objects.iter_mut().map(|one| (one.name.clone(), one.seen.take())));
        }
        let mut known = locked(&self.known);
        let changes = known.page(listing, objects);
        for (name, seen) in seen {
            if let Some(statuses) = &self.statuses {
                statuses.put(&name, seen);
            }
        }
        changes
    }

    /// Hands changes on, among which there may be deletions.
    fn removed(&self, changes: Vec<Change>) {
        if let Some(statuses) = &self.statuses {
            for change in &changes {
                if let Change::Delete(key) = change {
                    statuses.put(&key.name, None);
                }
            }
        }
        self.inbox.put(changes);
        self.count();
    }

    /// Waits for an answer, and releases meanwhile what is due.
    async fn meanwhile<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = std::pin::pin!(answer);
        loop {
            let due = self.due();
            tokio::select! {
                answer = &mut answer => return answer,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.release();
                }
            }
        }
    }

    /// When something that is held back is due.
    fn due(&self) -> Option<Instant> {
        locked(&self.known).held().map(|(_, until)| Instant::from_std(until))
    }

    /// Tells what was held back long enough.
    fn release(&self) {
        let changes = locked(&self.known).release(now());
        if !changes.is_empty() {
            tracing::warn!(
                kind = %K::KIND,
                removed = changes.len(),
                "more than half has gone, as the list said: removed now"
            );
        }
        self.removed(changes);
    }

    fn count(&self) {
        let known = locked(&self.known);
        let held_back = known.held().map_or(0, |(count, _)| count);
        self.watches.counted(K::KIND, known.len(), held_back);
    }
}
