//! Frames between the kernel and the worker.

use super::support::{Bed, OUR_MAC, addr, in_namespace, ip, twin, wait_for};
use crate::mirror::gratuitous::announcement;
use model::ids::InterfaceId;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Sends an echo request from a raw socket and waits for the reply.
fn ping(to: IpAddr, sequence: u16) -> Duration {
    let (family, protocol, kinds) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, [8, 0]),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, [128, 129]),
    };
    let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(2, 0)).unwrap();
    let [s, e] = sequence.to_be_bytes();
    let mut message = vec![kinds[0], 0, 0, 0, 0x12, 0x34, s, e];
    message.extend([0x5a; 56]);
    if to.is_ipv4() {
        let checksum = etherparse::checksum::Sum16BitWords::new().add_slice(&message);
        message[2..4].copy_from_slice(&checksum.ones_complement().to_ne_bytes());
    }
    let since = Instant::now();
    let to_storage = SockaddrStorage::from(SocketAddr::new(to, 0));
    sendto(fd.as_raw_fd(), &message, &to_storage, MsgFlags::empty()).unwrap();
    loop {
        let mut buffer = [0; 256];
        let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("no reply");
        let reply = &buffer[if to.is_ipv4() { 20 } else { 0 }..length];
        if reply[0] == kinds[1] && reply[4..] == message[4..] {
            return since.elapsed();
        }
    }
}

#[test]
fn the_host_pings_through_the_twin() {
    in_namespace(|| {
        let bed = Bed::new(vec![twin("front", &["192.0.2.1/24", "2001:db8::1/64"])]);
        bed.worker.add_peer("192.0.2.9", 9);
        bed.worker.add_peer("2001:db8::9", 9);
        for peer in ["192.0.2.9", "2001:db8::9"] {
            let mut times: Vec<Duration> = (0..50)
                .map(|n| {
                    // The mirror falls asleep in between.
                    std::thread::sleep(Duration::from_millis(5));
                    ping(addr(peer), n)
                })
                .collect();
            times.sort();
            println!("{peer}: median {:?}, 90 % {:?}, worst {:?}", times[25], times[45], times[49]);
            assert!(times[25] < Duration::from_millis(5), "{times:?}");
        }
        bed.check_ledger();
        // The kernel's own count.
        let (received, sent) = kernel_counts("front");
        let ledger = bed.mirror.ledger();
        assert_eq!((ledger.to_kernel, ledger.from_kernel), (received, sent));
    });
}

/// Packets that the kernel has received and sent on a twin.
fn kernel_counts(name: &str) -> (u64, u64) {
    let all = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = all.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}:"))).unwrap();
    let fields: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
    (fields[1], fields[9])
}

#[test]
fn what_no_worker_fetches_is_counted_as_dropped() {
    in_namespace(|| {
        let bed = Bed::new(vec![twin("front", &["192.0.2.1/24"])]);
        ip("neigh add 192.0.2.9 lladdr 02:00:00:00:01:09 dev front nud permanent");
        bed.worker.paused.store(true, SeqCst);
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        for number in 0..2000_u32 {
            socket.send_to(&number.to_be_bytes(), "192.0.2.9:9").unwrap();
            if number % 50 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        wait_for("drops", || (bed.mirror.ledger().dropped_to_workers >= 1400).then_some(()));
        bed.worker.paused.store(false, SeqCst);
        wait_for("the ring to run empty", || {
            let seen = bed.worker.seen.lock().unwrap().frames.len() as u64;
            (bed.mirror.ledger().to_workers == seen).then_some(())
        });
        bed.check_ledger();
        println!("{:?}", bed.mirror.ledger());
    });
}

#[test]
fn what_a_twin_refuses_is_counted_as_dropped() {
    in_namespace(|| {
        let bed = Bed::new(vec![twin("front", &[])]);
        let frame = announcement(addr("192.0.2.7"), OUR_MAC);
        ip("link set front down");
        for interface in [0, 1, 63, 255] {
            let frame = frame.clone();
            assert!(bed.worker.with_port(move |port| port.to_host(InterfaceId(interface), &frame)));
            bed.worker.seen.lock().unwrap().given += 1;
        }
        wait_for("drops", || (bed.mirror.ledger().dropped_to_kernel == 4).then_some(()));
        assert!(!bed.worker.with_port(|port| port.to_host(InterfaceId(0), &[0; 1519])));
        bed.check_ledger();
    });
}

#[test]
fn a_frame_in_pieces_reaches_the_host_whole() {
    in_namespace(|| {
        let bed = Bed::new(vec![twin("front", &["192.0.2.1/24"])]);
        let socket = UdpSocket::bind("192.0.2.1:7777").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 1, 9], OUR_MAC.0)
            .ipv4([192, 0, 2, 9], [192, 0, 2, 1], 64)
            .udp(9, 7777)
            .write(&mut frame, &[7; 1400])
            .unwrap();
        let given = bed.worker.with_port(move |port| {
            port.to_host_with(InterfaceId(0), frame.len(), |bytes| {
                let (head, tail) = bytes.split_at_mut(100);
                head.copy_from_slice(&frame[..100]);
                tail.copy_from_slice(&frame[100..]);
            })
        });
        assert!(given);
        let mut buffer = [0; 2000];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 1400);
        assert!(buffer[..1400].iter().all(|byte| *byte == 7));
    });
}

#[test]
fn announcements_leave_by_the_worker() {
    in_namespace(|| {
        let bed = Bed::new(vec![twin("front", &[]), twin("back", &[])]);
        let places =
            [(InterfaceId(0), addr("203.0.113.10")), (InterfaceId(1), addr("2001:db8::a"))];
        let asked = Instant::now();
        bed.mirror.announce(places.to_vec());
        std::thread::sleep(Duration::from_millis(3300));
        for (interface, address) in places {
            let wanted = announcement(address, OUR_MAC);
            let frames = bed.worker.frames(|frame| frame == wanted);
            let ms: Vec<u128> = frames.iter().map(|(_, at, _)| (*at - asked).as_millis()).collect();
            println!("{address} after {ms:?} ms");
            assert!(frames.iter().all(|(on, _, _)| *on == interface));
            assert_eq!(ms.len(), 3);
            assert!(ms[0] < 50 && (990..1100).contains(&ms[1]) && (2990..3200).contains(&ms[2]));
        }
        assert_eq!(bed.mirror.ledger().generated, 6);
        bed.check_ledger();
    });
}
