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
pub mod flood;
pub mod flows;
pub mod gateway;
pub mod heartbeat;
pub mod hugepages;
pub mod instance;
pub mod ledger;
pub mod lines;
pub mod load;
pub mod manifests;
pub mod namespace;
pub mod net;
pub mod nginx;
pub mod node;
pub mod plan;
pub mod process;
pub mod runner;
pub mod snmp;
pub mod strays;
pub mod udp;
pub mod world;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{major, minor};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

/// The folder that is locked.
const LOCKED: &str = "/run";

fn lock() -> Result<Alone> {
    let folder = File::open(LOCKED).context("cannot open /run")?;
    Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, error)| error).context("/run")
}

/// Whether another process than these, and than this one, holds the lock.
fn others_are_alone(these: &[i32]) -> bool {
    let own = std::process::id().cast_signed();
    holder(Path::new(LOCKED)).is_some_and(|pid| pid != own && !these.contains(&pid))
}

/// The process that has locked a file; none where nobody has, or nobody that can be seen from here.
fn holder(file: &Path) -> Option<i32> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (major(metadata.dev()), minor(metadata.dev()));
    let locked = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // "4: FLOCK  ADVISORY  WRITE 2982 fe:00:246922 0 EOF"; who waits for it has an arrow in front.
    locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, _, pid, place, ..] if place == locked => pid.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let path = std::env::temp_dir().join(format!("rig-lock-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        assert_eq!(holder(&path), None);
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
        assert_eq!(holder(&path), Some(std::process::id().cast_signed()));
        drop(lock);
        assert_eq!(holder(&path), None);
        std::fs::remove_file(&path).unwrap();
    }
}
