//! net_tap in network namespaces: frames cross both ways, the interfaces vanish with the ports, a
//! frame that is too long costs itself alone. Needs root and /dev/net/tun, else it says that it
//! is skipped.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{eal, pool};
use dpdk::{Burst, DeviceString, Eal, Pool, Port, PortConfig, RxQueue, TxQueue};

/// A network namespace, deleted also when the test fails.
struct Namespace(String);

impl Namespace {
    fn new(suffix: &str) -> Self {
        let name = format!("hgffi{}{suffix}", std::process::id());
        ip(&["netns", "add", &name]);
        Self(name)
    }

    fn ip(&self, arguments: &[&str]) -> String {
        run(self.command("ip").args(arguments))
    }

    /// A program in the namespace. `ip netns exec` would mount over /sys, which fails in a chroot.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg("--").arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// Those of runs that a signal ended.
fn delete_stale_namespaces() {
    for line in ip(&["netns", "list"]).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let Some(rest) = name.strip_prefix("hgffi") else { continue };
        let process = rest.trim_end_matches(|c: char| !c.is_ascii_digit());
        if !process.is_empty() && !Path::new("/proc").join(process).exists() {
            drop(Namespace(name.to_owned()));
        }
    }
}

fn ip(arguments: &[&str]) -> String {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{error}");
    text
}

fn why_not() -> Option<&'static str> {
    // SAFETY: reads a number.
    if unsafe { libc::geteuid() } != 0 {
        return Some("not root");
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("no /dev/net/tun");
    }
    let ip = Command::new("ip").args(["netns", "list"]).output();
    (!ip.is_ok_and(|output| output.status.success())).then_some("no `ip netns` (iproute2)")
}

fn tap(eal: &Eal, pool: &Pool, number: u32, namespace: &Namespace) -> (Port, RxQueue, TxQueue) {
    let device: DeviceString = format!("net_tap{number},iface=hg{number}").parse().unwrap();
    let mut port = Port::attach(eal, &device, Some(&namespace.0)).unwrap();
    let granted = port.configure(PortConfig::new(pool.clone(), 1)).unwrap();
    println!("{:?}\n{granted:?}", port.info().unwrap());
    port.start().unwrap();
    let (rx, tx) = (port.rx_queue(0).unwrap(), port.tx_queue(0).unwrap());
    (port, rx, tx)
}

/// Polls until `wanted` frames of `ethertype` came, or three seconds are over.
fn receive(rx: &mut RxQueue, ethertype: [u8; 2], wanted: usize) -> Vec<Vec<u8>> {
    let (start, mut frames) = (Instant::now(), Vec::new());
    let mut burst = Burst::<32>::new();
    while frames.len() < wanted && start.elapsed() < Duration::from_secs(3) {
        rx.receive(&mut burst);
        for mbuf in burst.drain() {
            let mut bytes = vec![0; mbuf.len()];
            mbuf.read_into(&mut bytes);
            if bytes[12..14] == ethertype {
                frames.push(bytes);
            }
        }
    }
    frames
}

fn arp_request(asked: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 198, 18, 0, 9]);
    frame.extend([0; 6]);
    frame.extend(asked);
    frame.resize(60, 0);
    frame
}

fn push(burst: &mut Burst<32>, pool: &Pool, bytes: &[u8]) {
    let mut mbuf = pool.alloc().unwrap();
    mbuf.copy_from_slice(bytes).unwrap();
    burst.push(mbuf).unwrap();
}

/// The kernel answers our ARP request, behind one frame that the device never takes.
fn ask(rx: &mut RxQueue, tx: &mut TxQueue, pool: &Pool, host: u8) {
    let mut burst = Burst::<32>::new();
    push(&mut burst, pool, &[0; 1600]);
    push(&mut burst, pool, &arp_request([198, 18, 0, host]));
    let sent = tx.send_all(&mut burst, 3);
    assert_eq!((sent.sent, sent.dropped), (1, 1));
    let answers = receive(rx, [8, 6], 1);
    assert_eq!(answers.len(), 1, "no ARP answer from 198.18.0.{host}");
    let answer = &answers[0];
    assert_eq!((&answer[..6], &answer[20..22]), (&[2, 0, 0, 0, 0, 9][..], &[0, 2][..]));
    assert_eq!(answer[28..32], [198, 18, 0, host]);
}

/// Frames from the kernel, many bursts of them: the port must go on polling, whatever signals say.
fn flood(rx: &mut RxQueue, namespace: &Namespace) {
    let mut child = namespace
        .command("bash")
        .arg("-c")
        .arg("for i in {1..5000}; do echo x > /dev/udp/198.18.0.77/9; done")
        .spawn()
        .unwrap();
    let frames = receive(rx, [8, 0], 3000);
    child.kill().unwrap();
    child.wait().unwrap();
    // The last burst may bring more than was waited for.
    assert!(frames.len() >= 3000, "{}", frames.len());
}

/// SIGIO, which kills, and 34 to 64, which net_tap asks for.
fn assert_signals_ignored() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(mask.trim(), 16).unwrap();
    for signal in std::iter::once(libc::SIGIO).chain(34..=64) {
        assert!(ignored & 1 << (signal - 1) != 0, "signal {signal}");
    }
}

#[test]
fn frames_cross_a_tap_in_a_namespace() {
    if let Some(reason) = why_not() {
        println!("skipped: {reason}");
        return;
    }
    delete_stale_namespaces();
    let (here, there) = (Namespace::new("a"), Namespace::new("b"));
    let own = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = own();

    let eal = eal();
    let pool = pool(&eal, "packets", 8191, 64);
    let (first, mut rx, mut tx) = tap(&eal, &pool, 0, &here);
    let (second, mut rx2, mut tx2) = tap(&eal, &pool, 1, &there);
    assert_eq!(own(), before, "the caller's namespace stays");
    assert!(first.link_up().unwrap());
    assert_signals_ignored();

    for (namespace, number, host) in [(&here, 0, 1), (&there, 1, 2)] {
        let iface = format!("hg{number}");
        namespace.ip(&["link", "set", &iface, "address", "02:00:00:00:01:01"]);
        namespace.ip(&["addr", "add", &format!("198.18.0.{host}/24"), "dev", &iface]);
        namespace.ip(&["link", "set", &iface, "up"]);
    }
    ask(&mut rx, &mut tx, &pool, 1);
    ask(&mut rx2, &mut tx2, &pool, 2);

    here.ip(&["neigh", "add", "198.18.0.77", "lladdr", "02:00:00:00:00:09", "dev", "hg0"]);
    flood(&mut rx, &here);
    ask(&mut rx, &mut tx, &pool, 1);
    println!("{:?}", first.stats().unwrap());
    assert!(first.stats().unwrap().ipackets > 3000);

    // The port lives until its last queue is gone; then so is the interface.
    drop((first, second, rx, rx2, tx2));
    assert!(here.ip(&["link"]).contains("hg0"));
    assert!(!there.ip(&["link"]).contains("hg1"));
    drop(tx);
    assert!(!here.ip(&["link"]).contains("hg0"));
    assert_eq!(pool.in_use(), 0);
    drop(pool);
    eal.shutdown().unwrap();
}
