//! Writing Kubernetes manifests, as a person or a pipeline would: whole files, replaced at once.

use crate::net::Host;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A folder of manifests.
#[derive(Clone, Debug)]
pub struct Manifests {
    dir: PathBuf,
}

impl Manifests {
    /// The folder is made where it isn't there.
    pub fn in_folder(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir: dir.into() })
    }
    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Writes a file aside and renames it, so that no half of it is ever read.
    pub fn write(&self, file: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(file);
        let aside = self.dir.join(format!(".{file}.part"));
        fs::write(&aside, text).with_context(|| format!("cannot write {}", aside.display()))?;
        fs::rename(&aside, &path)?;
        Ok(path)
    }
    /// Writes a Service and its slices to `NAME.yaml`.
    pub fn apply(&self, service: &Service) -> Result<PathBuf> {
        self.write(&format!("{}.yaml", service.name), &service.yaml())
    }
    /// Removes `NAME.yaml`.
    pub fn delete(&self, name: &str) -> Result<()> {
        Ok(fs::remove_file(self.dir.join(format!("{name}.yaml")))?)
    }
}

/// A port of a Service; its endpoints listen on `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `name`.
    pub name: &'static str,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// `port`.
    pub port: u16,
    /// The port of the EndpointSlice.
    pub target: u16,
    /// `nodePort`.
    pub node_port: Option<u16>,
}

impl Port {
    /// A TCP port without a nodePort.
    pub const fn tcp(name: &'static str, port: u16, target: u16) -> Self {
        Self { name, protocol: "TCP", port, target, node_port: None }
    }
    /// A UDP port without a nodePort.
    pub const fn udp(name: &'static str, port: u16, target: u16) -> Self {
        Self { name, protocol: "UDP", port, target, node_port: None }
    }
}

/// An endpoint with its conditions, in both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the pod.
    pub name: String,
    /// IPv4, IPv6.
    pub addresses: [IpAddr; 2],
    /// The node that it is behind.
    pub node: Option<&'static str>,
    /// Takes new connections.
    pub ready: bool,
    /// Could still serve.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
}

impl Endpoint {
    /// A ready one.
    pub fn of(host: &Host) -> Self {
        Self {
            name: host.name.clone(),
            addresses: host.addresses,
            node: host.node,
            ready: true,
            serving: true,
            terminating: false,
        }
    }
}

/// A Service with its slices, one for each family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `metadata.name`; the namespace is `default`.
    pub name: String,
    /// `spec.type`.
    pub kind: &'static str,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// `spec.loadBalancerIP`.
    pub requested: Option<IpAddr>,
    /// `spec.externalIPs`.
    pub external: Vec<String>,
    /// `spec.ipFamilies`: IPv4, or both.
    pub dual_stack: bool,
    /// What its slices list.
    pub endpoints: Vec<Endpoint>,
}

impl Service {
    /// A dual-stack Service whose endpoints are `hosts`, all ready.
    pub fn new(name: &str, kind: &'static str, ports: Vec<Port>, hosts: &[Host]) -> Self {
        Self {
            name: name.into(),
            kind,
            ports,
            requested: None,
            external: Vec::new(),
            dual_stack: true,
            endpoints: hosts.iter().map(Endpoint::of).collect(),
        }
    }
    /// The endpoint of this name, to change its conditions.
    pub fn endpoint(&mut self, name: &str) -> Result<&mut Endpoint> {
        let found = self.endpoints.iter_mut().find(|endpoint| endpoint.name == name);
        found.with_context(|| format!("{} has no endpoint {name}", self.name))
    }
    /// The manifest: a Service and its EndpointSlices.
    pub fn yaml(&self) -> String {
        let mut out = self.service_yaml();
        for family in 0..if self.dual_stack { 2 } else { 1 } {
            out.push_str(&self.slice_yaml(family));
        }
        out
    }
    fn service_yaml(&self) -> String {
        let Self { name, kind, .. } = self;
        let (families, policy) = if self.dual_stack {
            ("[IPv4, IPv6]", "RequireDualStack")
        } else {
            ("[IPv4]", "SingleStack")
        };
        let mut out = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\n\
             spec:\n  type: {kind}\n  ipFamilies: {families}\n  ipFamilyPolicy: {policy}\n"
        );
        if let Some(address) = self.requested {
            out.push_str(&format!("  loadBalancerIP: {address}\n"));
        }
        if !self.external.is_empty() {
            out.push_str(&format!("  externalIPs: {:?}\n", self.external));
        }
        out.push_str("  ports:\n");
        for port in &self.ports {
            let Port { name, protocol, port, target, node_port } = port;
            let _ = write!(
                out,
                "  - name: {name}\n    protocol: {protocol}\n    port: {port}\n    \
                 targetPort: {target}\n"
            );
            if let Some(number) = node_port {
                let _ = writeln!(out, "    nodePort: {number}");
            }
        }
        out
    }
    fn slice_yaml(&self, family: usize) -> String {
        let Self { name, .. } = self;
        let number = [4, 6][family];
        let mut out = format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
             name: {name}-ipv{number}\n  namespace: default\n  labels:\n    \
             kubernetes.io/service-name: {name}\naddressType: IPv{number}\nports:\n"
        );
        for Port { name, protocol, target, .. } in &self.ports {
            let _ = writeln!(out, "- {{name: {name}, protocol: {protocol}, port: {target}}}");
        }
        out.push_str(if self.endpoints.is_empty() { "endpoints: []\n" } else { "endpoints:\n" });
        for endpoint in &self.endpoints {
            let Endpoint { name, addresses, node, ready, serving, terminating } = endpoint;
            let _ = write!(
                out,
                "- addresses: [\"{}\"]\n  conditions: {{ready: {ready}, serving: {serving}, \
                 terminating: {terminating}}}\n  \
                 targetRef: {{kind: Pod, namespace: default, name: {name}}}\n",
                addresses[family]
            );
            if let Some(node) = node {
                let _ = writeln!(out, "  nodeName: {node}");
            }
        }
        out
    }
}
