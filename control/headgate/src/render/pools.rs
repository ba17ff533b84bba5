//! `show pools`.

use super::Look;
use super::table::Table;
use model::answers::{PoolCount, PoolRow};

/// `12/64`; nothing where the pool has no address of the family.
fn used(count: &PoolCount) -> String {
    match count.total {
        0 => "-".to_owned(),
        u64::MAX => format!("{}/many", count.used),
        total => format!("{}/{total}", count.used),
    }
}

fn selects(row: &PoolRow) -> String {
    let mut parts = Vec::new();
    if !row.namespaces.is_empty() {
        parts.push(format!("namespaces {}", row.namespaces.join(",")));
    }
    if let Some(selector) = &row.namespace_selector {
        parts.push(format!("namespaces with {selector}"));
    }
    if let Some(selector) = &row.service_selector {
        parts.push(format!("services with {selector}"));
    }
    if parts.is_empty() { "all".to_owned() } else { parts.join("; ") }
}

/// `show pools`.
pub fn pools(rows: &[PoolRow], look: Look) -> String {
    let mut columns = vec!["NAME", "IPV4 USED", "IPV6 USED", "AUTO", "PRIORITY", "FOR"];
    if look.wide {
        columns.extend(["IPV4 FREE", "IPV6 FREE", "SCHEME", "AVOID BUGGY", "ADDRESSES"]);
    }
    columns.push("PROBLEM");
    let mut table = Table::new(&columns);
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    for row in rows {
        let mut cells = vec![
            row.name.clone(),
            used(&row.ipv4),
            used(&row.ipv6),
            yes(row.auto_assign),
            row.priority.to_string(),
            selects(row),
        ];
        if look.wide {
            cells.extend([
                row.ipv4.free.to_string(),
                row.ipv6.free.to_string(),
                row.scheme.clone().unwrap_or_else(|| "-".to_owned()),
                yes(row.avoid_buggy_addresses),
                row.ranges.join(","),
            ]);
        }
        cells.push(row.refused.clone().unwrap_or_default());
        table.row(cells);
    }
    table.without_empty(columns.len() - 1).text("pools")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_show_what_is_used() {
        let plain = PoolRow {
            name: "demo".into(),
            ranges: vec!["203.0.113.0-203.0.113.63".into(), "2001:db8::-2001:db8::ffff".into()],
            priority: 100,
            auto_assign: true,
            ipv4: PoolCount { total: 64, used: 2, free: 62 },
            ipv6: PoolCount { total: u64::MAX, used: 1, free: u64::MAX },
            ..PoolRow::default()
        };
        let narrow = Look::default();
        assert_eq!(
            pools(std::slice::from_ref(&plain), narrow),
            "NAME   IPV4 USED   IPV6 USED   AUTO   PRIORITY   FOR\n\
             demo   2/64        1/many      yes    100        all\n"
        );
        let chosen = PoolRow {
            name: "shop".into(),
            namespaces: vec!["shop".into()],
            service_selector: Some("tier=front".into()),
            refused: Some("it overlaps a ServiceCIDR".into()),
            ..PoolRow::default()
        };
        let text = pools(&[plain, chosen], Look { wide: true, ..narrow });
        assert!(text.contains("namespaces shop; services with tier=front"), "{text}");
        assert!(text.contains("2001:db8::-2001:db8::ffff"), "{text}");
        assert!(text.trim_end().ends_with("it overlaps a ServiceCIDR"), "{text}");
        assert_eq!(pools(&[], narrow), "No pools.\n");
    }
}
