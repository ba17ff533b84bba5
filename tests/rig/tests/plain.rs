//! The rig itself, with a plain cable where the gateway would be: its clients and servers must be
//! right before they can say anything about a gateway.

use rig::load::{self, Load};
use rig::net::Net;
use rig::nginx::Nginx;
use rig::{download, echo::EchoServer, instance, lines::LineClients, plan, snmp, udp};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn plain_sources() -> Vec<IpAddr> {
    (0..plan::CLIENTS).flat_map(|index| plan::back(101 + index)).collect()
}

#[test]
fn clients_reach_servers_over_a_plain_cable() {
    let Some(_alone) = rig::alone() else { return };
    let net = Net::build("plain", 2).unwrap();
    net.join_plain().unwrap();
    let blob = net.instance.dir().join("blob");
    let sha = download::make_blob(&blob, 3_000_001).unwrap();
    let mut web = Vec::new();
    let mut echo = Vec::new();
    for host in &net.backends {
        let mut nginx = Nginx::start(&net.instance, host, Some(&blob)).unwrap();
        nginx.wait(host).unwrap();
        web.push(nginx);
        echo.push(EchoServer::start(host).unwrap());
    }
    let before: u64 = web.iter().map(|nginx| nginx.requests_logged().unwrap()).sum();

    let http = |address| SocketAddr::new(address, plan::HTTP_PORT);
    let targets: Vec<SocketAddr> =
        net.backends.iter().flat_map(|host| host.addresses.map(http)).collect();
    let load =
        Load { targets: targets.clone(), sources: plain_sources(), requests: 400, concurrency: 8 };
    let outcome = load::run(&net.client, &load).unwrap();
    outcome.check_complete().unwrap();
    outcome.check_even(&["web-1".into(), "web-2".into()], 0.0).unwrap();
    assert_eq!(outcome.by_target.len(), 4);
    assert_eq!(outcome.connect_us.len(), 400);
    let after: u64 = web.iter().map(|nginx| nginx.requests_logged().unwrap()).sum();
    assert_eq!(after - before, 400);
    snmp::retransmits(&net.client).unwrap();

    let v4: Vec<IpAddr> = plain_sources().into_iter().filter(IpAddr::is_ipv4).collect();
    let all = load::all_at_once(&net.client, &v4, targets[0], 200).unwrap();
    assert_eq!(all["web-1"], 200);
    let (bytes, got, _) = download::fetch(&net.client, targets[1], "/blob").unwrap();
    assert_eq!((bytes, got), (3_000_001, sha));

    let service = SocketAddr::new(net.backends[1].addresses[0], plan::ECHO_PORT);
    let lines = LineClients::open(&net.client, &v4, service, 20, |name| name == "web-2").unwrap();
    lines.wait_for_lines(3);
    let report = lines.stop().unwrap();
    report.check().unwrap();
    assert!(report.lines >= 60, "{report:?}");
    let flows = udp::echo(&net.client, &v4, service, 3, 5).unwrap();
    assert_eq!(flows["web-2"], 3);

    let closed = SocketAddr::new(net.backends[0].addresses[0], plan::CLOSED_PORT);
    let (_, refused) = load::attempt(&net.client, closed).unwrap();
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);

    // A connection whose server goes away is broken, and that is said.
    let lines = LineClients::open(&net.client, &v4, service, 2, |_| true).unwrap();
    echo.pop();
    lines.wait_for_lines(3);
    assert_eq!(lines.stop().unwrap().broken, 2);
}

/// Kernel taps stand in for those that a gateway makes.
#[test]
fn far_ends_of_ports_are_plugged_in() {
    let Some(_alone) = rig::alone() else { return };
    let net = Net::build("plug", 1).unwrap();
    assert!(net.wait_for_links(|| anyhow::bail!("the gateway has ended")).is_err());
    net.client.ip(&format!("tuntap add dev {} mode tap", net.front_link())).unwrap();
    net.switch.ip(&format!("tuntap add dev {} mode tap", net.back_link())).unwrap();
    net.wait_for_links(|| Ok(())).unwrap();
    net.plug_in().unwrap();
    net.plug_in().unwrap();
    net.kernel_counters().unwrap();
    let routes = net.client.ip("route show").unwrap() + &net.client.ip("-6 route show").unwrap();
    for prefix in plan::ON_LINK {
        assert!(routes.contains(prefix), "{prefix} is not in {routes}");
    }
    let addresses = net.client.ip("-6 -o addr show tentative").unwrap();
    assert!(!addresses.contains("2001:db8"), "{addresses}");
}

#[test]
fn nothing_is_left_of_an_instance() {
    let Some(_alone) = rig::alone() else { return };
    let net = Net::build("gone", 1).unwrap();
    let names: Vec<String> = [&net.gateway, &net.client, &net.switch, &net.backends[0].namespace]
        .map(|namespace| namespace.name().to_owned())
        .to_vec();
    let nginx = Nginx::start(&net.instance, &net.backends[0], None).unwrap();
    let dir = net.instance.dir().to_owned();
    let beside = std::env::temp_dir().join(format!("hg-beside-{}", net.instance.tag()));
    std::fs::write(&beside, "").unwrap();
    net.instance.record_path(&beside).unwrap();
    // As if the owner had been killed: a sweep must find it all. The pid of a process that has
    // ended stands for the dead owner's.
    let mut ended = Command::new("true").spawn().unwrap();
    rig::command::wait_until(&mut ended, Instant::now() + Duration::from_secs(20)).unwrap();
    std::fs::write(dir.join("owner"), format!("{} 1", ended.id())).unwrap();
    assert!(instance::sweep().unwrap() >= 1);
    for name in &names {
        assert!(!Path::new("/run/netns").join(name).exists(), "{name} is left");
    }
    assert!(!dir.exists() && !beside.exists());
    drop((nginx, net));
}
