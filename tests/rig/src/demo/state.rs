//! What another terminal needs to know of a running demo.

use crate::admin::SOCKET_VARIABLE;
use crate::cluster::Cluster;
use crate::namespace::enter_by_name;
use crate::world::World;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The demo's manifests, to be edited by a person; there only while it runs.
pub const FOLDER: &str = "/run/headgate-demo";

/// Beside the manifests, with an ending that no source of manifests reads.
const FILE: &str = "demo.state";

/// What another terminal needs to know of a running demo.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The binary.
    program: PathBuf,
    /// The admin socket.
    socket: PathBuf,
    /// Namespaces by the word for each: `client`, `gateway`, `switch`, `web-1`, ...
    namespaces: BTreeMap<String, String>,
    /// What stands at the end of every namespace's name.
    tag: String,
    /// kubectl and its kubeconfig, where there is a cluster.
    kubectl: Option<(PathBuf, PathBuf)>,
}

impl State {
    pub(super) fn of(world: &World, cluster: Option<&Cluster>) -> Result<Self> {
        let net = &world.net;
        let mut namespaces: BTreeMap<String, String> =
            net.backends.iter().map(|h| (h.name.clone(), h.namespace.name().into())).collect();
        for (word, namespace) in
            [("client", &net.client), ("gateway", &net.gateway), ("switch", &net.switch)]
        {
            namespaces.insert(word.into(), namespace.name().into());
        }
        for node in cluster.iter().flat_map(|cluster| cluster.nodes()) {
            namespaces.insert(node.name.clone(), node.namespace.name().into());
        }
        Ok(Self {
            program: fs::canonicalize(crate::gateway::program()?)?,
            socket: world.places.socket.clone(),
            namespaces,
            tag: net.instance.tag().to_owned(),
            kubectl: cluster
                .map(|cluster| {
                    Ok::<_, anyhow::Error>((cluster.kubectl_program()?, cluster.host_kubeconfig()?))
                })
                .transpose()?,
        })
    }
    pub(super) fn write(&self) -> Result<()> {
        Ok(fs::write(Path::new(FOLDER).join(FILE), serde_json::to_vec_pretty(self)?)?)
    }
    fn read() -> Result<Self> {
        let text = fs::read_to_string(Path::new(FOLDER).join(FILE))
            .context("no demo runs: start one with `./run demo` in another terminal")?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// Becomes `COMMAND` in a namespace of the running demo.
pub fn enter(word: &str, command: &[String]) -> Result<()> {
    let state = State::read()?;
    // Pods come and go: they are looked for now.
    let pod = format!("hg-{word}-{}", state.tag);
    let pod = Path::new("/run/netns").join(&pod).exists().then_some(pod);
    let namespace = state.namespaces.get(word).cloned().or(pod).with_context(|| {
        let words: Vec<&str> = state.namespaces.keys().map(String::as_str).collect();
        format!("no namespace \"{word}\": there are {}", words.join(", "))
    })?;
    let error = enter_by_name(&namespace).args(command).env(SOCKET_VARIABLE, &state.socket).exec();
    Err(error).context("cannot run nsenter")
}

/// Becomes `headgate ARGS`, asking the running demo's gateway.
pub fn headgate(args: &[String]) -> Result<()> {
    let state = State::read()?;
    let error = Command::new(&state.program).args(args).env(SOCKET_VARIABLE, &state.socket).exec();
    Err(error).with_context(|| format!("cannot run {}", state.program.display()))
}

/// Becomes `kubectl ARGS`, asking the running demo's cluster.
pub fn kubectl(args: &[String]) -> Result<()> {
    let (program, kubeconfig) = State::read()?
        .kubectl
        .context("the demo that runs has no cluster: start one with `./run demo kubernetes`")?;
    let error = Command::new(&program).args(args).env("KUBECONFIG", kubeconfig).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
