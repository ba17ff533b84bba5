//! What is read, and from where.

use super::*;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::os::unix::fs::symlink;

#[test]
fn the_first_read_gives_all() {
    let several = format!(
        "{WEB}---\n# nothing\n---\nkind: Deployment\napiVersion: apps/v1\nmetadata: {{name: web}}\n---\nport: [\n---\napiVersion: v1\nkind: Node\nmetadata:\n  name: one\n"
    );
    let directory = directory(&[("web.yaml", &several), (".hidden.yaml", "{"), ("notes.txt", "{")]);
    let mut source = open(&directory);
    let changes = source.load();
    assert!(changes.full);
    let (objects, events) = short(&changes);
    assert_eq!(objects, ["+ Service default/web web.yaml:1", "+ Node one web.yaml:18"]);
    assert_eq!(events.len(), 2);
    assert!(
        events[0].starts_with("KindIgnored Deployment default/web web.yaml:12: "),
        "{events:?}"
    );
    assert!(events[1].starts_with("ManifestInvalid   web.yaml:16: can't be parsed"), "{events:?}");
}

#[test]
fn a_second_read_gives_only_what_differs() {
    let directory = directory(&[("web.yaml", WEB)]);
    let mut source = open(&directory);
    assert_eq!(source.load().changes.len(), 1);
    let again = source.load();
    assert!(!again.full && again.changes.is_empty() && again.diagnostics.is_empty());
    let api = WEB.replace("name: web", "name: api");
    fs::write(directory.path().join("api.yml"), api).unwrap();
    assert_eq!(short(&source.load()).0, ["+ Service default/api api.yml:1"]);
    fs::remove_file(directory.path().join("web.yaml")).unwrap();
    assert_eq!(short(&source.load()).0, ["- Service default/web"]);
    // The same content under another name is the same object in another place.
    fs::rename(directory.path().join("api.yml"), directory.path().join("b.yaml")).unwrap();
    assert_eq!(short(&source.load()).0, ["+ Service default/api b.yaml:1"]);
}

#[test]
fn forms_of_documents() {
    let service = |name: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}"}},"spec":{{"ports":[{{"port":80}}]}}}}"#
        )
    };
    let (a, b) = (service("a"), service("b"));
    let bare = r#"{"metadata":{"name":"c"},"spec":{"ports":[{"port":80}]}}"#;
    let cases: &[(&str, String, &[&str])] = &[
        ("json", a.clone(), &["a:1"]),
        ("indented json", a.replace(',', ",\n\t"), &["a:1"]),
        ("json after json", format!("{a}\n\n{b}\n"), &["a:1", "b:3"]),
        ("json at json", format!("{a}{b}"), &["a:1", "b:1"]),
        ("yaml after json", format!("{a}\n---\n{WEB}"), &["a:1", "web:3"]),
        ("byte order mark", format!("\u{feff}{a}"), &["a:1"]),
        ("carriage returns", WEB.replace('\n', "\r\n"), &["web:1"]),
        (
            "separators",
            format!("---\n---\n{a}\n---   \n\n---\n# none\n---\n{b}\n---\n"),
            &["a:3", "b:9"],
        ),
        ("content on the separator", format!("--- {a}\n--- {b}"), &["a:1", "b:2"]),
        ("end marks", format!("{a}\n...\n---\n{b}\n...\n"), &["a:1", "b:4"]),
        ("a directive", format!("%YAML 1.2\n---\n{a}\n"), &["a:3"]),
        ("a list", format!("apiVersion: v1\nkind: List\nitems:\n- {a}\n- {b}\n"), &["a:4", "b:5"]),
        ("an empty list", "apiVersion: v1\nkind: List\nitems: []\n".to_owned(), &[]),
        ("a list of nothing", "apiVersion: v1\nkind: List\nitems:\n".to_owned(), &[]),
        (
            "a typed list",
            format!("apiVersion: v1\nkind: ServiceList\nitems:\n- {bare}\n- {b}\n"),
            &["c:4", "b:5"],
        ),
        (
            "anchors and merge keys",
            format!("{WEB}  selector: &s {{app: web}}\n  <<: {{clusterIP: 10.0.0.1}}\n"),
            &["web:1"],
        ),
        (
            "a block scalar with dashes",
            WEB.replace("{name: web}", "{name: web, annotations: {n: \"---\"}}"),
            &["web:1"],
        ),
        ("nothing", String::new(), &[]),
        ("comments", "# only\n\n# this\n".to_owned(), &[]),
        ("null", "~\n---\nnull\n".to_owned(), &[]),
    ];
    for (what, text, expected) in cases {
        let directory = directory(&[("f.yaml", text)]);
        let changes = open(&directory).load();
        let (_, events) = short(&changes);
        let objects: Vec<_> = changes
            .changes
            .iter()
            .map(|change| match change {
                Change::Apply(one) => format!("{}:{}", one.key().name.name, one.place().line),
                Change::Delete(_) => unreachable!(),
            })
            .collect();
        let mut expected: Vec<_> = expected.iter().map(|&text| text.to_owned()).collect();
        expected.sort();
        assert_eq!((objects, events), (expected, vec![]), "{what}");
    }
}

