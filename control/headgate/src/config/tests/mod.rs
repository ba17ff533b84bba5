//! Configurations and what is said about them.

use super::*;
use bad::BAD;
use model::desired::{ObjectName, Target};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use translate::probes::Cadence;
use translate::{ForwardingSettings, NodeProbe};

mod bad;

const GOOD: &str = r#"
[eal]
memory_mib = 128

[[worker]]
core = 1

[[port]]
name = "front"
device = "net_tap0,iface=hgp-front"
netns = "client"

[[port]]
name = "back"
device = "net_tap1,iface=hgp-back"
mac = "02:00:00:00:00:02"

[[interface]]
name = "front"
port = "front"
role = "front"
addresses = ["198.18.0.1/24", "2001:db8:1::1/64", "fe80::1/64"]
routes = [{ to = "0.0.0.0/0", via = "198.18.0.254" }]
neighbours = [{ address = "198.18.0.9", mac = "02:00:00:00:00:09" }, { address = "fe80::9", mac = "02:00:00:00:00:09" }]

[[interface]]
name = "back"
port = "back"
vlan = 7
role = "back"
addresses = ["198.18.1.1/24", "2001:db8:2::1/64", "fe80::1/64"]

[[nat]]
interface = "back"
addresses = ["198.18.1.200", "2001:db8:2::200"]

[[pool]]
name = "demo"
addresses = ["203.0.113.0/26", "203.0.113.100-203.0.113.120", "2001:db8::10"]
priority = 10

[node_port]
addresses = ["198.18.0.1"]

[external_ips]
ranges = ["192.0.2.0/24"]

[timeouts]
tcp_established = "1h30m"
udp = 20

[answers]
echo_per_second = 50

[host]
peers = ["192.0.2.179", "2001:db8:ffff::179"]
routing_burst = 7
"#;

fn sources(directory: &Path) -> Sources {
    Sources {
        directory: directory.to_owned(),
        files: Vec::new(),
        environment: Vec::new(),
        flags: Vec::new(),
    }
}

/// Reads one file, and shows places without the directory.
fn read(text: &str) -> Result<layers::Loaded, String> {
    read_with(text, &[])
}

fn read_with(text: &str, environment: &[(&str, &str)]) -> Result<layers::Loaded, String> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("headgate.toml"), text).unwrap();
    let mut sources = sources(directory.path());
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    sources.environment = environment.iter().map(owned).collect();
    let shown = format!("{}/", directory.path().display());
    load(&sources).map_err(|problems| problems.to_string().replace(&shown, ""))
}

/// The good configuration with one line replaced.
fn with(line: &str, by: &str) -> String {
    assert!(GOOD.contains(line), "{line}");
    GOOD.replacen(line, by, 1)
}

#[test]
fn a_good_configuration_is_read_whole() {
    let loaded = read(GOOD).unwrap();
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    assert_eq!((config.eal.huge_pages, config.eal.memory_mib.get()), (true, 128));
    assert_eq!(config.workers, [Worker { core: 1 }]);
    assert_eq!(config.ports[0].netns.as_deref(), Some("client"));
    assert_eq!(config.ports[1].mac.unwrap().bytes()[0], 2);
    assert_eq!(config.interfaces[1].port, PortId(1));
    assert_eq!(config.interfaces[1].vlan, Vlan::new(7));
    assert_eq!(config.interfaces[1].host_name, "hg-back");
    assert_eq!(config.interfaces[0].routes[0].via.to_string(), "198.18.0.254");
    let neighbours = &config.interfaces[0].neighbours;
    assert_eq!(neighbours[1].address.to_string(), "fe80::9");
    assert_eq!(neighbours[1].mac.to_string(), "02:00:00:00:00:09");
    assert_eq!(config.nat[0].interface, InterfaceId(1));
    assert_eq!(config.interface_id("back"), Some(InterfaceId(1)));
    assert_eq!(config.own_addresses().count(), 6);
    assert_eq!(config.nat_addresses().count(), 2);
    assert_eq!(config.pools[0].addresses.len(), 3);
    assert_eq!(config.node_port.range.to_string(), "30000-32767");
    assert_eq!(config.backend_ranges, None);
    assert_eq!(config.timeouts.tcp_established, Duration::from_secs(5_400));
    assert_eq!(config.timeouts.udp, Duration::from_secs(20));
    assert_eq!(config.answers.echo.per_second.get(), 50);
    assert_eq!(config.answers.echo.burst.get(), 32);
    assert_eq!(config.answers.refusals.burst.get(), 1_000);
    assert_eq!(config.answers.too_big.per_second.get(), 1_000);
    assert_eq!(config.host.routing.burst.get(), 7);
    let peers: [IpAddr; 2] = ["192.0.2.179", "2001:db8:ffff::179"].map(|a| a.parse().unwrap());
    assert_eq!(config.host.peers, peers);
    assert_eq!(config.admin.socket, Path::new("/run/headgate/headgate.sock"));
    assert_eq!(config.state_dir, Path::new("/var/lib/headgate"));
}

