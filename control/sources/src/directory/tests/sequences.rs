//! However a directory came to be what it is, the same objects are in force.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One step; contents are sound, or name no object at all.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<(usize, u16, usize)>),
    Remove(usize),
    Rename(usize, usize),
    Read,
}

const FILES: [&str; 4] = ["a.yaml", "b.yml", "c.json", "d.yaml"];

fn document((name, port, form): (usize, u16, usize)) -> String {
    let port = port.max(1);
    match form {
        0 => format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{name}}}\nspec: {{ports: [{{port: {port}}}], selector: {{l: \"{port}\"}}}}\n"
        ),
        1 => format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Node\", \"metadata\": {{\"name\": \"n{name}\", \"labels\": {{\"p\": \"{port}\"}}}}}}\n"
        ),
        2 => format!(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: e{name}}}\nsubsets:\n- addresses: [{{ip: 10.0.0.1}}]\n  ports: [{{port: {port}}}]\n"
        ),
        3 => format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: e{name}-mirrored-1}}\naddressType: IPv4\nendpoints: []\nports: [{{port: {port}}}]\n"
        ),
        4 => format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{name}, labels: {{l: \"{port}\"}}}}\nstatus: {{podIP: 10.0.0.{port}}}\n"
        ),
        5 => format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{name}-selected-1}}\naddressType: IPv4\nendpoints: []\nports: [{{port: {port}}}]\n"
        ),
        _ => "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n".to_owned(),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let documents = proptest::collection::vec((0..3usize, 1..4u16, 0..7usize), 0..4);
    prop_oneof![
        4 => (0..FILES.len(), documents).prop_map(|(file, list)| Step::Write(file, list)),
        1 => (0..FILES.len()).prop_map(Step::Remove),
        1 => (0..FILES.len(), 0..FILES.len()).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => Just(Step::Read),
    ]
}

/// What somebody has who applies all changes.
fn apply(to: &mut BTreeMap<ObjectKey, Object>, changes: Changes) {
    for change in changes.changes {
        match change {
            Change::Apply(object) => {
                to.insert(object.key(), object);
            }
            Change::Delete(key) => {
                assert!(to.remove(&key).is_some(), "{key} was never there");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_sequence_ends_as_a_fresh_read(steps in proptest::collection::vec(step(), 1..30)) {
        let directory = directory(&[]);
        let mut source = open(&directory);
        let mut have = BTreeMap::new();
        apply(&mut have, source.load());
        for step in steps {
            let path = |file: usize| directory.path().join(FILES[file]);
            match step {
                Step::Write(file, list) => {
                    let text: Vec<_> = list.into_iter().map(document).collect();
                    fs::write(path(file), text.join("---\n")).unwrap();
                }
                Step::Remove(file) => drop(fs::remove_file(path(file))),
                Step::Rename(from, to) => drop(fs::rename(path(from), path(to))),
                Step::Read => apply(&mut have, source.load()),
            }
        }
        apply(&mut have, source.load());
        let mut fresh = BTreeMap::new();
        apply(&mut fresh, open(&directory).load());
        prop_assert_eq!(&have, &fresh);
        let in_force: Vec<_> = source.objects().collect();
        prop_assert_eq!(in_force, have.values().collect::<Vec<_>>());
    }
}
