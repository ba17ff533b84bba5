//! UDP echo: a closed loop of datagrams, each from a port of its own, each answer checked.

use crate::namespace::Namespace;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Sends `rounds` datagrams on each of `flows` sockets and gives the flows by backend. A flow
/// whose datagrams are answered by two backends is an error, as is a missing answer.
pub fn echo(
    namespace: &Namespace,
    sources: &[IpAddr],
    target: SocketAddr,
    flows: usize,
    rounds: usize,
) -> Result<BTreeMap<String, u64>> {
    namespace.within(|| {
        let mut by_backend = BTreeMap::new();
        for flow in 0..flows {
            let source = *sources.get(flow % sources.len().max(1)).context("no source address")?;
            let name = one_flow(source, target, flow, rounds)
                .with_context(|| format!("UDP flow {flow} from {source} to {target}"))?;
            *by_backend.entry(name).or_default() += 1;
        }
        Ok(by_backend)
    })?
}

fn one_flow(source: IpAddr, target: SocketAddr, flow: usize, rounds: usize) -> Result<String> {
    let socket = UdpSocket::bind((source, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    // Connected, so that an answer from any other address and port isn't taken.
    socket.connect(target)?;
    let mut name = String::new();
    for round in 0..rounds {
        let text = format!("flow {flow} round {round} {}", "x".repeat(round % 1200));
        socket.send(text.as_bytes())?;
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).with_context(|| format!("round {round}"))?;
        let answer = std::str::from_utf8(&buffer[..length])?;
        let (backend, echo) = answer.split_once(' ').context("an answer without a name")?;
        if echo != text {
            bail!("sent {text:?}, got {echo:?}");
        }
        if round > 0 && name != backend {
            bail!("round {round} went to {backend}, the ones before to {name}");
        }
        backend.clone_into(&mut name);
    }
    Ok(name)
}
