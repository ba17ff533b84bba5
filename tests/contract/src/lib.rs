//! What Kubernetes is promised, held against the real index and the real pipeline: objects go in
//! at one end, packets at the other. The README says what is tested how.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod case;
pub mod compare;
pub mod differences;
pub mod gateway;
pub mod kube_proxy;
pub mod play;
pub mod probe;
pub mod random;
pub mod schedule;
pub mod tally;
pub mod world;
