//! What can be typed, and what it means.

use super::args::*;
use super::ask::connection_filter;
use super::*;
use clap::error::ErrorKind;
use model::answers::{
    BackendRow, BudgetRow, DropRow, Event, NeighbourRow, PoolRow, PortRow, ServiceRow, WorkerRow,
};
use model::desired::ObjectName;
use model::drops::DropReason;
use model::ids::Protocol;
use model::record::ConnectionRecord;
use std::path::Path;

fn parse(line: &str) -> Result<Cli, ErrorKind> {
    let words = std::iter::once("headgate").chain(line.split_whitespace());
    Cli::try_parse_from(words).map_err(|error| error.kind())
}

fn shown(line: &str) -> What {
    match parse(line).unwrap().command {
        Some(Command::Show { what }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn names_are_plural_singular_or_short() {
    for name in ["services", "service", "svc"] {
        assert!(matches!(shown(&format!("show {name}")), What::Services(_)));
        assert!(matches!(shown(&format!("get {name} -A -o wide")), What::Services(_)));
    }
    for name in ["neighbours", "neighbour", "neighbors", "neigh"] {
        assert!(matches!(shown(&format!("show {name}")), What::Neighbours { .. }));
    }
    for (name, short) in [
        ("backends", "be"),
        ("connections", "conn"),
        ("drops", "drop"),
        ("ports", "port"),
        ("workers", "wk"),
        ("budgets", "budget"),
        ("pools", "pool"),
        ("events", "ev"),
    ] {
        assert_eq!(
            std::mem::discriminant(&shown(&format!("show {name}"))),
            std::mem::discriminant(&shown(&format!("show {short}")))
        );
    }
}

#[test]
fn filters_become_a_question() {
    let line = "show conn --src 198.18.0.10 --dst [2001:db8::10]:80 --service web -n shop \
                --state syn_received --protocol udp --limit 7 -w -o json";
    let What::Connections(filter) = shown(line) else { panic!() };
    let question = connection_filter(&filter).unwrap();
    assert_eq!(question.source, Some(("198.18.0.10".parse().unwrap(), None)));
    assert_eq!(question.destination, Some(("2001:db8::10".parse().unwrap(), Some(80))));
    assert_eq!(question.service, Some(ObjectName::new("shop", "web")));
    assert_eq!(question.state.as_deref(), Some("syn_received"));
    assert_eq!((question.protocol, question.limit), (Some(Protocol::Udp), 7));
    assert_eq!(filter.scope.rows.output, Output { format: Format::Json, watch: true });
    let What::Connections(filter) = shown("show connections --service shop/web") else { panic!() };
    assert_eq!(connection_filter(&filter).unwrap().service, Some(ObjectName::new("shop", "web")));
}

#[test]
fn every_list_takes_filters_and_says_its_keys() {
    let mut command = Cli::command();
    let help = command.find_subcommand_mut("show").unwrap().render_long_help().to_string();
    let keys = |name: &str, keys: &[&str]| {
        let listed = help.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(name) && keys.iter().all(|key| line.contains(key))
        });
        assert!(listed, "{name}: {keys:?}\n{help}");
    };
    keys("services", ServiceRow::KEYS);
    keys("backends", BackendRow::KEYS);
    keys("connections", ConnectionRecord::KEYS);
    keys("drops", DropRow::KEYS);
    keys("neighbours", NeighbourRow::KEYS);
    keys("ports", PortRow::KEYS);
    keys("workers", WorkerRow::KEYS);
    keys("budgets", BudgetRow::KEYS);
    keys("pools", PoolRow::KEYS);
    keys("events", Event::KEYS);
    for list in ["svc", "be", "conn", "drop", "neigh", "port", "wk", "budget", "pool", "ev"] {
        shown(&format!("show {list} name=a state!=b,c -o json"));
    }
    let What::Neighbours { all, rows } = shown("show neigh interface=back") else { panic!() };
    assert_eq!((all, rows.terms.len()), (false, 1));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "show",
        "show pods",
        "show connections --src nowhere",
        "show connections --src 198.18.0.10:x",
        "show connections --state open",
        "show connections --limit 0",
        "show connections --protocol icmp",
        "show services -n a -A",
        "show services -o yml",
        "show services web",
        "show services state=",
        "show workers --passes 61",
        "run --manifests /m --kubeconfig /k",
        "explain tcp 198.18.0.10 203.0.113.10:80",
        "explain service a/b/c",
        "explain service /",
        "explain drop no_such",
        "completion csh",
        "frobnicate",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn explain_reads_flows_services_and_reasons() {
    let explain = |line: &str| match parse(line).unwrap().command {
        Some(Command::Explain { what }) => what,
        other => panic!("{other:?}"),
    };
    let Explain::Tcp(flow) = explain("explain tcp [2001:db8::1]:4 [2001:db8::10]:80") else {
        panic!()
    };
    assert_eq!((flow.source.port(), flow.destination.port()), (4, 80));
    let Explain::Service { name, .. } = explain("explain svc web") else { panic!() };
    assert_eq!(name, ObjectName::new("default", "web"));
    let Explain::Drop { reason } = explain("explain drop ttl_expired") else { panic!() };
    assert_eq!(reason.map(DropReason::label), Some("ttl_expired"));
    assert!(matches!(explain("explain drop"), Explain::Drop { reason: None }));
}

#[test]
fn flags_of_run_are_the_strongest_layer() {
    let cli = parse("run --manifests /m --state-dir /s --metrics 127.0.0.1:1 --socket /run/x.sock")
        .unwrap();
    let flags: Vec<(&str, String)> =
        sources(&cli).flags.into_iter().map(|(_, table, _, value)| (table, value)).collect();
    let expected =
        [("admin", "/run/x.sock"), ("manifests", "/m"), ("state", "/s"), ("admin", "127.0.0.1:1")];
    assert_eq!(flags, expected.map(|(table, value)| (table, value.to_owned())));
    let cli = parse("--config a.toml --config b.toml status").unwrap();
    assert_eq!(sources(&cli).files.len(), 2);
}

#[test]
fn a_kubeconfig_may_be_named_from_where_one_stands() {
    let flags = sources(&parse("run --kubeconfig k").unwrap()).flags;
    let [(flag, "kubernetes", "kubeconfig", path)] = &flags[..] else { panic!("{flags:?}") };
    assert_eq!(*flag, "--kubeconfig");
    assert!(Path::new(path).is_absolute() && path.ends_with("/k"), "{path}");
}

#[test]
fn the_version_names_the_commit() {
    let shown = Cli::command().render_version();
    assert!(shown.starts_with("Headgate 0.1.0 "), "{shown}");
    assert_eq!(shown.split_whitespace().count(), 3);
}

#[test]
fn help_teaches() {
    let help = Cli::command().render_long_help().to_string();
    for line in super::super::render::next_commands(true).lines().filter(|line| line.len() > 20) {
        let command = line.split_whitespace().nth(1).unwrap();
        assert!(help.contains(command), "{command}");
    }
    assert!(help.contains("Examples:") && help.contains("Exit codes:"));
}
