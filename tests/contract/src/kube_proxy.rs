//! The real kube-proxy, in a process of its own.

use crate::probe::Answer;
use model::drops::DropReason;
use model::ids::Protocol;
use rig::command::{lines_of, wait_until};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// One step: what it is told, then what it is asked. `oracle.go` describes the fields.
#[derive(Debug, Default, Serialize)]
pub struct Step {
    /// Labels of the node; unset leaves them as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<BTreeMap<String, String>>,
    /// Objects that are new or differ.
    pub apply: Vec<Value>,
    /// Objects that have gone.
    pub delete: Vec<Reference>,
    /// Packets to ask about.
    pub ask: Vec<Packet>,
}

/// What names an object.
#[derive(Clone, Debug, Serialize)]
pub struct Reference {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The first packet of a connection.
#[derive(Clone, Debug, Serialize)]
pub struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: &'static str,
    port: u16,
    inside: bool,
}

impl Packet {
    /// The packet of a client outside the cluster, or, with `inside`, of the node itself.
    pub const fn new(
        protocol: Protocol,
        source: IpAddr,
        destination: SocketAddr,
        inside: bool,
    ) -> Self {
        let name = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let port = destination.port();
        Self { source, destination: destination.ip(), protocol: name, port, inside }
    }
}

#[derive(Debug, Deserialize)]
struct Told {
    answers: Option<Vec<ToldAnswer>>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ToldAnswer {
    verdict: String,
    #[serde(default)]
    backends: Vec<SocketAddr>,
    #[serde(default)]
    affinity_s: u32,
}

/// What kube-proxy does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Where it goes.
    pub answer: Answer,
    /// How long the client stays with its backend; 0 without affinity.
    pub affinity_s: u32,
}

/// Time that a step gets, and far more than any needs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A kube-proxy of one node.
#[derive(Debug)]
pub struct KubeProxy {
    process: Child,
    to: Option<ChildStdin>,
    from: Receiver<String>,
}

impl KubeProxy {
    /// Starts it as the node of that name.
    pub fn start(program: &Path, node: &str, addresses: [&str; 2]) -> Self {
        let mut process = Command::new(program)
            .arg("oracle")
            .arg(format!("--node={node}"))
            .arg(format!("--ips={},{}", addresses[0], addresses[1]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let to = process.stdin.take();
        let from = lines_of(process.stdout.take().unwrap());
        Self { process, to, from }
    }

    /// Begins a step; [`Self::answers`] waits for its end.
    pub fn send(&mut self, step: &Step) {
        let mut line = serde_json::to_vec(step).unwrap();
        line.push(b'\n');
        self.to.as_mut().unwrap().write_all(&line).unwrap();
    }

    /// What it said to the questions of the step that was sent.
    pub fn answers(&mut self) -> Vec<Said> {
        let line = self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => panic!("the oracle says nothing for {PATIENCE:?}"),
            RecvTimeoutError::Disconnected => {
                panic!("the oracle has ended; see what it wrote above")
            }
        });
        let told: Told = serde_json::from_str(&line).unwrap();
        if let Some(error) = told.error {
            panic!("kube-proxy: {error}");
        }
        told.answers.unwrap_or_default().into_iter().map(said).collect()
    }
}

impl Drop for KubeProxy {
    /// Its standard input ends, and with it the process and its namespace.
    fn drop(&mut self) {
        self.to = None;
        drop(wait_until(&mut self.process, Instant::now() + PATIENCE));
    }
}

fn said(told: ToldAnswer) -> Said {
    let answer = match told.verdict.as_str() {
        "backends" => Answer::Backends(told.backends.into_iter().collect()),
        "reject" => Answer::Reject,
        // kube-proxy has no names for its drops.
        "drop" => Answer::Drop(DropReason::NoBackend),
        "none" => Answer::NotOurs,
        other => panic!("a verdict of unknown kind: {other}"),
    };
    Said { answer, affinity_s: told.affinity_s }
}
