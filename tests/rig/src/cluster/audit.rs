//! The audit log of the API servers: who asked for what, and what they were answered.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

/// What the API servers write down of every request: everything but the contents.
pub(super) const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n\
     omitStages: [RequestReceived]\nrules:\n- level: Metadata\n";

/// A request that an API server has answered (a watch has two entries: its start and its end).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// `ResponseStarted` (watches alone), `ResponseComplete` or `Panic`.
    pub stage: String,
    /// get, list, watch, create, update, patch, delete and so on.
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// Who asked.
    pub user: AuditUser,
    /// What the program called itself.
    #[serde(default)]
    pub user_agent: String,
    /// What it was about, if it was an object or kind of them.
    #[serde(rename = "objectRef", default)]
    pub object: AuditObject,
    #[serde(default)]
    response_status: AuditStatus,
    /// When it came, in RFC 3339 with microseconds.
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: String,
}

/// Who asked.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct AuditUser {
    /// `system:serviceaccount:NAMESPACE:NAME` or a certificate's common name.
    #[serde(default)]
    pub username: String,
}

/// An object or a kind of them; what doesn't apply is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuditObject {
    /// `services` and so on.
    pub resource: String,
    /// `status` and so on.
    pub subresource: String,
    /// Of the object.
    pub namespace: String,
    /// Of the object.
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct AuditStatus {
    code: u16,
    /// Of errors alone.
    message: String,
}

impl AuditEntry {
    /// The HTTP status that it was answered with; 0 where there was none.
    pub fn code(&self) -> u16 {
        self.response_status.code
    }
    /// Why it was refused, as whoever asked was told; empty where it wasn't.
    pub fn message(&self) -> &str {
        &self.response_status.message
    }
    /// An Event that wasn't taken because its namespace is going away: nobody's fault, and nothing
    /// that a rule could allow.
    pub fn is_event_too_late(&self) -> bool {
        self.code() == 403
            && self.object.resource == "events"
            && self.verb == "create"
            && self.message().contains("because it is being terminated")
    }
    /// Whether it asked for a change.
    pub fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection" | "apply"
        )
    }
}

/// A place in the audit logs: what comes after it is what happens from now on.
#[derive(Clone, Debug, Default)]
pub struct AuditMark(pub(super) Vec<u64>);

/// Entries of all logs after their offsets. A last line that isn't whole yet is left for later.
pub(super) fn read(logs: &[PathBuf], mark: &AuditMark) -> Result<Vec<AuditEntry>> {
    let mut entries = Vec::new();
    for (index, log) in logs.iter().enumerate() {
        let Ok(mut file) = File::open(log) else { continue };
        file.seek(SeekFrom::Start(mark.0.get(index).copied().unwrap_or(0)))?;
        for line in BufReader::new(file).lines() {
            let line = line?;
            match serde_json::from_str(&line) {
                Ok(entry) => entries.push(entry),
                Err(error) if error.is_eof() => break,
                Err(error) => return Err(error).with_context(|| format!("audit log: {line}")),
            }
        }
    }
    entries.sort_by(|a: &AuditEntry, b| a.received.cmp(&b.received));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn reads_entries_after_a_mark_and_leaves_half_a_line() {
        let path = std::env::temp_dir().join(format!("rig-audit-{}", std::process::id()));
        let entry = |name: &str, code: u16| {
            format!(
                "{{\"stage\":\"ResponseComplete\",\"verb\":\"patch\",\"requestURI\":\"/x\",\
                 \"user\":{{\"username\":\"u\"}},\"objectRef\":{{\"resource\":\"services\",\
                 \"subresource\":\"status\",\"name\":\"{name}\"}},\"responseStatus\":{{\"code\":{code}}},\
                 \"requestReceivedTimestamp\":\"2026-01-01T00:00:00.000000Z\"}}\n"
            )
        };
        let mut file = File::create(&path).unwrap();
        file.write_all(entry("one", 200).as_bytes()).unwrap();
        let mark = AuditMark(vec![file.metadata().unwrap().len()]);
        file.write_all((entry("two", 403) + &entry("three", 200)[..50]).as_bytes()).unwrap();
        let logs = [path.clone()];
        assert_eq!(read(&logs, &AuditMark::default()).unwrap().len(), 2);
        let after = read(&logs, &mark).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(after.len(), 1);
        assert_eq!((after[0].object.name.as_str(), after[0].code()), ("two", 403));
        assert!(after[0].is_write());
    }

    #[test]
    fn an_event_is_too_late_where_its_namespace_ends_and_nowhere_else() {
        let refused = |resource: &str, verb: &str, message: &str| -> AuditEntry {
            serde_json::from_value(serde_json::json!({
                "stage": "ResponseComplete", "verb": verb, "requestURI": "/x",
                "user": {"username": "u"}, "objectRef": {"resource": resource, "namespace": "shop"},
                "responseStatus": {"code": 403, "status": "Failure", "message": message},
                "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
            }))
            .unwrap()
        };
        let ending = "events \"web.1\" is forbidden: unable to create new content in namespace shop \
                      because it is being terminated";
        let rules = "events.events.k8s.io is forbidden: User \"u\" cannot create resource";
        assert!(refused("events", "create", ending).is_event_too_late());
        assert!(!refused("events", "create", rules).is_event_too_late());
        assert!(!refused("services", "patch", ending).is_event_too_late());
    }
}
