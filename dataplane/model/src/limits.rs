//! Every limit, with the arithmetic that led to it. What is allocated at start-up is allocated for
//! these.

/// Packets in a burst. DPDK's drivers work in units of 4 to 32; beyond 32 the scratch of a burst
/// (32 bytes a packet, and the lines it asks for) would leave the first-level cache to nobody else.
pub const BURST_PACKETS_MAX: usize = 32;

/// Poll-mode cores. A NAT address has 252 blocks of ports to lease, and hand-over takes one ring
/// for each ordered pair: 16 x 15 rings of 512 places are 2 MB.
pub const WORKERS_MAX: usize = 16;

/// DPDK ports of one gateway.
pub const PORTS_MAX: usize = 16;

/// Interfaces: a (port, VLAN) each; the host mirror keeps one TAP for each.
pub const INTERFACES_MAX: usize = 64;

/// Service ports that are forwarded at a time. Counters take 64 bytes each a worker: 4 MB.
pub const SERVICE_PORTS_MAX: usize = 65_536;

/// Backends over all service ports. Counters take 32 bytes each a worker: 16 MB; their stamps, 4 bytes
/// each for all workers, 2 MB.
pub const BACKENDS_MAX: usize = 524_288;

/// Backends of one service port and family: a Maglev slot holds 16 bits.
pub const BACKENDS_PER_SERVICE_MAX: usize = 16_384;

/// Frontends over all service ports: three for each service port on average.
pub const FRONTENDS_MAX: usize = 262_144;

/// Frontends of one Service, and externalIPs that are looked at: one Service can't take more than
/// a sixty-fourth of all. An object of Kubernetes has room for more than 50,000 externalIPs.
pub const FRONTENDS_PER_SERVICE_MAX: usize = 4_096;

/// Source ranges of one service port and family, after those that touch are joined: 32 bytes each,
/// 512 KiB, and 14 comparisons for a client's first packet.
pub const SOURCE_RANGES_MAX: usize = 16_384;

/// Clients whose backend is remembered for session affinity, all workers and families together: 16
/// bytes each, 16 MiB. Beyond it the hash of the client's address alone chooses, which keeps to a
/// backend for as long as the backends stay.
pub const AFFINITY_CLIENTS_MAX: usize = 1 << 20;

/// Problems of one Service that its status shows, at about 150 bytes each.
pub const PROBLEMS_PER_SERVICE_MAX: usize = 64;

/// Adjacencies: an id has 16 bits, and some places rest. A place takes 64 bytes, 4 MB in all, and
/// its line in the index some 30.
pub const ADJACENCIES_MAX: usize = 64_500;

/// Places for adjacencies: all that 16 bits can name but the one that stands for none.
pub const ADJACENCY_PLACES: usize = u16::MAX as usize;

/// Places that rest after their next hop has left, before one of them is given to another: a place
/// comes round again after as many changes at least, and its generation of 16 bits after 65,535
/// rounds. At 200 changes a second that is 3.9 days; a connection lives for one without a packet.
pub const ADJACENCIES_RESTING: usize = ADJACENCY_PLACES - ADJACENCIES_MAX;

/// Next hops that no snapshot names any more, and that connections still use: the mirror remembers
/// as many, at some 60 bytes each, 1 MB in all. Beyond it the kernel may forget one, and the next
/// packet asks for it again.
pub const NEXT_HOPS_IN_USE_MAX: usize = 16_384;

/// Neighbours of one interface that the configuration names.
pub const STATIC_NEIGHBOURS_MAX: usize = 256;

/// Addresses that the host itself reaches by way of their node, for its probes: a route of the
/// kernel each.
pub const HOST_WAYS_MAX: usize = 65_536;

/// Flows that the host itself began and whose answers are known for it, all workers together: 8
/// bytes each, 2 MiB. 10,000 probes a second that end at once hold 100,000 places, 10 s each.
pub const HOST_FLOWS_MAX: usize = 1 << 18;

