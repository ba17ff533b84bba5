//! The state of the whole, and the findings of `check`.

use super::{Look, age, plain};
use crate::host::{Finding, Verdict};
use model::answers::{ConflictRow, Leadership, Ledger, LinkRow, Links, Status};

/// One screen.
pub fn status(status: &Status, look: Look) -> String {
    let workers = match status.cores.as_slice() {
        [core] => format!("1 worker on core {core}"),
        cores => {
            let list: Vec<String> = cores.iter().map(u32::to_string).collect();
            format!("{} workers on cores {}", cores.len(), list.join(","))
        }
    };
    let [published, everywhere] = status.generation;
    let generation = if published == everywhere {
        format!("{published} on every worker")
    } else {
        format!("{published} published, {everywhere} on every worker")
    };
    let change = status
        .last_change_us
        .map_or_else(String::new, |us| format!(", last change took {}", milliseconds(us)));
    let [known, served] = status.services;
    let [active, backends] = status.backends;
    let anywhere = if status.backends_anywhere {
        "; at any unicast address (backend.ranges is unset)"
    } else {
        ""
    };
    let mut text = format!(
        "Headgate {} · DPDK {} {} · {workers} · huge pages {}\n",
        status.version,
        status.dpdk,
        status.drivers.join(" "),
        status.huge_pages
    );
    let rows = [
        ("up", age(status.uptime_s)),
        ("source", source(status)),
        ("services", format!("{served} of {known} served, {} ports", status.service_ports)),
        ("backends", format!("{active} of {backends} active{anywhere}")),
        ("links", links(&status.links)),
        ("connections", status.connections.to_string()),
        ("generation", format!("{generation}{change}")),
        ("ledger", ledger(&status.ledger)),
    ];
    let writes = status.source_state.leadership.as_ref().map(|who| ("writes", writes(who)));
    let shown =
        |(name, _): &&(&str, String)| *name != "links" || !status.links.interfaces.is_empty();
    let (first, rest) = rows.split_at(2);
    for (name, value) in first.iter().chain(&writes).chain(rest).filter(shown) {
        text.push_str(&format!("{name:<12} {value}\n"));
    }
    for shared in status.conflicts.iter().filter(|one| one.is_gateway).take(SHARED_MAX) {
        let ConflictRow { address, interface, mac, .. } = shared;
        let (interface, mac) = (plain(interface), plain(mac));
        let what = format!("{address} on {interface} with another gateway, {mac}");
        text.push_str(&format!("{:<12} {what}\n", "shared"));
    }
    if status.degraded.is_empty() {
        text.push_str(&format!("{:<12} {}\n", "health", look.good("good")));
    }
    for wrong in &status.degraded {
        let since = age(look.now_s.saturating_sub(wrong.since_s));
        let what = plain(&wrong.what);
        text.push_str(&format!("{:<12} {what} (for {since})\n", look.bad("DEGRADED")));
    }
    text
}

/// Addresses shared with other gateways that are listed.
const SHARED_MAX: usize = 8;

/// Which links are up.
fn links(links: &Links) -> String {
    let word = |link: &LinkRow| {
        let state = if link.up && link.twin_up { "up" } else { "DOWN" };
        format!("{} {state}", plain(&link.interface))
    };
    let list: Vec<String> = links.interfaces.iter().map(word).collect();
    format!("{}, in {} IPv6 groups", list.join(", "), links.groups)
}

/// Where objects come from, and whether that is what is forwarded.
fn source(status: &Status) -> String {
    let state = &status.source_state;
    let step = match (state.loaded, state.in_step) {
        (_, true) => "in step".to_owned(),
        (false, _) => "not read yet".to_owned(),
        (true, false) => format!("not in step for {}", age(state.stale_ms / 1_000)),
    };
    format!("{}, {step}", plain(&status.source))
}

/// Whether this gateway allocates and writes, and who does where it doesn't.
fn writes(leadership: &Leadership) -> String {
    let lease = plain(&leadership.lease);
    match (leadership.ours, lease.is_empty()) {
        (true, true) => "yes, it is the only gateway".to_owned(),
        (true, false) => format!("yes, holds {lease}"),
        (false, true) => format!("no: {}", plain(&leadership.problem)),
        (false, false) => format!("no: {} ({lease})", plain(&leadership.problem)),
    }
}

/// `900 us` as `0.9 ms`.
fn milliseconds(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1e3)
}

/// What came in and what went out; terms that are 0 are left out where they are rare.
pub fn ledger(ledger: &Ledger) -> String {
    let mut came = format!("received {}", ledger.received);
    let mut went = format!("sent {}", ledger.sent);
    for (name, count) in [
        ("from host", ledger.from_host),
        ("handed in", ledger.handed_in),
        ("generated", ledger.generated),
    ] {
        if count > 0 {
            came.push_str(&format!(" + {name} {count}"));
        }
    }
    for (name, count) in [
        ("to host", ledger.to_host),
        ("handed out", ledger.handed_out),
        ("dropped", ledger.dropped),
        ("in flight", ledger.in_flight),
    ] {
        if count > 0 {
            went.push_str(&format!(" + {name} {count}"));
        }
    }
    match ledger.difference() {
        0 => format!("{came} = {went}"),
        difference => format!("{came} vs {went}: OUT OF BALANCE by {difference}"),
    }
}

/// Three commands to try next.
pub fn next_commands(running: bool) -> String {
    let commands: [(&str, &str); 3] = if running {
        [
            ("headgate show services", "what is served, and what isn't and why"),
            ("headgate explain service NAMESPACE/NAME", "why can't I reach it?"),
            ("headgate show drops", "what is dropped, and what to do"),
        ]
    } else {
        [
            ("headgate check", "is the configuration good, is the host ready?"),
            ("headgate check --keys", "what can be configured"),
            ("headgate run", "start the gateway in the foreground"),
        ]
    };
    let mut text = "\nTry next:\n".to_owned();
    for (command, what) in commands {
        text.push_str(&format!("  {command:<41} {what}\n"));
    }
    text
}

/// What `check` found on the host.
pub fn findings(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        text.push_str(&format!("{word:<8} {}: {}\n", finding.what, finding.found));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("{:<8} -> {remedy}\n", ""));
        }
    }
    text
}
