//! Answers as a person reads them: kubectl's columns, and sentences where columns don't do.

mod explain;
mod listings;
mod load;
mod pools;
mod status;
mod table;

pub use explain::{drop_reason, flow_explanation, service_explanation};
pub use listings::{backends, connections, drops, events, ports, services};
pub use load::{budgets, neighbours, workers};
pub use pools::pools;
pub use status::{findings, ledger, next_commands, status};

/// How to show an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// More columns.
    pub wide: bool,
    /// Colours.
    pub colour: bool,
    /// Seconds since the Unix epoch, for ages.
    pub now_s: u64,
}

/// Whether to use colours: on a terminal, unless `NO_COLOR` is set to something.
pub fn colours(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Look {
    fn good(self, text: &str) -> String {
        if self.colour { format!("\x1b[32m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn bad(self, text: &str) -> String {
        if self.colour { format!("\x1b[31m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What came from elsewhere, as names and messages of objects, without control characters: they
/// could rewrite what the terminal shows.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `45s`, `3m12s`, `2h5m`, `4d3h`.
pub(crate) fn age(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m{s}s"),
        (0, ..) => format!("{h}h{m}m"),
        _ => format!("{d}d{h}h"),
    }
}

/// `12 B`, `3.4 KiB`, `1.0 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1_024.;
    let mut units = UNITS.into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1_024. {
        let Some(larger) = units.next() else { break };
        value /= 1_024.;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests;
