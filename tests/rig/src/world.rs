//! A whole world: clients, a gateway with manifests, and backends with real servers.

use crate::config::{GatewayOptions, Places};
use crate::echo::EchoServer;
use crate::gateway::Gateway;
use crate::ledger::{self, Reading};
use crate::load::{self, Load, Outcome};
use crate::manifests::{Endpoint, Manifests, Port, Service};
use crate::net::Net;
use crate::nginx::Nginx;
use crate::node::{self, NODE};
use crate::{plan, snmp};
use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Port of the Service `np` on the gateway's own addresses.
pub const NODE_PORT: u16 = 30_080;
/// Addresses of the Service `ext`.
pub const EXTERNAL_IPS: [&str; 2] = ["203.0.113.129", "2001:db8:0:3::129"];
/// The IPv4 address that the Service `web` asks for.
pub const WEB_ADDRESS: &str = "203.0.113.10";

/// What to build.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// A word for people, and for the folder of logs.
    pub kind: String,
    /// Backends.
    pub backends: u16,
    /// Whether every other one of them, from the second on, is behind a node.
    pub node: bool,
    /// The gateway.
    pub gateway: GatewayOptions,
    /// Where manifests are; in the instance's folder unless given.
    pub manifests: Option<PathBuf>,
    /// A file that every web server serves as `/blob`.
    pub blob: Option<PathBuf>,
}

impl WorldOptions {
    /// Three backends on the link, one worker.
    pub fn new(kind: &str) -> Self {
        Self {
            kind: kind.into(),
            backends: 3,
            node: false,
            gateway: GatewayOptions::default(),
            manifests: None,
            blob: None,
        }
    }
}

/// A whole world. Its parts go away with it, in the order of the fields.
pub struct World {
    /// The gateway, while one runs.
    pub gateway: Option<Gateway>,
    /// Web servers, in the order of the backends.
    pub web: Vec<Nginx>,
    /// Echo servers, in the order of the backends.
    pub echo: Vec<EchoServer>,
    /// What the gateway reads.
    pub manifests: Manifests,
    /// Files of the gateway.
    pub places: Places,
    /// How the gateway is configured.
    pub options: GatewayOptions,
    /// The network.
    pub net: Net,
}

