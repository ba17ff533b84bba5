//! Tests with real clients, the real gateway and real servers in network namespaces. Here is what
//! they share: how each begins and ends.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use rig::command::output_of;
use rig::namespace::Namespace;
use rig::world::{World, WorldOptions};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};

/// A test that is under way: a world with a gateway, and no other such test beside it.
pub struct Test {
    // Removed before others may begin: fields are dropped in this order.
    world: World,
    _alone: rig::Alone,
}

/// Begins a test with the usual world; `None` where the machine can't do it, which is reported.
pub fn begin(kind: &str) -> Result<Option<Test>> {
    let Some(test) = build(&WorldOptions::new(kind))? else { return Ok(None) };
    test.start().map(Some)
}

/// The same, with the gateway still to be started.
pub fn build(options: &WorldOptions) -> Result<Option<Test>> {
    let Some(alone) = rig::alone() else { return Ok(None) };
    Ok(Some(Test { world: World::build(options)?, _alone: alone }))
}

impl Test {
    /// Starts the gateway.
    pub fn start(mut self) -> Result<Self> {
        self.world.start_gateway()?;
        Ok(self)
    }
    /// The end of every test: the gateway still runs, nobody else has forwarded anything, and the
    /// ledger is exact and agrees with its witnesses.
    pub fn end(mut self) -> Result<()> {
        self.world.gateway()?.check_runs()?;
        self.world.check_kernel_forwards_nothing()?;
        let reading = self.world.settle()?;
        ensure!(reading.total().received > 0, "no packet was received: nothing was tested");
        println!("ledger: {reading}");
        Ok(())
    }
    /// The web Service's LoadBalancer frontends on port 80, IPv4 and IPv6.
    pub fn web(&self) -> Result<[SocketAddr; 2]> {
        Ok(self.world.addresses("web")?.map(|address| SocketAddr::new(address, 80)))
    }
    /// 300 requests to the web Service in both families, all of which must be answered.
    pub fn check_serves(&self) -> Result<()> {
        self.world.load(&self.web()?, 300)?.check_complete().context("the Service web")
    }
}

impl Deref for Test {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Test {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

/// Three echo requests from a namespace, all of which must be answered.
pub fn ping(from: &Namespace, address: IpAddr) -> Result<()> {
    let address = address.to_string();
    let mut command = from.command("ping");
    output_of(command.args(["-n", "-c", "3", "-i", "0.2", "-W", "2", &address])).map(drop)
}

/// A file that goes away with this.
pub struct Removed(pub std::path::PathBuf);

impl Removed {
    /// An empty file for temporary use.
    pub fn create(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        File::create(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}
