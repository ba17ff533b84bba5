//! Keeps the desired state on disk, apart from the control thread: it is written whole, and a
//! change must not wait for the one before to be on the disk.

use super::control::keep;
use super::gateway::Running;
use super::path::PacketPath;
use model::desired::DesiredState;
use sources::store::Store;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the desired state may be older on disk than in the workers.
const STORE_AFTER: Duration = Duration::from_millis(500);

/// Writes the latest of what it is given. Dropping it writes what is left.
pub struct Keeper {
    states: Option<Sender<DesiredState>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts its thread.
    pub fn start<P: PacketPath>(
        store: Arc<Store>,
        running: Arc<Running<P>>,
    ) -> std::io::Result<Self> {
        let (states, given) = channel();
        let run = move || write_latest(&given, &store, &running);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(run)?;
        Ok(Self { states: Some(states), thread: Some(thread) })
    }

    /// To be written before long.
    pub fn put(&self, state: DesiredState) {
        if let Some(states) = &self.states {
            // It ends after we do, or by a panic that has been told.
            let _ = states.send(state);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.states = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the desired state is not stored any longer");
        }
    }
}

fn write_latest<P: PacketPath>(
    given: &Receiver<DesiredState>,
    store: &Store,
    running: &Running<P>,
) {
    let mut goes_on = true;
    while goes_on {
        let Ok(mut latest) = given.recv() else { return };
        let until = Instant::now() + STORE_AFTER;
        goes_on = loop {
            match given.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(later) => latest = later,
                Err(RecvTimeoutError::Timeout) => break true,
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        keep(running, "desired state", store.save_desired(&latest));
    }
}
