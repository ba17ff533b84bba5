//! Keeps the desired state on disk, apart from the control thread: it is written whole, and a
//! change must not wait for the one before to be on the disk. What is kept is a copy that follows
//! the changes, so that one change costs what it changes.

use super::gateway::Running;
use super::path::PacketPath;
use model::desired::{Delta, DesiredState};
use sources::store::Store;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the desired state may be older on disk than in the workers.
const STORE_AFTER: Duration = Duration::from_millis(500);

/// Writes the state that all changes so far add up to. Dropping it writes what is left.
pub struct Keeper {
    changes: Option<Sender<Delta>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts its thread, with the state that is forwarded now.
    pub fn start<P: PacketPath>(
        store: Arc<Store>,
        running: Arc<Running<P>>,
    ) -> std::io::Result<Self> {
        let (changes, given) = channel();
        let state = running.books().desired.clone();
        let run = move || write_latest(state, &given, &store, &running);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(run)?;
        Ok(Self { changes: Some(changes), thread: Some(thread) })
    }

    /// To be written before long.
    pub fn put(&self, change: Delta) {
        if let Some(changes) = &self.changes {
            // It ends after we do, or by a panic that has been told.
            let _ = changes.send(change);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.changes = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the desired state is not stored any longer");
        }
    }
}

fn write_latest<P: PacketPath>(
    mut state: DesiredState,
    given: &Receiver<Delta>,
    store: &Store,
    running: &Running<P>,
) {
    let mut goes_on = true;
    while goes_on {
        let Ok(change) = given.recv() else { return };
        state.apply(&change);
        let until = Instant::now() + STORE_AFTER;
        goes_on = loop {
            match given.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(change) => state.apply(&change),
                Err(RecvTimeoutError::Timeout) => break true,
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        running.keep("desired state", store.save_desired(&state));
    }
}
