//! What the packet path and the control side say to each other.
//!
//! Plain data with `serde`, no behaviour beyond validation and formatting, so that both sides can
//! depend on it and neither on the other:
//!
//! * [`desired`]: what the control side wants forwarded; also the form that is stored on disk.
//! * [`ids`]: the identities that both sides use.
//! * [`limits`]: every limit, with the arithmetic that led to it.
//! * [`record`]: the one form in which a connection leaves a worker.
//! * [`drops`]: every reason for which a packet can be dropped.
//! * [`answers`]: what `status`, `show` and `explain` answer.
#![forbid(unsafe_code)]

pub mod answers;
pub mod desired;
pub mod drops;
pub mod ids;
pub mod limits;
pub mod record;
