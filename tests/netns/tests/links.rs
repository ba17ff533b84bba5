//! The links: switches that snoop, links that go and come back, other hosts with our addresses.

use anyhow::{Context, Result, ensure};
use model::answers::{ConflictRow, LinkRow, Status};
use rig::net::Net;
use rig::world::{WEB_ADDRESS, WorldOptions};
use rig::{load, plan};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Waits until the gateway is as wanted, and gives its status.
fn wait_for(
    test: &netns::Test,
    what: &str,
    mut good: impl FnMut(&Status) -> Result<bool>,
) -> Result<Status> {
    let begun = Instant::now();
    loop {
        let status = test.admin()?.status()?;
        if good(&status)? {
            return Ok(status);
        }
        let waited = begun.elapsed();
        ensure!(waited < Duration::from_secs(20), "waited in vain for {what}: {status:#?}");
        sleep(Duration::from_millis(100));
    }
}

fn wrong(status: &Status, words: &str) -> bool {
    status.degraded.iter().any(|row| row.what.contains(words))
}

/// Every neighbour solicitation passes a bridge that gives it to members of its group alone. In
/// front the frontends become on-link in the middle of the test: before, nobody has joined.
#[test]
fn behind_snooping_switches_frontends_and_nat_addresses_are_found() -> Result<()> {
    let Some(test) = netns::build(&WorldOptions::new("snoop"))? else { return Ok(()) };
    test.net.snoop_behind()?;
    let test = test.start()?;
    test.net.snoop_in_front()?;
    let (front, back) = (test.net.front_link(), test.net.back_link());
    let target = test.web()?[1];
    // A bridge floods until it has been a querier for its first answers' time, 10 s.
    let begun = Instant::now();
    while load::attempt(&test.net.client, target)?.1.is_ok() {
        let waited = begun.elapsed();
        ensure!(waited < Duration::from_secs(60), "{target} is found, and nobody is in its group");
        sleep(Duration::from_secs(1));
        test.net.client.ip("neigh flush dev client")?;
    }
    println!("found without its group for {:?}", begun.elapsed());
    for prefix in plan::ON_LINK.into_iter().filter(|prefix| prefix.contains(':')) {
        test.net.gateway.ip(&format!("route add {prefix} dev hg-front"))?;
    }
    let groups = |namespace, link: &str, address: IpAddr| -> Result<bool> {
        let IpAddr::V6(ip) = address else { return Ok(false) };
        let [.., high, low] = ip.segments();
        let group = format!("port {link} grp ff02::1:ff{:02x}:{low:x} ", high & 0xff);
        Ok(Net::groups(namespace)?.contains(&group))
    };
    let (client, switch) = (&test.net.client, &test.net.switch);
    let nat: IpAddr = plan::NAT[1].parse()?;
    let joined =
        |_: &Status| Ok(groups(client, &front, target.ip())? && groups(switch, &back, nat)?);
    let status = wait_for(&test, "both groups", joined)?;
    ensure!(status.links.groups >= 5, "{:?}", status.links);
    test.check_serves()?;
    // Longer than the bridges remember: what is still there was reported to their queries.
    sleep(Duration::from_secs(10));
    ensure!(joined(&status)?, "a querier got no answer: {}", Net::groups(client)?);
    // Fresh resolutions, on both sides.
    client.ip("neigh flush dev client")?;
    for host in &test.net.backends {
        host.namespace.ip("neigh flush dev eth0")?;
    }
    test.check_serves()?;
    test.end()
}

/// The MAC that the client's kernel has for an address.
fn neighbour(test: &netns::Test, address: IpAddr) -> Result<String> {
    test.net.client.ip(&format!("neigh show {address} dev {}", test.net.front_link()))
}

#[test]
fn a_front_that_goes_is_told_and_announced_when_it_is_back() -> Result<()> {
    let Some(mut test) = netns::begin("link")? else { return Ok(()) };
    test.check_serves()?;
    test.settle()?;
    let front = test.net.front_link();
    let is_up = |status: &Status| {
        let row = |row: &&LinkRow| row.interface == "hg-front";
        status.links.interfaces.iter().find(row).is_some_and(|row| row.up && row.twin_up)
    };
    ensure!(is_up(&test.admin()?.status()?), "it is up to begin with");
    test.net.client.ip(&format!("link set {front} down"))?;
    let status = wait_for(&test, "the link to be down", |status| Ok(!is_up(status)))?;
    let told = wait_for(&test, "it to be told", |s| Ok(wrong(s, "the link of port front is down")));
    println!("{:?}", told?.degraded);
    ensure!(status.links.interfaces.iter().any(|row| row.up), "the back one is up");
    let metric = "headgate_interface_up{interface=\"hg-front\",port=\"front\"}";
    assert_eq!(test.admin()?.metric(metric)? as u8, 0);
    // Back again, with a client that remembers somebody else's MAC.
    test.net.plug_in()?;
    let addresses = test.addresses("web")?;
    for address in addresses {
        let stale = "lladdr 02:de:ad:00:00:01 nud stale";
        test.net.client.ip(&format!("neigh replace {address} dev {front} {stale}"))?;
    }
    wait_for(&test, "the client to be told", |_| {
        let known: Result<Vec<String>> =
            addresses.iter().map(|address| neighbour(&test, *address)).collect();
        Ok(known?.iter().all(|line| line.contains("lladdr") && !line.contains("02:de:ad")))
    })?;
    wait_for(&test, "it to be good", |status| Ok(is_up(status) && status.degraded.is_empty()))?;
    assert_eq!(test.admin()?.metric(metric)? as u8, 1);
    let events = test.admin()?.events()?;
    for reason in ["LinkDown", "LinkUp"] {
        ensure!(events.iter().any(|event| event.reason == reason), "no {reason}");
    }
    // The twin, too.
    test.net.gateway.ip("link set hg-front down")?;
    wait_for(&test, "the twin to be told", |s| Ok(wrong(s, "ip link set hg-front up")))?;
    test.net.gateway.ip("link set hg-front up")?;
    for address in plan::GATEWAY_FRONT.into_iter().filter(|address| address.contains(':')) {
        test.net.gateway.ip(&format!("addr replace {address}/64 dev hg-front nodad"))?;
    }
    wait_for(&test, "it to be good", |status| Ok(status.degraded.is_empty()))?;
    test.check_serves()?;
    test.gateway()?.check_runs()
}

