//! The cost of a change is that of the change.

use super::*;

const SERVICES: u32 = 10_000;

fn large() -> (Index, Built) {
    let wishes = Wishes {
        pools: vec![pool("demo", true, &["203.0.0.0/16"])],
        external_ip_ranges: Vec::new(),
        ..wishes()
    };
    let mut index = Index::new(Settings::new(wishes).unwrap(), Allocations::default());
    for number in 0..SERVICES {
        let name = format!("s{number:05}");
        index.apply(balanced(&name));
        index.apply(slice(&name, &name, "IPv4", endpoints(number, 3)));
    }
    let built = index.build();
    (index, built)
}

fn endpoints(number: u32, count: u32) -> Value {
    let address = |which| std::net::Ipv4Addr::from(0x0a00_0000 + number * 8 + which).to_string();
    (0..count)
        .map(|which| {
            json!({"addresses": [address(which)], "nodeName": format!("n{}", number % 100)})
        })
        .collect()
}

#[test]
fn one_change_among_ten_thousand_services_looks_at_one() {
    let (mut index, built) = large();
    assert_eq!(built.evaluated, SERVICES as usize);
    assert_eq!(built.delta.changed.len(), SERVICES as usize);
    assert_eq!(index.build(), Built::default());
    let addresses: std::collections::BTreeSet<_> =
        index.statuses().flat_map(|status| status.addresses.clone()).collect();
    assert_eq!(addresses.len(), SERVICES as usize);

    let built = index.take([slice("s00042", "s00042", "IPv4", endpoints(42, 2))]);
    assert_eq!((built.evaluated, built.delta.changed.len(), built.statuses.len()), (1, 1, 1));
    let built = index.take([slice("s00042", "s00042", "IPv4", endpoints(42, 2))]);
    assert_eq!(built, Built::default(), "the same again");
    let built = index.drop_service("s00007");
    assert_eq!((built.evaluated, built.delta.removed.len()), (0, 1));
    let built = index.take([balanced("s00007")]);
    assert_eq!((built.evaluated, built.delta.changed.len()), (1, 1));
    let built = index.take([balanced("zzz")]);
    assert_eq!((built.evaluated, built.delta.changed.len()), (1, 1));
    let built = index.take([node("n5", &["10.255.0.1"])]);
    assert_eq!(built.evaluated, 100, "a Node concerns the Services that have pods on it");
    let built = index.take([node("n777", &["10.255.0.2"])]);
    assert_eq!(built.evaluated, 0);
}
