//! Headgate, the binary: configuration, command line, and the only place that joins the packet
//! path with the control side.
//!
//! * [`config`]: what a person wrote, checked once and trusted by everything after.
//! * [`run`]: the daemon.
#![forbid(unsafe_code)]

pub mod config;
