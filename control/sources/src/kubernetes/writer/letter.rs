//! One Event on its way to the cluster (`events.k8s.io/v1`), as `kubectl describe` and
//! `kubectl events` show it. What is said again becomes a series of the Event that said it first.
//!
//! Its name ends in the time at which it was first to be told: `kubectl describe` lists Events by
//! name where it knows no time, and so in their order. After a lost answer it is sent again under
//! that name, and found to be there.

use super::super::connect::Connection;
use super::super::trouble::{Doing, Sort, Trouble};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use model::answers::Severity;
use model::desired::ObjectName;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use translate::Kind;

/// Who reports, in every Event.
const CONTROLLER: &str = "headgate.dev/gateway";
/// What is done about the object; the API wants a word.
const ACTION: &str = "Program";
/// Characters of the object's name in the Event's.
const STEM_MAX: usize = 200;

/// Events with the same key say the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) object: ObjectName,
    pub(super) uid: String,
    pub(super) reason: String,
    pub(super) note: String,
}

/// An Event that was told.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    pub(super) name: String,
    /// How often it happened, as is told there.
    pub(super) count: u32,
    pub(super) last: Instant,
}

/// What came of an Event.
#[derive(Debug)]
pub(super) enum Sent {
    /// It has this name now, and happened so often by what stands there, `told` times by this
    /// letter.
    As { name: String, count: u32, told: u32 },
    /// Its namespace takes no Events any longer.
    Unwanted,
}

/// An Event on its way.
pub(super) struct Letter {
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) severity: Severity,
    pub(super) count: u32,
    pub(super) time: Timestamp,
    /// What this process has told of it.
    pub(super) before: Option<Remembered>,
    /// When it was first to be told.
    pub(super) born: Timestamp,
    pub(super) identity: String,
}

/// What a request came to; with the server's words where it said no.
type Answer<T> = Result<T, (Trouble, Option<Box<kube::core::Status>>)>;

impl Letter {
    fn namespace(&self) -> &str {
        let namespace = &self.key.object.namespace;
        if namespace.is_empty() { "default" } else { namespace }
    }

    pub(super) async fn send(
        self,
        connection: &Connection,
        limit: Duration,
    ) -> Result<Sent, Trouble> {
        let doing = format!("creating an Event about {} {}", self.key.kind, self.key.object);
        let way = Way {
            api: Api::namespaced(connection.client.clone(), self.namespace()),
            connection,
            doing: Doing::new(doing),
            limit,
        };
        let told = self.count;
        if let Some(before) = &self.before {
            let (name, count) = (before.name.clone(), before.count.saturating_add(told));
            match way.patch(&name, &self.series(count)).await {
                Ok(_) => return Ok(Sent::As { name, count, told }),
                // The server has forgotten it.
                Err((trouble, _)) if trouble.sort == Sort::Missing => {}
                Err((trouble, status)) => return unwanted(trouble, status.as_deref()),
            }
        }
        let name = self.name();
        match way.create(&self.event(&name)).await {
            Ok(_) => Ok(Sent::As { name, count: told, told }),
            // It was sent before, and its answer lost.
            Err((trouble, _)) if trouble.sort == Sort::Conflict => {
                Ok(Sent::As { name, count: told, told })
            }
            Err((trouble, status)) => unwanted(trouble, status.as_deref()),
        }
    }

    fn series(&self, count: u32) -> Value {
        json!({ "series": {
            "count": count,
            "lastObservedTime": MicroTime(micros(self.time)),
        } })
    }

    fn name(&self) -> String {
        let stem: String = self.key.object.name.chars().take(STEM_MAX).collect();
        let born = self.born.as_nanosecond();
        format!("{}.{born:016x}", stem.trim_end_matches(['.', '-']))
    }

    fn event(&self, name: &str) -> api::Event {
        let Key { kind, object, reason, note, .. } = &self.key;
        let time = MicroTime(micros(self.time));
        let series = (self.count > 1).then(|| api::EventSeries {
            count: i32::try_from(self.count).unwrap_or(i32::MAX),
            last_observed_time: time.clone(),
        });
        api::Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(time),
            action: Some(ACTION.to_owned()),
            reason: Some(reason.clone()),
            note: Some(note.clone()),
            type_: Some(
                match self.severity {
                    Severity::Normal => "Normal",
                    Severity::Warning => "Warning",
                }
                .to_owned(),
            ),
            regarding: Some(ObjectReference {
                api_version: Some(api_version(*kind).to_owned()),
                kind: Some(kind.name().to_owned()),
                namespace: (!object.namespace.is_empty()).then(|| object.namespace.to_string()),
                name: Some(object.name.to_string()),
                uid: (!self.uid.is_empty()).then(|| self.uid.clone()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.identity.clone()),
            series,
            ..api::Event::default()
        }
    }
}

/// Where it goes.
struct Way<'a> {
    api: Api<api::Event>,
    connection: &'a Connection,
    doing: Doing,
    limit: Duration,
}

impl Way<'_> {
    async fn create(&self, event: &api::Event) -> Answer<api::Event> {
        let params = PostParams::default();
        let request = self.api.create(&params, event);
        super::answered(self.connection, &self.doing, self.limit, request).await
    }

    async fn patch(&self, name: &str, patch: &Value) -> Answer<api::Event> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let request = self.api.patch(name, &params, &patch);
        super::answered(self.connection, &self.doing, self.limit, request).await
    }
}

const fn api_version(kind: Kind) -> &'static str {
    match kind {
        Kind::Service | Kind::Node | Kind::Namespace => "v1",
        Kind::EndpointSlice => "discovery.k8s.io/v1",
        Kind::ServiceCidr => "networking.k8s.io/v1",
    }
}

/// A namespace that goes away refuses Events, which is no fault of anybody's.
fn unwanted(trouble: Trouble, status: Option<&kube::core::Status>) -> Result<Sent, Trouble> {
    let terminating = status.is_some_and(|status| {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        status.message.contains("being terminated")
            || causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    });
    match trouble.sort {
        Sort::Forbidden if terminating => Ok(Sent::Unwanted),
        Sort::Missing | Sort::Invalid => Ok(Sent::Unwanted),
        _ => Err(trouble),
    }
}

/// As the API keeps them.
fn micros(time: Timestamp) -> Timestamp {
    time.round(Unit::Microsecond).unwrap_or(time)
}
