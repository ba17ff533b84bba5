//! What a backend's kernel remembers of each port that the gateway came from, as Linux does.

use crate::common::wire::Segment;
use crate::{BACKENDS, common};
use std::net::IpAddr;

/// TIME_WAIT of Linux, in milliseconds: a minute, and the grain of a timer that long (512 ticks at
/// 100 Hz).
const TIME_WAIT_MS: u64 = 60_000 + 5_120;

#[derive(Clone, Copy, Default)]
struct Seat {
    /// Until then it is not free.
    until_ms: u64,
    /// In TIME_WAIT, and not a connection.
    waits: bool,
    /// The client's latest timestamp, where it has any.
    timestamp: Option<u32>,
    /// The number that is expected next from the client.
    next: u32,
}

/// The three backends.
pub struct Servers {
    seats: Vec<[Seat; 1 << 16]>,
    /// SYNs by what they met.
    pub free: u64,
    /// A port in TIME_WAIT whose last packets the SYN comes after: accepted.
    pub used_again: u64,
    /// Dropped as an old duplicate, by its timestamp (PAWSTimewait of Linux).
    pub old_timestamp: u64,
    /// Not accepted, as neither timestamp nor sequence number is after.
    pub old_sequence: u64,
    /// A connection that the backend still has.
    pub occupied: u64,
}

impl Servers {
    pub fn new() -> Self {
        let seats = vec![[Seat::default(); 1 << 16]; usize::from(BACKENDS)];
        Self { seats, free: 0, used_again: 0, old_timestamp: 0, old_sequence: 0, occupied: 0 }
    }
    fn seat(&mut self, segment: &Segment) -> &mut Seat {
        let backend = (0..BACKENDS)
            .find(|n| {
                let ip: IpAddr = common::backend_ip(segment.source.is_ipv6(), 10 + n);
                ip == segment.destination.ip()
            })
            .unwrap();
        &mut self.seats[usize::from(backend)][usize::from(segment.source.port())]
    }
    /// A SYN comes: `tcp_timewait_state_process`.
    pub fn syn(&mut self, segment: &Segment, now_ms: u64) {
        let seat = *self.seat(segment);
        let after = |new: u32, old: u32| new.wrapping_sub(old).cast_signed() > 0;
        let times = seat.timestamp.zip(segment.timestamp);
        let count = if now_ms >= seat.until_ms {
            &mut self.free
        } else if !seat.waits {
            &mut self.occupied
        } else if times.is_some_and(|(old, new)| after(old, new)) {
            &mut self.old_timestamp
        } else if after(segment.sequence, seat.next)
            || times.is_some_and(|(old, new)| after(new, old))
        {
            &mut self.used_again
        } else {
            &mut self.old_sequence
        };
        *count += 1;
        *self.seat(segment) = Seat { until_ms: u64::MAX, ..Seat::default() };
    }
    /// The client's FIN comes, after the server's own was acknowledged.
    pub fn fin(&mut self, segment: &Segment, now_ms: u64) {
        *self.seat(segment) = Seat {
            until_ms: now_ms + TIME_WAIT_MS,
            waits: true,
            timestamp: segment.timestamp,
            next: segment.sequence.wrapping_add(1),
        };
    }
    /// The client has vanished, and the backend gives up at a time.
    pub fn gives_up(&mut self, segment: &Segment, at_ms: u64) {
        self.seat(segment).until_ms = at_ms;
    }
}
