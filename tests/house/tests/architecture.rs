//! The journeys in ARCHITECTURE.md, "Follow one SYN" and so on, point into the code; each pointer must
//! be right.
//!
//! A line there is numbered and names at least one file and one function in backticks:
//! ``1. `dataplane/engine/src/worker.rs` `run` takes a burst ...``. The first name after a file is
//! a function in it; so is every later one that is written with `()` or `Type::`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The journeys, each with the number of steps that it has at least.
const JOURNEYS: [(&str, usize); 4] = [
    ("Follow one SYN", 10),
    ("Follow its reply", 5),
    ("Follow a hand-over", 4),
    ("Follow a fragment", 5),
];

#[derive(Debug, Default, PartialEq)]
struct Line {
    number: usize,
    /// Functions by file.
    pointers: BTreeMap<String, Vec<String>>,
}

/// The numbered lines of the section, with those that continue them.
fn section(text: &str, heading: &str) -> Vec<Line> {
    let lines = text.lines().skip_while(|line| !(line.starts_with('#') && line.contains(heading)));
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
fn journeys_point_at_what_exists() {
    let root = house::workspace();
    let text = fs::read_to_string(root.join("ARCHITECTURE.md"))
        .expect("ARCHITECTURE.md is missing; it opens with \"Follow one SYN\"");
    let mut wrong = Vec::new();
    for (heading, least) in JOURNEYS {
        let lines = section(&text, heading);
        if lines.len() < least {
            wrong.push(format!("{heading}: {} numbered lines, expected {least}", lines.len()));
        }
        let of = lines.iter().flat_map(|line| wrong_in(&root, line));
        wrong.extend(of.map(|what| format!("{heading} {what}")));
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

/// What a line says that isn't so.
fn wrong_in(root: &Path, Line { number, pointers }: &Line) -> Vec<String> {
    let mut wrong = Vec::new();
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
    wrong
}

#[test]
fn reads_the_form_of_the_section() {
    let text = "# A\n\n## Follow one SYN\n\nText.\n\n1. `a/b.rs` `Worker::run` takes\n   `x.rs` \
                `go()` a `Frame` with `len`\n2. `c.rs`: nothing\n\n## Next\n\n3. `d.rs` `no`\n";
    let lines = section(text, JOURNEYS[0].0);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].pointers["a/b.rs"], ["run"]);
    assert_eq!(lines[0].pointers["x.rs"], ["go"]);
    assert!(lines[1].pointers["c.rs"].is_empty());
}
