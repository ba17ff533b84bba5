//! From documents to objects: which kind, typed, defaulted, valid.

use super::Options;
use super::documents::{Document, guess};
use super::mirror;
use super::service;
use super::tree::{self, Node, Value};
use super::typed::typed;
use super::unit::UnitId;
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node as KubernetesNode, Pod, PodStatus, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::answers::{Event, Severity};
use model::desired::ObjectName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use translate::{Object, Place};

/// A manifest or a part of it that can't be used.
pub(super) const INVALID: &str = "ManifestInvalid";
/// A kind of which nothing is made.
pub(super) const IGNORED: &str = "KindIgnored";

/// A field that the API server doesn't know.
pub(super) const UNKNOWN_FIELD: &str = "UnknownField";

/// The kind whose objects selectors find.
pub(super) const POD: &str = "Pod";

/// The label of every Namespace that holds its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Lists within lists.
const LIST_DEPTH_MAX: u32 = 4;

/// One thing in a manifest, and the objects that come of it: one, or the slices of an
/// `Endpoints`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unit {
    pub(super) id: UnitId,
    pub(super) place: Place,
    pub(super) objects: Vec<Arc<Object>>,
    /// A Pod is for the selectors of Services.
    pub(super) pod: Option<Arc<Pod>>,
}

/// Something to tell an operator, as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) severity: Severity,
    pub(super) reason: &'static str,
    /// The object that it is about; kind and name may be empty.
    pub(super) about: UnitId,
    pub(super) place: Place,
    pub(super) message: String,
}

impl Note {
    pub(super) fn event(&self) -> Event {
        let Place { file, line } = &self.place;
        Event {
            time_s: 0,
            severity: self.severity,
            reason: self.reason.to_owned(),
            kind: self.about.kind.to_string(),
            object: self.about.name.clone(),
            uid: String::new(),
            place: if *line == 0 { file.to_string() } else { self.place.to_string() },
            message: self.message.clone(),
        }
    }

    /// What makes it the same note to a reader, wherever its line has moved.
    pub(super) fn identity(&self) -> (&'static str, &UnitId, &str, &str) {
        (self.reason, &self.about, &self.place.file, &self.message)
    }
}

/// Nobody in particular.
pub(super) fn nobody() -> UnitId {
    UnitId { kind: "".into(), name: ObjectName::new("", "") }
}

/// What one thing in a document turned out to be.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Unit(Unit),
    /// It can't be used, and its id where that is known.
    Broken(Option<UnitId>, Note),
    Note(Note),
}

/// Where a document stands.
struct Context<'a> {
    file: &'a str,
    /// Added to a line within the document.
    offset: u32,
    options: &'a Options,
}

impl Context<'_> {
    /// The place of a line of the document, which is 0 where unknown.
    fn place(&self, line: u32) -> Place {
        Place::new(self.file, line.max(1).saturating_add(self.offset))
    }

    fn broken(&self, id: Option<UnitId>, line: u32, message: String) -> Found {
        let place = self.place(line);
        let about = id.clone().unwrap_or_else(nobody);
        let note = Note { severity: Severity::Warning, reason: INVALID, about, place, message };
        Found::Broken(id, note)
    }

    fn ignored(&self, about: UnitId, line: u32, message: String) -> Found {
        let place = self.place(line);
        Found::Note(Note { severity: Severity::Normal, reason: IGNORED, about, place, message })
    }
}

/// Reads one document of a file. `repeated` grows by the nodes that aliases made.
pub(super) fn read(
    file: &str,
    document: Document<'_>,
    options: &Options,
    repeated: &mut usize,
) -> Vec<Found> {
    let context = Context { file, offset: document.line.saturating_sub(1), options };
    let text = match std::str::from_utf8(document.text) {
        Ok(text) => text,
        Err(error) => {
            let before = document.text.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let id = guess(&String::from_utf8_lossy(document.text));
            let line = u32::try_from(line).unwrap_or(0);
            return vec![context.broken(id, line, "not UTF-8 text".to_owned())];
        }
    };
    let mut found = Vec::new();
    match tree::parse(text) {
        Ok(nodes) => {
            let count: usize = nodes.iter().map(Node::count).sum();
            *repeated += count.saturating_sub(text.len());
            for node in &nodes {
                context.object(node, None, 0, &mut found);
            }
        }
        Err(error) => {
            if text.contains('&') && text.contains('*') {
                *repeated += tree::ALIAS_EVENTS_MAX;
            }
            let message = format!("can't be parsed: {}", error.message);
            found.push(context.broken(guess(text), error.line, message));
        }
    }
    found
}

/// The words that name an object, as far as they are there.
struct Head<'a> {
    api_version: &'a str,
    kind: &'a str,
    id: UnitId,
}

