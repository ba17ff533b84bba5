use super::*;
use model::desired::Refusal;
use model::ids::Family;

fn pool(name: &str, ranges: &[&str]) -> Pool {
    let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
    Pool { name: name.into(), ranges, ..Pool::default() }
}

fn with_pools(pools: Vec<Pool>) -> Wishes {
    Wishes {
        pools,
        own_addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8:1::1".parse().unwrap()],
        next_hops: vec!["192.0.2.254".parse().unwrap()],
        ..Wishes::default()
    }
}

#[test]
fn ranges_are_read_as_people_write_them() {
    for (text, shown, count) in [
        ("203.0.113.10", "203.0.113.10", 1),
        ("203.0.113.10-203.0.113.19", "203.0.113.10-203.0.113.19", 10),
        ("203.0.113.0/24", "203.0.113.1-203.0.113.254", 254),
        ("203.0.113.8/31", "203.0.113.8-203.0.113.9", 2),
        ("203.0.113.8/32", "203.0.113.8", 1),
        ("2001:db8::/120", "2001:db8::1-2001:db8::ff", 255),
        ("2001:db8::10 - 2001:db8::1f", "2001:db8::10-2001:db8::1f", 16),
    ] {
        let range: AddressRange = text.parse().unwrap();
        assert_eq!((range.to_string().as_str(), range.count()), (shown, count), "{text}");
        assert_eq!(range.get(0), Some(range.first()));
        assert_eq!(range.get(count - 1), Some(range.last()));
        assert_eq!(range.get(count), None);
        assert_eq!(range.position(range.last()), Some(count - 1));
    }
    let whole: AddressRange = "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
    assert_eq!(whole.count(), u128::MAX);
}

#[test]
fn ranges_that_are_none_are_refused() {
    for text in ["", "x", "203.0.113.9-203.0.113.8", "203.0.113.1-2001:db8::1", "1.2.3.0/33", "-"] {
        let error = text.parse::<AddressRange>().unwrap_err();
        assert_eq!(error, SettingsError::BadRange(text.to_owned()));
    }
}

#[test]
fn a_pool_is_one_run_of_positions_per_family() {
    let pool = pool("p", &["203.0.113.10-203.0.113.11", "2001:db8::/127", "198.51.100.7"]);
    assert_eq!(pool.count(Family::V4), 3);
    assert_eq!(pool.get(Family::V4, 2), Some("198.51.100.7".parse().unwrap()));
    assert_eq!(pool.get(Family::V4, 3), None);
    assert_eq!(pool.position("198.51.100.7".parse().unwrap()), Some(2));
    assert_eq!(pool.position("2001:db8::1".parse().unwrap()), Some(1));
    assert_eq!(pool.position("192.0.2.1".parse().unwrap()), None);
}

#[test]
fn refusals_say_what_and_where() {
    let cases: &[(Vec<Pool>, &str)] = &[
        (vec![pool("", &["203.0.113.1"])], "a pool has no name"),
        (vec![pool("a", &[])], "pool \"a\" has no addresses"),
        (
            vec![pool("a", &["203.0.113.0/28"]), pool("b", &["203.0.113.14-203.0.113.20"])],
            "pools \"a\" and \"b\" overlap: 203.0.113.1-203.0.113.14 and 203.0.113.14-203.0.113.20 have addresses in common",
        ),
        (
            vec![pool("a", &["203.0.113.1-203.0.113.3", "203.0.113.3"])],
            "pools \"a\" and \"a\" overlap: 203.0.113.1-203.0.113.3 and 203.0.113.3 have addresses in common",
        ),
        (
            vec![pool("a", &["203.0.113.1"]), pool("a", &["203.0.113.2"])],
            "there are two pools named \"a\"",
        ),
        (
            vec![pool("a", &["127.0.0.1"])],
            "pool \"a\" contains loopback addresses (127.0.0.1): those can't be a Service's",
        ),
        (
            vec![pool("a", &["223.255.255.255-224.0.0.1"])],
            "pool \"a\" contains multicast or reserved addresses (223.255.255.255-224.0.0.1): those can't be a Service's",
        ),
        (
            vec![pool("a", &["fe80::/64"])],
            "pool \"a\" contains link-local addresses (fe80::1-fe80::ffff:ffff:ffff:ffff): those can't be a Service's",
        ),
    ];
    for (pools, text) in cases {
        assert_eq!(Settings::new(with_pools(pools.clone())).unwrap_err().to_string(), *text);
    }
}

