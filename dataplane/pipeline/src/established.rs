//! A packet of a connection that is in the table.

use crate::adjacency::{Adjacency, Hop};
use crate::answer::{self, Class, IcmpError};
use crate::arch::memory::Plain;
use crate::connections::{Address, Direction, Entry, Found, NO_ADJACENCY, Shard, advance};
use crate::frame::{Frame, Verdict};
use crate::journey::Now;
use crate::miss::reject;
use crate::parse::quoted::is_error;
use crate::parse::{Fragment, ICMP, ICMPV6, Parsed, TCP, TCP_FIN, TCP_RST, UDP, be16};
use crate::pipeline::Context;
use crate::rewrite::translate;
use crate::snapshot::Standing;
use crate::tables::Tables;
use model::drops::DropReason;
use model::record::ConnectionState;

/// A slot that nobody holds: of what has gone.
pub const NO_SLOT: u32 = u32::MAX;

/// What a connection that was found is to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// The packet goes on it; the state before the packet.
    Live(ConnectionState),
    /// Its backend has gone for so long that the client gets a RST.
    Due,
    /// None: it has been taken out, as its time was over, a SYN begins anew on it, or it had to end.
    Over,
}

/// What the connection that was found is to the packet.
#[inline]
pub fn validity<A: Address>(
    shard: &mut Shard<A>,
    context: &Context,
    tables: &Tables,
    (parsed, found): (&Parsed, Found),
    now: Now,
) -> Validity
where
    Entry<A>: Plain,
{
    let validity = current(shard, context, tables, found, now);
    if found.direction == Direction::ToClient {
        // What the backend still sends is the client's to answer, and so to get its RST.
        return if validity == Validity::Due { DUE_STATE } else { validity };
    }
    let state = match validity {
        Validity::Live(state) => state,
        Validity::Due if parsed.is_bare_syn() => ConnectionState::Closed,
        Validity::Due if parsed.tcp_flags & TCP_RST != 0 => return DUE_STATE,
        Validity::Due | Validity::Over => return validity,
    };
    if parsed.is_bare_syn() && begins_anew(shard, tables, found.entry, state) {
        return Validity::Over;
    }
    validity
}

/// What is due is closed already.
const DUE_STATE: Validity = Validity::Live(ConnectionState::Closed);

/// How a connection that was found stands, validated under the current tables. It has been taken
/// out where its time was over or it had to end.
#[inline]
pub fn current<A: Address>(
    shard: &mut Shard<A>,
    context: &Context,
    tables: &Tables,
    found: Found,
    now: Now,
) -> Validity
where
    Entry<A>: Plain,
{
    let Some(entry) = shard.entry(found.entry) else { return Validity::Over };
    let Some(state) = entry.state() else { return Validity::Over };
    if entry.idle_ms(now.ms) >= context.timeouts.of(entry.protocol, state) {
        shard.remove(found.entry);
        return Validity::Over;
    }
    if entry.stamp == tables.stamp() {
        return Validity::Live(state);
    }
    let validity = revalidate(shard, tables, found.entry, now);
    if validity == Validity::Over {
        shard.remove(found.entry);
    }
    validity
}

/// A SYN on a closing connection selects anew; so does one whose backend takes none any more.
fn begins_anew<A: Address>(
    shard: &mut Shard<A>,
    tables: &Tables,
    at: u32,
    state: ConnectionState,
) -> bool
where
    Entry<A>: Plain,
{
    let Some(entry) = shard.entry(at) else { return true };
    let standing = tables.snapshot.standing(entry.backend_id());
    let anew = match state {
        ConnectionState::Closing | ConnectionState::Closed => true,
        ConnectionState::Embryonic => standing != Standing::Active,
        ConnectionState::SynReceived | ConnectionState::Established => standing == Standing::Gone,
    };
    if anew {
        shard.remove(at);
    }
    anew
}

/// Looks at a connection again after a publication. It has to end where it is UDP towards a backend
/// that no longer serves. TCP is never ended by an update; but one that is due is looked at again
/// and again, whatever is published.
#[cold]
fn revalidate<A: Address>(shard: &mut Shard<A>, tables: &Tables, at: u32, now: Now) -> Validity
where
    Entry<A>: Plain,
{
    let Some(entry) = shard.entry_mut(at) else { return Validity::Over };
    let Some(state) = entry.state() else { return Validity::Over };
    let standing = tables.snapshot.standing(entry.backend_id());
    if entry.protocol == UDP && matches!(standing, Standing::Unserving | Standing::Gone) {
        return Validity::Over;
    }
    find_ways(tables, entry);
    if standing == Standing::Gone {
        leave(tables, entry, now);
    }
    // Its slot may have a new holder, whose counters aren't this connection's.
    if tables.snapshot.service(entry.service_id()).is_none() {
        entry.service_slot = NO_SLOT;
    }
    if state == ConnectionState::Closed && entry.reset_s().is_some() {
        entry.stamp = tables.stale_stamp();
        return Validity::Due;
    }
    entry.stamp = tables.stamp();
    Validity::Live(state)
}

