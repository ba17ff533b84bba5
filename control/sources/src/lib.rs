//! Where objects come from, and what is kept on disk.
//!
//! [`directory`] turns a directory of manifests into typed objects, as an API server would give
//! them: defaulted, validated, and told again when they change. [`kubernetes`] watches an API
//! server and writes to it. [`probe`] asks addresses whether they answer. [`store`] keeps what
//! must outlive the process. None of them knows what the objects are for.
#![forbid(unsafe_code)]

mod changes;
pub mod directory;
pub mod kubernetes;
pub mod probe;
pub mod store;

pub use changes::{Change, Changes};
