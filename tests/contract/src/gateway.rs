//! A whole gateway but for its device: index, compiler and pipeline, with a clock of its own.

use crate::world;
use golden::drive;
use model::answers::{Event, ServiceStatus};
use model::desired::ObjectName;
use pipeline::adjacency::Adjacencies;
use pipeline::answer::{Class, Rate, Rates};
use pipeline::select::AffinityTable;
use pipeline::snapshot::{Compiler, Snapshot};
use pipeline::steer::SteerTable;
use pipeline::tables::Tables;
use pipeline::{Now, Options, Pipeline};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use translate::{Allocations, Built, Index, Kind, Object, ObjectKey, Place, Settings, Wishes};

/// Enough answers for every test.
const PLENTY: Rate = Rate { per_second: 1_000_000, burst: 1_000_000 };

/// More clients than any test has.
const AFFINITY_CLIENTS: usize = 65_536;

/// A gateway.
#[derive(Debug)]
pub struct Gateway {
    /// What turns objects into desired state.
    pub index: Index,
    /// Events since the start.
    pub events: Vec<Event>,
    /// Milliseconds since the start.
    pub now_ms: u64,
    pub(crate) pipeline: Pipeline,
    pub(crate) tables: Tables,
    /// MACs that the packets of the last question went to.
    pub(crate) sent_to: BTreeSet<[u8; 6]>,
    /// Where the next client port comes from.
    pub(crate) flows: u32,
    compiler: Compiler,
}

impl Gateway {
    /// A gateway that knows of no object.
    pub fn new(wishes: Wishes) -> Self {
        Self::resume(wishes, Allocations::default())
    }

    /// A gateway that remembers what it had allocated.
    pub fn resume(wishes: Wishes, allocations: Allocations) -> Self {
        let rates = Rates::default().with(Class::Refusal, PLENTY).with(Class::HostOther, PLENTY);
        let options = Options {
            // An eighth may be half open, as all are that a probe begins: 48 to 1,024 a question,
            // and 150 questions within the three seconds that each of them lives at least.
            connections: [1 << 18, 1 << 18],
            affinity: Arc::new(AffinityTable::new(AFFINITY_CLIENTS, 0x636f_6e74)),
            rates,
            ..drive::options()
        };
        Self {
            index: Index::new(Settings::new(wishes).unwrap(), allocations),
            events: Vec::new(),
            now_ms: 1000,
            pipeline: drive::pipeline(&options),
            tables: Tables {
                generation: 1,
                snapshot: Arc::new(Snapshot::default()),
                adjacencies: Arc::new(Adjacencies::new(world::adjacency_input())),
                steer: Arc::new(SteerTable::new(1, &world::nat_addresses())),
            },
            sent_to: BTreeSet::new(),
            flows: 0,
            compiler: Compiler::default(),
        }
    }

    /// Takes an object in.
    pub fn apply(&mut self, object: &Value) {
        self.index.apply(typed(object));
    }

    /// Forgets an object.
    pub fn delete(&mut self, key: &ObjectKey) {
        self.index.delete(key);
    }

    /// Makes the workers run with what the index wants.
    pub fn build(&mut self) -> Built {
        let built = self.index.build();
        self.events.extend(built.events.iter().cloned());
        let (snapshot, report) = self.compiler.apply(&built.delta);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        self.tables.snapshot = snapshot;
        self.tables.generation += 1;
        built
    }

    /// Lets time pass, in which the worker sweeps its tables.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now_ms += 1000;
            self.pipeline.sweep(&self.tables, Now { ms: self.now_ms });
        }
    }

    /// The status of a Service.
    pub fn status(&self, name: &ObjectName) -> Option<&ServiceStatus> {
        self.index.statuses().find(|status| status.name == *name)
    }
}

/// The kind of that name.
pub fn kind(name: &str) -> Option<Kind> {
    let all = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Namespace, Kind::ServiceCidr];
    all.into_iter().find(|kind| kind.name() == name)
}

/// The object's kind, namespace and name.
pub fn key(object: &Value) -> ObjectKey {
    let text = |key: &str| object["metadata"][key].as_str();
    let kind = kind(object["kind"].as_str().unwrap()).unwrap();
    let of_cluster = matches!(kind, Kind::Node | Kind::Namespace | Kind::ServiceCidr);
    let namespace = if of_cluster { "" } else { text("namespace").unwrap_or("default") };
    ObjectKey { kind, name: ObjectName::new(namespace, text("name").unwrap()) }
}

/// The typed object.
pub fn typed(object: &Value) -> Object {
    let place = Place::default();
    let from = || object.clone();
    let wrong = |error: serde_json::Error| -> ! { panic!("{error}: {object:#}") };
    match key(object).kind {
        Kind::Service => {
            Object::Service(serde_json::from_value(from()).unwrap_or_else(|e| wrong(e)), place)
        }
        Kind::EndpointSlice => Object::EndpointSlice(
            serde_json::from_value(from()).unwrap_or_else(|e| wrong(e)),
            place,
        ),
        Kind::Node => {
            Object::Node(serde_json::from_value(from()).unwrap_or_else(|e| wrong(e)), place)
        }
        Kind::Namespace => {
            Object::Namespace(serde_json::from_value(from()).unwrap_or_else(|e| wrong(e)), place)
        }
        Kind::ServiceCidr => {
            Object::ServiceCidr(serde_json::from_value(from()).unwrap_or_else(|e| wrong(e)), place)
        }
    }
}
