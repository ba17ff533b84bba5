//! One YAML, two ways to be told: a directory of manifests and a real API server end in the same
//! desired state and the same statuses, and refuse the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use model::answers::ServiceStatus;
use model::desired::{ObjectName, Origin, ServicePort, ServicePortKey};
use rig::cluster::ClusterOptions;
use sources::directory::{DirectorySource, Options as DirectoryOptions};
use sources::kubernetes::{KubernetesSource, Options as KubernetesOptions};
use sources::{Change, Changes};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};
use translate::{Allocations, Index, Object, ObjectKey, Pool, Settings};

/// Objects that both accept.
const GOOD: &str = include_str!("agree/good.yaml");
/// Objects that the API server refuses: `---` and `# NAME` before each.
const BAD: &str = include_str!("agree/bad.yaml");
/// The file that the directory has.
const FILE: &str = "all.yaml";
/// The Service of the API server itself, which no directory has.
const API: &str = "kubernetes";
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

/// The label of slices that were made of hand-written Endpoints, and who made them.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MIRRORING: &str = "endpointslicemirroring-controller.k8s.io";

/// What objects come to.
struct Outcome {
    ports: BTreeMap<ServicePortKey, ServicePort>,
    statuses: BTreeMap<ObjectName, ServiceStatus>,
}

impl Outcome {
    fn status(&self, namespace: &str, name: &str) -> &ServiceStatus {
        &self.statuses[&ObjectName::new(namespace, name)]
    }

    fn addresses(&self, namespace: &str, name: &str) -> Vec<String> {
        self.status(namespace, name).addresses.iter().map(ToString::to_string).collect()
    }
}

fn settings() -> Settings {
    let mut wishes = contract::world::wishes();
    wishes.node_port.allocate = false;
    wishes.external_ip_ranges =
        ["198.18.100.0/24", "2001:db8:e::/64"].map(|text| text.parse().unwrap()).to_vec();
    let asked_for = |name: &str, ranges: &[&str]| Pool {
        auto_assign: false,
        ..contract::world::pool(name, ranges)
    };
    let team = asked_for("team", &["203.0.113.50-203.0.113.51"]);
    wishes.pools.extend([
        asked_for("both", &["203.0.113.40-203.0.113.41", "2001:db8:a::40-2001:db8:a::41"]),
        Pool { namespace_selector: Some("team=red".parse().unwrap()), ..team },
        asked_for("barred", &["203.0.113.130-203.0.113.131"]),
    ]);
    Settings::new(wishes).unwrap()
}

/// What the index makes of these objects, without what only one of the two can give: UIDs and
/// allocated nodePorts, files and lines.
fn outcome(objects: &[Object]) -> Outcome {
    let mut index = Index::new(settings(), Allocations::default());
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
    let statuses = index.statuses().filter(|one| one.name != ObjectName::new("default", API));
    let statuses = statuses.map(|status| (status.name.clone(), plain_status(status)));
    Outcome { ports: ports.iter().map(plain).collect(), statuses: statuses.collect() }
}

fn plain_status(status: &ServiceStatus) -> ServiceStatus {
    let mut status = status.clone();
    status.place = String::new();
    for row in &mut status.ports {
        row.node_port =
            row.node_port.filter(|number| GOOD.contains(&format!("nodePort: {number}")));
    }
    for problem in &mut status.problems {
        if let Some((before, rest)) = problem.split_once(&format!(" ({FILE}:"))
            && let Some((_, after)) = rest.split_once(')')
        {
            *problem = format!("{before}{after}");
        }
    }
    status
}

/// The entries in which the two differ.
fn differences<K: Ord + Debug, V: PartialEq + Debug>(
    mine: &BTreeMap<K, V>,
    theirs: &BTreeMap<K, V>,
) -> Vec<String> {
    let keys: BTreeSet<&K> = mine.keys().chain(theirs.keys()).collect();
    let differ = keys.into_iter().filter(|key| mine.get(*key) != theirs.get(*key));
    let told = differ.map(|key| {
        let (mine, theirs) = (mine.get(key), theirs.get(key));
        format!("{key:?}\n  of the directory:   {mine:?}\n  of the API server: {theirs:?}")
    });
    told.collect()
}