/// The adjacencies of a connection, found anew.
pub fn find_ways<A: Address>(tables: &Tables, entry: &mut Entry<A>) {
    let adjacency =
        |hop: Option<Hop>| hop.and_then(|hop| hop.adjacency).map_or(NO_ADJACENCY, |of| of.id.0);
    entry.backend_adjacency = adjacency(backend_hop(tables, entry));
    entry.client_adjacency = adjacency(tables.adjacencies.hop(entry.client.to_ip(), None));
}

/// The connection's backend has gone: nobody counts under its slot any more, which may have a new
/// holder, and the time runs after which a TCP client gets its RST.
pub fn leave<A: Address>(tables: &Tables, entry: &mut Entry<A>, now: Now) {
    use ConnectionState::{Closing, Established, SynReceived};
    let after_s = tables.snapshot.reset_after_s(entry.backend_id(), entry.service_id());
    entry.backend_slot = NO_SLOT;
    let lives = matches!(entry.state(), Some(SynReceived | Established | Closing));
    if let (TCP, true, 0, Some(after_s)) = (entry.protocol, lives, entry.embryo_or_reset, after_s) {
        // A second more, since this one has begun.
        entry.embryo_or_reset = now.seconds().saturating_add(after_s).saturating_add(1);
    }
}

/// The client learns by a RST that its backend has gone, and the connection ends.
#[cold]
pub fn reset_client<A: Address>(
    shard: &mut Shard<A>,
    context: &mut Context,
    tables: &Tables,
    (frame, parsed, found): (&mut Frame<'_>, &Parsed, Found),
    now: Now,
) -> Verdict
where
    Entry<A>: Plain,
{
    let verdict = reject(context, tables, frame, parsed, now);
    if matches!(verdict, Verdict::Answer(_)) {
        context.counters.resets.add(1);
        shard.remove(found.entry);
    }
    verdict
}

fn backend_hop<A: Address>(tables: &Tables, entry: &Entry<A>) -> Option<Hop> {
    let via = tables.snapshot.backend(entry.backend_id()).and_then(|backend| backend.via);
    tables.adjacencies.hop(entry.backend.to_ip(), via)
}

/// Forwards the packet on its connection.
#[inline]
pub fn forward<A: Address>(
    shard: &mut Shard<A>,
    context: &mut Context,
    tables: &Tables,
    (frame, parsed, found): (&mut Frame<'_>, &Parsed, Found),
    now: Now,
) -> Verdict
where
    Entry<A>: Plain,
{
    let Some(entry) = shard.entry_mut(found.entry) else {
        return Verdict::Drop(DropReason::TableFull);
    };
    if parsed.ttl <= 1 {
        return refuse(context, tables, (frame, parsed), IcmpError::TimeExceeded, now);
    }
    let mut learned = None;
    let adjacency = match way(context, tables, (entry, found.direction), &mut learned, now) {
        Ok(adjacency) => adjacency,
        Err(reason) => return Verdict::Drop(reason),
    };
    if parsed.ip_len > adjacency.mtu {
        return refuse(context, tables, (frame, parsed), IcmpError::TooBig(adjacency.mtu), now);
    }
    touch(entry, parsed, found.direction, now);
    count(context, entry, parsed, found.direction);
    if translate(frame, parsed, entry, found.direction, adjacency) {
        Verdict::Send(adjacency.port)
    } else {
        Verdict::Drop(DropReason::TransmitOversize)
    }
}

/// Time and state of the connection after the packet.
#[inline]
fn touch<A: Address>(entry: &mut Entry<A>, parsed: &Parsed, direction: Direction, now: Now) {
    entry.last_seen_ms = now.ms as u32;
    // A later fragment has no flags of its own.
    if matches!(parsed.fragment, Fragment::Later(_)) {
        return;
    }
    let Some(state) = entry.state() else { return };
    // Most packets change nothing: no side has ended the connection, and none does now.
    let ends = parsed.tcp_flags & (TCP_FIN | TCP_RST) != 0;
    if state == ConnectionState::Established && entry.flags == 0 && !ends {
        return;
    }
    let (next, flags) = advance(state, entry.flags, entry.protocol, direction, parsed.tcp_flags);
    if next != state {
        // It leaves the ring of embryonic ones, or ends before its client's RST is due.
        if matches!((state, next), (ConnectionState::Embryonic, _) | (_, ConnectionState::Closed)) {
            entry.embryo_or_reset = 0;
        }
        entry.state = next as u8;
    }
    entry.flags = flags;
}

#[inline]
fn count<A: Address>(context: &Context, entry: &Entry<A>, parsed: &Parsed, direction: Direction) {
    let counters = &context.counters;
    let bytes = u64::from(parsed.ip_len);
    if let Some(service) = counters.services.get(entry.service_slot as usize) {
        match direction {
            Direction::ToBackend => {
                service.packets_in.add(1);
                service.bytes_in.add(bytes);
            }
            Direction::ToClient => {
                service.packets_out.add(1);
                service.bytes_out.add(bytes);
            }
        }
    }
    if let Some(backend) = counters.backends.get(entry.backend_slot as usize) {
        match direction {
            Direction::ToBackend => backend.packets_in.add(1),
            Direction::ToClient => backend.packets_out.add(1),
        }
    }
}

/// The adjacency that the packet leaves by. One that isn't in the published table is put in
/// `learned`.
#[inline]
pub fn way<'a, A: Address>(
    context: &mut Context,
    tables: &'a Tables,
    (entry, direction): (&Entry<A>, Direction),
    learned: &'a mut Option<Adjacency>,
    now: Now,
) -> Result<&'a Adjacency, DropReason> {
    match tables.adjacencies.adjacency(entry.adjacency(direction)) {
        Some(adjacency) => Ok(adjacency),
        None => Ok(learned.insert(unresolved(context, tables, entry, direction, now)?)),
    }
}