impl Context<'_> {
    /// Reads an object, or the objects of a list. `implied` is the kind and version of the
    /// elements of a typed list, which need not say theirs.
    fn object(
        &self,
        node: &Node,
        implied: Option<(&str, &str)>,
        depth: u32,
        found: &mut Vec<Found>,
    ) {
        if !matches!(node.value, Value::Map(_)) {
            let message = "not an object: expected apiVersion, kind and metadata".to_owned();
            found.push(self.broken(None, node.line, message));
            return;
        }
        let Some(kind) = node.text("kind").or(implied.map(|(kind, _)| kind)) else {
            let id = None;
            found.push(self.broken(id, node.line, "it has no kind".to_owned()));
            return;
        };
        let Some(api_version) = node.text("apiVersion").or(implied.map(|(_, version)| version))
        else {
            let message = format!("{kind} has no apiVersion");
            found.push(self.broken(head_id(node, kind), node.line, message));
            return;
        };
        if kind.ends_with("List") && (kind == "List" || node.get("items").is_some()) {
            self.list(node, kind, api_version, depth, found);
            return;
        }
        let Some(id) = head_id(node, kind) else {
            let message = format!("{kind} has no metadata.name");
            found.push(self.broken(None, node.line, message));
            return;
        };
        self.known(node, &Head { api_version, kind, id }, found);
    }

    fn list(&self, node: &Node, kind: &str, api_version: &str, depth: u32, found: &mut Vec<Found>) {
        if depth >= LIST_DEPTH_MAX {
            let message = format!("lists within lists, more than {LIST_DEPTH_MAX} deep");
            found.push(self.broken(None, node.line, message));
            return;
        }
        let items = node.get("items");
        let Some(elements) = items
            .map_or(Some(&[][..]), |items| if items.is_null() { Some(&[]) } else { items.list() })
        else {
            let line = node.line_of("items");
            found.push(self.broken(None, line, format!("items of {kind} is no list")));
            return;
        };
        let element = kind.strip_suffix("List").filter(|element| !element.is_empty());
        for item in elements {
            self.object(item, element.map(|kind| (kind, api_version)), depth + 1, found);
        }
    }

    fn known(&self, node: &Node, head: &Head<'_>, found: &mut Vec<Found>) {
        let expected = match head.kind {
            "Service" | "Node" | "Namespace" | "Endpoints" | POD => "v1",
            "EndpointSlice" => "discovery.k8s.io/v1",
            "ServiceCIDR" => "networking.k8s.io/v1",
            _ => return found.push(self.ignored(head.id.clone(), node.line, why_ignored(head))),
        };
        if head.api_version != expected {
            let line = node.line_of("apiVersion");
            let message = format!("apiVersion \"{}\" is not {expected}", head.api_version);
            return found.push(if group(head.api_version) == group(expected) {
                self.broken(Some(head.id.clone()), line, message)
            } else {
                self.ignored(head.id.clone(), line, why_ignored(head))
            });
        }
        match self.unit(node, head, found) {
            Ok(unit) => found.push(Found::Unit(unit)),
            Err((line, message)) => {
                found.push(self.broken(Some(head.id.clone()), line, message));
            }
        }
    }

    fn unit(
        &self,
        node: &Node,
        head: &Head<'_>,
        found: &mut Vec<Found>,
    ) -> Result<Unit, (u32, String)> {
        let place = self.place(node.line);
        check_name(&head.id, node)?;
        let mut pod = None;
        let objects = match head.kind {
            POD => {
                let mut object: Pod = self.typed(node, head, found)?;
                place_metadata(&mut object.metadata, head);
                found.extend(self.without_address(&object, head, node.line));
                pod = Some(Arc::new(object));
                Vec::new()
            }
            "Service" => {
                let mut object: Service = self.typed(node, head, found)?;
                place_metadata(&mut object.metadata, head);
                service::complete(&mut object);
                service::check(&object, node, self.options)?;
                vec![Object::Service(Box::new(object), place.clone())]
            }
            "EndpointSlice" => {
                let mut object: EndpointSlice = self.typed(node, head, found)?;
                place_metadata(&mut object.metadata, head);
                vec![slice(object, &place)]
            }
            "Node" => {
                let mut object: KubernetesNode = self.typed(node, head, found)?;
                place_metadata(&mut object.metadata, head);
                vec![Object::Node(Box::new(object), place.clone())]
            }
            "Namespace" => {
                let mut object: Namespace = self.typed(node, head, found)?;
                place_metadata(&mut object.metadata, head);
                // As the API server labels every one of them.
                let labels = object.metadata.labels.get_or_insert_default();
                labels.insert(NAME_LABEL.to_owned(), head.id.name.name.to_string());
                vec![Object::Namespace(Box::new(object), place.clone())]
            }
            "ServiceCIDR" => {
                let mut object: ServiceCIDR = self.typed(node, head, found)?;
                place_metadata(&mut object.metadata, head);
                vec![Object::ServiceCidr(Box::new(object), place.clone())]
            }
            _ => {
                let mut object: Endpoints = self.typed(node, head, found)?;
                place_metadata(&mut object.metadata, head);
                mirror::slices(&object).into_iter().map(|one| slice(one, &place)).collect()
            }
        };
        let objects = objects.into_iter().map(Arc::new).collect();
        Ok(Unit { id: head.id.clone(), place, objects, pod })
    }

    /// What is to be said of a Pod that can't be anybody's endpoint: a manifest that would be run
    /// elsewhere.
    fn without_address(&self, pod: &Pod, head: &Head<'_>, line: u32) -> Option<Found> {
        let status = pod.status.as_ref();
        let has = |status: &PodStatus| {
            status.pod_ip.is_some() || status.pod_ips.iter().any(|all| !all.is_empty())
        };
        if status.is_some_and(has) {
            return None;
        }
        let message = "Pod is ignored: nothing runs pods here, and it has no status.podIP of a pod \
                       that runs elsewhere";
        Some(self.ignored(head.id.clone(), line, message.to_owned()))
    }

    /// Reads an object, and says so where it has a field that its type hasn't: in most cases a
    /// slip of the pen. `kubectl` refuses those, the API server itself only warns.
    fn typed<T: DeserializeOwned + Serialize>(
        &self,
        node: &Node,
        head: &Head<'_>,
        found: &mut Vec<Found>,
    ) -> Result<T, (u32, String)> {
        let object: T = typed(node).map_err(|error| (error.line, error.to_string()))?;
        if let Ok(known) = serde_json::to_value(&object)
            && let Some((path, line)) = unknown_field(node, &known, 0)
        {
            let note = Note {
                severity: Severity::Warning,
                reason: UNKNOWN_FIELD,
                about: head.id.clone(),
                place: self.place(line),
                message: format!("{path}: {} has no such field; it is ignored", head.kind),
            };
            found.push(Found::Note(note));
        }
        Ok(object)
    }
}

