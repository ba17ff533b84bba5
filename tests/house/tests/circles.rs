//! Modules have one direction: of those that lie in one folder, none is imported by what it imports.
//!
//! A folder's modules are the nodes, and what lies below one belongs to it. An edge leads from one to
//! another that it names by `crate`, `super` or `self`, in code that isn't its tests'.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree};

/// Circles from before the rule: a package, the folder in it, and who imports whom in a circle there.
/// None is added; whoever ends one takes its line away.
const REMAIN: &[(&str, &str, &[&str])] = &[
    (
        "control/translate",
        "",
        &[
            "aliases",
            "allocations",
            "aws",
            "claims",
            "facts",
            "forwarding",
            "index",
            "occupied",
            "ownership",
            "pools",
            "problem",
            "range",
            "request",
            "settings",
            "slices",
            "source_ranges",
            "spec",
            "standing",
        ],
    ),
    ("dataplane/engine", "", &["engine", "upkeep"]),
    ("dataplane/engine", "mirror", &["host_ways", "thread"]),
    (
        "dataplane/pipeline",
        "",
        &[
            "adjacency",
            "answer",
            "begin",
            "claims",
            "connections",
            "counters",
            "established",
            "forwarding",
            "host",
            "host_flows",
            "icmp",
            "journey",
            "judge",
            "learned",
            "mirror",
            "miss",
            "next_hops",
            "parse",
            "pipeline",
            "rewrite",
            "snapshot",
            "steer",
            "sweep",
            "tables",
            "turn",
            "whose",
        ],
    ),
    ("ffi/dpdk", "", &["port", "ring_port"]),
    ("tests/rig", "", &["instance", "process"]),
];

type Name = Vec<String>;

/// What a module names.
struct Named<'a> {
    own: &'a Name,
    /// Modules within the file.
    inner: Name,
    paths: BTreeSet<Name>,
}

impl Named<'_> {
    fn add(&mut self, path: &[String]) {
        let here = || self.own.iter().chain(&self.inner).cloned();
        let mut full: Name = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => here().collect(),
            _ => return,
        };
        for word in path {
            match word.as_str() {
                "crate" | "self" => {}
                "super" => drop(full.pop()),
                _ => full.push(word.clone()),
            }
        }
        self.paths.insert(full);
    }
    fn tree(&mut self, before: &mut Name, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(before, &path.tree);
                before.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
            UseTree::Name(name) => {
                before.push(name.ident.to_string());
                self.add(before);
                before.pop();
            }
            UseTree::Rename(rename) => {
                before.push(rename.ident.to_string());
                self.add(before);
                before.pop();
            }
            _ => self.add(before),
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
    })
}

impl<'ast> Visit<'ast> for Named<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            _ => &[],
        };
        if is_for_tests(attributes) {
            return;
        }
        if let Item::Mod(inner) = item {
            self.inner.push(inner.ident.to_string());
            visit::visit_item(self, item);
            self.inner.pop();
            return;
        }
        visit::visit_item(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&mut Vec::new(), &item.tree);
    }
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Name = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.add(&words);
        visit::visit_path(self, path);
    }
}

/// The modules of a package by their files, with what they name.
fn modules(
    root: &Path,
    files: &[std::path::PathBuf],
    src: &Path,
) -> Result<BTreeMap<Name, BTreeSet<Name>>> {
    let mut modules = BTreeMap::new();
    for file in files.iter().filter(|file| file.starts_with(src)) {
        if file.extension().is_none_or(|kind| kind != "rs") {
            continue;
        }
        let path = file.strip_prefix(src)?.with_extension("");
        let mut own: Name = path.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        if own.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            own.pop();
        }
        let text = std::fs::read_to_string(root.join(file))?;
        let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        let mut named = Named { own: &own, inner: Vec::new(), paths: BTreeSet::new() };
        named.visit_file(&parsed);
        let paths = named.paths;
        modules.insert(own, paths);
    }
    Ok(modules)
}

/// Modules that are made for tests alone, by the files' names.
fn is_test(module: &Name) -> bool {
    module.iter().any(|word| word == "tests" || word.ends_with("_tests"))
}

/// In each folder: which module names which other one.
fn edges(modules: &BTreeMap<Name, BTreeSet<Name>>) -> BTreeMap<Name, BTreeSet<(String, String)>> {
    let mut edges: BTreeMap<Name, BTreeSet<_>> = BTreeMap::new();
    let exists = |path: &[String]| modules.keys().any(|module| module.starts_with(path));
    for (module, paths) in modules.iter().filter(|(module, _)| !is_test(module)) {
        for path in paths {
            let same = module.iter().zip(path).take_while(|(a, b)| a == b).count();
            let (Some(from), Some(to)) = (module.get(same), path.get(same)) else { continue };
            if exists(&path[..=same]) {
                let folder = edges.entry(path[..same].to_vec()).or_default();
                folder.insert((from.clone(), to.clone()));
            }
        }
    }
    edges
}

/// Those that reach themselves, with all that lies on the way there and back.
fn circles(edges: &BTreeSet<(String, String)>) -> BTreeSet<BTreeSet<String>> {
    let reached = |from: &String| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(at) = next.pop() {
            for (_, to) in edges.iter().filter(|(known, _)| known == at) {
                if seen.insert(to.clone()) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let all: BTreeMap<&String, _> = edges.iter().map(|(from, _)| (from, reached(from))).collect();
    let back = |from: &String, to: &String| all.get(to).is_some_and(|seen| seen.contains(from));
    let circle = |(from, seen): (&&String, &BTreeSet<String>)| {
        let circle: BTreeSet<String> = seen.iter().filter(|to| back(from, to)).cloned().collect();
        (!circle.is_empty()).then_some(circle)
    };
    all.iter().filter_map(circle).collect()
}

#[test]
fn modules_have_one_direction() {
    let (root, files) = (house::workspace(), house::files().unwrap());
    let mut found = BTreeSet::new();
    for manifest in files.iter().filter(|file| file.ends_with("Cargo.toml")) {
        let package = manifest.parent().unwrap();
        let modules = modules(&root, &files, &package.join("src")).unwrap();
        for (folder, edges) in edges(&modules) {
            for circle in circles(&edges) {
                found.insert((package.display().to_string(), folder.join("/"), circle));
            }
        }
    }
    let known: BTreeSet<_> = REMAIN
        .iter()
        .map(|(package, folder, circle)| {
            let circle = circle.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
            ((*package).to_owned(), (*folder).to_owned(), circle)
        })
        .collect();
    let text = |circles: Vec<&(String, String, BTreeSet<String>)>| {
        let one = |(package, folder, circle): &(String, String, BTreeSet<String>)| {
            format!("    {package}/src/{folder}: {circle:?}")
        };
        circles.into_iter().map(one).collect::<Vec<_>>().join("\n")
    };
    let (new, gone) =
        (text(found.difference(&known).collect()), text(known.difference(&found).collect()));
    assert!(new.is_empty(), "modules that import each other in a circle, let one be above:\n{new}");
    assert!(gone.is_empty(), "these circles are no more, take them out of REMAIN:\n{gone}");
}

#[test]
fn a_circle_is_seen_and_a_line_is_not() {
    let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let line = BTreeSet::from([edge("a", "b"), edge("b", "c"), edge("a", "c")]);
    assert_eq!(circles(&line), BTreeSet::new());
    let mut round = line;
    round.insert(edge("c", "b"));
    let expected = BTreeSet::from(["b".to_owned(), "c".to_owned()]);
    assert_eq!(circles(&round), BTreeSet::from([expected]));
}
