//! What happens on the links, told: links that go and come, and other stations that use addresses
//! of ours. What is told is bounded, since anybody on a link can make it up.

use super::books::{Books, epoch_s, own_event, tell};
use model::answers::{ConflictRow, Event, LinkRow, Links, Severity};
use model::desired::ObjectName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Conflicts that are told in a burst, and one more in each interval after that.
const BURST: u32 = 16;
const REFILL: Duration = Duration::from_secs(10);
/// Conflicts that `status` lists one by one.
const LISTED_MAX: usize = 16;
/// Services with one address that are told of a conflict.
const SERVICES_MAX: usize = 4;
/// What is wrong with the groups, and that there are more conflicts.
const GROUPS: &str = "groups";
const MORE: &str = "conflicts beyond those listed";

/// What has been told so far.
#[derive(Debug, Default)]
pub struct LinkNews {
    /// Conflicts, and whether with another gateway.
    known: BTreeMap<(String, IpAddr), bool>,
    /// What stands in the books.
    listed: BTreeSet<String>,
    spent: u32,
    refilled: Option<Instant>,
}

impl LinkNews {
    /// Notes in the books what has changed, and gives what the source should tell.
    pub fn note(
        &mut self,
        books: &mut Books,
        links: &Links,
        conflicts: &[ConflictRow],
        now: Instant,
    ) -> Vec<Event> {
        for link in &links.interfaces {
            note_link(books, link);
        }
        let problems = (!links.problems.is_empty()).then(|| links.problems.join("; "));
        books.wrong(GROUPS, problems.as_deref());
        self.list(books, conflicts);
        let mut events = Vec::new();
        for conflict in conflicts {
            let place = (conflict.interface.clone(), conflict.address);
            let news = self.known.insert(place, conflict.is_gateway) != Some(conflict.is_gateway);
            if news && self.may_tell(now) {
                events.extend(about(books, conflict));
            }
        }
        let there = |(interface, address): &(String, IpAddr)| {
            conflicts.iter().any(|one| one.interface == *interface && one.address == *address)
        };
        self.known.retain(|place, _| there(place));
        events
    }

    /// Strangers are something that is wrong; another gateway isn't.
    fn list(&mut self, books: &mut Books, conflicts: &[ConflictRow]) {
        let strangers = conflicts.iter().filter(|conflict| !conflict.is_gateway);
        let mut listed = BTreeSet::new();
        for conflict in strangers.clone().take(LISTED_MAX) {
            let name = format!("conflict {} {}", conflict.interface, conflict.address);
            books.wrong(&name, Some(&sentence(conflict)));
            listed.insert(name);
        }
        for gone in self.listed.difference(&listed) {
            books.wrong(gone, None);
        }
        self.listed = listed;
        let more = strangers.count().saturating_sub(LISTED_MAX);
        let more = (more > 0).then(|| {
            format!("other stations use {more} more of our addresses (headgate status -o json)")
        });
        books.wrong(MORE, more.as_deref());
    }

    fn may_tell(&mut self, now: Instant) -> bool {
        let last = *self.refilled.get_or_insert(now);
        let since = now.saturating_duration_since(last).as_millis() / REFILL.as_millis();
        if since > 0 {
            self.spent = self.spent.saturating_sub(u32::try_from(since).unwrap_or(BURST));
            self.refilled = Some(now);
        }
        let may = self.spent < BURST;
        self.spent += u32::from(may);
        may
    }
}

/// Notes whether a link is there.
fn note_link(books: &mut Books, link: &LinkRow) {
    let LinkRow { interface, port, is_front, up, twin_up } = link;
    let who = if *is_front { "clients don't reach us" } else { "we don't reach backends" };
    let what = match (up, twin_up) {
        (true, true) => None,
        (false, _) => Some(format!(
            "{interface}: the link of port {port} is down, {who} by it; look at the cable, the \
             switch and the other side (headgate show ports)"
        )),
        (true, false) => Some(format!(
            "{interface}: it is down in the kernel, so that next hops on it aren't resolved; ip \
             link set {interface} up"
        )),
    };
    if !books.wrong(&format!("link {interface}"), what.as_deref()) {
        return;
    }
    let event = match what {
        Some(what) => own_event("LinkDown", what),
        None => {
            let text = format!("{interface}: the link is up");
            Event { severity: Severity::Normal, ..own_event("LinkUp", text) }
        }
    };
    tell(&event);
    books.record(event);
}

/// What is said of a conflict.
fn sentence(conflict: &ConflictRow) -> String {
    let ConflictRow { interface, address, mac, .. } = conflict;
    if conflict.is_gateway {
        return format!("{address} on {interface} is used by another gateway of ours, too: {mac}");
    }
    format!(
        "{address} on {interface} is ours, and {mac} uses it, too: find that host in the switch's \
         MAC table and take the address from it; if it is another gateway of yours, list it in \
         announce.gateways"
    )
}

/// What is told of a conflict: of the Services that have the address, else of the gateway.
fn about(books: &mut Books, conflict: &ConflictRow) -> Vec<Event> {
    let (reason, severity) = match conflict.is_gateway {
        true => ("AddressShared", Severity::Normal),
        false => ("AddressConflict", Severity::Warning),
    };
    let own = Event { severity, time_s: epoch_s(), ..own_event(reason, sentence(conflict)) };
    let ports = books.desired.service_ports.values();
    let having = ports
        .filter(|port| port.frontends.iter().any(|one| one.address.ip() == conflict.address))
        .map(|port| port.key.service.clone());
    let services: BTreeSet<ObjectName> = having.collect();
    let of_service = |name: ObjectName| Event {
        kind: "Service".to_owned(),
        place: books.statuses.get(&name).map_or_else(String::new, |status| status.place.clone()),
        object: name,
        ..own.clone()
    };
    let mut events: Vec<Event> = services.into_iter().take(SERVICES_MAX).map(of_service).collect();
    if events.is_empty() {
        events.push(own);
    }
    for event in &events {
        tell(event);
        books.record(event.clone());
    }
    events
}
