//! One worker's pipeline: its connection tables and all else that its packets may change.

use crate::adjacency::{Hop, Interface};
use crate::answer::{self, Bucket, Budgets, Class, Generated, Rate, Rates};
use crate::arch::memory::{Block, Memory, OutOfMemory};
use crate::begin::Choosing;
use crate::claims::Claims;
use crate::connections::{Adopted, Holders, NotAdopted, Origin, Shard, TimeoutTable, Timeouts};
use crate::counters::Counters;
use crate::frame::Verdict;
use crate::host_flows::HostFlows;
use crate::journey::Now;
use crate::learned::{Learned, Told};
use crate::mirror::{NeighbourRequest, Purpose};
use crate::secret::{self, Numbers, Secret, one_way};
use crate::select::AffinityTable;
use crate::steer::FragmentPorts;
use crate::tables::Tables;
use crate::turn::{Packet, Turn};
use model::drops::DropReason;
use model::ids::{InterfaceId, WorkerId};
use model::limits::{NEW_CONNECTIONS_PER_SECOND, PATH_MTU_MIN};
use std::net::IpAddr;
use std::sync::Arc;

/// Requests about next hops that wait for the engine to fetch them, at most.
const REQUESTS_MAX: usize = 64;
/// Frames of our own that wait for the engine to fetch them, at most.
const GENERATED_MAX: usize = 32;

/// How a worker's pipeline is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which worker it is.
    pub worker: WorkerId,
    /// How many workers there are.
    pub workers: u8,
    /// The worker's clock 0, in milliseconds of `CLOCK_BOOTTIME`: kept with the tables.
    pub epoch_ms: u64,
    /// What names the slot-to-key tables that are written beside the connection tables.
    pub keys: u64,
    /// Connections that the tables hold: IPv4, IPv6.
    pub connections: [usize; 2],
    /// How long connections may be silent.
    pub timeouts: Timeouts,
    /// New connections that it begins, a second.
    pub new_connections: Rate,
    /// The least path MTU that a backend is told of, in bytes of an IPv4 packet.
    pub path_mtu_min: u16,
    /// How many answers it makes.
    pub rates: Rates,
    /// Keys the connection tables' hash. At random, and secret.
    pub secret: u64,
    /// Keys the numbers that are drawn, for ports among others, which outsiders see: at random, and
    /// nothing that another secret follows from.
    pub numbers: [u64; 2],
    /// Keys the choice of backends; the same on all gateways that serve the same addresses.
    pub selection_key: u64,
    /// Which backend clients had last, for session affinity: one table for all workers.
    pub affinity: Arc<AffinityTable>,
    /// What the host itself began: one table for all workers.
    pub host_flows: Arc<HostFlows>,
    /// Routing peers that aren't on a link of ours.
    pub peers: Arc<[IpAddr]>,
    /// False leaves prefetching out, to measure what it is worth.
    pub prefetch: bool,
}

impl Default for Options {
    /// A small table for tests; keys of zero.
    fn default() -> Self {
        Self {
            worker: WorkerId(0),
            workers: 1,
            epoch_ms: 0,
            keys: 0,
            connections: [1024, 1024],
            timeouts: Timeouts::default(),
            new_connections: Rate::per_second(NEW_CONNECTIONS_PER_SECOND),
            path_mtu_min: PATH_MTU_MIN,
            rates: Rates::default(),
            secret: 0,
            numbers: [0; 2],
            selection_key: 0,
            affinity: Arc::new(AffinityTable::new(1024, 0)),
            host_flows: Arc::new(HostFlows::new(1024)),
            peers: Arc::new([]),
            prefetch: true,
        }
    }
}

impl Options {
    const fn origin(&self) -> Origin {
        Origin {
            secret: self.secret,
            worker: self.worker,
            workers: self.workers,
            epoch_ms: self.epoch_ms,
            keys: self.keys,
        }
    }
    /// The options of one of several workers, with secrets of its own.
    pub fn of_worker(&self, worker: WorkerId, secret: &Secret) -> Self {
        Self {
            worker,
            secret: secret.derive(secret::Purpose::Connections(worker)),
            numbers: secret.numbers(worker),
            ..self.clone()
        }
    }
}

/// One worker's pipeline.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) v4: Shard<u32>,
    pub(crate) v6: Shard<u128>,
    pub(crate) context: Context,
    pub(crate) swept_ms: u64,
}