#[test]
fn other_kinds_are_named() {
    let cases = [
        ("apps/v1", "Deployment", "nothing runs pods here"),
        ("apps/v1", "StatefulSet", "nothing runs pods here"),
        ("apps/v1", "DaemonSet", "nothing runs pods here"),
        ("apps/v1", "ReplicaSet", "nothing runs pods here"),
        ("batch/v1", "Job", "nothing runs pods here"),
        ("v1", "Pod", "it has no status.podIP"),
        ("networking.k8s.io/v1", "Ingress", "not forwarded yet"),
        ("v1", "ConfigMap", "is ignored"),
        ("serving.knative.dev/v1", "Service", "serving.knative.dev/v1"),
    ];
    for (version, kind, expected) in cases {
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n");
        let directory = directory(&[("f.yaml", &text)]);
        let mut source = open(&directory);
        let changes = source.load();
        assert!(changes.changes.is_empty());
        let [event] = &changes.diagnostics[..] else { panic!("{kind}: {changes:?}") };
        assert_eq!((&*event.reason, event.severity), ("KindIgnored", Severity::Normal));
        assert!(event.message.contains(expected), "{}", event.message);
        assert!(event.place.starts_with("f.yaml:"), "{}", event.place);
        assert_eq!((&*event.kind, event.object.to_string()), (kind, "default/x".to_owned()));
        assert!(source.load().diagnostics.is_empty(), "told once");
    }
}

#[test]
fn of_two_files_the_first_counts() {
    let second = WEB.replace("port: 80", "port: 81");
    let directory = directory(&[("b.yaml", &second), ("a.yaml", WEB)]);
    let mut source = open(&directory);
    let (objects, events) = short(&source.load());
    assert_eq!(objects, ["+ Service default/web a.yaml:1"]);
    assert_eq!(events.len(), 1);
    assert!(
        events[0].starts_with("ManifestInvalid Service default/web b.yaml:1: ")
            && events[0].contains("a.yaml:1"),
        "{events:?}"
    );
    fs::remove_file(directory.path().join("a.yaml")).unwrap();
    assert_eq!(short(&source.load()).0, ["+ Service default/web b.yaml:1"]);
    fs::write(directory.path().join("a.yaml"), WEB).unwrap();
    let (objects, events) = short(&source.load());
    assert_eq!((objects.len(), events.len()), (1, 1));
    // And within one file.
    fs::remove_file(directory.path().join("b.yaml")).unwrap();
    fs::write(directory.path().join("a.yaml"), format!("{WEB}---\n{second}")).unwrap();
    let (objects, events) = short(&source.load());
    assert!(objects.is_empty());
    assert!(events[0].starts_with("ManifestInvalid Service default/web a.yaml:10: "));
}