/// Routing peers that aren't on a link of ours: each packet that looks like routing and isn't of
/// the link is compared with all of them, 17 bytes each.
pub const ROUTING_PEERS_MAX: usize = 64;

/// Ports that the workers use on a NAT address are 1024 to 65535; below are the well-known ones,
/// which some servers treat as privileged.
pub const NAT_PORT_FIRST: u16 = 1024;

/// Ports in a block that is leased to one worker: the upper byte of the port names the block.
pub const NAT_BLOCK_PORTS: usize = 256;

/// NAT addresses over all interfaces: the steering table takes 256 bytes for each.
pub const NAT_ADDRESSES_MAX: usize = 256;

/// Ports that are tried for a new connection before one that somebody has is taken. At 90 %
/// occupancy 128 misses in a row have a chance of 0.9^128, about one in 700,000.
pub const NAT_PORT_TRIES: usize = 128;

/// Milliseconds that a port of an ended connection rests at least before another client gets it:
/// late packets of the old one are under way for less, but for those that a backend sends again.
pub const NAT_PORT_REST_MIN_MS: u32 = 1_000;

/// Milliseconds for which a backend without a free port isn't tried again: 10 looks a second at
/// [`NAT_PORT_TRIES`] ports cost nothing, a million would cost the worker.
pub const NAT_PORT_PAUSE_MS: u32 = 100;

/// The same of a backend that has a few free ports, none of them among those looked at: the next look
/// goes on behind them.
pub const NAT_PORT_PAUSE_SCARCE_MS: u32 = 5;

/// Backends whose NAT ports one worker counts: 24 bytes each for IPv4, 48 for IPv6. Of those beyond
/// it the ports are found by looking alone. A table has one for 16 connections at most.
pub const NAT_TARGETS_MAX: usize = 65_536;

/// New connections that a worker begins in a second, unless it is told otherwise: five times as many
/// as a core of a web server takes, and half a core's work.
pub const NEW_CONNECTIONS_PER_SECOND: u32 = 1_000_000;

/// The least path MTU that a backend is told of, unless told otherwise: that of IPv6.
pub const PATH_MTU_MIN: u16 = 1_280;

/// Milliseconds that a half-open connection lives at least. A client's second SYN comes after one
/// second (RFC 6298), its third after three. An eighth of the table may be half open, so a table for
/// a million connections admits 43,690 a second.
pub const HALF_OPEN_LIFE_MIN_MS: u32 = 3_000;

/// Connections of IPv4 that one worker can hold: an index place has 32 bits; 2^28 entries of 64
/// bytes would be 16 GiB.
pub const CONNECTIONS_PER_WORKER_MAX: usize = 1 << 28;

/// Bytes of a service port's key beside its slot: two names of 63, a port's of 15, what they are
/// joined by, and 88 for the cluster's. With 65,536 slots 17 MB at most, of which the pages cost that
/// are written.
pub const SLOT_KEY_BYTES_MAX: usize = 256;

/// Times that one packet may be handed from worker to worker: to the home of its fragments, and
/// from there to the owner of the connection.
pub const HANDOVERS_MAX: u8 = 2;

/// Length of the name of a network interface without the final NUL (`IFNAMSIZ` of Linux).
pub const INTERFACE_NAME_MAX: usize = 15;

/// Solicited-node groups that are joined, all interfaces together: what a Linux bridge and many
/// switches remember of a snooped link (`mcast_hash_max`). The kernel walks the groups of a link
/// for each that joins, 0.1 s for all of them, and its answer to a querier is 60 frames.
pub const GROUPS_MAX: usize = 4_096;

/// Addresses of ours that other stations use, which are remembered, shown and defended: 256 x 6
/// announcements in a minute at most, and as many lines for a person.
pub const CONFLICTS_MAX: usize = 256;

/// Other gateways that the configuration can name.
pub const GATEWAYS_MAX: usize = 64;

/// Events that `show events` remembers.
pub const EVENTS_KEPT: usize = 1_024;