/// The next hop isn't in the published table: a client on the link may have told its MAC itself;
/// anything else is asked for.
#[cold]
fn unresolved<A: Address>(
    context: &mut Context,
    tables: &Tables,
    entry: &Entry<A>,
    direction: Direction,
    now: Now,
) -> Result<Adjacency, DropReason> {
    let hop = match direction {
        Direction::ToBackend => backend_hop(tables, entry),
        Direction::ToClient => tables.adjacencies.hop(entry.client.to_ip(), None),
    };
    let hop = hop.ok_or(DropReason::NoRoute)?;
    let known = hop.adjacency.and_then(|id| tables.adjacencies.adjacency(id));
    if let Some(adjacency) = known {
        return Ok(*adjacency);
    }
    let learned = context.learned.find(hop.interface, hop.address);
    let interface = tables.adjacencies.interface(hop.interface).ok_or(DropReason::NoRoute)?;
    let Some(destination) = learned else {
        context.resolve(&hop, now);
        return Err(DropReason::NeighbourUnresolved);
    };
    Ok(Adjacency::new(hop.interface, interface, destination))
}

/// Answers with an ICMP error, where one is due and the budget allows.
#[cold]
pub fn refuse(
    context: &mut Context,
    tables: &Tables,
    (frame, parsed): (&mut Frame<'_>, &Parsed),
    error: IcmpError,
    now: Now,
) -> Verdict {
    let (class, otherwise) = match error {
        IcmpError::PortUnreachable => (Class::Refusal, DropReason::NotOurs),
        IcmpError::TimeExceeded => (Class::IcmpError, DropReason::TtlExpired),
        IcmpError::TooBig(_) => (Class::IcmpError, DropReason::MtuExceeded),
    };
    let about_an_error = matches!(parsed.protocol, ICMP | ICMPV6)
        && frame
            .bytes()
            .get(usize::from(parsed.l4))
            .is_none_or(|kind| is_error(parsed.protocol, *kind));
    // A sender that allows fragments would not understand that it must send less.
    let fragments_allowed = matches!(error, IcmpError::TooBig(_))
        && parsed.protocol_is_v4()
        && be16(frame.bytes(), usize::from(parsed.l3) + 6).is_some_and(|flags| flags & 0x4000 == 0);
    let later = matches!(parsed.fragment, Fragment::Later(_));
    if about_an_error || fragments_allowed || later || answer::is_to_group(frame) {
        return Verdict::Drop(otherwise);
    }
    if parsed.fragment == Fragment::No && !answer::verify(frame, parsed) {
        return Verdict::Drop(DropReason::L4Checksum);
    }
    context.answer(class, tables, (frame, parsed), now, |frame, interface| {
        answer::error(frame, parsed, interface, error)
    })
}
