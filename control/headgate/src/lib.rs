//! Headgate, the binary: configuration, command line, and the only place that joins the packet
//! path with the control side.
//!
//! * [`config`]: what a person wrote, checked once and trusted by everything after.
//! * [`cli`]: the command line, and what each command does.
//! * [`render`]: answers as tables.
//! * [`host`]: what `check` looks at beside the configuration.
//! * [`run`]: the daemon.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod host;
pub mod render;
pub mod run;

/// Version and commit: `0.1.0 abc1234`.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("HEADGATE_COMMIT"));
