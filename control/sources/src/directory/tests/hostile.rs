//! Nothing that stands in a directory makes it panic, hang or take memory without bound.

use super::*;
use proptest::prelude::*;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

/// Reads the bytes beside a sound file, whose object must be there.
fn survives(bytes: &[u8]) -> Changes {
    let directory = directory(&[("good.yaml", WEB)]);
    fs::write(directory.path().join("bad.yaml"), bytes).unwrap();
    let began = Instant::now();
    let mut source = open(&directory);
    let changes = source.load();
    assert!(began.elapsed() < Duration::from_secs(20), "took {:?}", began.elapsed());
    let good = |object: &Object| object.key().name.name == "web".into();
    assert!(source.objects().any(good));
    for event in &changes.diagnostics {
        assert!(event.message.len() < 2_000, "{}", event.message.len());
    }
    changes
}

fn laughs() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let previous = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", previous.trim_end_matches(", ")));
    }
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: l}}\n{text}")
}

#[test]
fn known_attacks() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("billion laughs", laughs().into()),
        ("deep flow lists", "[".repeat(1 << 20).into()),
        ("deep maps", "{a: ".repeat(1 << 18).into()),
        ("deep block lists", format!("{}x", "- ".repeat(1 << 17)).into()),
        (
            "deep indentation",
            (0..2_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>().into(),
        ),
        ("deep json", format!("{}{}", "[".repeat(200_000), "]".repeat(200_000)).into()),
        ("an anchor that holds itself", "a: &a [*a]\n".into()),
        ("an alias to nothing", "a: *b\n".into()),
        (
            "a huge number",
            format!("{service}  ports: [{{port: {}}}]\n", "9".repeat(100_000)).into(),
        ),
        ("a huge float", format!("{service}  ports: [{{port: 1e999999999}}]\n").into()),
        ("not a number", format!("{service}  ports: [{{port: .nan}}]\n").into()),
        ("a long line", "x".repeat(8 << 20).into()),
        ("a long name", WEB.replace("name: web", &format!("name: {}", "a".repeat(1 << 20))).into()),
        ("NUL bytes", vec![0; 1 << 16]),
        ("not UTF-8", [WEB.replace("web", "x").as_bytes(), b"# \xff\xfe"].concat()),
        ("UTF-16", WEB.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("many documents", "a: 1\n---\n".repeat(70_000).into()),
        ("many separators", "---\n".repeat(1 << 20).into()),
        (
            "many unknown kinds",
            "apiVersion: v1\nkind: X\nmetadata: {name: a}\n---\n".repeat(20_000).into(),
        ),
        ("json without end", "{}".repeat(4 << 20).into()),
        ("a large list", format!("a: [{}]", "x,".repeat(4 << 20)).into()),
        ("laughs without end", format!("{}---\n", laughs()).repeat(2_000).into()),
        ("a tag", "!!python/object/apply:os.system ['true']\n".into()),
        ("a binary scalar", "a: !!binary aGVsbG8=\n".into()),
        ("a complex key", "? [a, b]\n: c\n".into()),
        ("many keys", (0..200_000).map(|n| format!("k{n}: 1\n")).collect::<String>().into()),
        (
            "lists in lists",
            format!("{}[]", "{apiVersion: v1, kind: List, items: [".repeat(10)).into(),
        ),
    ];
    for (what, bytes) in cases {
        let began = Instant::now();
        let changes = survives(&bytes);
        println!("{what}: {:?}, {} events", began.elapsed(), changes.diagnostics.len());
        if what != "many separators" {
            assert!(!changes.diagnostics.is_empty(), "{what}");
            assert_eq!(changes.changes.len(), 1, "{what}");
        }
    }
}

#[test]
fn the_billion_laughs_name_the_object() {
    let changes = survives(laughs().as_bytes());
    let [event] = &changes.diagnostics[..] else { panic!("{changes:?}") };
    assert_eq!((&*event.kind, &*event.object.name), ("Service", "l"));
}

#[test]
fn what_is_no_file_is_not_opened() {
    let directory = directory(&[("good.yaml", WEB)]);
    let path = |name: &str| directory.path().join(name);
    let made = std::process::Command::new("mkfifo").arg(path("fifo.yaml")).status().unwrap();
    assert!(made.success());
    symlink("loop.yaml", path("loop.yaml")).unwrap();
    symlink("/dev/zero", path("zero.yaml")).unwrap();
    symlink("/does/not/exist", path("dangling.yaml")).unwrap();
    fs::create_dir(path("folder.yaml")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket.yaml")).unwrap();
    fs::write(directory.path().join(std::ffi::OsStr::from_bytes(b"\xff.yaml")), "{").unwrap();
    let began = Instant::now();
    let changes = open(&directory).load();
    assert!(began.elapsed() < Duration::from_secs(2));
    let (objects, events) = short(&changes);
    assert_eq!(objects, ["+ Service default/web good.yaml:1"]);
    let files: Vec<_> = changes.diagnostics.iter().map(|event| &*event.place).collect();
    let expected = ["dangling.yaml", "fifo.yaml", "loop.yaml", "socket.yaml", "zero.yaml"];
    assert_eq!(files, expected, "{events:?}");
}

#[test]
fn a_file_that_is_too_large_keeps_what_it_had() {
    let directory = directory(&[("web.yaml", WEB)]);
    let mut source = open(&directory);
    source.load();
    let file = fs::OpenOptions::new().write(true).open(directory.path().join("web.yaml")).unwrap();
    file.set_len(65 << 20).unwrap();
    let (objects, events) = short(&source.load());
    assert!(objects.is_empty());
    assert!(events[0].contains("more than 67108864") && events[0].contains("stays in force"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        survives(&bytes);
    }

    #[test]
    fn random_letters_of_yaml(text in "[-:{}\\[\\]&*!|>'\"%@`#,? \n\taz0-9.~<]{0,400}") {
        survives(text.as_bytes());
    }

    #[test]
    fn a_service_with_random_damage(
        at in 0..WEB.len(), with in proptest::collection::vec(any::<u8>(), 0..8), cut in 0..8usize,
    ) {
        let mut bytes = WEB.replace("web", "other").into_bytes();
        let at = at.min(bytes.len());
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, with);
        survives(&bytes);
    }
}