impl World {
    /// Builds it up to the servers, with the usual Services in the folder; no gateway yet.
    pub fn build(options: &WorldOptions) -> Result<Self> {
        keep_to_core_0();
        allow_many_files();
        let net = build_net(options)?;
        let dir = net.instance.dir().join("manifests");
        let manifests = Manifests::in_folder(options.manifests.as_deref().unwrap_or(&dir))?;
        let places = Places::in_folder(net.instance.dir(), manifests.dir());
        let mut web = Vec::new();
        let mut echo = Vec::new();
        for host in &net.backends {
            web.push(Nginx::start(&net.instance, host, options.blob.as_deref())?);
            echo.push(EchoServer::start(host)?);
        }
        for (nginx, host) in web.iter_mut().zip(&net.backends) {
            nginx.wait(host)?;
        }
        let (with_node, options) = (options.node, options.gateway.clone());
        let world = Self { gateway: None, web, echo, manifests, places, options, net };
        if with_node {
            world.manifests.write(&format!("{NODE}.yaml"), &node::yaml())?;
        }
        for service in world.usual_services() {
            world.manifests.apply(&service)?;
        }
        Ok(world)
    }
    /// Builds it and starts the gateway.
    pub fn start(options: &WorldOptions) -> Result<Self> {
        let mut world = Self::build(options)?;
        world.start_gateway()?;
        Ok(world)
    }
    /// Starts the gateway, also again after it has ended.
    pub fn start_gateway(&mut self) -> Result<()> {
        self.gateway = None;
        self.gateway = Some(Gateway::start(&self.net, &self.places, &self.options)?);
        Ok(())
    }
    /// The running gateway.
    pub fn gateway(&mut self) -> Result<&mut Gateway> {
        self.gateway.as_mut().context("no gateway runs")
    }
    /// Its command line.
    pub fn admin(&self) -> Result<&crate::admin::Admin> {
        Ok(&self.gateway.as_ref().context("no gateway runs")?.admin)
    }
    /// What `headgate check` prints of its configuration, in its namespace. Whether it fails is
    /// a matter of the machine too.
    pub fn check(&self) -> Result<String> {
        let program = crate::gateway::program()?;
        let mut command = self.net.gateway.command(&program.display().to_string());
        command.args(["check", "--config"]).arg(&self.places.config);
        let output = crate::command::finish(&mut command, crate::command::PATIENCE)?;
        Ok(String::from_utf8(output.stdout)?)
    }
    /// The usual Services, with all backends as their endpoints.
    pub fn usual_services(&self) -> Vec<Service> {
        let endpoints: Vec<Endpoint> = self.net.backends.iter().map(Endpoint::of).collect();
        usual_services(&endpoints)
    }
    /// One of the usual Services, as it was written first.
    pub fn usual(&self, name: &str) -> Result<Service> {
        let found = self.usual_services().into_iter().find(|service| service.name == name);
        found.with_context(|| format!("no usual Service {name}"))
    }
    /// The LoadBalancer addresses of `default/NAME`, IPv4 first.
    pub fn addresses(&self, name: &str) -> Result<[IpAddr; 2]> {
        let addresses = self.admin()?.service(name)?.status.addresses;
        let v4 = addresses.iter().find(|address| address.is_ipv4());
        let v6 = addresses.iter().find(|address| address.is_ipv6());
        match (v4, v6) {
            (Some(v4), Some(v6)) => Ok([*v4, *v6]),
            _ => bail!("{name} has the addresses {addresses:?}, expected both families"),
        }
    }
    /// Where the web servers are reached: LoadBalancer, NodePort and externalIP, both families.
    pub fn http_targets(&self) -> Result<Vec<(&'static str, SocketAddr)>> {
        let mut targets = Vec::new();
        for address in self.addresses("web")? {
            targets.push(("LoadBalancer", SocketAddr::new(address, 80)));
        }
        for address in plan::GATEWAY_FRONT {
            targets.push(("NodePort", SocketAddr::new(address.parse()?, NODE_PORT)));
        }
        for address in EXTERNAL_IPS {
            targets.push(("externalIP", SocketAddr::new(address.parse()?, 80)));
        }
        Ok(targets)
    }
    /// All client addresses.
    pub fn sources(&self) -> Vec<IpAddr> {
        (0..plan::CLIENTS).flat_map(plan::client).collect()
    }
    /// Names of the backends.
    pub fn names(&self) -> Vec<String> {
        self.net.backends.iter().map(|host| host.name.clone()).collect()
    }
    /// Spreads `requests` over `targets` from all client addresses.
    pub fn load(&self, targets: &[SocketAddr], requests: usize) -> Result<Outcome> {
        let targets = targets.to_vec();
        let load = Load { targets, sources: self.sources(), requests, concurrency: 16 };
        load::run(&self.net.client, &load)
    }
    /// TCP retransmits so far: by the client, by all backends.
    pub fn retransmits(&self) -> Result<[u64; 2]> {
        let client = snmp::retransmits(&self.net.client)?;
        let backends = self.net.backends.iter().map(|host| snmp::retransmits(&host.namespace));
        Ok([client, backends.sum::<Result<u64>>()?])
    }
    /// Waits until the ledger is exact and its witnesses agree: the end of every test.
    pub fn settle(&self) -> Result<Reading> {
        ledger::settle(self.admin()?, &self.net)
    }
    /// The gateway's log.
    pub fn log(&self) -> PathBuf {
        self.net.instance.logs().join("headgate.log")
    }
    /// Makes the kernel of the gateway a witness: it has forwarded nothing itself.
    pub fn check_kernel_forwards_nothing(&self) -> Result<()> {
        let forwards = self.net.gateway.within(|| {
            let read = |path: &str| std::fs::read_to_string(Path::new("/proc/sys/net").join(path));
            Ok::<_, std::io::Error>([read("ipv4/ip_forward")?, read("ipv6/conf/all/forwarding")?])
        })??;
        if forwards.iter().any(|value| value.trim() != "0") {
            bail!("the kernel in the gateway's namespace forwards: {forwards:?}");
        }
        Ok(())
    }
}