/// All but the connection tables.
#[derive(Debug)]
pub(crate) struct Context {
    pub worker: WorkerId,
    pub timeouts: TimeoutTable,
    pub path_mtu_min: u16,
    pub counters: Arc<Counters>,
    pub fragments: FragmentPorts,
    pub learned: Learned,
    told: Told,
    pub selection_key: u64,
    pub affinity: Arc<AffinityTable>,
    pub host_flows: Arc<HostFlows>,
    pub peers: Arc<[IpAddr]>,
    pub prefetch: bool,
    pub claims: Claims,
    /// The interface that the latest new connection left by.
    pub begun_by: InterfaceId,
    budgets: Budgets,
    begins: Bucket,
    identification: u16,
    fragment_id: u32,
    requests: Vec<NeighbourRequest>,
    generated: Vec<Generated>,
    pub numbers: Numbers,
}

impl Pipeline {
    /// An empty pipeline with its tables in `memory`.
    pub fn new(
        options: &Options,
        counters: Arc<Counters>,
        memory: &mut dyn Memory,
    ) -> Result<Self, OutOfMemory> {
        let origin = options.origin();
        let v4 = Shard::new(memory, options.connections[0], &origin)?;
        let v6 = Shard::new(memory, options.connections[1], &origin)?;
        Ok(Self::with(options, counters, v4, v6))
    }
    /// A pipeline that goes on with the connections of a process that is no more: of the same worker,
    /// in the memory of its tables (IPv4, IPv6). The clock goes on too: `now` counts from the epoch
    /// of that process, see [`Self::epoch_ms`].
    pub fn adopt(
        options: &Options,
        counters: Arc<Counters>,
        [v4, v6]: [Block; 2],
        holders: &impl Holders,
    ) -> Result<(Self, [Adopted; 2]), NotAdopted> {
        let origin = options.origin();
        let (v4, of_v4) = Shard::adopt(v4, &origin, holders)?;
        let (v6, of_v6) = Shard::adopt(v6, &origin, holders)?;
        Ok((Self::with(options, counters, v4, v6), [of_v4, of_v6]))
    }
    fn with(options: &Options, counters: Arc<Counters>, v4: Shard<u32>, v6: Shard<u128>) -> Self {
        // Of the tables' own, which it tells nothing of.
        let secret = one_way(options.secret.rotate_left(16));
        let mut pipeline = Self {
            v4,
            v6,
            context: Context {
                worker: options.worker,
                timeouts: options.timeouts.by_number(),
                path_mtu_min: options.path_mtu_min,
                counters,
                fragments: FragmentPorts::new(secret),
                learned: Learned::new(secret),
                told: Told::new(secret),
                selection_key: options.selection_key,
                affinity: Arc::clone(&options.affinity),
                prefetch: options.prefetch,
                claims: Claims::default(),
                begun_by: InterfaceId(0),
                host_flows: Arc::clone(&options.host_flows),
                peers: Arc::clone(&options.peers),
                budgets: options.rates.budgets(),
                begins: Bucket::new(options.new_connections),
                identification: 0,
                fragment_id: 0,
                requests: Vec::with_capacity(REQUESTS_MAX),
                generated: Vec::with_capacity(GENERATED_MAX),
                numbers: Numbers::new(options.numbers),
            },
            swept_ms: 0,
        };
        // Both are seen outside: each begins anywhere.
        let context = &mut pipeline.context;
        (context.identification, context.fragment_id) =
            (context.random() as u16, context.random() as u32);
        pipeline
    }
    /// The worker's clock 0, in milliseconds of `CLOCK_BOOTTIME`.
    pub fn epoch_ms(&self) -> u64 {
        self.v4.header().epoch_ms()
    }
    /// The worker that it belongs to.
    pub const fn worker(&self) -> WorkerId {
        self.context.worker
    }
    /// Connections in the tables: IPv4, IPv6.
    pub const fn connections(&self) -> [usize; 2] {
        [self.v4.len(), self.v6.len()]
    }
    /// Connections that the tables have room for: IPv4, IPv6.
    pub fn capacity(&self) -> [usize; 2] {
        [self.v4.capacity(), self.v6.capacity()]
    }
    /// Bytes of the connection tables.
    pub fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes()
    }
    /// Takes the requests about next hops that have gathered.
    pub fn take_requests(&mut self) -> impl Iterator<Item = NeighbourRequest> + '_ {
        self.context.requests.drain(..)
    }
    /// True where requests about next hops wait.
    pub const fn has_requests(&self) -> bool {
        !self.context.requests.is_empty()
    }
    /// What other stations say of our addresses.
    pub const fn claims(&mut self) -> &mut Claims {
        &mut self.context.claims
    }
    /// Takes one of the frames that were made here, of no packet that came in.
    pub fn take_generated(&mut self) -> Option<Generated> {
        self.context.generated.pop()
    }
    /// True where such frames wait.
    pub const fn has_generated(&self) -> bool {
        !self.context.generated.is_empty()
    }
    /// What the host itself began, to be told what it sends.
    pub const fn host_flows(&self) -> &Arc<HostFlows> {
        &self.context.host_flows
    }
    /// Chooses backends under another key from now on. Connections keep theirs.
    pub const fn set_selection_key(&mut self, key: u64) {
        self.context.selection_key = key;
    }
    /// The counters that it writes.
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.context.counters
    }
}

