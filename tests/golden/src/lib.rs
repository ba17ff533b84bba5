//! Golden packets: what goes in at a port at a time, and what has to come out of which.
//!
//! The README beside the cases says how to read and to add one. What other tests share is here
//! too: [`packet`] makes packets without the pipeline's code, [`verify`] checks checksums with
//! etherparse, [`world`] is a small gateway's surroundings and [`drive`] puts frames through.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod capture;
pub mod case;
pub mod drive;
pub mod make;
pub mod packet;
pub mod run;
pub mod verify;
pub mod world;
