//! What the steps of a packet's way are given.

use crate::frame::Frame;
use crate::journey::Now;
use crate::parse::Parsed;
use crate::pipeline::Context;
use crate::tables::Tables;

/// A packet's turn: all that it may change but for its own family's connections, all that is
/// published, and the time.
#[derive(Debug)]
pub struct Turn<'a> {
    /// What its worker has beside the connection tables.
    pub context: &'a mut Context,
    /// What is published.
    pub tables: &'a Tables,
    /// The time.
    pub now: Now,
}

/// A packet and what its headers say.
#[derive(Debug)]
pub struct Packet<'p, 'f> {
    /// Its bytes.
    pub frame: &'p mut Frame<'f>,
    /// What they say.
    pub parsed: &'p Parsed,
}
