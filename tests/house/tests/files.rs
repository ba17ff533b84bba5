//! What every file of the workspace must be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Lines of a hand-written source file at most: split by what changes together.
const LINES_MAX: usize = 500;

/// Files that may be longer, each with the reason.
const LONGER: &[(&str, usize, &str)] = &[];

#[test]
fn no_source_file_is_too_long() {
    let root = house::workspace();
    let mut long = Vec::new();
    for file in house::files().unwrap() {
        let ending = file.extension().unwrap_or_default();
        if !["rs", "go", "c", "h"].iter().any(|kind| ending == *kind) {
            continue;
        }
        let lines = fs::read_to_string(root.join(&file)).unwrap().lines().count();
        let allowed = LONGER.iter().find(|(name, _, _)| Path::new(name) == file);
        if lines > allowed.map_or(LINES_MAX, |(_, lines, _)| *lines) {
            long.push(format!("{}: {lines} lines", file.display()));
        }
    }
    assert!(long.is_empty(), "more than {LINES_MAX} lines:\n{}", long.join("\n"));
    for (name, _, reason) in LONGER {
        assert!(root.join(name).exists() && !reason.is_empty(), "{name}");
    }
}

#[test]
fn scripts_can_be_executed() {
    let root = house::workspace();
    let mut scripts = 0;
    for file in house::files().unwrap() {
        let path = root.join(&file);
        let text = fs::read(&path).unwrap();
        if text.starts_with(b"#!/") {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert!(mode & 0o111 != 0, "{} can't be executed: chmod +x", file.display());
            scripts += 1;
        }
    }
    assert!(scripts >= 2, "run and .ci/run, but {scripts} scripts were found");
}

/// A path of somebody's own machine says nothing to anybody else.
#[test]
fn no_file_names_a_path_of_somebodys_machine() {
    let root = house::workspace();
    // Put together here, so that this file itself doesn't hold them.
    let private = ["home", "Users", "work"].map(|folder| format!("/{folder}/"));
    for file in house::files().unwrap() {
        let Ok(text) = fs::read_to_string(root.join(&file)) else { continue };
        for (index, line) in text.lines().enumerate() {
            for path in &private {
                let named = line.match_indices(path.as_str()).any(|(at, _)| {
                    // `target/work/` is a relative path, `//work/` belongs to a URL.
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "./:_-}".contains(c))
                });
                assert!(!named, "{}:{}: {line}", file.display(), index + 1);
            }
        }
    }
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    let root = house::workspace();
    for file in house::files().unwrap() {
        if !file.ends_with("Cargo.toml") || file.components().count() == 1 {
            continue;
        }
        let text = fs::read_to_string(root.join(&file)).unwrap();
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{} must take the lints of the workspace",
            file.display()
        );
    }
}
