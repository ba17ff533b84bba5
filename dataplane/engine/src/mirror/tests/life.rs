//! How the mirror begins and ends.

use super::support::{Bed, addr, in_namespace, ip, twin, wait_for};
use crate::mirror::{
    AnnounceConfig, Mirror, MirrorConfig, MirrorError, StaticRoute, TwinConfig, TwinError,
};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

fn config(twins: Vec<TwinConfig>) -> MirrorConfig {
    MirrorConfig {
        twins,
        workers: 2,
        ring_frames: 64,
        cores: Vec::new(),
        announce: AnnounceConfig::default(),
    }
}

fn refusal(twins: Vec<TwinConfig>) -> TwinError {
    match Mirror::start(config(twins), |_| {}) {
        Err(MirrorError::Twin(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it started"),
    }
}

#[test]
fn a_stop_is_quick_and_leaves_nothing() {
    in_namespace(|| {
        let bed = Bed::new(vec![twin("front", &["192.0.2.1/24"]), twin("back", &[])]);
        assert!(ip("-o link").contains("front") && ip("-o link").contains("back"));
        let since = Instant::now();
        bed.mirror.stop().unwrap();
        println!("stopped in {:?}", since.elapsed());
        let links = ip("-o link");
        assert_eq!(links.lines().count(), 1, "{links}");
        // The worker may still give frames; nobody takes them.
        assert!(bed.worker.with_port(|port| port.to_host(model::ids::InterfaceId(0), &[0; 60])));
        drop(bed.worker);
        // And it may begin again.
        drop(Bed::new(vec![twin("front", &["192.0.2.1/24"])]));
        assert_eq!(ip("-o link").lines().count(), 1);
    });
}

#[test]
fn as_many_twins_as_there_may_be_come_and_go() {
    in_namespace(|| {
        let twins = (0..64).map(|n| twin(&format!("twin{n}"), &[])).collect();
        let bed = Bed::new(twins);
        let since = Instant::now();
        bed.mirror.stop().unwrap();
        println!("64 twins: stopped in {:?}", since.elapsed());
        assert_eq!(ip("-o link").lines().count(), 1);
    });
}

#[test]
fn a_twin_that_cant_be_made_is_refused_with_the_remedy() {
    in_namespace(|| {
        ip("tuntap add taken mode tun");
        let error = refusal(vec![twin("free", &[]), twin("taken", &[])]);
        assert!(matches!(&error, TwinError::Exists(name) if name == "taken"), "{error}");
        println!("{error}");
        assert!(error.to_string().contains("ip link delete taken"));
        // What had been made is gone.
        assert!(!ip("-o link").contains("free"));
        // A TAP that somebody left isn't taken over either.
        ip("tuntap add left mode tap");
        assert!(matches!(refusal(vec![twin("left", &[])]), TwinError::Exists(_)));
        assert!(matches!(refusal(vec![twin("a-name-too-long-by-far", &[])]), TwinError::Name(_)));

        let mut lost = twin("front", &["192.0.2.1/24"]);
        let to = "0.0.0.0/0".parse().unwrap();
        lost.routes = vec![StaticRoute { to, via: addr("198.51.100.1") }];
        let error = refusal(vec![lost.clone()]);
        println!("{error}");
        assert!(error.to_string().contains("add the route to 0.0.0.0/0 via 198.51.100.1"));
        lost.routes = vec![StaticRoute { to, via: addr("2001:db8::1") }];
        assert!(matches!(refusal(vec![lost]), TwinError::Families { .. }));
        assert!(matches!(
            Mirror::start(config(Vec::new()), |_| {}),
            Err(MirrorError::Range { what: "interfaces", given: 0, .. })
        ));
    });
}

#[test]
fn a_kernel_that_forwards_is_noted() {
    in_namespace(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let bed = Bed::new(vec![twin("front", &[])]);
        println!("{:?}", bed.mirror.notes());
        assert!(bed.mirror.notes().iter().any(|note| note.contains("net.ipv4.ip_forward")));
        let read = |path: &str| std::fs::read_to_string(path).unwrap().trim().to_owned();
        assert_eq!(read("/proc/sys/net/ipv4/ip_forward"), "1");
        assert_eq!(read("/proc/sys/net/ipv4/conf/front/arp_ignore"), "1");
        assert_eq!(read("/proc/sys/net/ipv6/conf/front/accept_ra"), "0");
    });
}

#[test]
fn ipv6_that_is_off_by_default_is_on_for_a_twin() {
    in_namespace(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let bed = Bed::new(vec![twin("front", &["2001:db8::1/64"])]);
        assert!(bed.mirror.notes().is_empty(), "{:?}", bed.mirror.notes());
        assert!(ip("addr show dev front").contains("2001:db8::1/64"));
    });
}

#[test]
fn the_thread_runs_where_it_is_told_and_idles_cheaply() {
    in_namespace(|| {
        let (give, take) = channel();
        let wanted = MirrorConfig { cores: vec![0], ..config(vec![twin("front", &[])]) };
        let (_mirror, _ports) = Mirror::start(wanted, move |_| {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let policy = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
            let _ = give.send((status, policy.is_set(0).unwrap(), nix::unistd::gettid()));
        })
        .unwrap();
        let (status, on_core_0, thread) = take.recv_timeout(Duration::from_secs(2)).unwrap();
        assert!(on_core_0 && status.contains("Cpus_allowed_list:\t0\n"), "{status}");
        // Nanoseconds on a core so far.
        let ran = || {
            let path = format!("/proc/self/task/{thread}/schedstat");
            let text = std::fs::read_to_string(path).unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        std::thread::sleep(Duration::from_millis(500));
        let (since, before) = (Instant::now(), ran());
        std::thread::sleep(Duration::from_secs(1));
        let share = (ran() - before) as f64 / since.elapsed().as_nanos() as f64;
        println!("idle: {:.2} % of a core", share * 100.0);
        assert!(share < 0.1, "{share}");
    });
}

/// Says that the test runs in a process of its own.
const ALONE: &str = "HEADGATE_TEST_ALONE";

/// Runs `body` in a process of its own, which has to be aborted: the test named calls itself there.
fn aborts(test: &str, body: impl FnOnce() + Send + 'static) {
    if std::env::var_os(ALONE).is_some() {
        in_namespace(body);
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root, for a network namespace and a TAP");
        return;
    }
    let name = format!("mirror::tests::life::{test}");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(nix::libc::SIGABRT), "{text}");
}

#[test]
fn a_panic_of_the_thread_ends_the_process() {
    aborts("a_panic_of_the_thread_ends_the_process", || {
        let _mirror = Mirror::start(config(vec![twin("front", &[])]), |_| panic!("on purpose"));
        std::thread::sleep(Duration::from_secs(3));
    });
}

#[test]
fn a_twin_that_is_removed_ends_the_process() {
    aborts("a_twin_that_is_removed_ends_the_process", || {
        let _bed = Bed::new(vec![twin("front", &[])]);
        ip("link del front");
        wait_for("the end", || None::<()>);
    });
}
