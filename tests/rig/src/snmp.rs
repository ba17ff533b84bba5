//! What the kernel counts of TCP in a namespace.

use crate::namespace::Namespace;
use anyhow::{Context, Result};

/// Segments that the kernel of `namespace` has sent again since the namespace was made.
pub fn retransmits(namespace: &Namespace) -> Result<u64> {
    read(namespace, "snmp", "Tcp", "RetransSegs")
}

/// A counter of `TcpExt`, as `nstat` names it.
pub fn tcp_ext(namespace: &Namespace, name: &str) -> Result<u64> {
    read(namespace, "netstat", "TcpExt", name)
}

/// SYNs that `namespace` dropped in TIME_WAIT for their timestamps. Before 6.14 Linux counted them
/// with those that it drops on connections.
pub fn too_old(namespace: &Namespace) -> Result<u64> {
    tcp_ext(namespace, "PAWSTimewait").or_else(|_| tcp_ext(namespace, "PAWSEstab"))
}

/// Connections of `namespace` in TIME_WAIT.
pub fn waiting(namespace: &Namespace) -> Result<u64> {
    let text = namespace.within(|| std::fs::read_to_string("/proc/thread-self/net/sockstat"))??;
    let count = text.split_once(" tw ").and_then(|(_, rest)| rest.split(' ').next());
    count.and_then(|word| word.parse().ok()).with_context(|| format!("no tw in {text}"))
}

fn read(namespace: &Namespace, file: &str, group: &str, name: &str) -> Result<u64> {
    // Of the thread, not of the process: that one lives in another namespace.
    let path = format!("/proc/thread-self/net/{file}");
    let text = namespace.within(|| std::fs::read_to_string(&path))??;
    counter(&text, group, name).with_context(|| format!("no {group} {name} in {path}"))
}

fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split(' ').position(|word| word == name)?;
    values.split(' ').nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_a_counter() {
        let text =
            "Ip: A B\nIp: 1 2\nTcp: InSegs RetransSegs\nTcp: 5 7\nTcpExt: A B\nTcpExt: 3 4\n";
        assert_eq!(super::counter(text, "Tcp", "RetransSegs"), Some(7));
        assert_eq!(super::counter(text, "TcpExt", "B"), Some(4));
        assert_eq!(super::counter(text, "Tcp", "B"), None);
    }
}
