//! Inquiries to a worker about what only it may touch.
//!
//! An inquiry brings the memory for its answer and comes back whole: a worker neither allocates nor
//! frees. One is under way at a time for each worker; whoever gave up waiting leaves it to the next
//! to throw away.

use crossbeam_channel::{Receiver, Sender, bounded};
use model::answers::{ConnectionFilter, FlowAnswer};
use model::ids::{FiveTuple, WorkerId};
use pipeline::tables::Tables;
use pipeline::{FlowFound, Now, Page, Pipeline};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Inquiries that may wait for a worker.
const INQUIRIES_MAX: usize = 16;
/// Places of the connection table that one inquiry looks at: some tens of microseconds.
const PLACES_PER_STEP: usize = 2048;
/// How long a worker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What can be asked, with room for what is found.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "boxed as a whole, by the asker")]
enum Question {
    /// Connections from a place of the table on.
    Page { filter: ConnectionFilter, from: (u8, u32), page: Page },
    /// What would become of a packet.
    Explain { flow: FiveTuple, found: Option<FlowFound> },
}

/// A question on its way to a worker and back.
#[derive(Debug)]
pub struct Inquiry {
    number: u64,
    question: Box<Question>,
}

/// A worker didn't answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} did not answer in time")]
pub struct NoAnswer(pub WorkerId);

/// The asking end.
#[derive(Clone, Debug)]
pub struct Mailbox {
    worker: WorkerId,
    ends: Arc<Mutex<Ends>>,
}

#[derive(Debug)]
struct Ends {
    sender: Sender<Inquiry>,
    answers: Receiver<Inquiry>,
    asked: u64,
}

/// The worker's end.
#[derive(Debug)]
pub struct Inbox {
    inquiries: Receiver<Inquiry>,
    answers: Sender<Inquiry>,
}

/// A mailbox and the worker's end of it.
pub fn mailbox(worker: WorkerId) -> (Mailbox, Inbox) {
    let (sender, inquiries) = bounded(INQUIRIES_MAX);
    // Emptied before each question, so that all that can be under way has room.
    let (answers_in, answers) = bounded(INQUIRIES_MAX + 1);
    let ends = Arc::new(Mutex::new(Ends { sender, answers, asked: 0 }));
    (Mailbox { worker, ends }, Inbox { inquiries, answers: answers_in })
}

impl Mailbox {
    fn ask(&self, question: Question) -> Result<Question, NoAnswer> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        while ends.answers.try_recv().is_ok() {}
        ends.asked += 1;
        let (number, question) = (ends.asked, Box::new(question));
        let until = Instant::now() + ANSWER_MAX;
        let no_answer = NoAnswer(self.worker);
        let sent = ends.sender.send_deadline(Inquiry { number, question }, until);
        sent.map_err(|_| no_answer)?;
        loop {
            let answer = ends.answers.recv_deadline(until).map_err(|_| no_answer)?;
            if answer.number == number {
                return Ok(*answer.question);
            }
        }
    }
    /// The connections that match, from a place of the table on. Blocks until the worker answers.
    pub fn page(&self, filter: &ConnectionFilter, from: (u8, u32)) -> Result<Page, NoAnswer> {
        let page = Page::of(PLACES_PER_STEP);
        match self.ask(Question::Page { filter: filter.clone(), from, page })? {
            Question::Page { page, .. } => Ok(page),
            Question::Explain { .. } => Err(NoAnswer(self.worker)),
        }
    }
    /// What would become of a packet of this flow, in the words of these tables. Blocks until the
    /// worker answers.
    pub fn explain(&self, flow: FiveTuple, tables: &Tables) -> Result<FlowAnswer, NoAnswer> {
        match self.ask(Question::Explain { flow, found: None })? {
            Question::Explain { found: Some(found), .. } => Ok(found.answer(tables)),
            Question::Explain { .. } | Question::Page { .. } => Err(NoAnswer(self.worker)),
        }
    }
}

impl Inbox {
    /// Answers one inquiry, where there is one. A step is bounded, so that packets wait for tens of
    /// microseconds at most.
    #[inline]
    pub fn answer_one(&self, pipeline: &Pipeline, tables: &Tables, now: Now) {
        if let Ok(inquiry) = self.inquiries.try_recv() {
            self.answer(inquiry, pipeline, tables, now);
        }
    }

    #[cold]
    fn answer(&self, mut inquiry: Inquiry, pipeline: &Pipeline, tables: &Tables, now: Now) {
        match &mut *inquiry.question {
            Question::Page { filter, from, page } => {
                pipeline.page(tables, filter, *from, now, page);
            }
            Question::Explain { flow, found } => {
                *found = Some(pipeline.explain(tables, flow, now));
            }
        }
        // There is room: see `mailbox`.
        let _ = self.answers.try_send(inquiry);
    }
}