/// Makes the client's kernel say that the addresses are at this MAC: gratuitous ARP and an
/// unsolicited advertisement, as a host does that gets another card.
fn claim(test: &netns::Test, mac: &str) -> Result<()> {
    test.net.client.ip(&format!("link set {} address {mac}", test.net.front_link())).map(drop)
}

#[test]
fn another_host_with_a_frontend_is_told_and_another_gateway_isnt_fought() -> Result<()> {
    const GATEWAY: &str = "0a:48:47:00:01:09";
    const STRANGER: &str = "0a:48:47:00:01:0a";
    let mut options = WorldOptions::new("claim");
    options.gateway.more = format!("\n[announce]\ngateways = [\"{GATEWAY}\"]\n");
    let Some(test) = netns::build(&options)? else { return Ok(()) };
    let test = test.start()?;
    test.check_serves()?;
    let front = test.net.front_link();
    let addresses = test.addresses("web")?;
    for key in [format!("ipv4/conf/{front}/arp_notify"), format!("ipv6/conf/{front}/ndisc_notify")]
    {
        test.net.client.within(|| std::fs::write(format!("/proc/sys/net/{key}"), "1"))??;
    }
    for (address, length) in addresses.iter().zip([32, 128]) {
        test.net.client.ip(&format!("addr add {address}/{length} dev {front} nodad"))?;
    }
    let rows = |status: &Status, is_gateway: bool| -> Vec<ConflictRow> {
        let wanted =
            |row: &&ConflictRow| row.is_gateway == is_gateway && addresses.contains(&row.address);
        status.conflicts.iter().filter(wanted).cloned().collect()
    };
    claim(&test, GATEWAY)?;
    let status = wait_for(&test, "the other gateway", |s| Ok(rows(s, true).len() == 2))?;
    println!("{:?}", status.conflicts);
    ensure!(status.degraded.is_empty(), "another gateway is nothing wrong: {:?}", status.degraded);
    sleep(Duration::from_secs(2));
    let status = test.admin()?.status()?;
    ensure!(rows(&status, true).iter().all(|row| row.defences == 0 && row.mac == GATEWAY));
    let text = test.admin()?.text(&["status"])?;
    ensure!(text.contains(&format!("{WEB_ADDRESS} on hg-front with another gateway")), "{text}");

    for _ in 0..20 {
        claim(&test, "0a:48:47:00:01:0b")?;
        claim(&test, STRANGER)?;
    }
    // Workers tell ten claims a second: the last of so many may be one that they don't.
    sleep(Duration::from_secs(2));
    claim(&test, "0a:48:47:00:01:0b")?;
    claim(&test, STRANGER)?;
    let status = wait_for(&test, "the stranger", |s| Ok(rows(s, false).len() == 2))?;
    println!("{:?}", status.conflicts);
    ensure!(rows(&status, false).iter().all(|row| (1..=2).contains(&row.defences)));
    let words = format!("{WEB_ADDRESS} on hg-front is ours, and {STRANGER} uses it");
    let status = wait_for(&test, "it to be told", |status| Ok(wrong(status, &words)))?;
    ensure!(status.degraded.len() == 2, "{:?}", status.degraded);
    let events = test.admin()?.events()?;
    let of_web = |event: &&model::answers::Event| {
        event.reason == "AddressConflict" && &*event.object.name == "web"
    };
    assert_eq!(events.iter().filter(of_web).count(), 2, "one for each address");
    let dropped = test.admin()?.drops()?;
    let claimed = dropped.iter().find(|row| row.reason.label() == "address_claimed");
    ensure!(claimed.context("no such reason")?.packets >= 4);

    for (address, length) in addresses.iter().zip([32, 128]) {
        test.net.client.ip(&format!("addr del {address}/{length} dev {front}"))?;
    }
    let targets = addresses.map(|address| SocketAddr::new(address, 80));
    test.load(&targets, 100)?.check_complete()?;
    test.end()
}
