//! The admin API of Headgate: one Unix socket on which the daemon answers its command line, with
//! health and metrics beside it.
//!
//! This crate knows what is asked and how the answers travel, not where they come from: the binary
//! implements [`Gateway`] over its two sides and hands it to [`Server::serve`]. [`Client`] is the
//! other end, for the command line.
//!
//! * [`gateway`][]: the questions.
//! * [`server`][]: socket, health, life and death.
//! * `routes`: paths, and what their queries mean.
//! * [`metrics`][]: the exposition for Prometheus.
//! * [`client`][]: asking.
#![forbid(unsafe_code)]

pub mod client;
pub mod gateway;
pub mod metrics;
mod peer;
mod programming;
mod routes;
pub mod server;
mod socket;

pub use client::{Client, ClientError};
pub use gateway::{ControlReadings, Gateway, GatewayError, TrafficReadings};
pub use programming::ProgrammingTimes;
pub use server::{LoopbackAddress, NotLoopback, Options, Server, ServerError};
pub use socket::SocketError;
