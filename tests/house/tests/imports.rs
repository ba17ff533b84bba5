//! Who may import whom (ARCHITECTURE.md): the packet path never sees the control side, and DPDK is
//! seen by the engine alone.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every package of the product, with those of the workspace that it may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("dpdk-sys", &[]),
    ("dpdk", &["dpdk-sys"]),
    ("model", &[]),
    ("pipeline", &["model"]),
    ("engine", &["dpdk", "model", "pipeline"]),
    ("translate", &["model"]),
    ("sources", &["model", "translate"]),
    ("admin", &["model"]),
    ("headgate", &["admin", "engine", "model", "pipeline", "sources", "translate"]),
];

/// Folders whose packages may import everything, and which the product may use in its own tests
/// alone.
const OUTSIDE: &[&str] = &["tests", "perf"];

struct Package {
    name: String,
    folder: String,
    /// Packages of the workspace, each with the kind of dependency: `normal`, `dev` or `build`.
    imports: BTreeSet<(String, String)>,
}

#[expect(clippy::disallowed_methods, reason = "reads files alone, and imports nothing of the rig")]
fn packages() -> Result<Vec<Package>> {
    let root = house::workspace();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(&root)
        .output()
        .context("cargo metadata")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"]);
    Ok(packages
        .iter()
        .map(|package| {
            let manifest = text(&package["manifest_path"]);
            let folder = manifest.strip_prefix(&format!("{}/", root.display())).unwrap_or_default();
            let imports = list(&package["dependencies"])
                .iter()
                .filter(|dependency| !dependency["path"].is_null())
                .map(|dependency| {
                    let kind = dependency["kind"].as_str().unwrap_or("normal");
                    (text(&dependency["name"]), kind.to_owned())
                })
                .collect();
            let folder = folder.split('/').next().unwrap_or_default().to_owned();
            Package { name: text(&package["name"]), folder, imports }
        })
        .collect())
}

#[test]
fn packages_import_only_what_they_may() {
    let rules: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let packages = packages().unwrap();
    let outside: BTreeSet<&str> = packages
        .iter()
        .filter(|package| OUTSIDE.contains(&package.folder.as_str()))
        .map(|package| package.name.as_str())
        .collect();
    let mut wrong = Vec::new();
    for package in packages.iter().filter(|package| !outside.contains(package.name.as_str())) {
        let name = package.name.as_str();
        let Some(allowed) = rules.get(name) else {
            wrong.push(format!("{name} is new: say in MAY_IMPORT what it may import"));
            continue;
        };
        for (import, kind) in &package.imports {
            let in_tests = kind == "dev" && outside.contains(import.as_str());
            if !allowed.contains(&import.as_str()) && !in_tests && import != name {
                wrong.push(format!("{name} imports {import} ({kind}); it may import {allowed:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rules_name_packages_that_exist() {
    let names: BTreeSet<String> =
        packages().unwrap().into_iter().map(|package| package.name).collect();
    for (name, allowed) in MAY_IMPORT {
        for word in std::iter::once(name).chain(allowed.iter()) {
            assert!(names.contains(*word), "there is no package {word}");
        }
    }
}

/// Foreign code that would bring the other side's world along.
#[test]
fn foreign_packages_stay_on_their_side() {
    let root = house::workspace();
    for (manifest, banned) in [
        ("dataplane/model/Cargo.toml", &["tokio", "kube", "libc", "nix"][..]),
        ("dataplane/pipeline/Cargo.toml", &["tokio", "kube", "tracing", "log", "libc", "nix"]),
        ("control/translate/Cargo.toml", &["tokio", "kube"]),
    ] {
        let text = std::fs::read_to_string(root.join(manifest)).expect(manifest);
        let normal = text.split("[dev-dependencies]").next().unwrap_or_default();
        for line in normal.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            assert!(!banned.contains(&name), "{manifest} must not import {name}");
        }
    }
}