#[test]
fn bad_configurations_are_told_exactly() {
    for (line, by, said) in BAD {
        let error = read(&with(line, by)).map(|loaded| loaded.config).unwrap_err();
        assert_eq!(error, *said, "for {by}");
    }
}

#[test]
fn every_error_is_told_at_once() {
    let text = "[eal]\nmbufs = 3\nfoo = 1\n[[worker]]\n[[port]]\nname = \"a b\"\n";
    let error = read(text).map(|loaded| loaded.config).unwrap_err();
    let expected = [
        "headgate.toml:2: eal.mbufs: 3 is out of range; allowed are 1024 to 8388608",
        "headgate.toml:3: eal.foo: unknown key; [eal] has huge_pages, memory_mib, mbufs",
        "headgate.toml:4: worker.core: is missing; expected 0 to 1023",
        "headgate.toml:5: port.device: is missing; expected vdev string or PCI address",
        "headgate.toml:6: port.name: \"a b\": expected 1 to 15 of a-z A-Z 0-9 - _ .",
        "configuration: interface: is missing; expected at least one [[interface]] with its port and addresses",
    ];
    assert_eq!(error.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line() {
    let error = read("[eal]\nmbufs = \n").map(|loaded| loaded.config).unwrap_err();
    assert!(error.starts_with("headgate.toml:2: "), "{error}");
}

#[test]
fn fragments_are_merged() {
    let directory = tempfile::tempdir().unwrap();
    let fragments = directory.path().join("conf.d");
    fs::create_dir(&fragments).unwrap();
    fs::write(directory.path().join("headgate.toml"), GOOD).unwrap();
    fs::write(fragments.join("10-more.toml"), "[eal]\nmbufs = 2048\n[[worker]]\ncore = 2\n")
        .unwrap();
    fs::write(fragments.join("notes.txt"), "not read").unwrap();
    let loaded = load(&sources(directory.path())).unwrap();
    assert_eq!(loaded.files.len(), 2);
    assert_eq!(loaded.config.workers, [Worker { core: 1 }, Worker { core: 2 }]);
    assert_eq!((loaded.config.eal.memory_mib.get(), loaded.config.eal.mbufs.get()), (128, 2048));

    fs::write(fragments.join("20-again.toml"), "\n[eal]\nmbufs = 4096\n").unwrap();
    let error = load(&sources(directory.path())).unwrap_err().to_string();
    let shown = fragments.display();
    let expected = format!(
        "{shown}/20-again.toml:3: eal.mbufs: is set here and at {shown}/10-more.toml:2; remove one of the two"
    );
    assert_eq!(error, expected);

    // Files given by name are the only ones.
    let mut named = sources(directory.path());
    named.files = vec![directory.path().join("headgate.toml")];
    assert_eq!(load(&named).unwrap().config.workers.len(), 1);
    named.files.push(directory.path().join("absent.toml"));
    let error = load(&named).unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("absent.toml"), "{error}");
}

#[test]
fn flags_are_stronger_than_the_environment_and_that_than_files() {
    let text = format!("{GOOD}\n[state]\ndir = \"/from/file\"\n");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("headgate.toml"), text).unwrap();
    let mut sources = sources(directory.path());
    let state = |sources: &Sources| load(sources).unwrap().config.state_dir;
    assert_eq!(state(&sources), Path::new("/from/file"));
    sources.environment.push(("HEADGATE_STATE_DIR".into(), "/from/environment".into()));
    sources.environment.push(("HEADGATE_MANIFESTS_DIR".into(), "/manifests".into()));
    assert_eq!(state(&sources), Path::new("/from/environment"));
    assert_eq!(load(&sources).unwrap().config.source, Source::Directory("/manifests".into()));
    sources.flags.push(("--state-dir", "state", "dir", "/from/flag".into()));
    assert_eq!(state(&sources), Path::new("/from/flag"));
    sources.flags.push(("--state-dir", "state", "dir", "relative".into()));
    let error = load(&sources).unwrap_err().to_string();
    assert_eq!(error, "flag --state-dir: state.dir: \"relative\": expected an absolute path");
}

