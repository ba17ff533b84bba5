//! "Follow one SYN" in ARCHITECTURE.md points into the code; each pointer must be right.
//!
//! A line there is numbered and names at least one file and one function in backticks:
//! ``1. `dataplane/engine/src/worker.rs` `run` takes a burst ...``. The first name after a file is
//! a function in it; so is every later one that is written with `()` or `Type::`.

use std::collections::BTreeMap;
use std::fs;

const HEADING: &str = "Follow one SYN";

#[derive(Debug, Default, PartialEq)]
struct Line {
    number: usize,
    /// Functions by file.
    pointers: BTreeMap<String, Vec<String>>,
}

/// The numbered lines of the section, with those that continue them.
fn section(text: &str) -> Vec<Line> {
    let lines = text.lines().skip_while(|line| !(line.starts_with('#') && line.contains(HEADING)));
    let mut numbered: Vec<String> = Vec::new();
    for line in lines.skip(1).take_while(|line| !line.starts_with('#')) {
        let digits = line.chars().take_while(char::is_ascii_digit).count();
        if digits > 0 && line[digits..].starts_with(". ") {
            numbered.push(line.to_owned());
        } else if let Some(last) = numbered.last_mut()
            && line.starts_with(' ')
        {
            last.push_str(line);
        }
    }
    numbered.iter().map(|line| read(line)).collect()
}

fn read(line: &str) -> Line {
    let number = line.split('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let mut found = Line { number, ..Line::default() };
    let mut file = None;
    // What stands between backticks is every other piece.
    for word in line.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") || word.ends_with(".c") {
            found.pointers.entry(word.to_owned()).or_default();
            file = Some(word);
        } else if let Some(file) = file
            && let Some(name) = function(word)
        {
            let functions = found.pointers.entry(file.to_owned()).or_default();
            if functions.is_empty() || word.contains("::") || word.ends_with("()") {
                functions.push(name);
            }
        }
    }
    found
}

/// `process_burst`, `Worker::run`, `run()`: the function's own name; anything else is no function.
fn function(word: &str) -> Option<String> {
    let name = word.rsplit("::").next()?.trim_end_matches("()");
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    is_name.then(|| name.to_owned())
}

#[test]
fn follow_one_syn_points_at_what_exists() {
    let root = house::workspace();
    let text = fs::read_to_string(root.join("ARCHITECTURE.md"))
        .expect("ARCHITECTURE.md is missing; it opens with \"Follow one SYN\"");
    let lines = section(&text);
    assert!(lines.len() >= 5, "\"{HEADING}\" has {} numbered lines, expected ten", lines.len());
    let mut wrong = Vec::new();
    for Line { number, pointers } in &lines {
        if pointers.values().all(Vec::is_empty) {
            wrong.push(format!("{number}: names no function after a file, in backticks"));
        }
        for (file, functions) in pointers {
            let Ok(code) = fs::read_to_string(root.join(file)) else {
                wrong.push(format!("{number}: there is no {file}"));
                continue;
            };
            for name in functions {
                let defined = [format!("fn {name}("), format!("fn {name}<")];
                let is_there = defined.iter().any(|text| code.contains(text));
                let in_c = file.ends_with(".c") && code.contains(&format!("{name}("));
                if !is_there && !in_c {
                    wrong.push(format!("{number}: {file} has no function {name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md, \"{HEADING}\":\n{}", wrong.join("\n"));
}

#[test]
fn reads_the_form_of_the_section() {
    let text = "# A\n\n## Follow one SYN\n\nText.\n\n1. `a/b.rs` `Worker::run` takes\n   `x.rs` \
                `go()` a `Frame` with `len`\n2. `c.rs`: nothing\n\n## Next\n\n3. `d.rs` `no`\n";
    let lines = section(text);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].pointers["a/b.rs"], ["run"]);
    assert_eq!(lines[0].pointers["x.rs"], ["go"]);
    assert!(lines[1].pointers["c.rs"].is_empty());
}
