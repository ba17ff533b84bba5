//! TCP retransmits as the kernel counts them in a namespace.

use crate::namespace::Namespace;
use anyhow::{Context, Result};

/// Segments that the kernel of `namespace` has sent again since the namespace was made.
pub fn retransmits(namespace: &Namespace) -> Result<u64> {
    // Of the thread, not of the process: that one lives in another namespace.
    let text = namespace.within(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    tcp_counter(&text, "RetransSegs").context("no RetransSegs in /proc/net/snmp")
}

fn tcp_counter(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split(' ').position(|word| word == name)?;
    values.split(' ').nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_a_counter() {
        let text = "Ip: A B\nIp: 1 2\nTcp: InSegs RetransSegs\nTcp: 5 7\n";
        assert_eq!(super::tcp_counter(text, "RetransSegs"), Some(7));
    }
}
