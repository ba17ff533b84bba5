//! What another terminal needs to know of a running demo.

use crate::admin::SOCKET_VARIABLE;
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
}

impl State {
    pub(super) fn of(world: &World) -> Result<Self> {
        let net = &world.net;
        let mut namespaces: BTreeMap<String, String> =
            net.backends.iter().map(|h| (h.name.clone(), h.namespace.name().into())).collect();
        for (word, namespace) in
            [("client", &net.client), ("gateway", &net.gateway), ("switch", &net.switch)]
        {
            namespaces.insert(word.into(), namespace.name().into());
        }
        let program = fs::canonicalize(crate::gateway::program()?)?;
        Ok(Self { program, socket: world.places.socket.clone(), namespaces })
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
    let namespace = state.namespaces.get(word).with_context(|| {
        let words: Vec<&str> = state.namespaces.keys().map(String::as_str).collect();
        format!("no namespace \"{word}\": there are {}", words.join(", "))
    })?;
    let error = enter_by_name(namespace).args(command).env(SOCKET_VARIABLE, &state.socket).exec();
    Err(error).context("cannot run nsenter")
}

/// Becomes `headgate ARGS`, asking the running demo's gateway.
pub fn headgate(args: &[String]) -> Result<()> {
    let state = State::read()?;
    let error = Command::new(&state.program).args(args).env(SOCKET_VARIABLE, &state.socket).exec();
    Err(error).with_context(|| format!("cannot run {}", state.program.display()))
}
