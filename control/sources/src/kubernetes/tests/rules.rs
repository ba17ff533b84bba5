//! What is asked of an API server, and what `control/deploy` allows.

use http::{Method, Uri};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub verb: &'static str,
    pub group: String,
    /// With its subresource, as `services/status`.
    pub resource: String,
    pub namespace: String,
    pub object: String,
    pub query: String,
    pub body: Value,
}

impl Asked {
    pub(super) fn of(method: &Method, uri: &Uri, body: Value) -> Self {
        let mut words: Vec<_> = uri.path().split('/').skip(1).collect();
        let group = match words.remove(0) {
            "apis" => words.remove(0),
            _ => "",
        };
        words.remove(0);
        let mut namespace = "";
        if words[0] == "namespaces" && words.len() > 2 {
            namespace = words[1];
            words.drain(..2);
        }
        let object = words.get(1).copied().unwrap_or_default();
        let resource = match words.get(2) {
            Some(part) => format!("{}/{part}", words[0]),
            None => words[0].to_owned(),
        };
        let query = uri.query().unwrap_or_default().to_owned();
        let verb = match method.as_str() {
            "GET" if query.contains("watch=true") => "watch",
            "GET" if object.is_empty() => "list",
            "GET" => "get",
            "PATCH" => "patch",
            "POST" => "create",
            "PUT" => "update",
            other => panic!("nobody sends {other}"),
        };
        let [group, namespace, object] = [group, namespace, object].map(str::to_owned);
        Self { verb, group, resource, namespace, object, query, body }
    }

    /// What a review asks for, as it would be asked.
    pub(super) fn reviewed(attributes: &Value) -> Self {
        let text = |name: &str| attributes[name].as_str().unwrap_or_default().to_owned();
        let verbs = ["list", "watch", "get", "patch", "create", "update"];
        let verb = verbs.into_iter().find(|verb| *verb == text("verb")).unwrap();
        let resource = match text("subresource") {
            part if part.is_empty() => text("resource"),
            part => format!("{}/{part}", text("resource")),
        };
        let (group, namespace, object) = (text("group"), text("namespace"), text("name"));
        let (query, body) = (String::new(), Value::Null);
        Self { verb, group, resource, namespace, object, query, body }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(is, _)| *is == name).map(|(_, value)| value.to_owned())
    }

    pub(super) fn name(&self) -> super::fake::Name {
        (self.resource.clone(), self.namespace.clone(), self.object.clone())
    }

    /// As a rule would grant it.
    pub(super) fn grant(&self) -> Grant {
        (self.group.clone(), self.resource.clone(), self.verb.to_owned())
    }
}

/// Group, resource and verb.
pub(super) type Grant = (String, String, String);

/// What may be asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules(Vec<Value>);

impl Rules {
    /// Those of these files of `control/deploy`.
    pub(super) fn of(files: &[&str]) -> Self {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let mut rules = Vec::new();
        for file in files {
            for document in documents(&deploy.join(file)) {
                rules.extend(document["rules"].as_array().cloned().unwrap_or_default());
            }
        }
        Self(rules)
    }

    /// These without one verb of one resource.
    pub(super) fn without(mut self, resource: &str, verb: &str) -> Self {
        for rule in &mut self.0 {
            let resources = rule["resources"].as_array().unwrap();
            if resources.iter().any(|one| one == resource) {
                rule["verbs"].as_array_mut().unwrap().retain(|one| one != verb);
            }
        }
        self
    }

    pub(super) fn allow(&self, asked: &Asked) -> bool {
        let has = |list: &Value, wanted: &str| {
            list.as_array().is_some_and(|list| list.iter().any(|one| one == wanted))
        };
        self.0.iter().any(|rule| {
            has(&rule["apiGroups"], &asked.group)
                && has(&rule["resources"], &asked.resource)
                && has(&rule["verbs"], asked.verb)
                && (rule["resourceNames"].is_null() || has(&rule["resourceNames"], &asked.object))
        })
    }

    /// Everything that is granted.
    pub(super) fn grants(&self) -> BTreeSet<Grant> {
        let texts = |list: &Value| -> Vec<String> {
            let list = list.as_array().cloned().unwrap_or_default();
            list.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
        };
        let mut grants = BTreeSet::new();
        for rule in &self.0 {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        grants.insert((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
        grants
    }
}

/// The documents of a YAML file.
pub(super) fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let documents = text.split("\n---\n");
    documents.map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}
