//! Where a configuration comes from: files, the environment, flags.

use super::build;
use super::keys::{ARRAYS, KEYS, SOCKET_DEFAULT, TABLES};
use super::problem::{Log, Place, Problem, Problems, did_you_mean};
use super::read::unknown;
use super::tree::{self, Node, Table, Value};
use super::{Config, read};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the files are looked for.
pub const DIRECTORY: &str = "/etc/headgate";

/// Where to look.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Directory with `headgate.toml` and `conf.d/*.toml`.
    pub directory: PathBuf,
    /// Files given by name; then only those.
    pub files: Vec<PathBuf>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Flags as (flag, table, key, value).
    pub flags: Vec<(&'static str, &'static str, &'static str, String)>,
}

impl Sources {
    /// The files of `/etc/headgate` and the environment of this process.
    pub fn of_the_system() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            directory: DIRECTORY.into(),
            files: Vec::new(),
            environment: std::env::vars_os().filter_map(text).collect(),
            flags: Vec::new(),
        }
    }
}

/// A configuration, and how it came to be.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What may not be as it was meant.
    pub warnings: Vec<Problem>,
    /// The files that were read, in the order in which they were merged.
    pub files: Vec<PathBuf>,
}

/// Reads, merges and checks a configuration.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut log = Log::default();
    let (root, files) = merged(sources, &mut log);
    if !files.is_empty() || !log.problems.is_empty() {
        known_tables(&root, &mut log);
        if let Some(config) = build::config(&root, &mut log) {
            return Ok(Loaded { config, warnings: log.warnings, files });
        }
    } else {
        let what = format!(
            "neither {0}/headgate.toml nor a file {0}/conf.d/*.toml exists; write one, or name one with --config",
            sources.directory.display()
        );
        log.problem(Place::Nowhere, "", what);
    }
    log.problems.sort_by(|a, b| order(&a.place).cmp(&order(&b.place)));
    Err(Problems(log.problems))
}

/// Problems are told file by file from the top, then the rest.
fn order(place: &Place) -> (u8, &Path, usize) {
    match place {
        Place::File { path, line } => (0, path, *line),
        Place::Environment(_) => (1, Path::new(""), 0),
        Place::Flag(_) => (2, Path::new(""), 0),
        Place::Nowhere => (3, Path::new(""), 0),
    }
}

/// The admin socket that a configuration names, whatever else is wrong with it: the command line
/// must find a running gateway even then.
pub fn admin_socket(sources: &Sources) -> PathBuf {
    let mut log = Log::default();
    let (root, _) = merged(sources, &mut log);
    let section = read::section(&root, "admin", &mut log);
    section
        .optional("socket", &mut log, read::path)
        .unwrap_or_else(|| PathBuf::from(SOCKET_DEFAULT))
}

fn merged(sources: &Sources, log: &mut Log) -> (Table, Vec<PathBuf>) {
    let mut root = Table::new();
    let mut read = Vec::new();
    for path in files(sources, log) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let place: Arc<Path> = path.as_path().into();
                let table = tree::parse(&place, &text, log);
                tree::merge(&mut root, table, "", log);
                read.push(path);
            }
            Err(error) => {
                let what = format!("cannot read {}: {error}", path.display());
                log.problem(Place::Nowhere, "", what);
            }
        }
    }
    environment(&mut root, &sources.environment, log);
    for (flag, table, key, value) in &sources.flags {
        let place = Place::Flag((*flag).to_owned());
        tree::set(&mut root, table, key, Node { place, value: Value::Text(value.clone()) });
    }
    (root, read)
}

fn files(sources: &Sources, log: &mut Log) -> Vec<PathBuf> {
    if !sources.files.is_empty() {
        return sources.files.clone();
    }
    let mut found = Vec::new();
    let main = sources.directory.join("headgate.toml");
    if main.exists() {
        found.push(main);
    }
    let fragments = sources.directory.join("conf.d");
    match std::fs::read_dir(&fragments) {
        Ok(entries) => {
            let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            let mut paths: Vec<PathBuf> =
                paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
            paths.sort();
            found.extend(paths);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            let what = format!("cannot list {}: {error}", fragments.display());
            log.problem(Place::Nowhere, "", what);
        }
    }
    found
}

fn environment(root: &mut Table, variables: &[(String, String)], log: &mut Log) {
    let known: Vec<_> =
        KEYS.iter().filter_map(|key| Some((key.variable()?, key.table, key.name))).collect();
    for (name, value) in variables {
        // HEADGATE_CONFIG names files and is read with the flags.
        if !name.starts_with("HEADGATE_") || name == "HEADGATE_CONFIG" {
            continue;
        }
        let place = Place::Environment(name.clone());
        if let Some((_, table, key)) = known.iter().find(|(variable, ..)| variable == name) {
            tree::set(root, table, key, Node { place, value: Value::Text(value.clone()) });
            continue;
        }
        // Not an error: others may use the prefix, as Kubernetes does for a Service "headgate".
        let near = did_you_mean(name, known.iter().map(|(variable, ..)| variable.as_str()));
        let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        log.warning(place, "", format!("no key has this variable, it is ignored{near}"));
    }
}

fn known_tables(root: &Table, log: &mut Log) {
    for (name, node) in root {
        if TABLES.contains(&name.as_str()) {
            continue;
        }
        // A key that lacks its table is the commonest slip.
        let home = KEYS.iter().filter(|key| key.name == name && !ARRAYS.contains(&key.table));
        let homes: Vec<String> = home.map(|key| format!("[{}]", key.table)).collect();
        let what = if homes.is_empty() || matches!(node.value, Value::Table(_)) {
            unknown("table", name, TABLES.iter().copied(), "there are")
        } else {
            format!("a key outside a table; it belongs into {}", homes.join(" or "))
        };
        log.problem(node.place.clone(), name, what);
    }
}