#[test]
fn the_environment_sets_numbers_and_lists_too() {
    let variables = [
        ("HEADGATE_EAL_HUGE_PAGES", "false"),
        ("HEADGATE_EAL_MBUFS", "8192"),
        ("HEADGATE_EXTERNAL_IPS_RANGES", "192.0.2.0/28, 2001:db8:9::/64"),
        ("HEADGATE_EAL_MBUF", "1"),
        ("HEADGATE_SERVICE_HOST", "10.0.0.1"),
        ("HEADGATE_CONFIG", "/x"),
    ];
    let loaded = read_with(GOOD, &variables).unwrap();
    assert!(!loaded.config.eal.huge_pages);
    assert_eq!(loaded.config.eal.mbufs.get(), 8192);
    assert_eq!(loaded.config.external_ips.len(), 2);
    let warnings: Vec<String> = loaded.warnings.iter().map(Problem::to_string).collect();
    assert_eq!(warnings.len(), 2);
    assert_eq!(
        warnings[0],
        "environment HEADGATE_EAL_MBUF: no key has this variable, it is ignored; did you mean HEADGATE_EAL_MBUFS?"
    );
    let error = read_with(GOOD, &[("HEADGATE_EAL_MBUFS", "many")]).map(|l| l.config).unwrap_err();
    assert_eq!(
        error,
        "environment HEADGATE_EAL_MBUFS: eal.mbufs: expected a number, found the string \"many\"; allowed are 1024 to 8388608"
    );
}

#[test]
fn warnings_dont_stop_anything() {
    let cases = [
        (
            "\"198.18.1.200\"",
            "\"198.18.9.200\"",
            "nat.addresses: 198.18.9.200 is in no prefix of interface \"back\"; the backends need a route to it",
        ),
        (
            "\"198.18.1.200\", ",
            "",
            "interface.addresses: interface \"back\" has no [[nat]] address of IPv4: its IPv4 backends get no traffic",
        ),
        (
            "\"2001:db8::10\"",
            "\"198.18.0.0/24\"",
            "pool.addresses: 198.18.0.0-198.18.0.255 holds 198.18.0.1, an interface's address; it won't be given out",
        ),
    ];
    for (line, by, said) in cases {
        let warnings = read(&with(line, by)).unwrap().warnings;
        assert!(warnings.iter().any(|found| found.to_string().ends_with(said)), "{warnings:?}");
    }
}

