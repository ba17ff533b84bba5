//! What comes back, and what doesn't.

use super::*;
use model::desired::{Frontend, ObjectName, Origin, Scope, ServicePort, ServicePortKey};
use model::ids::Protocol;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use tempfile::TempDir;

fn desired(count: u16) -> DesiredState {
    let mut state = DesiredState::default();
    for number in 0..count {
        let key = ServicePortKey {
            cluster: "".into(),
            service: ObjectName::new("default", &format!("web-{number}")),
            port_name: "http".into(),
            protocol: Protocol::Tcp,
            scope: Scope::External,
        };
        let port = ServicePort {
            key: key.clone(),
            uid: "".into(),
            frontends: vec![Frontend {
                address: SocketAddr::from(([203, 0, 113, 10], number)),
                origin: Origin::LoadBalancer { pool: "demo".into() },
            }],
            backends: Vec::new(),
            forwarding: Default::default(),
            target: Default::default(),
            refusal: Default::default(),
            affinity: None,
            source_ranges: vec!["192.0.2.0/24".parse().unwrap()],
            reset_after_s: Some(30),
        };
        state.service_ports.insert(key, Arc::new(port));
    }
    state
}

fn allocations() -> Allocations {
    let text = r#"[{"service": {"namespace": "default", "name": "web"}, "uid": "u",
        "addresses": [{"address": "203.0.113.10", "pool": "demo"}],
        "node_ports": [{"port_name": "http", "protocol": "TCP", "node_port": 30080}]}]"#;
    serde_json::from_str(text).unwrap()
}

fn store() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let store = Store::open(&directory.path().join("a/state")).unwrap();
    (directory, store)
}

