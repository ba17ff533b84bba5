//! How a gateway ends and begins again.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::hugepages;
use rig::process::Identity;
use rig::world::WorldOptions;
use std::net::IpAddr;

/// SIGTERM and Ctrl-C, under open connections: it ends in time, and nothing of it is left.
#[test]
fn it_stops_in_time_and_leaves_nothing() -> Result<()> {
    let Some(mut test) = netns::build(&WorldOptions::new("stop"))? else { return Ok(()) };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let pages = hugepages::free()?;
        test.start_gateway()?;
        test.check_serves()?;
        test.settle()?;
        let target = test.web()?[0];
        let open = test.net.client.within(|| rig::load::connect(None, target))??;
        let process = Identity::of(test.gateway()?.pid()).context("its process")?;
        let time = test.gateway()?.stop_by(signal)?;
        println!("stopped {:.0} ms after {signal}", time.as_secs_f64() * 1e3);
        let ended = test.gateway()?.ended();
        ensure!(ended.is_some_and(|status| status.success()), "{signal}: ended with {ended:?}");
        drop(open);
        ensure!(!process.is_alive(), "the process is left");
        ensure!(!test.places.socket.exists(), "the admin socket is left");
        for (namespace, link) in [
            (&test.net.client, test.net.front_link()),
            (&test.net.switch, test.net.back_link()),
            (&test.net.gateway, "hg-front".into()),
            (&test.net.gateway, "hg-back".into()),
        ] {
            ensure!(!namespace.has_link(&link), "{link} is left in {}", namespace.name());
        }
        assert_eq!(hugepages::free()?, pages, "free huge pages");
    }
    Ok(())
}

#[test]
fn after_kill_it_starts_again_with_the_same_addresses() -> Result<()> {
    let Some(mut test) = netns::begin("kill")? else { return Ok(()) };
    let names = ["web", "echo", "empty"];
    let addresses = |test: &netns::Test| -> Result<Vec<[IpAddr; 2]>> {
        names.iter().map(|name| test.addresses(name)).collect()
    };
    test.check_serves()?;
    let before = addresses(&test)?;
    test.gateway()?.kill();
    // The one that would get the lowest address, did allocation begin anew.
    let mut earlier = test.usual("empty")?;
    earlier.name = "aaa".into();
    test.manifests.apply(&earlier)?;
    test.start_gateway()?;
    assert_eq!(addresses(&test)?, before);
    test.check_serves()?;
    test.end()
}