fn directory(text: &str) -> (Vec<Object>, Changes) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), text).unwrap();
    let mut source = DirectorySource::open(folder.path(), DirectoryOptions::default()).unwrap();
    let changes = source.load();
    (source.objects().cloned().collect(), changes)
}

fn is_mirrored(object: &Object) -> bool {
    let Object::EndpointSlice(slice, _) = object else { return false };
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|one| one == MIRRORING)
}

/// What the API server has, once it has all of `wanted`. The names of mirrored slices are the
/// controller's to choose.
fn api_server(kubeconfig: &Path, wanted: &[Object]) -> Vec<Object> {
    let mirrored = wanted.iter().filter(|object| is_mirrored(object)).count();
    assert!(mirrored > 0);
    let named = wanted.iter().filter(|object| !is_mirrored(object));
    let keys: Vec<ObjectKey> = named.map(Object::key).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut options = KubernetesOptions::new("agree");
    options.kubeconfig = Some(kubeconfig.to_owned());
    options.namespaces_needed = true;
    let mut source = KubernetesSource::start(options, runtime.handle()).unwrap();
    let mut objects: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    let begun = Instant::now();
    loop {
        let missing: Vec<_> = keys.iter().filter(|key| !objects.contains_key(*key)).collect();
        let made = objects.values().filter(|object| is_mirrored(object)).count();
        if missing.is_empty() && made >= mirrored {
            break;
        }
        let waited = begun.elapsed();
        assert!(waited < PATIENCE, "{made} of {mirrored} mirrored slices; missing: {missing:?}");
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

/// Two that agree may both have understood nothing: what the objects come to, by name.
fn check_understood(outcome: &Outcome) {
    let served = outcome.ports.values().flat_map(|port| &port.frontends);
    let served = served.filter(|one| !matches!(one.origin, Origin::ClusterIp)).count();
    assert_eq!(served, 18, "frontends");
    let given: [(&str, &str, &[&str]); 8] = [
        ("default", "auto", &["203.0.113.12"]),
        ("default", "prefer", &["203.0.113.40", "2001:db8:a::40"]),
        ("default", "six", &["2001:db8:a::15"]),
        ("default", "external", &["198.18.100.2", "2001:db8:e::2"]),
        ("default", "legacy", &["203.0.113.14", "2001:db8:a::14"]),
        ("team", "inside", &["203.0.113.50"]),
        ("default", "outside", &[]),
        ("default", "barred", &[]),
    ];
    for (namespace, name, addresses) in given {
        assert_eq!(outcome.addresses(namespace, name), addresses, "{namespace}/{name}");
    }
    for (name, part) in [
        ("auto", "port \"c\" has no number"),
        ("external", "externalIP 192.0.2.77 is refused"),
        ("external", "an address of Node node-2"),
        ("outside", "is not for Services of namespace default"),
        ("barred", "the range of ServiceCIDR spare"),
    ] {
        let problems = &outcome.status("default", name).problems;
        assert!(problems.iter().any(|one| one.contains(part)), "{name}: {part}: {problems:?}");
    }
    let mirrored = &outcome.status("default", "legacy").ports[0];
    assert_eq!((mirrored.active, mirrored.known), (2, 3));
}

#[test]
fn a_directory_and_an_api_server_agree() -> anyhow::Result<()> {
    // With controllers: one of them mirrors Endpoints.
    let Some(test) = kubernetes::begin("agree", &ClusterOptions::default(), 0)? else {
        return Ok(());
    };
    let cluster = &test.cluster;

    cluster.apply(GOOD)?;
    let (of_directory, _) = directory(GOOD);
    let of_server = api_server(&cluster.host_kubeconfig()?, &of_directory);
    let (mine, theirs) = (outcome(&of_directory), outcome(&of_server));
    check_understood(&mine);
    let mut differ = differences(&mine.ports, &theirs.ports);
    differ.extend(differences(&mine.statuses, &theirs.statuses));
    assert!(differ.is_empty(), "{}", differ.join("\n"));

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
    let (ports, statuses) = (mine.ports.len(), mine.statuses.len());
    println!("{ports} service ports and {statuses} statuses are the same");
    println!("{refused} objects are refused");
    for (name, reason) in LET_IN {
        println!("  let in by the directory: {name}: {reason}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