fn names(store: &Store) -> Vec<String> {
    let entries = fs::read_dir(&store.directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What comes back where all is good.
fn loaded(store: &Store) -> Stored {
    let Loaded { stored, problems } = store.load();
    assert!(problems.is_empty(), "{problems:?}");
    stored
}

/// The one thing that is wrong.
fn problem(store: &Store) -> StoreError {
    let mut problems = store.load().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn what_is_saved_comes_back() {
    let (_directory, store) = store();
    let mode = fs::metadata(&store.directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(loaded(&store), Stored::default());
    store.save_allocations(&allocations()).unwrap();
    let half = loaded(&store);
    assert_eq!((half.allocations, half.desired.service_ports.len()), (allocations(), 0));
    for count in [100, 1, 0] {
        store.save_desired(&desired(count)).unwrap();
        let again = loaded(&Store::open(&store.directory).unwrap());
        assert_eq!(again, Stored { desired: desired(count), allocations: allocations() });
    }
    assert_eq!(names(&store), ["allocations.json", "desired.json"]);
    let mode = fs::metadata(store.directory.join("desired.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_was_not_written_by_us_is_moved_aside() {
    let (_directory, store) = store();
    let path = store.directory.join("desired.json");
    store.save_desired(&desired(2)).unwrap();
    let good = fs::read(&path).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let body = text.split_once('\n').unwrap().1;
    let sealed = |version: &str, body: &str| {
        let sum = crc32fast::hash(body.as_bytes());
        format!("headgate-state {version} {} {sum:08x}\n{body}", body.len()).into_bytes()
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "no header line"),
        ("cut", good[..good.len() - 1].to_vec(), "length or checksum"),
        ("cut in the header", good[..10].to_vec(), "no header line"),
        ("longer", [&good[..], b"x"].concat(), "length or checksum"),
        ("another version", sealed("2", body), "version \"2\""),
        ("another file", b"{\"service_ports\": []}\n".to_vec(), "first word"),
        ("json alone", body.as_bytes().to_vec(), "no header line"),
        ("a checksum that fits nonsense", sealed("1", "{"), "makes no sense"),
        ("another form", sealed("1", "[1]"), "makes no sense"),
        ("zeros", vec![0; 4_096], "no header line"),
    ];
    for (what, bytes, expected) in cases {
        fs::write(&path, &bytes).unwrap();
        let error = problem(&store).to_string();
        assert!(error.contains(expected) && error.contains("moved to"), "{what}: {error}");
        assert_eq!(loaded(&store), Stored::default(), "{what}: the next load goes without it");
        assert_eq!(fs::read(path.with_extension("json.bad")).unwrap(), bytes, "{what}");
    }
}

#[test]
fn one_bad_file_does_not_cost_the_other() {
    let (_directory, store) = store();
    let [state, given] = ["desired.json", "allocations.json"].map(|one| store.directory.join(one));
    let save = || {
        store.save_desired(&desired(2)).unwrap();
        store.save_allocations(&allocations()).unwrap();
    };
    save();
    fs::write(&given, "x").unwrap();
    let Loaded { stored, problems } = store.load();
    assert_eq!(stored, Stored { desired: desired(2), ..Stored::default() });
    assert!(matches!(&problems[..], [StoreError::Bad { path, .. }] if *path == given));
    save();
    // One that can't be read, for root too: a link to itself.
    fs::remove_file(&state).unwrap();
    symlink(&state, &state).unwrap();
    for _ in 0..2 {
        let Loaded { stored, problems } = store.load();
        assert_eq!(stored, Stored { allocations: allocations(), ..Stored::default() });
        assert!(matches!(&problems[..], [StoreError::Read { path, .. }] if *path == state));
    }
    fs::write(&given, "x").unwrap();
    let Loaded { stored, problems } = store.load();
    assert_eq!((stored, problems.len()), (Stored::default(), 2));
    save();
    assert_eq!(loaded(&store), Stored { desired: desired(2), allocations: allocations() });
}

#[test]
fn leftovers_and_oddities() {
    let (_directory, store) = store();
    // A process that was killed while it wrote.
    fs::write(store.directory.join("desired.json.new"), "half").unwrap();
    Store::open(&store.directory).unwrap();
    assert_eq!(names(&store), Vec::<String>::new());
    // A link under the name that is written to is not followed.
    let target = store.directory.join("precious");
    fs::write(&target, "keep").unwrap();
    symlink(&target, store.directory.join("desired.json.new")).unwrap();
    store.save_desired(&desired(1)).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"keep");
    // Something else than a file.
    fs::remove_file(store.directory.join("desired.json")).unwrap();
    fs::create_dir(store.directory.join("desired.json")).unwrap();
    let error = problem(&store).to_string();
    assert!(error.contains("not a regular file"), "{error}");
    store.save_desired(&desired(1)).unwrap();
    assert_eq!(loaded(&store).desired, desired(1));
    fs::remove_file(store.directory.join("desired.json")).unwrap();
    let fifo = store.directory.join("desired.json");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(matches!(problem(&store), StoreError::Bad { .. }), "and doesn't hang");
}

#[test]
fn a_directory_that_cannot_be_used() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    for path in ["file", "file/state"] {
        let error = Store::open(&directory.path().join(path)).unwrap_err();
        assert!(matches!(error, StoreError::Directory { .. }), "{error}");
        assert!(error.to_string().contains("set another one"));
    }
    let store = Store::open(&directory.path().join("gone")).unwrap();
    fs::remove_dir(&store.directory).unwrap();
    let error = store.save_desired(&desired(1)).unwrap_err();
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    assert_eq!(loaded(&store), Stored::default());
}

#[test]
fn a_failed_write_leaves_the_old_state() {
    let (_directory, store) = store();
    store.save_desired(&desired(3)).unwrap();
    // The name that is written to can't be had.
    fs::create_dir(store.directory.join("desired.json.new")).unwrap();
    assert!(matches!(store.save_desired(&desired(4)), Err(StoreError::Write { .. })));
    assert_eq!(loaded(&store).desired, desired(3));
}

proptest! {
    #[test]
    fn damage_is_always_noticed(at in 0..1_000_000usize, with in any::<u8>(), cut in any::<bool>()) {
        let (_directory, store) = store();
        store.save_desired(&desired(2)).unwrap();
        let path = store.directory.join("desired.json");
        let good = fs::read(&path).unwrap();
        let mut bytes = good.clone();
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = with;
        }
        fs::write(&path, &bytes).unwrap();
        if bytes == good {
            prop_assert_eq!(loaded(&store).desired, desired(2));
        } else {
            let noticed = matches!(problem(&store), StoreError::Bad { .. });
            prop_assert!(noticed);
        }
    }
}

#[test]
fn keys_come_back_for_this_user_alone_or_are_told_lost() {
    let (_directory, store) = store();
    assert_eq!(store.load_keys().unwrap(), None);
    let keys =
        Keys { selection: 0xfeed_f00d_dead_beef, toeplitz: std::array::from_fn(|n| n as u8) };
    store.save_keys(&keys).unwrap();
    assert_eq!(Store::open(&store.directory).unwrap().load_keys().unwrap(), Some(keys.clone()));
    assert_eq!(format!("{keys:?}"), "Keys", "nobody reads them in a log");
    let path = store.directory.join("keys.json");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // One bit, and a key that is too short.
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(store.load_keys(), Err(StoreError::Bad { .. })));
    assert_eq!(store.load_keys().unwrap(), None, "it was moved aside");
    let short = serde_json::json!({ "selection": 1, "toeplitz": [1, 2, 3] });
    file::write(&store.directory, KEYS, &short).unwrap();
    let problem = store.load_keys().unwrap_err().to_string();
    assert!(problem.contains("40 bytes"), "{problem}");
    assert!(store.load().problems.is_empty(), "the others are as they were");
}