/// The first field with content that the typed object doesn't have.
fn unknown_field(node: &Node, known: &serde_json::Value, depth: u32) -> Option<(String, u32)> {
    match (&node.value, known) {
        (Value::Map(members), serde_json::Value::Object(fields)) => {
            members.iter().find_map(|(key, member)| match fields.get(&**key) {
                // What the API server keeps for itself has a form of its own.
                _ if depth == 1 && **key == *"managedFields" => None,
                None if depth == 0 && matches!(&**key, "apiVersion" | "kind") => None,
                None if member.is_empty() => None,
                None => Some((key.chars().take(80).collect(), member.line)),
                Some(field) => unknown_field(member, field, depth + 1)
                    .map(|(path, line)| (format!("{key}.{path}"), line)),
            })
        }
        (Value::List(nodes), serde_json::Value::Array(fields)) => {
            let mut pairs = nodes.iter().zip(fields).enumerate();
            pairs.find_map(|(place, (node, field))| {
                unknown_field(node, field, depth + 1)
                    .map(|(path, line)| (format!("{place}.{path}"), line))
            })
        }
        _ => None,
    }
}

/// The group of an apiVersion; that of `v1` is empty.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

fn head_id(node: &Node, kind: &str) -> Option<UnitId> {
    let metadata = node.get("metadata")?;
    let name = metadata.text("name").filter(|name| !name.is_empty())?;
    Some(UnitId::new(kind, metadata.text("namespace"), name))
}

fn slice(mut object: EndpointSlice, place: &Place) -> Object {
    for port in object.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
        port.name.get_or_insert_with(String::new);
    }
    Object::EndpointSlice(Box::new(object), place.clone())
}

fn place_metadata(metadata: &mut ObjectMeta, head: &Head<'_>) {
    let namespace = &*head.id.name.namespace;
    metadata.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    metadata.managed_fields = None;
}

/// Names as RFC 1123 has them; those of Services and namespaces are single labels.
fn check_name(id: &UnitId, node: &Node) -> Result<(), (u32, String)> {
    let name = &*id.name.name;
    let namespace = &*id.name.namespace;
    let good = match &*id.kind {
        "Service" => service::is_label(name),
        _ => name.len() <= 253 && name.split('.').all(service::is_label),
    };
    if !good {
        let shown: String = name.chars().take(80).collect();
        let message = format!(
            "metadata.name \"{shown}\": expected lower-case letters, digits and '-', beginning \
             and ending with a letter or digit"
        );
        return Err((node.line_of("metadata.name"), message));
    }
    if !namespace.is_empty() && !service::is_label(namespace) {
        let shown: String = namespace.chars().take(80).collect();
        let message = format!("metadata.namespace \"{shown}\" is no name of a namespace");
        return Err((node.line_of("metadata.namespace"), message));
    }
    Ok(())
}

fn why_ignored(head: &Head<'_>) -> String {
    let Head { kind, api_version, .. } = head;
    match *kind {
        "Deployment"
        | "ReplicaSet"
        | "StatefulSet"
        | "DaemonSet"
        | "Job"
        | "CronJob"
        | "ReplicationController" => format!(
            "{kind} is ignored: nothing runs pods here; give the Pods that run elsewhere with \
             their status.podIP, or an EndpointSlice with their addresses"
        ),
        "Ingress" | "IngressClass" | "Gateway" | "HTTPRoute" => {
            format!("{kind} is not forwarded yet; Services are")
        }
        _ => format!("{kind} ({api_version}) is ignored: nothing is made of this kind"),
    }
}
