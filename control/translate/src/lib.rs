//! Kubernetes objects in, desired state and status out.
//!
//! Synchronous, without client, clock or I/O: [`Index::apply`] and [`Index::delete`] take objects
//! in, [`Index::build`] says what that changes. How it works, in the order of a build:
//!
//! 1. `apply` reads an object once into a type that the rest trusts ([`mod@spec`], [`mod@slices`],
//!    [`mod@nodes`]) and notes which Services it concerns; what makes no sense in it becomes a
//!    [`problem::Problem`] of that Service and harms no other. Annotations of other controllers
//!    are put into ours before (`aliases.rs`, `aws.rs`); `ANNOTATIONS.md` lists them all.
//! 2. Where Services live in an API server, statuses say who has which address (`follow.rs`).
//!    Addresses and nodePorts are taken back from Services that may no longer have them, then
//!    given to those that wait, older ones first ([`mod@allocations`], `allocate.rs`, `find.rs`).
//! 3. Services claim their frontends; of several claimants the first in rank has it
//!    ([`mod@claims`], `frontends.rs`).
//! 4. The concerned Services are evaluated: backends (`backends.rs`, `node_backends.rs`), service
//!    ports, status, events (`evaluate.rs`), and what is to be written into their status
//!    (`standing.rs`). What differs from what was published is the delta.
//!
//! Every step looks at the Services that a change concerns and at nothing else: the cost of a
//! build is that of the change, whatever else there is. [`Built::evaluated`] counts them.
//!
//! **Who wins.** What is allocated (LoadBalancer addresses, nodePorts that the Service didn't
//! give) stays with its holder; an address that two statuses name belongs to the older Service.
//! Of two Services that write the same externalIP or nodePort the
//! older has it, then the lower UID, then the lower name; the other has a problem that names the
//! owner, and takes over when the owner goes.
#![forbid(unsafe_code)]

mod aliases;
mod allocate;
pub mod allocations;
mod aws;
mod backends;
mod built;
mod choice;
mod claims;
mod cluster;
mod evaluate;
mod facts;
mod find;
mod follow;
pub mod forwarding;
mod frontends;
mod index;
mod index_pools;
mod namespaces;
mod node_backends;
mod node_ports;
mod nodes;
mod object;
mod occupied;
mod ownership;
mod pools;
pub mod probes;
pub mod problem;
mod range;
mod request;
pub mod selector;
pub mod settings;
mod slices;
mod source_ranges;
pub mod spec;
mod standing;
pub mod writes;

pub use allocations::Allocations;
pub use built::{Built, Counts};
pub use forwarding::{ForwardingSettings, NodeProbe};
pub use index::Index;
pub use object::{Kind, Object, ObjectKey, Place};
pub use pools::{Pool, Scheme};
pub use range::AddressRange;
pub use settings::{Authority, NodePortSettings, Settings, SettingsError, Wishes};
pub use slices::SERVICE_NAME;

#[cfg(test)]
mod tests;
