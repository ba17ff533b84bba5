//! Network namespaces, programs and traffic: what the demo and the network tests share.
//!
//! A [`World`](world::World) is a gateway between clients and web servers, each in network
//! namespaces made for it. Whatever is made belongs to an [`Instance`](instance::Instance), which
//! records it on disk first, so that it goes away also after a panic, Ctrl-C or `kill -9`.
#![forbid(unsafe_code)]

pub mod admin;
pub mod cluster;
pub mod command;
pub mod config;
pub mod demo;
pub mod download;
pub mod echo;
pub mod flows;
pub mod gateway;
pub mod hugepages;
pub mod instance;
pub mod ledger;
pub mod lines;
pub mod load;
pub mod manifests;
pub mod namespace;
pub mod net;
pub mod nginx;
pub mod plan;
pub mod process;
pub mod runner;
pub mod snmp;
pub mod udp;
pub mod world;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;

/// Keeps other network tests waiting while it lives.
pub type Alone = Flock<File>;

/// Waits until no other network test runs, and holds the rest off while the answer lives: on two
/// cores, tests that move packets would disturb each other. `None`, after a line that the test
/// runner counts, where the machine can't do it.
pub fn alone() -> Option<Alone> {
    match what_is_missing().and_then(|()| lock()) {
        Ok(lock) => Some(lock),
        Err(error) => {
            println!("skipped: {error:#}");
            None
        }
    }
}

fn what_is_missing() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("not root");
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        bail!("no /dev/net/tun");
    }
    Ok(())
}

fn lock() -> Result<Alone> {
    let folder = File::open("/run").context("cannot open /run")?;
    Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, error)| error).context("/run")
}