impl Context {
    /// Counts a drop. Other verdicts are counted by the engine where the packet moves.
    #[inline]
    pub fn count(&self, verdict: Verdict) {
        if let Verdict::Drop(reason) = verdict {
            self.counters.dropped(reason).add(1);
        }
    }
    /// Takes a token of a class on an interface.
    #[inline]
    pub fn may(&mut self, class: Class, interface: InterfaceId, now: Now) -> bool {
        let may = self.budgets.take(class, interface, now.ms);
        if let Some(count) = self.counters.budget(class, interface) {
            if may { count.taken.add(1) } else { count.refused.add(1) }
        }
        may
    }
    /// Makes a frame of our own, unless too many wait or the budget of its interface is used up.
    pub fn generate(
        &mut self,
        class: Class,
        now: Now,
        make: impl FnOnce(u64) -> Option<Generated>,
    ) -> bool {
        if self.generated.len() >= GENERATED_MAX {
            return false;
        }
        let Some(made) = make(self.random()) else { return false };
        let may = self.may(class, made.interface, now);
        if may {
            self.generated.push(made);
        }
        may
    }
    /// What backends are chosen by.
    pub fn choosing<'a>(&'a self, tables: &'a Tables, now: Now) -> Choosing<'a> {
        Choosing { affinity: &self.affinity, selection_key: self.selection_key, tables, now }
    }
    /// True where one more connection may begin.
    #[inline]
    pub fn may_begin(&mut self, now: Now) -> bool {
        self.begins.take(now.ms)
    }
    /// An identification for the fragments of one packet: no other worker gives the same one. That of
    /// IPv4 has the lower 16 bits.
    pub fn next_fragment_id(&mut self, workers: u8) -> u32 {
        self.fragment_id = self.fragment_id.wrapping_add(1);
        self.fragment_id.wrapping_mul(u32::from(workers)).wrapping_add(u32::from(self.worker.0))
    }
    /// An identification for a packet that may be fragmented on its way; never 0.
    pub const fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        if self.identification == 0 {
            self.identification = 1;
        }
        self.identification
    }
    /// The next of a sequence that nobody outside can guess.
    pub fn random(&mut self) -> u64 {
        self.numbers.draw()
    }
    /// Tells the mirror of a next hop, or asks it, unless the budget of the class is used up.
    pub fn request(&mut self, class: Class, request: NeighbourRequest, now: Now) {
        if self.requests.len() < REQUESTS_MAX && self.may(class, request.interface, now) {
            self.requests.push(request);
        }
    }
    /// Tells the mirror that connections use a next hop, for whose sake no snapshot asks any more.
    pub fn in_use(&mut self, interface: InterfaceId, address: IpAddr, now: Now) {
        if self.requests.len() < REQUESTS_MAX && self.told.is_due(interface, address, now.ms) {
            self.requests.push(NeighbourRequest { interface, address, purpose: Purpose::InUse });
        }
    }
    /// Asks the mirror to resolve a hop that it hasn't.
    pub fn resolve(&mut self, hop: &Hop, now: Now) {
        let Hop { interface, address, .. } = *hop;
        let request = NeighbourRequest { interface, address, purpose: Purpose::Resolve };
        self.request(Class::Request, request, now);
    }
}

impl Turn<'_> {
    /// Turns the frame into an answer by `make`, unless the budget of its class is used up, its
    /// checksum is wrong, or the frame has no room for it. The checksum comes after the token: what
    /// is looked at is as long as the packet.
    pub fn answer(
        &mut self,
        class: Class,
        packet: &mut Packet<'_, '_>,
        make: impl FnOnce(&mut Packet<'_, '_>, &Interface) -> bool,
    ) -> Verdict {
        let id = packet.parsed.interface;
        // Parsing has found the interface in these very tables.
        let Some(interface) = self.tables.adjacencies.interface(id) else {
            return Verdict::Drop(DropReason::VlanUnknown);
        };
        if !self.context.may(class, id, self.now) {
            Verdict::Drop(DropReason::AnswerLimited)
        } else if !answer::verify(packet.frame, packet.parsed) {
            Verdict::Drop(DropReason::L4Checksum)
        } else if make(packet, interface) {
            Verdict::Answer(interface.port)
        } else {
            Verdict::Drop(DropReason::AnswerLimited)
        }
    }
}
