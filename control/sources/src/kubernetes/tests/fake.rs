//! An API server in memory: lists, watches with bookmarks, status patches, Events and Leases, and
//! what can go wrong with them. Time is tokio's.

use super::rules::{Asked, Rules};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Resource, namespace and name of an object.
pub(super) type Name = (String, String, String);

/// What goes wrong with every request from now on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Fault {
    #[default]
    None,
    /// Nothing listens.
    Refused,
    /// Nothing is ever answered, and watches fall silent.
    Silent,
    /// Every answer has this status and message.
    Status(u16, String),
    /// The certificate isn't believed.
    Certificate(&'static str),
    /// It is done, and the answer is lost.
    Lost,
}

struct Watch {
    number: u64,
    resource: String,
    label: bool,
    sender: UnboundedSender<io::Result<Bytes>>,
    /// Nothing comes any more, and nobody says so.
    frozen: bool,
    sent: Vec<Bytes>,
}

/// What the server has.
#[derive(Default)]
pub(super) struct Cluster {
    pub version: u64,
    pub objects: BTreeMap<Name, Value>,
    /// Everything that happened: version, resource, type of event and object.
    history: Vec<(u64, String, &'static str, Value)>,
    /// What was before this is forgotten.
    compacted: u64,
    watches: Vec<Watch>,
    watched: u64,
    pub fault: Fault,
    /// Faults of one resource alone.
    pub faults: BTreeMap<String, Fault>,
    /// Lists are answered as of this version.
    pub lists_of: Option<u64>,
    /// What was asked, in order.
    pub asked: Vec<Asked>,
    /// What may be asked; anything where there are none.
    pub rules: Option<Rules>,
    /// Who else owns the ingress of a Service's status.
    pub owners: BTreeMap<Name, &'static str>,
    /// Services whose finalizers another manager owns too.
    pub co_owned: BTreeSet<Name>,
    /// A condition's reason that a webhook writes instead of ours.
    pub webhook: Option<&'static str>,
}

/// The server; clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Fake(pub Arc<Mutex<Cluster>>);

/// An answer's body: whole, or a watch.
pub(super) enum Answer {
    Whole(Option<Bytes>),
    Stream(UnboundedReceiver<io::Result<Bytes>>),
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => {
                stream.poll_recv(context).map(|part| part.map(|part| part.map(Frame::data)))
            }
        }
    }
}

fn whole(code: u16, value: &Value) -> Response<Answer> {
    let bytes = Bytes::from(value.to_string());
    Response::builder().status(code).body(Answer::Whole(Some(bytes))).unwrap()
}

pub(super) fn status(code: u16, message: &str, causes: &Value) -> Response<Answer> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": message, "reason": "", "details": { "causes": causes },
    });
    whole(code, &body)
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({ "type": kind, "object": object })))
}

fn labelled(object: &Value) -> bool {
    object["metadata"]["labels"]["kubernetes.io/service-name"].is_string()
}

impl Fake {
    pub(super) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move { fake.answer(request).await }
        });
        Client::new(service, "default")
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    pub(super) async fn answer(&self, request: Request<Body>) -> io::Result<Response<Answer>> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.map_err(io::Error::other)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let asked = Asked::of(&parts.method, &parts.uri, body);
        let fault = self.with(|cluster| {
            cluster.asked.push(asked.clone());
            let one = cluster.faults.get(&asked.resource).cloned();
            one.unwrap_or_else(|| cluster.fault.clone())
        });
        // A request takes a while, and time passes.
        tokio::time::sleep(Duration::from_millis(1)).await;
        match fault {
            Fault::None => {}
            Fault::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
            Fault::Silent => std::future::pending().await,
            Fault::Status(code, message) => return Ok(status(code, &message, &json!([]))),
            Fault::Certificate(what) => {
                return Err(io::Error::other(format!("invalid peer certificate: {what}")));
            }
            Fault::Lost => {
                self.with(|cluster| cluster.serve(self, &asked));
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        Ok(self.with(|cluster| cluster.serve(self, &asked)))
    }

    /// The server ends a watch when its time is over, with a bookmark before.
    fn end_after(&self, number: u64, resource: String, after: u64) {
        let fake = self.clone();
        tokio::spawn(async move {
            let early = Duration::from_secs(2).min(Duration::from_secs(after) / 2);
            tokio::time::sleep(Duration::from_secs(after) - early).await;
            fake.with(|cluster| {
                let version = cluster.version.to_string();
                let bookmark = json!({ "metadata": { "resourceVersion": version },
                    "kind": resource, "apiVersion": "v1" });
                let silent = cluster.is_silent(&resource);
                let live = cluster.watches.iter().find(|one| one.number == number);
                if let Some(live) = live.filter(|one| !one.frozen && !silent) {
                    let _ = live.sender.send(Ok(line("BOOKMARK", &bookmark)));
                }
            });
            tokio::time::sleep(early).await;
            fake.with(|cluster| {
                let silent = cluster.is_silent(&resource);
                cluster.watches.retain(|one| one.frozen || silent || one.number != number);
            });
        });
    }
}

