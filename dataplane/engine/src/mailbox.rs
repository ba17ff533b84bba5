//! Inquiries to a worker about what only it may touch.

use crossbeam_channel::{Receiver, Sender, bounded};
use model::answers::{ConnectionFilter, FlowAnswer};
use model::ids::{FiveTuple, WorkerId};
use pipeline::tables::Tables;
use pipeline::{Now, Page, Pipeline};
use std::time::Duration;

/// Inquiries that may wait for a worker.
const INQUIRIES_MAX: usize = 16;
/// Places of the connection table that one inquiry looks at: some tens of microseconds.
const PLACES_PER_STEP: usize = 2048;
/// How long a worker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What can be asked.
#[derive(Debug)]
pub enum Inquiry {
    /// Connections from a place of the table on.
    Page {
        /// Which ones.
        filter: ConnectionFilter,
        /// Where to begin.
        from: (u8, u32),
        /// Where the answer goes.
        reply: Sender<Page>,
    },
    /// What would become of a packet.
    Explain {
        /// Its flow.
        flow: FiveTuple,
        /// Where the answer goes.
        reply: Sender<FlowAnswer>,
    },
}

/// A worker didn't answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} did not answer in time")]
pub struct NoAnswer(pub WorkerId);

/// The asking end.
#[derive(Clone, Debug)]
pub struct Mailbox {
    worker: WorkerId,
    sender: Sender<Inquiry>,
}

/// A mailbox and the worker's end of it.
pub fn mailbox(worker: WorkerId) -> (Mailbox, Receiver<Inquiry>) {
    let (sender, receiver) = bounded(INQUIRIES_MAX);
    (Mailbox { worker, sender }, receiver)
}

impl Mailbox {
    fn ask<T>(&self, inquiry: impl FnOnce(Sender<T>) -> Inquiry) -> Result<T, NoAnswer> {
        let (reply, answer) = bounded(1);
        self.sender.send_timeout(inquiry(reply), ANSWER_MAX).map_err(|_| NoAnswer(self.worker))?;
        answer.recv_timeout(ANSWER_MAX).map_err(|_| NoAnswer(self.worker))
    }
    /// The connections that match, from a place of the table on. Blocks until the worker answers.
    pub fn page(&self, filter: ConnectionFilter, from: (u8, u32)) -> Result<Page, NoAnswer> {
        self.ask(|reply| Inquiry::Page { filter, from, reply })
    }
    /// What would become of a packet of this flow. Blocks until the worker answers.
    pub fn explain(&self, flow: FiveTuple) -> Result<FlowAnswer, NoAnswer> {
        self.ask(|reply| Inquiry::Explain { flow, reply })
    }
}

/// Answers one inquiry. A step is bounded, so that packets wait for tens of microseconds at most.
#[cold]
pub fn answer(inquiry: Inquiry, pipeline: &Pipeline, tables: &Tables, now: Now) {
    // Whoever no longer waits for the answer doesn't miss it.
    let _ = match inquiry {
        Inquiry::Page { filter, from, reply } => {
            let page = pipeline.page(tables, &filter, from, PLACES_PER_STEP, now);
            reply.try_send(page).is_ok()
        }
        Inquiry::Explain { flow, reply } => {
            reply.try_send(pipeline.explain(tables, &flow, now)).is_ok()
        }
    };
}
