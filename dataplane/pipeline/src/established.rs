//! A packet of a connection that is in the table.

use crate::adjacency::{Adjacency, Hop};
use crate::answer::{self, Class, IcmpError};
use crate::arch::memory::Plain;
use crate::connections::{Address, Direction, Entry, Found, NO_ADJACENCY, Shard, advance};
use crate::frame::{Frame, Verdict};
use crate::journey::Now;
use crate::parse::quoted::is_error;
use crate::parse::{Fragment, ICMP, ICMPV6, Parsed, TCP_FIN, TCP_RST, UDP, be16};
use crate::pipeline::Context;
use crate::rewrite::translate;
use crate::snapshot::Standing;
use crate::tables::Tables;
use model::drops::DropReason;
use model::record::ConnectionState;

/// A slot that nobody holds: of what has gone.
const NO_SLOT: u32 = u32::MAX;

/// True where the packet still belongs to the connection that was found. Otherwise the connection
/// has been taken out: its time was over, a SYN begins anew on it, or its backend has gone.
#[inline]
pub fn is_valid<A: Address>(
    shard: &mut Shard<A>,
    context: &Context,
    tables: &Tables,
    (parsed, found): (&Parsed, Found),
    now: Now,
) -> bool
where
    Entry<A>: Plain,
{
    let Some(state) = current_state(shard, context, tables, found, now) else { return false };
    if parsed.is_bare_syn() && found.direction == Direction::ToBackend {
        return !begins_anew(shard, tables, found.entry, state);
    }
    true
}

/// The state of a connection that was found, validated under the current tables; `None`, and it
/// has been taken out, where its time was over or it had to end.
#[inline]
pub fn current_state<A: Address>(
    shard: &mut Shard<A>,
    context: &Context,
    tables: &Tables,
    found: Found,
    now: Now,
) -> Option<ConnectionState>
where
    Entry<A>: Plain,
{
    let entry = shard.entry(found.entry)?;
    let state = entry.state()?;
    let over = entry.idle_ms(now.ms) >= context.timeouts.of(entry.protocol, state);
    if over || (entry.stamp != tables.stamp() && !revalidate(shard, tables, found.entry)) {
        shard.remove(found.entry);
        return None;
    }
    Some(state)
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

/// Looks at a connection again after a publication. False where it has to end: UDP towards a
/// backend that no longer serves. TCP is never ended by an update.
#[cold]
fn revalidate<A: Address>(shard: &mut Shard<A>, tables: &Tables, at: u32) -> bool
where
    Entry<A>: Plain,
{
    let Some(entry) = shard.entry_mut(at) else { return false };
    let standing = tables.snapshot.standing(entry.backend_id());
    if entry.protocol == UDP && matches!(standing, Standing::Unserving | Standing::Gone) {
        return false;
    }
    let adjacency =
        |hop: Option<Hop>| hop.and_then(|hop| hop.adjacency).map_or(NO_ADJACENCY, |id| id.0);
    entry.backend_adjacency = adjacency(backend_hop(tables, entry));
    entry.client_adjacency = adjacency(tables.adjacencies.hop(entry.client.to_ip(), None));
    // Their slots may have new holders, whose counters aren't this connection's.
    if standing == Standing::Gone {
        entry.backend_slot = NO_SLOT;
    }
    if tables.snapshot.service(entry.service_id()).is_none() {
        entry.service_slot = NO_SLOT;
    }
    entry.stamp = tables.stamp();
    true
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
        entry.state = next as u8;
        entry.embryo = 0;
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
    Ok(Adjacency {
        interface: hop.interface,
        port: interface.port,
        vlan: interface.vlan,
        mtu: interface.mtu,
        source: interface.mac,
        destination,
    })
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