#[test]
fn an_api_server_is_the_source_where_it_is_named() {
    let kubernetes = |text: &str, environment: &[(&str, &str)]| {
        let config = read_with(text, environment).unwrap().config;
        let class = config.service.default_class;
        match config.source {
            Source::Kubernetes(kubernetes) => Some((kubernetes, class)),
            Source::Directory(_) => None,
        }
    };
    assert_eq!(kubernetes(GOOD, &[]), None);
    let (plain, class) = kubernetes(&format!("[kubernetes]\n{GOOD}"), &[]).unwrap();
    assert!(plain.kubeconfig.is_none() && !class && plain.write && plain.events);
    assert_eq!(plain.lease, Some(ObjectName::new("headgate-system", "headgate")));
    assert!(!plain.identity.is_empty());
    let text = format!(
        "[service]\ndefault_class = true\n[kubernetes]\nkubeconfig = \"/k\"\ncontext = \"c\"\n\
         lease = \"none\"\nwrite = false\nhold_back = 5\n{GOOD}"
    );
    let (set, class) = kubernetes(&text, &[]).unwrap();
    assert!(class && !set.write && set.lease.is_none());
    assert_eq!(set.kubeconfig.as_deref(), Some(Path::new("/k")));
    assert_eq!((set.context.as_deref(), set.hold_back.as_secs()), (Some("c"), 5));
    // The environment alone is enough.
    let variable = [("HEADGATE_KUBERNETES_KUBECONFIG", "/e")];
    let (named, _) = kubernetes(GOOD, &variable).unwrap();
    assert_eq!(named.kubeconfig.as_deref(), Some(Path::new("/e")));
    let both = [variable[0], ("HEADGATE_MANIFESTS_DIR", "/m")];
    let said = read_with(GOOD, &both).map(|loaded| loaded.config).unwrap_err();
    assert_eq!(
        said,
        "environment HEADGATE_MANIFESTS_DIR: manifests.dir: [kubernetes] at environment \
         HEADGATE_KUBERNETES_KUBECONFIG names another source: objects come from one, remove the \
         other"
    );
}

#[test]
fn services_are_forwarded_as_configured_where_they_dont_say_it() {
    assert_eq!(read(GOOD).unwrap().config.forwarding, ForwardingSettings::default());
    let text = format!(
        "[service]\ntarget = \"node\"\nproxy_name = \"edge\"\nreset_after = \"5m\"\n\
         [cluster_ip]\nserve = true\nservices = [\"default/kubernetes\"]\n\
         [topology]\nzone = \"z1\"\nnode_name = \"n1.example\"\n\
         [probe]\ninterval = \"500ms\"\ntimeout = \"2s\"\nhealthy_after = 1\n\
         unhealthy_after = 9\nnode = \"none\"\nunknown_nodes = false\n{GOOD}"
    );
    let expected = ForwardingSettings {
        target: Target::Node,
        cluster_ips: true,
        cluster_ips_of: vec![ObjectName::new("default", "kubernetes")],
        proxy_name: Some("edge".to_owned()),
        zone: Some("z1".to_owned()),
        node_name: Some("n1.example".to_owned()),
        reset_after_s: Some(300),
        api_servers: Vec::new(),
        node_probe: NodeProbe::Off,
        ignore_unknown_nodes: true,
        cadence: Cadence {
            interval_ms: 500,
            timeout_ms: 2_000,
            healthy_after: 1,
            unhealthy_after: 9,
        },
    };
    assert_eq!(read(&text).unwrap().config.forwarding, expected);
    for (table, line) in [
        ("service", "target = \"pod\""),
        ("service", "reset_after = \"0s\""),
        ("service", "reset_after = \"8d\""),
        ("service", "proxy_name = \"\""),
        ("cluster_ip", "services = [\"kubernetes\"]"),
        ("topology", "zone = \"a b\""),
        ("topology", "node_name = \"N\""),
        ("probe", "interval = \"1ms\""),
        ("probe", "timeout = \"2h\""),
        ("probe", "healthy_after = 0"),
        ("probe", "node = \"ping\""),
    ] {
        let error = read(&format!("[{table}]\n{line}\n{GOOD}")).map(|loaded| loaded.config);
        let key = line.split(' ').next().unwrap();
        let error = error.unwrap_err();
        assert!(error.contains(&format!("headgate.toml:2: {table}.{key}: ")), "{error}");
    }
}

#[test]
fn no_configuration_at_all_says_where_one_is_expected() {
    let directory = tempfile::tempdir().unwrap();
    let error = load(&sources(directory.path())).unwrap_err().to_string();
    assert!(error.contains("headgate.toml") && error.contains("--config"), "{error}");
}

