//! What the gateway answers itself, and what passes through the host mirror.

use anyhow::{Result, ensure};
use rig::lines::LineClients;
use rig::load::{self, Load};
use rig::net::Host;
use rig::{echo::EchoServer, plan};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A refusal within this time was no time-out: a client's first retransmit comes after a second.
const AT_ONCE: Duration = Duration::from_millis(500);

fn check_refused(test: &netns::Test, target: SocketAddr) -> Result<()> {
    let (time, outcome) = load::attempt(&test.net.client, target)?;
    let refused = outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
    ensure!(refused, "{target}: expected a refusal, got {outcome:?} after {time:?}");
    ensure!(time < AT_ONCE, "{target}: refused after {time:?}");
    Ok(())
}

fn check_udp_refused(test: &netns::Test, target: SocketAddr) -> Result<()> {
    let source = test.net.client_addresses(target.ip())[0];
    let (time, outcome) = test.net.client.within(|| -> std::io::Result<_> {
        let socket = UdpSocket::bind((source, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        socket.connect(target)?;
        socket.send(b"anybody?")?;
        let begun = Instant::now();
        let outcome = socket.recv(&mut [0; 64]);
        Ok((begun.elapsed(), outcome))
    })??;
    let refused = outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
    ensure!(refused, "UDP {target}: expected port unreachable, got {outcome:?} after {time:?}");
    Ok(())
}

#[test]
fn a_service_without_endpoints_refuses_at_once() -> Result<()> {
    let Some(test) = netns::begin("empty")? else { return Ok(()) };
    for address in test.addresses("empty")? {
        check_refused(&test, SocketAddr::new(address, 80))?;
    }
    test.end()
}

#[test]
fn a_port_that_no_service_has_is_answered() -> Result<()> {
    let Some(test) = netns::begin("closed")? else { return Ok(()) };
    let own: Result<Vec<IpAddr>, _> = plan::GATEWAY_FRONT.iter().map(|text| text.parse()).collect();
    for address in test.addresses("web")?.into_iter().chain(own?) {
        check_refused(&test, SocketAddr::new(address, plan::CLOSED_PORT))?;
        check_udp_refused(&test, SocketAddr::new(address, plan::CLOSED_PORT))?;
    }
    test.end()
}

#[test]
fn frontends_answer_ping() -> Result<()> {
    let Some(test) = netns::begin("ping")? else { return Ok(()) };
    for address in test.addresses("web")?.into_iter().chain(test.addresses("empty")?) {
        netns::ping(&test.net.client, address)?;
    }
    for address in rig::world::EXTERNAL_IPS {
        netns::ping(&test.net.client, address.parse()?)?;
    }
    test.end()
}

#[test]
fn the_host_is_reached_through_its_mirror() -> Result<()> {
    let Some(test) = netns::begin("mirror")? else { return Ok(()) };
    let before = test.settle()?.total();
    let host = Host {
        name: "gateway".into(),
        namespace: test.net.gateway.clone(),
        addresses: plan::front(1),
        node: None,
    };
    let server = EchoServer::start(&host)?;
    for address in host.addresses {
        netns::ping(&test.net.client, address)?;
        let target = SocketAddr::new(address, plan::ECHO_PORT);
        let sources = test.net.client_addresses(address);
        let lines = LineClients::open(&test.net.client, &sources, target, 2, |_| true)?;
        lines.wait_for_lines(10);
        assert!(lines.by_backend().contains_key("gateway"));
        lines.stop()?.check()?;
    }
    assert_eq!(server.accepted(), 4);
    let after = test.settle()?.total();
    ensure!(after.to_host > before.to_host && after.from_host > before.from_host, "{after:?}");
    test.end()
}

#[test]
fn the_host_probes_a_backend_through_its_mirror() -> Result<()> {
    let Some(test) = netns::begin("probe")? else { return Ok(()) };
    let before = test.settle()?.total();
    let backend = &test.net.backends[0];
    for address in backend.addresses {
        netns::ping(&test.net.gateway, address)?;
    }
    let targets: Vec<SocketAddr> =
        backend.addresses.map(|address| SocketAddr::new(address, plan::HTTP_PORT)).to_vec();
    let load = Load { targets, sources: plan::back(1).to_vec(), requests: 20, concurrency: 1 };
    let outcome = load::run(&test.net.gateway, &load)?;
    outcome.check_complete()?;
    assert_eq!(outcome.by_backend["web-1"], 20);
    let after = test.settle()?.total();
    // Five packets each way for a request at least, and the echo requests.
    ensure!(after.from_host >= before.from_host + 60, "{before:?} {after:?}");
    ensure!(after.to_host >= before.to_host + 60, "{before:?} {after:?}");
    test.end()
}