impl Cluster {
    fn is_silent(&self, resource: &str) -> bool {
        *self.faults.get(resource).unwrap_or(&self.fault) == Fault::Silent
    }

    /// Makes or changes an object; gives its version.
    pub(super) fn apply(&mut self, resource: &str, mut object: Value) -> u64 {
        self.version += 1;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let name = (resource.to_owned(), text(&metadata["namespace"]), text(&metadata["name"]));
        let before = self.objects.get(&name);
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        if object["metadata"]["uid"].is_null() {
            let uid = before.map(|before| before["metadata"]["uid"].clone());
            object["metadata"]["uid"] = uid.unwrap_or(json!(format!("uid-{}", self.version)));
        }
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(name, object.clone());
        self.tell(resource, kind, object);
        self.version
    }

    pub(super) fn delete(&mut self, name: &Name) {
        if let Some(mut object) = self.objects.remove(name) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.tell(&name.0, "DELETED", object);
        }
    }

    fn tell(&mut self, resource: &str, kind: &'static str, object: Value) {
        self.history.push((self.version, resource.to_owned(), kind, object.clone()));
        let silent = self.is_silent(resource);
        self.watches.retain_mut(|watch| {
            if watch.resource == resource && (!watch.label || labelled(&object)) {
                watch.frozen |= silent;
                let line = line(kind, &object);
                watch.sent.push(line.clone());
                return watch.frozen || watch.sender.send(Ok(line)).is_ok();
            }
            true
        });
    }

    /// Ends watches: of one resource or all, in the middle of a line or at its end.
    pub(super) fn cut(&mut self, resource: Option<&str>, half_a_line: bool) {
        for watch in &self.watches {
            if half_a_line && resource.is_none_or(|resource| resource == watch.resource) {
                let _ = watch.sender.send(Ok(Bytes::from_static(b"{\"type\":\"MODI")));
            }
        }
        self.watches.retain(|watch| resource.is_some_and(|resource| resource != watch.resource));
    }

    /// Breaks watches with an error of the connection.
    pub(super) fn reset(&mut self) {
        for watch in self.watches.drain(..) {
            let _ = watch.sender.send(Err(io::ErrorKind::ConnectionReset.into()));
        }
    }

    /// Sends the last events of every watch once more.
    pub(super) fn repeat(&mut self, count: usize) {
        for watch in self.watches.iter().filter(|watch| !watch.frozen) {
            for line in watch.sent.iter().rev().take(count).rev() {
                let _ = watch.sender.send(Ok(line.clone()));
            }
        }
    }

    /// Watches stay open and say nothing more.
    pub(super) fn freeze(&mut self, resource: Option<&str>) {
        for watch in &mut self.watches {
            watch.frozen |= resource.is_none_or(|resource| resource == watch.resource);
        }
    }

    /// Forgets what happened up to now.
    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
    }

    /// The storage is put back to what it was at a version.
    pub(super) fn restore(&mut self, version: u64) {
        self.objects = self.as_of(version);
        self.history.retain(|one| one.0 <= version);
        (self.version, self.lists_of) = (version, None);
        self.cut(None, false);
    }

    /// Objects as of a version, which must not be compacted away.
    fn as_of(&self, version: u64) -> BTreeMap<Name, Value> {
        let mut objects = BTreeMap::new();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for (_, resource, kind, object) in self.history.iter().filter(|one| one.0 <= version) {
            let metadata = &object["metadata"];
            let name = (resource.clone(), text(&metadata["namespace"]), text(&metadata["name"]));
            match *kind {
                "DELETED" => drop(objects.remove(&name)),
                _ => drop(objects.insert(name, object.clone())),
            }
        }
        objects
    }

    /// Whether the account may do something: every account may ask.
    fn review(&self, asked: &Asked) -> Response<Answer> {
        let mut review = asked.body.clone();
        let wanted = Asked::reviewed(&review["spec"]["resourceAttributes"]);
        let allowed = self.rules.as_ref().is_none_or(|rules| rules.allow(&wanted));
        review["status"] = json!({ "allowed": allowed });
        whole(201, &review)
    }

    fn create(&mut self, asked: &Asked) -> Response<Answer> {
        let mut name = asked.name();
        name.2 = asked.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self.objects.contains_key(&name) {
            return status(409, &format!("{} already exists", name.2), &json!([]));
        }
        self.apply(&asked.resource, asked.body.clone());
        whole(201, &self.objects[&name])
    }

    fn serve(&mut self, fake: &Fake, asked: &Asked) -> Response<Answer> {
        if asked.resource == "selfsubjectaccessreviews" {
            return self.review(asked);
        }
        if self.rules.as_ref().is_some_and(|rules| !rules.allow(asked)) {
            let Asked { verb, resource, group, .. } = asked;
            let message = format!(
                "{resource} is forbidden: User \"system:serviceaccount:headgate-system:headgate\" \
                 cannot {verb} resource \"{resource}\" in API group \"{group}\" at the cluster \
                 scope"
            );
            return status(403, &message, &json!([]));
        }
        match (asked.verb, asked.resource.as_str()) {
            ("list", _) => self.list(asked),
            ("watch", _) => self.watch(fake, asked),
            ("get", _) => match self.objects.get(&asked.name()) {
                Some(object) => whole(200, object),
                None => status(404, "not found", &json!([])),
            },
            ("update", _) => self.update(asked),
            ("create", _) => self.create(asked),
            ("patch", "services/status") => self.patch_status(asked),
            ("patch", "events") => match self.objects.get(&asked.name()).cloned() {
                Some(mut event) => {
                    if !asked.body["series"].is_null() {
                        event["series"] = asked.body["series"].clone();
                        self.apply("events", event.clone());
                    }
                    whole(200, &event)
                }
                None => status(404, "not found", &json!([])),
            },
            (verb, resource) => panic!("nobody {verb}s {resource}"),
        }
    }

    fn list(&self, asked: &Asked) -> Response<Answer> {
        let start: usize = asked.parameter("continue").map_or(0, |text| text.parse().unwrap());
        let limit: usize =
            asked.parameter("limit").map_or(usize::MAX, |text| text.parse().unwrap());
        let version = self.lists_of.filter(|version| *version >= self.compacted);
        let objects = match version {
            Some(version) if self.compacted == 0 => self.as_of(version),
            _ => self.objects.clone(),
        };
        let version = if self.compacted == 0 { version } else { None };
        let label = asked.parameter("labelSelector").is_some();
        let all: Vec<_> = objects
            .iter()
            .filter(|(name, object)| name.0 == asked.resource && (!label || labelled(object)))
            .map(|(_, object)| object)
            .collect();
        let page: Vec<_> = all.iter().skip(start).take(limit).collect();
        let more = start + page.len() < all.len();
        let next = if more { (start + page.len()).to_string() } else { String::new() };
        let version = version.unwrap_or(self.version).to_string();
        let metadata = json!({ "resourceVersion": version, "continue": next });
        whole(
            200,
            &json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata,
            "items": page }),
        )
    }

    fn watch(&mut self, fake: &Fake, asked: &Asked) -> Response<Answer> {
        let from: u64 = asked.parameter("resourceVersion").unwrap().parse().unwrap();
        let (sender, receiver) = unbounded_channel();
        if from < self.compacted {
            let gone = json!({ "kind": "Status", "code": 410, "message": "too old", "reason":
                "Expired", "status": "Failure" });
            let _ = sender.send(Ok(line("ERROR", &gone)));
            return Response::new(Answer::Stream(receiver));
        }
        let label = asked.parameter("labelSelector").is_some();
        let mut sent = Vec::new();
        for (version, resource, kind, object) in &self.history {
            if *version > from && *resource == asked.resource && (!label || labelled(object)) {
                let line = line(kind, object);
                sent.push(line.clone());
                let _ = sender.send(Ok(line));
            }
        }
        let resource = asked.resource.clone();
        let after = asked.parameter("timeoutSeconds").unwrap().parse().unwrap();
        self.watched += 1;
        let number = self.watched;
        fake.end_after(number, resource.clone(), after);
        self.watches.push(Watch { number, resource, label, sender, frozen: false, sent });
        Response::new(Answer::Stream(receiver))
    }

    fn update(&mut self, asked: &Asked) -> Response<Answer> {
        let Some(is) = self.objects.get(&asked.name()) else {
            return status(404, "not found", &json!([]));
        };
        if is["metadata"]["resourceVersion"] != asked.body["metadata"]["resourceVersion"] {
            return status(409, "the object has been modified", &json!([]));
        }
        self.apply(&asked.resource, asked.body.clone());
        whole(200, &self.objects[&asked.name()])
    }

    /// Server-side apply, as far as statuses of Services need it.
    fn patch_status(&mut self, asked: &Asked) -> Response<Answer> {
        let name = ("services".to_owned(), asked.namespace.clone(), asked.object.clone());
        let Some(mut service) = self.objects.get(&name).cloned() else {
            let message = "Operation cannot be fulfilled on services: uid mismatch: the provided \
                           object specified uid a, and no existing object was found";
            return status(409, message, &json!([]));
        };
        assert_eq!(asked.parameter("fieldManager").as_deref(), Some("headgate"));
        if asked.parameter("force").as_deref() == Some("true") {
            self.owners.remove(&name);
        }
        let body = &asked.body;
        if body["metadata"]["uid"] != service["metadata"]["uid"] {
            let cause = json!([{ "reason": "FieldValueInvalid", "field": "metadata.uid",
                "message": "field is immutable" }]);
            return status(422, "Service is invalid: metadata.uid: field is immutable", &cause);
        }
        let ingress = &body["status"]["loadBalancer"]["ingress"];
        if let Some(owner) = self.owners.get(&name).filter(|_| !ingress.is_null()) {
            let message = format!("conflict with \"{owner}\" with subresource \"status\" using v1");
            let field = ".status.loadBalancer.ingress";
            return status(
                409,
                "Apply failed with 1 conflict",
                &json!([
                { "reason": "FieldManagerConflict", "message": message, "field": field }]),
            );
        }
        if !self.owners.contains_key(&name) {
            service["status"]["loadBalancer"] = json!({});
            if !ingress.is_null() {
                service["status"]["loadBalancer"]["ingress"] = ingress.clone();
            }
        }
        let others = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let mut conditions: Vec<_> =
            others.into_iter().filter(|one| one["type"] != "headgate.dev/Programmed").collect();
        conditions.extend(body["status"]["conditions"].as_array().cloned().unwrap_or_default());
        service["status"]["conditions"] = json!(conditions);
        if let Some(reason) = self.webhook.filter(|_| !conditions.is_empty()) {
            service["status"]["conditions"][0]["reason"] = json!(reason);
        }
        if !self.co_owned.contains(&name) {
            service["metadata"]["finalizers"] =
                json!(body["metadata"]["finalizers"].as_array().cloned().unwrap_or_default());
        }
        service["metadata"]["managedFields"] = json!([owned(body)]);
        self.apply("services", service);
        whole(200, &self.objects[&name])
    }
}

/// What the applier of a status owns then. An empty status is owned too, as a whole without parts.
fn owned(body: &Value) -> Value {
    let mut fields = json!({ "f:status": {} });
    for part in body["status"].as_object().unwrap().keys() {
        fields["f:status"][format!("f:{part}")] = json!({});
    }
    if !body["metadata"]["finalizers"].is_null() {
        fields["f:metadata"] = json!({ "f:finalizers": { "v:\"headgate.dev/cleanup\"": {} } });
    }
    json!({ "manager": "headgate", "operation": "Apply", "subresource": "status",
        "fieldsType": "FieldsV1", "fieldsV1": fields })
}