fn build_net(options: &WorldOptions) -> Result<Net> {
    if !options.node {
        return Net::build(&options.kind, options.backends);
    }
    let mut net = Net::build(&options.kind, 0)?;
    let node = node::add(&net)?;
    for index in 0..options.backends {
        match index % 2 {
            0 => net.add_backend(index)?,
            _ => node::add_pod(&mut net, &node, index)?,
        }
    }
    Ok(net)
}

/// LoadBalancer `web` (several ports), NodePort `np`, externalIP `ext`, LoadBalancer `echo` (TCP
/// and UDP) and LoadBalancer `empty`, which has no endpoint. All dual-stack. `tests/manifests`
/// shows them for three backends.
pub fn usual_services(endpoints: &[Endpoint]) -> Vec<Service> {
    let service = |name: &str, kind, ports| {
        let endpoints = endpoints.to_vec();
        Service { endpoints, ..Service::new(name, kind, ports, &[]) }
    };
    let http = Port::tcp("http", 80, plan::HTTP_PORT);
    let alt = Port::tcp("alt", 443, plan::HTTP_ALT_PORT);
    let lines = Port::tcp("lines", plan::ECHO_PORT, plan::ECHO_PORT);
    let datagrams = Port::udp("datagrams", plan::ECHO_PORT, plan::ECHO_PORT);
    let mut web = service("web", "LoadBalancer", vec![http.clone(), alt]);
    web.requested = WEB_ADDRESS.parse().ok();
    let np = service("np", "NodePort", vec![Port { node_port: Some(NODE_PORT), ..http.clone() }]);
    let mut ext = service("ext", "ClusterIP", vec![http.clone()]);
    ext.external = EXTERNAL_IPS.map(str::to_owned).to_vec();
    let echo = service("echo", "LoadBalancer", vec![lines, datagrams]);
    let empty = Service::new("empty", "LoadBalancer", vec![http], &[]);
    vec![web, np, ext, echo, empty]
}

/// This thread, and all threads and processes that it starts, keep to core 0; core 1 is the
/// worker's. With one core there is nothing to choose.
fn keep_to_core_0() {
    let mut cores = CpuSet::new();
    if cores.set(0).is_ok() {
        // Not allowed on core 0 (a container's limits): then any core is as good.
        let _ = sched_setaffinity(Pid::from_raw(0), &cores);
    }
}

/// A thousand connections and their servers need more than the usual 1,024 open files.
fn allow_many_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Raising it to what is allowed anyway can't fail.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files in `tests/manifests` are what the demo and the tests write; with
    /// `RIG_WRITE_MANIFESTS=1` in the environment this writes them.
    #[test]
    fn the_usual_manifests_are_those_in_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        let endpoints: Vec<Endpoint> = (0..3)
            .map(|index| Endpoint {
                name: format!("web-{}", index + 1),
                addresses: plan::backend(index),
                node: None,
                ready: true,
                serving: true,
                terminating: false,
            })
            .collect();
        for service in usual_services(&endpoints) {
            let file = folder.join(format!("{}.yaml", service.name));
            if std::env::var_os("RIG_WRITE_MANIFESTS").is_some() {
                std::fs::write(&file, service.yaml()).unwrap();
            }
            assert_eq!(std::fs::read_to_string(&file).unwrap(), service.yaml(), "{file:?}");
        }
    }
}
