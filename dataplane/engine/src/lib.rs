//! The shell around the pipeline: ports and queues, poll-mode workers, publishing of tables, the
//! host mirror, and inquiries. It moves packets and counts them where they move; what becomes of
//! them is the pipeline's.

pub mod config;
pub mod counters;
mod engine;
#[cfg(feature = "lose-one-packet")]
pub mod fault;
mod idle;
mod links;
mod load;
pub mod mailbox;
pub mod memory;
pub mod mirror;
mod outlet;
mod packet;
mod ports;
pub mod publish;
mod reading;
mod upkeep;
mod worker;

pub use dpdk::version as dpdk_version;
pub use dpdk::{DeviceString, DeviceStringError, Eal, EalError, EalOptions};

pub use config::{Device, EngineConfig, InterfaceSpec, PortSpec};
pub use engine::{Engine, EngineError};
pub use idle::Idle;
pub use links::{LinkReport, PortLink};
pub use mailbox::NoAnswer;
pub use mirror::HostWay;
pub use ports::PortFailed;
pub use reading::BackendTraffic;