#[test]
fn a_mounted_config_map() {
    let directory = directory(&[]);
    let path = directory.path();
    let version = |number: u32, port: u32| {
        let hidden = path.join(format!("..{number}"));
        fs::create_dir(&hidden).unwrap();
        let text = WEB.replace("port: 80", &format!("port: {port}"));
        fs::write(hidden.join("web.yaml"), text).unwrap();
        symlink(format!("..{number}"), path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    };
    version(1, 80);
    symlink("..data/web.yaml", path.join("web.yaml")).unwrap();
    let mut source = open(&directory);
    assert_eq!(source.load().changes.len(), 1);
    version(2, 81);
    let changes = source.next(Duration::from_secs(1)).unwrap();
    assert_eq!(short(&changes).0, ["+ Service default/web web.yaml:1"]);
}

fn slices(text: &str) -> Vec<EndpointSlice> {
    let directory = directory(&[("e.yaml", text)]);
    let mut source = open(&directory);
    let changes = source.load();
    let objects = changes.changes.into_iter().map(|change| match change {
        Change::Apply(Object::EndpointSlice(slice, _)) => *slice,
        other => panic!("{other:?}"),
    });
    objects.collect()
}

#[test]
fn endpoints_are_mirrored() {
    let slices = slices(
        "apiVersion: v1
kind: Endpoints
metadata: {name: web, namespace: shop, labels: {tier: front}}
subsets:
- addresses:
  - {ip: 10.0.0.1, nodeName: one}
  - {ip: 'fd00::1'}
  notReadyAddresses:
  - {ip: 10.0.0.2}
  ports:
  - {name: http, port: 8080}
- addresses: [{ip: 10.0.0.3}]
  ports: [{port: 53, protocol: UDP}]
",
    );
    let names: Vec<_> = slices.iter().map(|one| one.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["web-mirrored-1", "web-mirrored-2", "web-mirrored-3"]);
    for slice in &slices {
        let labels = slice.metadata.labels.as_ref().unwrap();
        assert_eq!(labels["kubernetes.io/service-name"], "web");
        assert_eq!(labels["tier"], "front");
        let manager = &labels["endpointslice.kubernetes.io/managed-by"];
        assert_eq!(manager, "endpointslicemirroring-controller.k8s.io");
        assert_eq!(slice.metadata.namespace.as_deref(), Some("shop"));
    }
    let first = slices[0].endpoints.as_ref().unwrap();
    let ready = |one: &k8s_openapi::api::discovery::v1::Endpoint| {
        (one.addresses[0].clone(), one.conditions.as_ref().unwrap().ready.unwrap())
    };
    assert_eq!(ready(&first[0]), ("10.0.0.1".to_owned(), true));
    assert_eq!(ready(&first[1]), ("10.0.0.2".to_owned(), false));
    assert_eq!(first[0].node_name.as_deref(), Some("one"));
    assert_eq!(slices[1].address_type, "IPv6");
    let port = &slices[2].ports.as_ref().unwrap()[0];
    assert_eq!((port.protocol.as_deref(), port.port), (Some("UDP"), Some(53)));
}

#[test]
fn endpoints_beyond_a_thousand_fill_several_slices() {
    let addresses: String =
        (0..2_500).map(|n| format!("  - {{ip: 10.1.{}.{}}}\n", n / 250, n % 250)).collect();
    let head = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\n";
    let slices =
        slices(&format!("{head}subsets:\n- addresses:\n{addresses}  ports: [{{port: 1}}]\n"));
    let sizes: Vec<_> = slices.iter().map(|one| one.endpoints.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    let skipped = "labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}";
    let text = format!("apiVersion: v1\nkind: Endpoints\nmetadata: {{name: web, {skipped}}}\n");
    assert!(self::slices(&text).is_empty());
}

#[test]
fn a_given_slice_wins_over_a_made_one_of_its_name() {
    let endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\nsubsets:\n- addresses: [{ip: 10.0.0.1}]\n  ports: [{port: 1}]\n";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-mirrored-1}\naddressType: IPv4\nendpoints: []\nports: []\n";
    let directory = directory(&[("a.yaml", endpoints)]);
    let mut source = open(&directory);
    assert_eq!(short(&source.load()).0, ["+ EndpointSlice default/web-mirrored-1 a.yaml:1"]);
    fs::write(directory.path().join("b.yaml"), slice).unwrap();
    assert_eq!(short(&source.load()).0, ["+ EndpointSlice default/web-mirrored-1 b.yaml:1"]);
    fs::remove_file(directory.path().join("b.yaml")).unwrap();
    assert_eq!(short(&source.load()).0, ["+ EndpointSlice default/web-mirrored-1 a.yaml:1"]);
    fs::remove_file(directory.path().join("a.yaml")).unwrap();
    assert_eq!(short(&source.load()).0, ["- EndpointSlice default/web-mirrored-1"]);
}

#[test]
fn what_is_not_given_is_filled_in() {
    let text = "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  sessionAffinity: ClientIP
  ports: [{port: 80}, {port: 53, name: dns, protocol: UDP, targetPort: dns}]
"
    .replace("{port: 80}", "{port: 80, name: http}");
    let directory = directory(&[("a.yaml", &text)]);
    let changes = open(&directory).load();
    let Change::Apply(Object::Service(service, _)) = &changes.changes[0] else { panic!() };
    let spec = service.spec.as_ref().unwrap();
    assert_eq!(service.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
    assert_eq!(spec.internal_traffic_policy.as_deref(), Some("Cluster"));
    assert_eq!(spec.external_traffic_policy, None);
    let client = spec.session_affinity_config.as_ref().unwrap().client_ip.as_ref().unwrap();
    assert_eq!(client.timeout_seconds, Some(10_800));
    let ports = spec.ports.as_ref().unwrap();
    assert_eq!(ports[0].protocol.as_deref(), Some("TCP"));
    assert_eq!(ports[0].target_port, Some(IntOrString::Int(80)));
    assert_eq!(ports[1].target_port, Some(IntOrString::String("dns".to_owned())));
}

#[test]
fn a_directory_that_cannot_be_a_source() {
    let directory = directory(&[("file", "")]);
    let open = |path: &Path| DirectorySource::open(path, Options::default()).unwrap_err();
    let missing = open(&directory.path().join("none"));
    assert!(
        matches!(missing, SourceError::Missing(_)) && missing.to_string().contains("create it")
    );
    assert!(matches!(open(&directory.path().join("file")), SourceError::NotDirectory(_)));
    assert!(matches!(open(&directory.path().join("file/x")), SourceError::NotDirectory(_)));
}
