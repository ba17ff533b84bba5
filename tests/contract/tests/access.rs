//! The roles that are shipped, against item 22.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every manifest below `control/deploy`.
fn manifests() -> Vec<Value> {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../control/deploy")), &mut found);
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let all = serde_saphyr::from_multiple::<Value>(&text);
        all.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    found.iter().flat_map(read).collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// `group/resource verb` for each thing that a role allows; with names, ` NAME` after it.
fn allowed(role: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    let mut names = texts(&rule["resourceNames"]);
                    if names.is_empty() {
                        names.push("");
                    }
                    for name in names {
                        let text = format!("{group}/{resource} {verb} {name}");
                        all.insert(text.trim_end().to_owned());
                    }
                }
            }
        }
    }
    all
}

#[test]
fn the_cluster_role_is_what_the_contract_says() {
    let all = manifests();
    let role = all
        .iter()
        .find(|one| one["kind"] == "ClusterRole" && one["metadata"]["name"] == "headgate");
    let mut expected: BTreeSet<String> = BTreeSet::new();
    let read = [
        "/services",
        "/nodes",
        "discovery.k8s.io/endpointslices",
        "networking.k8s.io/servicecidrs",
    ];
    for resource in read {
        expected.extend(["get", "list", "watch"].map(|verb| format!("{resource} {verb}")));
    }
    expected.insert("/services/status patch".to_owned());
    expected.extend(["create", "patch"].map(|verb| format!("events.k8s.io/events {verb}")));
    assert_eq!(allowed(role.expect("a ClusterRole headgate")), expected);
}

#[test]
fn nobody_reads_pods_or_lists_secrets() {
    let roles = manifests();
    let roles = roles.iter().filter(|one| one["kind"] == "ClusterRole" || one["kind"] == "Role");
    let mut seen = 0;
    for role in roles {
        seen += 1;
        for what in allowed(role) {
            let name = &role["metadata"]["name"];
            assert!(!what.contains('*'), "{name} allows {what}");
            assert!(!what.starts_with("/pods"), "{name} allows {what}");
            let secret = what.starts_with("/secrets ");
            let by_name = what.split(' ').count() == 3 && what.starts_with("/secrets get ");
            assert!(!secret || by_name, "{name} allows {what}");
            let lease = what.starts_with("coordination.k8s.io/leases ");
            assert!(!lease || what.split(' ').count() == 3, "{name} allows {what}");
        }
    }
    assert!(seen > 1, "{seen} roles");
}
