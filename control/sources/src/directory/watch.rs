//! When to read: notices of the kernel, gathered, with a slow look as a net.

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Quiet time after a notice before it is acted on, so that what belongs together is read once.
const QUIET: Duration = Duration::from_millis(2);
/// A storm of notices is acted on after this long, however long it lasts.
pub(super) const GATHER_MAX: Duration = Duration::from_millis(50);
/// Where no notice comes, somebody looks this often.
const RESCAN: Duration = Duration::from_secs(2);
/// The same while there is no watch: the directory is gone, or the kernel gives none.
const RESCAN_BLIND: Duration = Duration::from_millis(200);
/// Notices that wait to be read; where there are more, one look sees all of them.
const NOTICES_MAX: usize = 1_024;
/// Files that are being written and whose closing is waited for.
const WRITERS_MAX: usize = 1_024;

/// The watch on one directory.
#[derive(Debug)]
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    notices: Receiver<Event>,
    sender: SyncSender<Event>,
    /// The directory that is watched: device and inode.
    watched: Option<(u64, u64)>,
    looked: Instant,
    /// Files that were written to and not closed yet.
    writers: HashSet<PathBuf>,
}

impl Watch {
    /// Watches a directory. Where the kernel gives no watch, the slow look is all there is.
    pub(super) fn start(directory: &Path) -> Self {
        let (sender, notices) = sync_channel(NOTICES_MAX);
        let mut watch = Self {
            watcher: None,
            notices,
            sender,
            watched: None,
            looked: Instant::now(),
            writers: HashSet::new(),
        };
        watch.renew(directory);
        watch
    }

    /// Watches the directory that now has the name. To be called before every look, so that
    /// nothing happens between the look and the watch.
    pub(super) fn renew(&mut self, directory: &Path) {
        self.looked = Instant::now();
        let now = fs::metadata(directory).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if now.is_some() && now == self.watched && self.watcher.is_some() {
            return;
        }
        self.watched = None;
        self.watcher = None;
        self.writers.clear();
        if now.is_none() {
            return;
        }
        let sender = self.sender.clone();
        let handler = move |notice: notify::Result<Event>| {
            // An error (as an overflow of the kernel's queue) means: look.
            let notice = notice.unwrap_or_else(|_| Event::new(EventKind::Any));
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                sender.try_send(notice)
            {
                // Those that wait lead to a look that sees this one's change too.
            }
        };
        let Ok(mut watcher) = notify::recommended_watcher(handler) else { return };
        if watcher.watch(directory, RecursiveMode::NonRecursive).is_ok() {
            self.watcher = Some(watcher);
            self.watched = now;
        }
    }

    /// Waits until it is time to look, at most for `timeout`. When the change was seen.
    pub(super) fn wait(&mut self, timeout: Duration) -> Option<Instant> {
        let until = Instant::now().checked_add(timeout);
        loop {
            let now = Instant::now();
            let every = if self.watcher.is_some() { RESCAN } else { RESCAN_BLIND };
            let net = every.saturating_sub(self.looked.elapsed());
            if net.is_zero() {
                return Some(now);
            }
            let left = until.map_or(net, |until| until.saturating_duration_since(now));
            match self.notices.recv_timeout(net.min(left)) {
                Ok(notice) => {
                    if self.matters(&notice) {
                        return Some(self.gather());
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    if until.is_some_and(|until| Instant::now() >= until) {
                        return None;
                    }
                }
            }
        }
    }

    /// Waits for what belongs to a first notice: until no writer is left and it is quiet.
    fn gather(&mut self) -> Instant {
        let detected = Instant::now();
        loop {
            let left = GATHER_MAX.saturating_sub(detected.elapsed());
            let quiet = if self.writers.is_empty() { QUIET } else { GATHER_MAX };
            match self.notices.recv_timeout(quiet.min(left)) {
                Ok(notice) => {
                    self.matters(&notice);
                }
                Err(_) => break,
            }
            if left.is_zero() {
                break;
            }
        }
        self.writers.clear();
        detected
    }

    /// Whether a notice can mean a change; keeps account of who writes.
    fn matters(&mut self, notice: &Event) -> bool {
        match notice.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                for path in &notice.paths {
                    self.writers.remove(path);
                }
                true
            }
            EventKind::Access(_) => false,
            EventKind::Modify(ModifyKind::Data(_)) => {
                for path in &notice.paths {
                    if self.writers.len() < WRITERS_MAX {
                        self.writers.insert(path.clone());
                    }
                }
                true
            }
            _ => {
                for path in &notice.paths {
                    self.writers.remove(path);
                }
                true
            }
        }
    }
}
