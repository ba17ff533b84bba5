//! The source and its writer against an API server in memory, on a clock that passes at once.

mod fake;
mod following;
mod leading;
mod messages;
mod rules;
mod schedules;
mod sharing;
mod telling;
mod writing;

use super::connect::{Connection, Line};
use super::pace::Jitter;
use super::{KubernetesSource, Options};
use crate::{Change, Changes};
use fake::{Fake, Name};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use translate::{Kind, Object};

/// Runs on a clock that moves when nothing else does.
fn timeless<T>(work: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// A source of the server, and what keeps its line.
struct Rig {
    fake: Fake,
    source: KubernetesSource,
    line: watch::Sender<Connection>,
    /// What it has told: name and version of each object.
    told: BTreeMap<Name, u64>,
    full: bool,
}

impl Rig {
    fn new(fake: &Fake, options: Options) -> Self {
        Self::seeded(fake, options, 1)
    }

    fn seeded(fake: &Fake, options: Options, seed: u64) -> Self {
        let (line_sender, line) = Line::fixed(fake.client());
        let jitter = Jitter::seeded(seed);
        let source = KubernetesSource::with(options, line, &Handle::current(), &jitter);
        Self { fake: fake.clone(), source, line: line_sender, told: BTreeMap::new(), full: false }
    }

    /// Takes what there is, and notes it.
    fn take(&mut self) -> Option<Changes> {
        let changes = self.source.take()?;
        assert_eq!(changes.full, !self.full, "the first are all, and only those");
        self.full = true;
        let mut deletions_over = false;
        for change in &changes.changes {
            match change {
                Change::Apply(object) => {
                    deletions_over = true;
                    let (name, version) = noted(object);
                    self.told.insert(name, version);
                }
                Change::Delete(key) => {
                    assert!(!deletions_over, "what is gone comes first");
                    let resource = resource(key.kind).to_owned();
                    let name = &key.name;
                    self.told.remove(&(
                        resource,
                        name.namespace.to_string(),
                        name.name.to_string(),
                    ));
                }
            }
        }
        Some(changes)
    }

    /// What the server has of what is watched.
    fn there(&self) -> BTreeMap<Name, u64> {
        self.fake.with(|cluster| {
            let objects = cluster.objects.iter().filter(|(name, object)| {
                let labels = &object["metadata"]["labels"];
                match name.0.as_str() {
                    "services" | "nodes" | "servicecidrs" => true,
                    "endpointslices" => labels["kubernetes.io/service-name"].is_string(),
                    _ => false,
                }
            });
            objects.map(|(name, object)| (name.clone(), version(object))).collect()
        })
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

const fn resource(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::Node => "nodes",
        Kind::Namespace => "namespaces",
        Kind::ServiceCidr => "servicecidrs",
    }
}

/// Name and version of an object that was told.
fn noted(object: &Object) -> (Name, u64) {
    let metadata = match object {
        Object::Service(object, _) => &object.metadata,
        Object::EndpointSlice(object, _) => &object.metadata,
        Object::Node(object, _) => &object.metadata,
        Object::Namespace(object, _) => &object.metadata,
        Object::ServiceCidr(object, _) => &object.metadata,
        // Watched by nobody here.
        #[allow(unreachable_patterns)]
        _ => panic!("{object:?}"),
    };
    assert_eq!(metadata.managed_fields, None);
    let key = object.key();
    let name =
        (resource(key.kind).to_owned(), key.name.namespace.to_string(), key.name.name.to_string());
    (name, metadata.resource_version.as_ref().unwrap().parse().unwrap())
}

fn service(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default",
            "managedFields": [{ "manager": "kubectl", "operation": "Apply" }],
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes" } },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] } })
}

/// A slice of a Service with so many ready endpoints.
fn slice(service: &str, name: &str, endpoints: usize) -> Value {
    let one = |number| {
        json!({ "addresses": [format!("198.18.1.{number}")],
        "conditions": { "ready": true } })
    };
    let endpoints: Vec<_> = (0..endpoints).map(one).collect();
    json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": { "name": name, "namespace": "default",
            "labels": { "kubernetes.io/service-name": service } },
        "endpoints": endpoints, "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }] })
}

fn node(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "status": { "images": [{ "names": ["large"], "sizeBytes": 1 }],
            "addresses": [{ "type": "InternalIP", "address": "198.18.0.2" }] } })
}
