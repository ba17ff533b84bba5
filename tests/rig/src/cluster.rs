//! A real Kubernetes cluster beside the gateway: API servers, etcd, controllers, kube-proxy and
//! kubectl are Kubernetes' own; nodes and pods are network namespaces with real processes.
//!
//! ```text
//!   control (API server, etcd)                               pods of node-1
//!      |  mgmt0, a bridge: 198.18.254.0/24                        | | |
//!      +-------------+-----------+-----------+                node-1 (kube-proxy)
//!   managers      gateway     node-1      node-2                  | eth0: 198.18.1.151
//!   (controllers, kubelets)                            gateway's back port --- br0 of switch
//! ```
//!
//! Controllers, kubelets and kube-proxy reach the API server at an address that can be moved to
//! another one ([`Cluster::move_shared_address`]).
//!
//! The program behind all roles is `tests/cluster`; its README says what bites.

mod access;
mod audit;
mod forward;
mod network;
pub mod plan;
mod processes;
mod program;

pub use access::{Credentials, Via};
pub use audit::{AuditEntry, AuditMark, AuditObject, AuditUser};
pub use program::{VERSION, build};

use crate::instance::Instance;
use crate::namespace::Namespace;
use crate::process::Process;
use anyhow::Result;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time that the pods' processes get to end with their kubelets.
const KUBELETS_PATIENCE: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// First and last port that NodePorts are taken from. Large tests need `(10_000, 65_535)`.
    pub node_ports: (u16, u16),
    /// How long a node's kubelet may be silent before the node is Unknown.
    pub node_grace: Duration,
    /// More flags for each API server.
    pub api_server_flags: Vec<String>,
    /// Only etcd and an API server: no controllers, no kubelets. For objects that tests write.
    pub api_only: bool,
}

impl ClusterOptions {
    /// How often a node tells that it lives, and is looked at.
    fn heartbeat(&self) -> Duration {
        (self.node_grace / 5).min(Duration::from_secs(2))
    }
}

/// What a node is to be like.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its name; `node-1` and so on unless given.
    pub name: Option<String>,
    /// Its labels, as `topology.kubernetes.io/zone`.
    pub labels: BTreeMap<String, String>,
    /// Whether kube-proxy runs there.
    pub kube_proxy: bool,
    /// Where its default routes lead: the gateway's addresses at the back.
    pub router: [IpAddr; 2],
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { name: None, labels: BTreeMap::new(), kube_proxy: true, router: crate::plan::back(1) }
    }
}

impl NodeOptions {
    /// A node in this zone.
    pub fn in_zone(zone: &str) -> Self {
        let labels = [("topology.kubernetes.io/zone".to_owned(), zone.to_owned())].into();
        Self { labels, ..Self::default() }
    }
}

/// A node of the cluster.
pub struct Node {
    /// Of the Node object.
    pub name: String,
    /// Where kube-proxy runs, and what its pods are plugged into.
    pub namespace: Namespace,
    /// Its InternalIPs.
    pub addresses: [IpAddr; 2],
    /// Where its pods' addresses come from.
    pub pod_cidrs: [String; 2],
    labels: BTreeMap<String, String>,
    proxy: Option<Process>,
}

/// A running cluster. Dropped means gone, with all of its pods.
pub struct Cluster {
    /// The namespace of the first API server and of etcd.
    pub control: Namespace,
    /// From the start of etcd until the cluster could be used.
    pub ready_after: Duration,
    managers: Namespace,
    kubelets: Option<Process>,
    controllers: Option<Process>,
    nodes: Vec<Node>,
    servers: Vec<processes::ApiServer>,
    etcd: Option<Process>,
    attached: Vec<network::Attached>,
    options: ClusterOptions,
    program: program::Program,
    dir: PathBuf,
    instance: Instance,
}

