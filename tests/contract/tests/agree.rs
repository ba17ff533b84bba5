//! One YAML, two ways to be told: a directory of manifests and a real API server end in the same
//! desired state, and refuse the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use model::desired::{Origin, ServicePort, ServicePortKey};
use rig::cluster::ClusterOptions;
use sources::directory::{DirectorySource, Options as DirectoryOptions};
use sources::kubernetes::{KubernetesSource, Options as KubernetesOptions};
use sources::{Change, Changes};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use translate::{Allocations, Index, Object, Settings};

/// Objects that both accept.
const GOOD: &str = include_str!("agree/good.yaml");
/// Objects that the API server refuses: `---` and `# NAME` before each.
const BAD: &str = include_str!("agree/bad.yaml");
/// What the API server gets for all of them.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an API server refuses and a directory lets in, with the reason.
const LET_IN: &[(&str, &str)] = &[
    ("nodePort that is taken", TWO),
    ("slice without a family", SLICE),
    ("slice of an unknown family", SLICE),
    ("slice with an address of the other family", SLICE),
    ("slice with what is no address", SLICE),
    ("slice with loopback", SLICE),
    ("slice endpoint without addresses", SLICE),
    ("slice with an unknown protocol", SLICE),
    ("slice with one port name twice", "both numbers are used, as kube-proxy does"),
];
const TWO: &str = "the index gives it to the older Service, and the other one says so";
const SLICE: &str = "the index leaves that part out and says so; the rest of the slice is used";

/// The desired state of these objects, without what only an API server can give: UIDs.
fn desired(objects: &[Object]) -> BTreeMap<ServicePortKey, ServicePort> {
    let mut wishes = contract::world::wishes();
    wishes.node_port.allocate = false;
    wishes.external_ip_ranges = vec!["198.18.100.0/24".parse().unwrap()];
    let mut index = Index::new(Settings::new(wishes).unwrap(), Allocations::default());
    for object in objects {
        index.apply(object.clone());
    }
    index.build();
    let ports = &index.desired().service_ports;
    let plain = |(key, port): (&ServicePortKey, &std::sync::Arc<ServicePort>)| {
        let mut port = ServicePort::clone(port);
        port.uid = "".into();
        (key.clone(), port)
    };
    ports.iter().map(plain).collect()
}

fn directory(text: &str) -> (Vec<Object>, Changes) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), text).unwrap();
    let mut source = DirectorySource::open(folder.path(), DirectoryOptions::default()).unwrap();
    let changes = source.load();
    (source.objects().cloned().collect(), changes)
}

/// What the API server has, once it has `count` Services and slices.
fn api_server(kubeconfig: &Path, count: usize) -> Vec<Object> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut options = KubernetesOptions::new("agree");
    options.kubeconfig = Some(kubeconfig.to_owned());
    let mut source = KubernetesSource::start(options, runtime.handle()).unwrap();
    let mut objects = BTreeMap::new();
    let begun = Instant::now();
    while objects.len() < count {
        assert!(begun.elapsed() < PATIENCE, "{} of {count} objects", objects.len());
        let Some(changes) = source.next(Duration::from_millis(200)) else { continue };
        for change in changes.changes {
            match change {
                Change::Apply(object) => drop(objects.insert(object.key(), object)),
                Change::Delete(key) => drop(objects.remove(&key)),
            }
        }
    }
    source.stop(runtime.handle(), Duration::from_secs(5));
    objects.into_values().collect()
}

#[test]
fn a_directory_and_an_api_server_agree() -> anyhow::Result<()> {
    let options = ClusterOptions { api_only: true, ..ClusterOptions::default() };
    let Some(test) = kubernetes::begin("agree", &options, 0)? else { return Ok(()) };
    let cluster = &test.cluster;

    cluster.apply(GOOD)?;
    let (of_directory, _) = directory(GOOD);
    // And the Service of the API server itself, with its slice, and its ServiceCIDR.
    let of_server = api_server(&cluster.host_kubeconfig()?, of_directory.len() + 3);
    let (mine, theirs) = (desired(&of_directory), desired(&of_server));
    let served = mine.values().flat_map(|port| &port.frontends);
    assert!(served.filter(|one| !matches!(one.origin, Origin::ClusterIp)).count() > 6);
    assert_eq!(mine, theirs);

    let mut wrong = Vec::new();
    let mut refused = 0;
    for text in BAD.split("---\n# ").skip(1) {
        let (name, object) = text.split_once('\n').unwrap();
        let let_in = LET_IN.iter().any(|(known, _)| *known == name);
        if cluster.apply(object).is_ok() {
            wrong.push(format!("{name}: the API server lets it in"));
        }
        // Beside the good ones, since some are refused for what is there already.
        let (objects, changes) = directory(&format!("{GOOD}---\n{object}"));
        let in_directory = objects.len() > of_directory.len();
        if in_directory != let_in {
            let said: Vec<_> = changes.diagnostics.iter().map(|one| &one.message).collect();
            wrong.push(format!("{name}: the directory lets it in: {in_directory}; {said:?}"));
        }
        refused += 1;
    }
    println!("{} service ports are the same, {refused} objects are refused", mine.len());
    for (name, reason) in LET_IN {
        println!("  let in by the directory: {name}: {reason}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