#[test]
fn a_pool_with_an_address_of_ours_is_refused_alone() {
    let cases: &[(Vec<Pool>, &str)] = &[
        (
            vec![pool("a", &["192.0.2.0/24"])],
            "pool \"a\" contains 192.0.2.1, an address of the gateway itself: take it out of 192.0.2.1-192.0.2.254",
        ),
        (
            vec![pool("a", &["192.0.2.200-192.0.2.254"])],
            "pool \"a\" contains 192.0.2.254, the address of a next hop: take it out of 192.0.2.200-192.0.2.254",
        ),
        (
            vec![pool("a", &["2001:db8:1::/64"])],
            "pool \"a\" contains 2001:db8:1::1, an address of the gateway itself: take it out of 2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff",
        ),
    ];
    for (pools, text) in cases {
        let good = pool("good", &["203.0.113.1"]);
        let pools = pools.iter().cloned().chain([good]).collect();
        let settings = Settings::new(with_pools(pools)).unwrap();
        assert_eq!(settings.refused_pool(0), Some(*text));
        assert_eq!(settings.refused_pool(1), None);
    }
}

#[test]
fn other_settings_are_checked_too() {
    let node_port = |first, last| NodePortSettings { first, last, ..NodePortSettings::default() };
    for (first, last) in [(0, 5), (6, 5)] {
        let wishes = Wishes { node_port: node_port(first, last), ..Wishes::default() };
        assert_eq!(Settings::new(wishes), Err(SettingsError::NodePorts(first, last)));
    }
    let mut wishes = Wishes::default();
    wishes.node_port.addresses = vec!["127.0.0.1".parse().unwrap()];
    let text = "NodePorts can't be served on 127.0.0.1, a loopback address";
    assert_eq!(Settings::new(wishes).unwrap_err().to_string(), text);
    let wishes = Wishes { load_balancer_class: String::new(), ..Wishes::default() };
    assert_eq!(Settings::new(wishes), Err(SettingsError::NoClass));
}

#[test]
fn pools_are_tried_by_priority_then_in_order() {
    let of = |name: &str, priority| Pool { priority, ..pool(name, &[name]) };
    let pools = vec![of("203.0.113.1", 7), of("203.0.113.2", 3), of("203.0.113.3", 7)];
    let settings = Settings::new(with_pools(pools)).unwrap();
    assert_eq!(settings.pools_in_order().map(|(at, _)| at).collect::<Vec<_>>(), [1, 0, 2]);
}

#[test]
fn the_hash_of_the_pools_is_that_of_what_is_given_to_whom() {
    let hash = |change: fn(&mut Pool)| {
        let mut changed = pool("a", &["203.0.113.1"]);
        change(&mut changed);
        Settings::new(with_pools(vec![changed])).unwrap().pools_hash()
    };
    let plain = hash(|_| ());
    assert_eq!((plain.len(), hash(|pool| pool.refusal = Refusal::Drop)), (16, plain.clone()));
    let changes: [fn(&mut Pool); 9] = [
        |pool| pool.name = "b".into(),
        |pool| pool.ranges = vec!["203.0.113.2".parse().unwrap()],
        |pool| pool.priority = 1,
        |pool| pool.auto_assign = false,
        |pool| pool.avoid_buggy_addresses = true,
        |pool| pool.namespaces = vec!["x".into()],
        |pool| pool.namespace_selector = Some("x".parse().unwrap()),
        |pool| pool.service_selector = Some("x".parse().unwrap()),
        |pool| pool.scheme = Some(crate::pools::Scheme::Internal),
    ];
    let all: std::collections::BTreeSet<_> = changes.into_iter().map(hash).chain([plain]).collect();
    assert_eq!(all.len(), 10, "each of them counts");
    let whose: [fn(&mut Wishes); 5] = [
        |_| (),
        |wishes| wishes.load_balancer_class = "example.net/other".to_owned(),
        |wishes| wishes.default_class ^= true,
        |wishes| wishes.aws = true,
        |wishes| wishes.metallb = true,
    ];
    let hash = |change: fn(&mut Wishes)| {
        let mut wishes = with_pools(vec![pool("a", &["203.0.113.1"])]);
        change(&mut wishes);
        Settings::new(wishes).unwrap().pools_hash()
    };
    let all: std::collections::BTreeSet<_> = whose.into_iter().map(hash).collect();
    assert_eq!(all.len(), 5, "and whose a Service is");
}

#[test]
fn addresses_that_old_equipment_mistakes_are_kept_back() {
    let of =
        |text: &str| Pool { avoid_buggy_addresses: true, ..pool("a", &[text]) }.count(Family::V4);
    for (text, count) in [
        ("203.0.113.0-203.0.113.255", 254),
        ("203.0.113.255-203.0.114.0", 0),
        ("203.0.113.1-203.0.113.254", 254),
        ("203.0.113.0-203.0.115.255", 762),
    ] {
        assert_eq!(of(text), count, "{text}");
    }
}
