//! A deterministic fuzzer of the whole pipeline, on stable Rust: it mutates packets, puts them
//! through one worker or two that hand over to each other, feeds answers and forwarded packets
//! back, changes the tables in between, and checks after every burst what must hold.
//!
//! [`episode`] is where to start reading.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod check;
pub mod episode;
pub mod feed;
pub mod input;
pub mod layout;
pub mod mutate;
pub mod seeds;
pub mod stats;
pub mod world;
