//! What a sender is told whose packet goes no further.

use super::{Class, IcmpError, is_to_group, reset};
use crate::frame::Verdict;
use crate::parse::quoted::is_error;
use crate::parse::{Fragment, ICMP, ICMPV6, TCP, TCP_RST, be16};
use crate::turn::{Packet, Turn};
use model::drops::DropReason;

/// Nobody takes the packet: TCP gets a RST, UDP an ICMP port unreachable, so that clients needn't
/// wait for a time-out.
#[cold]
pub(crate) fn reject(turn: &mut Turn<'_>, packet: &mut Packet<'_, '_>) -> Verdict {
    reject_as(Class::Refusal, turn, packet)
}

/// The same, of the budget of a class where it is a RST.
#[cold]
pub(crate) fn reject_as(class: Class, turn: &mut Turn<'_>, packet: &mut Packet<'_, '_>) -> Verdict {
    let parsed = packet.parsed;
    if parsed.protocol != TCP {
        return refuse(turn, packet, IcmpError::PortUnreachable);
    }
    if parsed.tcp_flags & TCP_RST != 0 {
        return Verdict::Drop(DropReason::TcpNoConnection);
    }
    let later = matches!(parsed.fragment, Fragment::Later(_));
    if later || is_to_group(packet.frame) {
        return Verdict::Drop(DropReason::TcpNoConnection);
    }
    turn.answer(class, packet, |packet, interface| reset(packet.frame, parsed, interface))
}

/// Answers with an ICMP error, where one is due and the budget allows.
#[cold]
pub(crate) fn refuse(
    turn: &mut Turn<'_>,
    packet: &mut Packet<'_, '_>,
    error: IcmpError,
) -> Verdict {
    let parsed = packet.parsed;
    let (class, otherwise) = match error {
        IcmpError::PortUnreachable => (Class::Refusal, DropReason::NotOurs),
        IcmpError::TimeExceeded => (Class::TimeExceeded, DropReason::TtlExpired),
        IcmpError::TooBig(_) => (Class::TooBig, DropReason::MtuExceeded),
    };
    let about_an_error = matches!(parsed.protocol, ICMP | ICMPV6)
        && packet
            .frame
            .bytes()
            .get(usize::from(parsed.l4))
            .is_none_or(|kind| is_error(parsed.protocol, *kind));
    // A sender that allows fragments would not understand that it must send less.
    let fragments_allowed = matches!(error, IcmpError::TooBig(_))
        && parsed.protocol_is_v4()
        && be16(packet.frame.bytes(), usize::from(parsed.l3) + 6)
            .is_some_and(|flags| flags & 0x4000 == 0);
    let later = matches!(parsed.fragment, Fragment::Later(_));
    if about_an_error || fragments_allowed || later || is_to_group(packet.frame) {
        return Verdict::Drop(otherwise);
    }
    turn.answer(class, packet, |packet, interface| {
        super::error(packet.frame, parsed, interface, error)
    })
}