#[test]
fn the_socket_is_found_in_a_broken_configuration() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(admin_socket(&sources(directory.path())), Path::new(keys::SOCKET_DEFAULT));
    let text = "[admin]\nsocket = \"/run/x.sock\"\n[eal]\nmbufs = 1\n";
    fs::write(directory.path().join("headgate.toml"), text).unwrap();
    assert_eq!(admin_socket(&sources(directory.path())), Path::new("/run/x.sock"));
}

#[test]
fn keys_are_described_and_read() {
    let described = keys::described();
    for key in keys::KEYS {
        assert!(described.contains(key.meaning));
    }
    // A key of the table that the reader doesn't know would silently mean nothing.
    let source = concat!(
        include_str!("../announce.rs"),
        include_str!("../build.rs"),
        include_str!("../devices.rs"),
        include_str!("../forwarding.rs"),
        include_str!("../kubernetes.rs")
    );
    for key in keys::KEYS {
        let stem = key.name.trim_end_matches("_per_second").trim_end_matches("_burst");
        assert!(
            source.contains(&format!("\"{stem}\"")),
            "{}.{} is never read",
            key.table,
            key.name
        );
    }
}

#[test]
fn the_fragment_for_net_tap_fits() {
    let fragment = concat!(env!("CARGO_MANIFEST_DIR"), "/../../hw-configs/net_tap.toml");
    let fragment = fs::read_to_string(fragment).unwrap();
    let rest = &GOOD[GOOD.find("[[interface]]").unwrap()..];
    let loaded = read(&format!("{fragment}\n{rest}")).unwrap();
    assert_eq!((loaded.config.ports.len(), loaded.warnings), (2, vec![]));
    for table in fragment.lines().filter(|line| line.starts_with('[')) {
        assert!(["[eal]", "[[worker]]", "[[port]]"].contains(&table), "{table}");
    }
}

mod mutated {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// Whatever is done to a configuration, reading it ends in an answer.
        #[test]
        fn no_mutation_panics(
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..6, any::<char>(), 1_usize..40), 1..8),
        ) {
            let mut text: Vec<char> = GOOD.chars().collect();
            for (at, what, new, length) in edits {
                if text.is_empty() {
                    break;
                }
                let at = at.index(text.len());
                let end = (at + length).min(text.len());
                match what {
                    0 => text[at] = new,
                    1 => text.insert(at, new),
                    2 => drop(text.drain(at..end)),
                    3 => { let piece: Vec<char> = text[at..end].to_vec(); text.splice(at..at, piece); }
                    4 => text.splice(at..at, "99999999999999999999".chars()).for_each(drop),
                    _ => text[at] = char::from(b"[]{}=\",.#\n-0/:"[length % 14]),
                }
            }
            let text: String = text.into_iter().collect();
            match read(&text) {
                Ok(loaded) => prop_assert!(!loaded.config.ports.is_empty()),
                Err(told) => prop_assert!(!told.is_empty()),
            }
        }
    }
}

#[test]
fn announcements_have_a_period_or_none_and_know_other_gateways() {
    let config = |text: &str| read(&format!("{GOOD}{text}")).unwrap().config.announce;
    let usual = config("");
    assert_eq!((usual.period, usual.gateways), (Some(Duration::from_secs(60)), vec![]));
    for off in ["0", "\"0s\""] {
        assert_eq!(config(&format!("[announce]\nperiod = {off}\n")).period, None);
    }
    let known =
        "[announce]\nperiod = \"2m\"\ngateways = [\"02:00:00:00:00:07\", \"2001:db8::7\"]\n";
    let known = config(known);
    assert_eq!(known.period, Some(Duration::from_secs(120)));
    assert_eq!(
        known.gateways,
        [
            GatewayName::Mac("02:00:00:00:00:07".parse().unwrap()),
            GatewayName::Address("2001:db8::7".parse().unwrap()),
        ]
    );
}
