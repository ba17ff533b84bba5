//! One poll-mode core: receive, process, send, run to completion.

use crate::counters::{LedgerCounters, WorkerCounters};
use crate::idle::Idler;
use crate::load::{Load, Pass, Watch};
use crate::mailbox::Inbox;
use crate::mirror::MirrorPort;
use crate::outlet::{Outlets, count_drop};
use crate::packet::{Handed, Outcome, frame};
use crate::publish::Reader;
use arrayvec::ArrayVec;
use dpdk::{Burst, Consumer, Mbuf, Pool, RxQueue};
use model::drops::DropReason;
use model::ids::{InterfaceId, PortId, WorkerId};
use model::limits::BURST_PACKETS_MAX;
use pipeline::counters::Counters;
use pipeline::frame::Verdict;
use pipeline::host_flows::HostFlows;
use pipeline::tables::Tables;
use pipeline::{Now, Pipeline};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Frames from the host that a worker takes in one loop.
const HOST_FRAMES_PER_LOOP: usize = 32;
/// Bytes of a frame that starts an 802.1Q tag: two MAC addresses.
const MACS_LEN: usize = 12;

/// A receive queue and the port that it belongs to.
pub struct Inlet {
    /// The port.
    pub port: PortId,
    /// The queue.
    pub queue: RxQueue,
}

/// All that a worker has. It is made on the control side and moved to the worker's thread.
pub struct Worker {
    /// Its pipeline.
    pub pipeline: Pipeline,
    /// The published tables.
    pub reader: Reader,
    /// What it receives from.
    pub inlets: Vec<Inlet>,
    /// Rings from other workers.
    pub handed_in: Vec<Consumer>,
    /// Its ways out.
    pub outlets: Outlets,
    /// Its end of the host mirror, where there is one.
    pub host: Option<MirrorPort>,
    /// Where packets from the host get their mbufs.
    pub pool: Pool,
    /// Inquiries.
    pub inbox: Inbox,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// What it does when there is nothing to do.
    pub idler: Idler,
    /// Set when it shall end.
    pub stop: Arc<AtomicBool>,
    /// The start of its clock.
    pub started: Instant,
    /// What keys the choice of backends.
    pub selection_key: Arc<AtomicU64>,
}

impl Worker {
    /// Polls until it is told to stop.
    pub fn run(self) {
        let Self { mut pipeline, mut reader, mut inlets, mut handed_in, mut outlets, .. } = self;
        let (mut host, mut idler, counters) = (self.host, self.idler, self.counters);
        let mut burst = Burst::<BURST_PACKETS_MAX>::new();
        let mut load = Load::new();
        let counts = Arc::clone(pipeline.counters());
        let host_flows = Arc::clone(pipeline.host_flows());
        let mut out = Exits {
            outlets: &mut outlets,
            host: host.as_mut(),
            ledger: &counters.ledger,
            counts: &counts,
            host_flows: &host_flows,
            pool: &self.pool,
        };
        while !self.stop.load(Relaxed) {
            let began = load.begin_loop();
            let now = Now { ms: self.started.elapsed().as_millis() as u64 };
            let tables = reader.read();
            pipeline.set_selection_key(self.selection_key.load(Relaxed));
            let mut watch = counters.passes.watch(now.ms, began);
            let mut packets = 0;
            for inlet in &mut inlets {
                let received = inlet.queue.receive(&mut burst);
                out.ledger.received.add(received as u64);
                load.burst(received);
                packets += received;
                watch.lap(Pass::Receive, received > 0);
                let from = (Some(inlet.port), now);
                out.process(&mut pipeline, tables, &mut burst, from, &mut watch);
            }
            for ring in &mut handed_in {
                let taken = ring.dequeue_burst(&mut burst);
                out.ledger.handed_in.add(taken as u64);
                packets += taken;
                watch.lap(Pass::Receive, taken > 0);
                out.process(&mut pipeline, tables, &mut burst, (None, now), &mut watch);
            }
            let taken = out.take_from_host(tables, now);
            packets += taken;
            watch.lap(Pass::FromHost, taken > 0);
            pipeline.sweep(tables, now);
            watch.lap(Pass::Sweep, packets > 0);
            out.send_generated(&mut pipeline);
            out.outlets.flush(out.ledger, &counts);
            out.ledger.in_flight.set(0);
            watch.lap(Pass::Send, packets > 0);
            out.request_neighbours(&mut pipeline);
            out.tell_claims(&mut pipeline);
            self.inbox.answer_one(&pipeline, tables, now);
            watch.lap(Pass::Other, packets > 0);
            watch.packets(packets);
            load.end_loop(packets, now.ms, &counters.load);
            idler.end_loop(packets > 0);
        }
    }

