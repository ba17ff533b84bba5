//! The cases, one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use contract::case::{Step, read};
use contract::play::play;
use std::collections::BTreeSet;

/// The numbered items of `kubernetes.md`.
const ITEMS: u32 = 30;
/// At least so many cases.
const CASES_MIN: usize = 120;

#[test]
fn every_case_is_as_it_says() {
    let (base, files) = read();
    let mut wrong = Vec::new();
    let mut played = 0;
    for (name, file) in &files {
        for case in &file.cases {
            played += 1;
            let found = play(case, &base);
            if !found.is_empty() {
                wrong.push(format!("cases/{name}: {}\n    {}", case.shows, found.join("\n    ")));
            }
        }
    }
    println!("{played} cases of {} files", files.len());
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_item_has_a_case() {
    let (_, files) = read();
    let items: BTreeSet<u32> = files.iter().map(|(_, file)| file.item).collect();
    let missing: Vec<u32> = (1..=ITEMS).filter(|item| !items.contains(item)).collect();
    assert!(missing.is_empty(), "no case shows item {missing:?}");
    let count: usize = files.iter().map(|(_, file)| file.cases.len()).sum();
    assert!(count >= CASES_MIN, "{count} cases, and not {CASES_MIN}");
    for (name, file) in &files {
        assert!(name.starts_with(&format!("{:02}_", file.item)), "{name} shows item {}", file.item);
        for case in &file.cases {
            let asked: usize = case.steps.iter().map(Step::expectations).sum();
            assert!(asked > 0, "cases/{name}: {} expects nothing", case.shows);
        }
    }
}