impl Cluster {
    /// Builds the program where needed, and starts the control plane: the API server is ready and
    /// the namespace `default` can be used when this returns.
    pub fn start(instance: &Instance, options: &ClusterOptions) -> Result<Self> {
        let program = program::Program::build()?;
        let dir = instance.dir().join("cluster");
        for folder in ["nodes", "pods"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let control = network::control(instance)?;
        let managers = Namespace::create(instance, "managers")?;
        let addresses = plan::management(plan::CONTROL);
        let mut cluster = Self {
            servers: vec![processes::ApiServer::new(&dir, 1, control.clone(), addresses)?],
            control,
            ready_after: Duration::ZERO,
            managers: managers.clone(),
            kubelets: None,
            controllers: None,
            nodes: Vec::new(),
            etcd: None,
            attached: Vec::new(),
            options: options.clone(),
            program,
            dir,
            instance: instance.clone(),
        };
        cluster.attach(&managers)?;
        cluster.pki(&[
            "ca",
            "accounts",
            &format!("server apiserver-1 --names {}", processes::names_of_servers(&addresses)),
            "user admin --groups system:masters",
            "user kubelets --groups system:masters",
            "user controllers --user system:kube-controller-manager",
            "user kube-proxy --user system:kube-proxy",
        ])?;
        let begun = Instant::now();
        cluster.start_etcd()?;
        cluster.start_api_server(0)?;
        cluster.move_shared_address(0)?;
        if !options.api_only {
            cluster.start_controllers()?;
            cluster.start_kubelets()?;
            cluster.kubectl("wait --for=create sa/default --timeout=60s")?;
        }
        cluster.ready_after = begun.elapsed();
        Ok(cluster)
    }
    fn start_kubelets(&mut self) -> Result<()> {
        let kubeconfig = self.kubeconfig_with("kubelets", &self.user("kubelets"), Via::Shared)?;
        let role = self.program.role("kubelets", None);
        let mut command = program::in_namespace(&self.managers, &role);
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        command
            .arg(flag("kubeconfig", &kubeconfig))
            .arg(flag("nodes", &self.dir.join("nodes")))
            .arg(flag("pods", &self.dir.join("pods")))
            .arg(flag("record", &self.instance.record_file()))
            .arg(format!("--tag={}", self.instance.tag()))
            .arg(format!("--heartbeat={}ms", self.options.heartbeat().as_millis()));
        let log = self.instance.logs().join("kubelets.log");
        self.kubelets = Some(Process::start(&self.instance, "kubelets", command, &log)?);
        Ok(())
    }
    /// A pod's folder, where its processes are and what they find as `$POD_DIR`. A container's log
    /// and nginx's access log are in a folder of the container's name in it.
    pub fn pod_dir(&self, namespace: &str, name: &str) -> PathBuf {
        self.dir.join("pods").join(format!("{namespace}.{name}"))
    }
    /// The network namespace of a pod.
    pub fn pod_namespace(&self, namespace: &str, name: &str) -> Result<Namespace> {
        let role = if namespace == "default" { name.into() } else { format!("{namespace}.{name}") };
        Namespace::existing(&self.instance, &role)
    }
    /// A place in the audit logs: now.
    pub fn audit_mark(&self) -> AuditMark {
        let length = |log: &PathBuf| fs::metadata(log).map_or(0, |data| data.len());
        AuditMark(self.audit_logs().iter().map(length).collect())
    }
    /// All that the API servers have answered since the mark (`AuditMark::default()` is the
    /// beginning), in the order in which it came.
    pub fn audit(&self, since: &AuditMark) -> Result<Vec<AuditEntry>> {
        audit::read(&self.audit_logs(), since)
    }
    fn audit_logs(&self) -> Vec<PathBuf> {
        self.servers.iter().map(|server| server.audit.clone()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut kubelets) = self.kubelets.take() {
            // They take their pods with them. What they can't is recorded with the instance.
            let _ = kubelets.stop(Signal::SIGTERM, KUBELETS_PATIENCE);
        }
    }
}
