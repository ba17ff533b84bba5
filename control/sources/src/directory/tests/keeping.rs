//! What can't be read leaves everything else, and its own previous version, in force.

use super::*;

fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: {port}\n"
    )
}

fn in_force(source: &DirectorySource) -> Vec<String> {
    source.objects().map(|object| object.key().to_string()).collect()
}

#[test]
fn a_broken_document_keeps_its_previous_version() {
    // What the second of three becomes, and the line that the message points at.
    let cases = [
        (service("b", "none"), 15),
        (service("b", "["), 15),
        (service("b", "80\n   x: 1"), 16),
        (service("b", "0"), 15),
        (service("b", "80").replace("kind: Service\n", "kind: Service\nspec: {}\n"), 14),
        (
            "{\"apiVersion\": \"v1\",\n\"kind\": \"Service\",\n\"metadata\": {\"name\": \"b\"},,\n"
                .to_owned(),
            9,
        ),
    ];
    for (broken, line) in cases {
        let [a, b, c] = ["a", "b", "c"].map(|name| service(name, "80"));
        let directory = directory(&[("f.yaml", &format!("{a}---\n{b}---\n{c}"))]);
        let path = directory.path().join("f.yaml");
        let mut source = open(&directory);
        assert_eq!(source.load().changes.len(), 3);
        fs::write(&path, format!("{a}---\n{broken}---\n{c}")).unwrap();
        let changes = source.load();
        let deleted = changes.changes.iter().any(|one| matches!(one, Change::Delete(_)));
        assert!(!deleted, "{broken}");
        assert_eq!(in_force(&source).len(), 3, "{broken}");
        let [event] = &changes.diagnostics[..] else { panic!("{broken}: {changes:?}") };
        assert_eq!(event.reason, "ManifestInvalid");
        assert_eq!(event.place, format!("f.yaml:{line}"), "{broken}: {}", event.message);
        assert_eq!((&*event.kind, &*event.object.name), ("Service", "b"), "{broken}");
        assert!(event.message.contains("previous version stays"), "{}", event.message);
        assert!(source.load().diagnostics.is_empty());
        // The neighbours still change, the kept one stays, and the message isn't repeated.
        let new_c = service("c", "81");
        fs::write(&path, format!("{a}---\n{broken}---\n{new_c}")).unwrap();
        let (objects, events) = short(&source.load());
        assert_eq!(objects.len(), 1, "{objects:?}");
        assert!(objects[0].contains("default/c"));
        assert_eq!(events, Vec::<String>::new());
        // Taking it out takes it out.
        fs::write(&path, format!("{a}---\n{new_c}")).unwrap();
        assert!(short(&source.load()).0.contains(&"- Service default/b".to_owned()));
        // Broken again, with nothing to keep.
        fs::write(&path, format!("{a}---\n{broken}---\n{new_c}")).unwrap();
        let (_, events) = short(&source.load());
        assert_eq!(events.len(), 1);
        assert!(events[0].contains("it is left out"), "{events:?}");
        assert_eq!(in_force(&source).len(), 2);
    }
}

#[test]
fn a_broken_document_without_a_name_keeps_all_that_it_may_be() {
    let [a, b, c] = ["a", "b", "c"].map(|name| service(name, "80"));
    let directory = directory(&[("f.yaml", &format!("{a}---\n{b}---\n{c}"))]);
    let path = directory.path().join("f.yaml");
    let mut source = open(&directory);
    source.load();
    fs::write(&path, format!("{a}---\n{{[\n---\nkind: Service\n")).unwrap();
    let changes = source.load();
    assert!(changes.changes.is_empty());
    assert_eq!(in_force(&source).len(), 3);
    assert_eq!(changes.diagnostics.len(), 2);
    fs::write(&path, format!("{a}---\n{c}")).unwrap();
    let changes = source.load();
    assert!(short(&changes).0.contains(&"- Service default/b".to_owned()));
    assert_eq!(in_force(&source).len(), 2);
}

#[test]
fn one_broken_item_of_a_list() {
    let list = |port: &str| {
        format!(
            "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {{ports: [{{port: {port}}}]}}}}\n- {{apiVersion: v1, kind: Service, metadata: {{name: b}}, spec: {{ports: [{{port: 80}}]}}}}\n"
        )
    };
    let directory = directory(&[("f.yaml", &list("x"))]);
    let mut source = open(&directory);
    let (objects, events) = short(&source.load());
    assert_eq!(objects, ["+ Service default/b f.yaml:5"]);
    assert!(
        events[0].starts_with("ManifestInvalid Service default/a f.yaml:4: spec.ports[0].port")
    );
    fs::write(directory.path().join("f.yaml"), list("80")).unwrap();
    assert_eq!(short(&source.load()).0, ["+ Service default/a f.yaml:4"]);
    fs::write(directory.path().join("f.yaml"), list("0")).unwrap();
    let (objects, events) = short(&source.load());
    assert!(objects.is_empty() && events.len() == 1);
    // The list itself can't be parsed: everything stays.
    fs::write(directory.path().join("f.yaml"), list("[")).unwrap();
    assert!(source.load().changes.is_empty());
    assert_eq!(in_force(&source).len(), 2);
}

#[test]
fn endpoints_that_break_keep_their_slices() {
    let text = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\nsubsets:\n- addresses: [{ip: 10.0.0.1}]\n  ports: [{port: 1}]\n";
    let directory = directory(&[("f.yaml", text)]);
    let mut source = open(&directory);
    source.load();
    fs::write(directory.path().join("f.yaml"), text.replace("port: 1", "port: one")).unwrap();
    let changes = source.load();
    assert!(changes.changes.is_empty() && changes.diagnostics.len() == 1);
    assert_eq!(in_force(&source), ["EndpointSlice default/web-mirrored-1"]);
}

#[test]
fn a_message_begins_again_after_it_ended() {
    let directory = directory(&[("f.yaml", &service("a", "x"))]);
    let path = directory.path().join("f.yaml");
    let mut source = open(&directory);
    assert_eq!(source.load().diagnostics.len(), 1);
    // Its line moves: the same message.
    fs::write(&path, format!("# moved\n{}", service("a", "x"))).unwrap();
    assert!(source.load().diagnostics.is_empty());
    fs::write(&path, service("a", "1")).unwrap();
    assert!(source.load().diagnostics.is_empty());
    fs::write(&path, service("a", "x")).unwrap();
    assert_eq!(source.load().diagnostics.len(), 1);
}

#[test]
fn messages_of_one_file_are_bounded() {
    let many: String =
        (0..500).map(|n| format!("{}---\n", service(&format!("s{n}"), "x"))).collect();
    let directory = directory(&[("f.yaml", &many), ("g.yaml", &service("ok", "1"))]);
    let changes = open(&directory).load();
    assert_eq!(changes.changes.len(), 1);
    assert_eq!(changes.diagnostics.len(), 65);
    assert!(changes.diagnostics[64].message.contains("436 more"), "{:?}", changes.diagnostics[64]);
}