    /// Which worker it is.
    pub const fn id(&self) -> WorkerId {
        self.pipeline.worker()
    }
}

/// What the packets of a loop need on their way out.
struct Exits<'a> {
    outlets: &'a mut Outlets,
    host: Option<&'a mut MirrorPort>,
    ledger: &'a LedgerCounters,
    counts: &'a Counters,
    host_flows: &'a HostFlows,
    pool: &'a Pool,
}

impl Exits<'_> {
    /// Processes a burst from a port, or from another worker, and sends it on its ways. The burst
    /// is empty afterwards.
    #[inline]
    fn process(
        &mut self,
        pipeline: &mut Pipeline,
        tables: &Tables,
        burst: &mut Burst<BURST_PACKETS_MAX>,
        (port, now): (Option<PortId>, Now),
        watch: &mut Watch<'_>,
    ) {
        #[cfg(feature = "lose-one-packet")]
        crate::fault::lose(burst);
        if burst.is_empty() {
            return;
        }
        if !burst.iter().all(Mbuf::is_writable) {
            self.copy_shared(burst);
        }
        self.ledger.in_flight.set(burst.len() as u64);
        // What others want sent alone doesn't pass the pipeline again.
        if port.is_none() {
            self.send_for_others(burst);
        }
        let mut outcomes = ArrayVec::<Outcome, BURST_PACKETS_MAX>::new();
        // What the device has written comes while the first ones are looked at.
        burst.iter().for_each(Mbuf::prefetch);
        {
            let mut frames = ArrayVec::<_, BURST_PACKETS_MAX>::new();
            for mbuf in burst.iter_mut() {
                let handed = port.is_none().then(|| Handed::from_meta(mbuf.meta()));
                frames.push(frame(mbuf, handed, port.unwrap_or_default()));
            }
            pipeline.process_burst(tables, &mut frames, now);
            outcomes.extend(frames.iter().map(Outcome::of));
        }
        watch.lap(Pass::Pipeline, true);
        for (mbuf, outcome) in burst.drain().zip(&outcomes) {
            self.deliver(mbuf, outcome);
        }
        watch.lap(Pass::Deliver, true);
    }

    /// What is held by a driver as well, or isn't where its lengths say, isn't rewritten: a copy is.
    #[cold]
    fn copy_shared(&mut self, burst: &mut Burst<BURST_PACKETS_MAX>) {
        let mut writable = Burst::<BURST_PACKETS_MAX>::new();
        for mbuf in burst.drain() {
            let copy = if mbuf.is_writable() { Some(mbuf) } else { mbuf.copy(self.pool) };
            match copy {
                // Both hold as many.
                Some(mbuf) => drop(writable.push(mbuf)),
                None => count_drop(self.ledger, self.counts, DropReason::BufferShared, 1),
            }
        }
        std::mem::swap(burst, &mut writable);
    }

    fn send_for_others(&mut self, burst: &mut Burst<BURST_PACKETS_MAX>) {
        let mut to_process = Burst::<BURST_PACKETS_MAX>::new();
        for mbuf in burst.drain() {
            match Handed::from_meta(mbuf.meta()) {
                Handed::Send(port) => self.outlets.send(port, mbuf, self.ledger, self.counts),
                Handed::Process { .. } => {
                    // Both hold as many.
                    let _ = to_process.push(mbuf);
                }
            }
        }
        std::mem::swap(burst, &mut to_process);
    }

    /// Does what the verdict says.
    #[inline]
    fn deliver(&mut self, mut mbuf: Mbuf, outcome: &Outcome) {
        if let Verdict::Drop(_) = outcome.verdict {
            self.ledger.dropped.add(1);
            return;
        }
        if !outcome.apply(&mut mbuf) {
            count_drop(self.ledger, self.counts, DropReason::TransmitOversize, 1);
            return;
        }
        match outcome.verdict {
            Verdict::Send(port) | Verdict::Answer(port) => {
                self.outlets.send(port, mbuf, self.ledger, self.counts);
            }
            Verdict::Host(interface) => self.give_to_host(interface, &mbuf),
            Verdict::Handover(owner) => {
                mbuf.set_meta(outcome.handed().to_meta());
                self.outlets.hand_over(owner, mbuf, self.ledger, self.counts);
            }
            // Every frame has left the pipeline with a verdict, and drops were seen to above.
            Verdict::Pending | Verdict::Drop(_) => {
                count_drop(self.ledger, self.counts, DropReason::NotOurs, 1);
            }
        }
    }

    fn give_to_host(&mut self, interface: InterfaceId, mbuf: &Mbuf) {
        let taken = self.host.as_mut().is_some_and(|host| {
            host.to_host_with(interface, mbuf.len(), |bytes| {
                mbuf.read_into(bytes);
            })
        });
        if taken {
            self.ledger.to_host.add(1);
        } else {
            count_drop(self.ledger, self.counts, DropReason::HostFull, 1);
        }
    }

    /// Sends what the host gives, and notes what it begins. A frame waits in its slot while no mbuf is free.
    #[inline]
    fn take_from_host(&mut self, tables: &Tables, now: Now) -> usize {
        let Some(host) = self.host.as_mut() else { return 0 };
        let mut taken = 0;
        while taken < HOST_FRAMES_PER_LOOP {
            let Some(mut mbuf) = (if host.has_from_host() { self.pool.alloc() } else { None })
            else {
                break;
            };
            let Some(slot) = host.from_host() else { break };
            taken += 1;
            self.ledger.from_host.add(1);
            self.host_flows.note(slot.bytes(), now);
            let interface = tables.adjacencies.interface(slot.interface());
            let fits = interface.is_some_and(|i| copy_tagged(&mut mbuf, slot.bytes(), i.vlan));
            match interface {
                Some(interface) if fits => {
                    self.outlets.send(interface.port, mbuf, self.ledger, self.counts);
                }
                _ => count_drop(self.ledger, self.counts, DropReason::TransmitOversize, 1),
            }
        }
        taken
    }

    /// Sends what the pipeline has made. It waits while no mbuf is free.
    fn send_generated(&mut self, pipeline: &mut Pipeline) {
        while pipeline.has_generated() {
            let Some(mut mbuf) = self.pool.alloc() else { return };
            let Some(made) = pipeline.take_generated() else { return };
            self.ledger.generated.add(1);
            if mbuf.copy_from_slice(made.bytes()).is_ok() {
                self.outlets.send(made.port, mbuf, self.ledger, self.counts);
            } else {
                count_drop(self.ledger, self.counts, DropReason::TransmitOversize, 1);
            }
        }
    }

    fn request_neighbours(&mut self, pipeline: &mut Pipeline) {
        if !pipeline.has_requests() {
            return;
        }
        for request in pipeline.take_requests() {
            if let Some(host) = self.host.as_mut() {
                // A full ring loses a request; the next packet makes another.
                let _ = host.request(request);
            }
        }
    }

    fn tell_claims(&mut self, pipeline: &mut Pipeline) {
        if pipeline.claims().is_empty() {
            return;
        }
        for claim in pipeline.claims().take() {
            if let Some(host) = self.host.as_mut() {
                // A full ring loses one; who claims an address does so again.
                let _ = host.tell(claim);
            }
        }
    }
}

/// Copies a frame into an mbuf, with the interface's tag where it has one.
fn copy_tagged(mbuf: &mut Mbuf, bytes: &[u8], vlan: Option<u16>) -> bool {
    let Some(vlan) = vlan else { return mbuf.copy_from_slice(bytes).is_ok() };
    let Some((macs, rest)) = bytes.split_at_checked(MACS_LEN) else { return false };
    let [high, low] = vlan.to_be_bytes();
    mbuf.copy_from_slice(macs).is_ok()
        && mbuf.append(&[0x81, 0x00, high, low]).is_ok()
        && mbuf.append(rest).is_ok()
}
