//! Which clients may use the guarded frontends of a service port.

use ipnet::IpNet;
use model::ids::Family;
use model::limits::SOURCE_RANGES_MAX;
use std::net::IpAddr;

/// Client addresses by family, as runs from first to last that neither touch nor overlap, in
/// order. A family without a run is open to all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRanges {
    runs: [Box<[(u128, u128)]>; 2],
    left_out: usize,
}

impl SourceRanges {
    /// The addresses of the prefixes.
    pub fn new(prefixes: &[IpNet]) -> Self {
        let mut left_out = 0;
        let runs = [Family::V4, Family::V6].map(|family| {
            let of_family = prefixes.iter().filter(|prefix| Family::of(prefix.addr()) == family);
            let mut all: Vec<(u128, u128)> = of_family
                .map(|prefix| (number(prefix.network()), number(prefix.broadcast())))
                .collect();
            all.sort_unstable();
            let mut joined: Vec<(u128, u128)> = Vec::with_capacity(all.len());
            for (first, last) in all {
                match joined.last_mut() {
                    Some(run) if first <= run.1.saturating_add(1) => run.1 = run.1.max(last),
                    _ => joined.push((first, last)),
                }
            }
            left_out += joined.len().saturating_sub(SOURCE_RANGES_MAX);
            joined.truncate(SOURCE_RANGES_MAX);
            joined.into_boxed_slice()
        });
        Self { runs, left_out }
    }
    /// How many prefixes were left out because there are more than [`SOURCE_RANGES_MAX`]: their
    /// clients stay out.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }
    /// True where this client may use a guarded frontend.
    pub fn admits(&self, client: IpAddr) -> bool {
        let runs = &self.runs[Family::of(client).index()];
        let client = number(client);
        let before = runs.partition_point(|(first, _)| *first <= client);
        runs.is_empty() || before.checked_sub(1).is_some_and(|at| client <= runs[at].1)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(texts: &[&str]) -> SourceRanges {
        let prefixes: Vec<IpNet> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        assert_eq!(prefixes.len(), texts.len());
        SourceRanges::new(&prefixes)
    }
    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or(IpAddr::from([0; 4]))
    }

    #[test]
    fn a_family_without_prefixes_is_open() {
        let none = ranges(&[]);
        assert!(none.admits(ip("198.51.100.7")) && none.admits(ip("2001:db8::7")));
        let v4 = ranges(&["198.51.100.0/24"]);
        assert!(v4.admits(ip("198.51.100.0")) && v4.admits(ip("198.51.100.255")));
        assert!(!v4.admits(ip("198.51.101.0")) && !v4.admits(ip("198.51.99.255")));
        assert!(v4.admits(ip("2001:db8::7")), "IPv6 stays open");
        let all = ranges(&["0.0.0.0/0", "2001:db8:c::/48"]);
        assert!(all.admits(ip("255.255.255.255")) && !all.admits(ip("2001:db8:d::1")));
    }

    #[test]
    fn too_many_prefixes_leave_the_last_ones_out() {
        let prefix =
            |n: usize| IpNet::from(IpAddr::from((0x0a00_0000 + 2 * n as u32).to_be_bytes()));
        let prefixes: Vec<IpNet> = (0..SOURCE_RANGES_MAX + 3).map(prefix).collect();
        let ranges = SourceRanges::new(&prefixes);
        assert_eq!(ranges.left_out(), 3);
        assert!(ranges.admits(prefixes[SOURCE_RANGES_MAX - 1].addr()));
        assert!(!ranges.admits(prefixes[SOURCE_RANGES_MAX].addr()));
    }

    proptest! {
        /// The same as looking at each prefix.
        #[test]
        fn any_prefix_admits(
            prefixes in proptest::collection::vec((any::<u16>(), 0u8..=32), 0..12),
            clients in proptest::collection::vec(any::<u16>(), 1..40),
        ) {
            // Few bits, at the ends of the address, so that prefixes overlap and touch.
            let spread = |n: u16| IpAddr::from((u32::from(n) * 0x1_0001).to_be_bytes());
            let prefixes: Vec<IpNet> =
                prefixes.iter().filter_map(|(n, len)| IpNet::new(spread(*n), *len).ok()).collect();
            let ranges = SourceRanges::new(&prefixes);
            prop_assert_eq!(ranges.left_out(), 0);
            for client in clients.iter().map(|n| spread(*n)) {
                let wanted = prefixes.is_empty() || prefixes.iter().any(|p| p.contains(&client));
                prop_assert_eq!(ranges.admits(client), wanted, "{}", client);
            }
        }
    }
}
