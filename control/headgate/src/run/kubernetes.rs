//! An API server as the source of the control loop.

use super::source::Source;
use crate::config;
use model::answers::{Event, Leadership, SourceState, WriteCounts};
use sources::Changes;
use sources::kubernetes::{
    Examined, KubeError, KubernetesSource, LeaseOptions, Options, SelectionKey, Writer, examine,
};
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;
use tokio::runtime::Handle;
use translate::Settings;
use translate::writes::StatusWrite;

/// How long the end may take: writing what is still to be written, and giving the Lease back.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// What the source is told.
pub fn options(
    config: &config::Kubernetes,
    settings: &Settings,
    selection: SelectionKey,
) -> Options {
    let mut options = Options::new(&config.identity);
    options.kubeconfig.clone_from(&config.kubeconfig);
    options.context.clone_from(&config.context);
    options.selection = selection;
    options.write = config.write;
    options.events = config.events;
    options.timing.hold = config.hold_back;
    options.namespaces_needed = settings.needs_namespaces();
    options.pools_hash = settings.pools_hash();
    // One that doesn't write leaves the Lease to those that do.
    let lease = config.lease.as_ref().filter(|_| config.write);
    options.lease = lease.map(|name| LeaseOptions {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        duration: config.lease_duration,
    });
    options
}

/// One look at the API server, before anything is started.
pub fn look(config: &config::Kubernetes, settings: &Settings) -> anyhow::Result<Examined> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(examine(&options(config, settings, SelectionKey::default())))?)
}

/// A watched API server.
pub struct Kubernetes {
    source: KubernetesSource,
    writer: Writer,
    /// As `namespace/name`; empty where there is none.
    lease: String,
    write: bool,
    runtime: Handle,
}

impl Kubernetes {
    /// Begins to watch. An API server that is away is waited for.
    pub fn start(
        config: &config::Kubernetes,
        settings: &Settings,
        selection: SelectionKey,
        runtime: &Handle,
    ) -> Result<Self, KubeError> {
        let options = options(config, settings, selection);
        let lease = options.lease.as_ref();
        let lease = lease.map(|lease| format!("{}/{}", lease.namespace, lease.name));
        let source = KubernetesSource::start(options, runtime)?;
        Ok(Self {
            writer: source.writer(),
            source,
            lease: lease.unwrap_or_default(),
            write: config.write,
            runtime: runtime.clone(),
        })
    }

    fn leadership(&self) -> Leadership {
        let leadership = self.source.leadership();
        let problem = if self.write {
            leadership.what
        } else {
            "it only follows what others write (kubernetes.write = false)".to_owned()
        };
        Leadership {
            ours: self.write && leadership.holder,
            lease: self.lease.clone(),
            holder: leadership.holder_identity,
            problem,
        }
    }
}

impl Source for Kubernetes {
    fn name(&self) -> String {
        format!("API server {}", self.source.health().server)
    }
    fn next(&mut self, wait: Duration) -> Option<Changes> {
        self.source.next(wait)
    }
    fn state(&self) -> SourceState {
        let health = self.source.health();
        let stale = health.stale_since.map_or(0, |since| since.elapsed().as_millis());
        SourceState {
            loaded: health.watches.iter().all(|watch| watch.listed),
            in_step: health.in_step,
            stale_ms: u64::try_from(stale).unwrap_or(u64::MAX),
            relists: health.relists(),
            problem: health.what,
            leadership: Some(self.leadership()),
        }
    }
    fn writes(&self) -> Option<u64> {
        self.source.term().filter(|_| self.write)
    }
    fn selection_key(&self) -> Option<u64> {
        self.source.selection_key()
    }
    fn another_writes(&self) -> bool {
        self.source.another_holds()
    }
    fn status(&self, write: StatusWrite) {
        self.writer.status(write);
    }
    fn event(&self, event: &Event) {
        self.writer.event(event.clone());
    }
    fn counts(&self) -> Option<WriteCounts> {
        let health = self.writer.health();
        Some(WriteCounts {
            statuses: health.statuses,
            conflicts: health.conflicts,
            failures: health.status_retries,
            events: health.events,
            event_failures: health.event_retries + health.events_dropped,
        })
    }
    fn servers(&self) -> Vec<IpAddr> {
        servers(&self.source.health().server)
    }
    fn stop(self: Box<Self>) {
        self.source.stop(&self.runtime, STOP_WITHIN);
    }
}

/// The addresses of an API server, as `https://192.0.2.1:6443`; none where its name can't be
/// resolved now.
fn servers(url: &str) -> Vec<IpAddr> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(443)),
        _ => (authority, 443),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match (host, port).to_socket_addrs() {
        Ok(found) => found.map(|one: std::net::SocketAddr| one.ip()).collect(),
        Err(error) => {
            tracing::warn!("the API server's name {host} can't be resolved: {error}");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_addresses_are_found_in_its_url() {
        for (url, expected) in [
            ("https://192.0.2.1:6443", "192.0.2.1"),
            ("https://192.0.2.1", "192.0.2.1"),
            ("https://[2001:db8::1]:6443", "2001:db8::1"),
            ("https://[2001:db8::1]/prefix", "2001:db8::1"),
        ] {
            assert_eq!(servers(url), [expected.parse::<IpAddr>().unwrap()], "{url}");
        }
        assert!(servers("https://no such name:1").is_empty());
    }
}
