//! The processes of the control plane: etcd, API servers, controllers.

use super::forward::Forward;
use super::{Cluster, ClusterOptions, Via, audit, plan};
use crate::command::finish;
use crate::namespace::Namespace;
use crate::process::Process;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The API server's own patience with its etcd is below this.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// One look at whether it is ready.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);
/// It ends its watches first, and waits for clients to go.
const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// Controllers that play a part for Services. What schedules and what runs pods is in the role
/// `kubelets`.
const CONTROLLERS: &[&str] = &[
    "clusterrole-aggregation-controller",
    "daemonset-controller",
    "deployment-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "service-cidr-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "taint-eviction-controller",
];

/// An API server in a namespace of its own.
pub(super) struct ApiServer {
    pub(super) namespace: Namespace,
    pub(super) addresses: [IpAddr; 2],
    pub(super) audit: PathBuf,
    /// `apiserver-1` and so on.
    name: String,
    process: Option<Process>,
    forward: Forward,
}

impl ApiServer {
    pub(super) fn new(
        cluster_dir: &std::path::Path,
        number: usize,
        namespace: Namespace,
        addresses: [IpAddr; 2],
    ) -> Result<Self> {
        let target = SocketAddr::new(addresses[0], plan::API_PORT);
        let forward = Forward::start(&namespace, target)?;
        let name = format!("apiserver-{number}");
        let audit = cluster_dir.join(format!("{name}.audit"));
        Ok(Self { namespace, addresses, audit, name, process: None, forward })
    }
    pub(super) fn url(&self, family: usize) -> String {
        plan::url(self.addresses[family], plan::API_PORT)
    }
    pub(super) fn host_port(&self) -> u16 {
        self.forward.port()
    }
}

impl Cluster {
    pub(super) fn server(&self, index: usize) -> Result<&ApiServer> {
        self.servers.get(index).with_context(|| format!("there is no API server {index}"))
    }
    /// Starts the API server of this index again, with what etcd holds; waits until it is ready.
    pub fn start_api_server(&mut self, index: usize) -> Result<()> {
        let flags = self.api_server_flags(index)?;
        let role = self.program.role("apiserver", Some("kube-apiserver"));
        let server = self.servers.get_mut(index).context("no such API server")?;
        let mut command = super::program::in_namespace(&server.namespace, &role);
        command.args(flags);
        let log = self.instance.logs().join(format!("{}.log", server.name));
        server.process = Some(Process::start(&self.instance, &server.name, command, &log)?);
        self.wait_for_api_server(index)
    }
    /// Ends it at once, with all of its connections, as a power failure of its machine would end
    /// it but for the packets that say so.
    pub fn kill_api_server(&mut self, index: usize) -> Result<()> {
        self.process(index)?.kill();
        Ok(())
    }
    /// Asks it to end (SIGTERM) and waits for that. It ends slowly: up to a minute with watches.
    pub fn stop_api_server(&mut self, index: usize) -> Result<Duration> {
        self.process(index)?.stop(Signal::SIGTERM, STOP_PATIENCE)
    }
    /// SIGSTOP: its connections stay open and say nothing more.
    pub fn freeze_api_server(&mut self, index: usize) -> Result<()> {
        let pid = self.process(index)?.pid();
        Ok(kill(Pid::from_raw(pid), Signal::SIGSTOP)?)
    }
    /// SIGCONT after [`Self::freeze_api_server`].
    pub fn thaw_api_server(&mut self, index: usize) -> Result<()> {
        let pid = self.process(index)?.pid();
        Ok(kill(Pid::from_raw(pid), Signal::SIGCONT)?)
    }
    fn process(&mut self, index: usize) -> Result<&mut Process> {
        let server = self.servers.get_mut(index).context("no such API server")?;
        server.process.as_mut().context("the API server doesn't run")
    }
    /// Starts one more API server on the same etcd; gives its index.
    pub fn add_api_server(&mut self) -> Result<usize> {
        let number = self.servers.len() + 1;
        let namespace = Namespace::create(&self.instance, &format!("control-{number}"))?;
        let addresses = self.attach(&namespace)?;
        let [v4, v6] = addresses;
        let names = names_of_servers(&[v4, v6]);
        self.pki(&[&format!("server apiserver-{number} --names {names}")])?;
        self.servers.push(ApiServer::new(&self.dir, number, namespace, addresses)?);
        self.start_api_server(number - 1)?;
        Ok(number - 1)
    }
    /// Moves the shared address ([`Via::Shared`]) to the API server of this index, as whatever
    /// balances between API servers does when one of them falls silent.
    pub fn move_shared_address(&self, index: usize) -> Result<()> {
        let addresses = plan::shared();
        for (number, server) in self.servers.iter().enumerate() {
            let link = if number == 0 { plan::BRIDGE } else { plan::LINK };
            for (address, bits) in addresses.iter().zip([24, 64]) {
                if number == index {
                    server
                        .namespace
                        .ip(&format!("addr replace {address}/{bits} dev {link} nodad"))?;
                } else {
                    // It may not have it.
                    let _ = server.namespace.ip(&format!("addr del {address}/{bits} dev {link}"));
                }
            }
        }
        self.forget_neighbours(&addresses)
    }
    /// Forgets all of etcd's past: whoever asks for an older revision is told 410 (Gone), once the
    /// API server doesn't have it in its own memory any more, which a restart sees to.
    pub fn compact_etcd(&self) -> Result<()> {
        let role = self.program.role("compact", None);
        let mut command = super::program::in_namespace(&self.control, &role);
        crate::command::output_of(command.arg("http://127.0.0.1:2379")).map(drop)
    }
    pub(super) fn start_etcd(&mut self) -> Result<()> {
        let data = self.dir.join("etcd");
        let others = plan::management(plan::CONTROL)[0];
        let clients = format!("http://127.0.0.1:2379,http://{others}:2379");
        let role = self.program.role("etcd", Some("etcd"));
        let mut command = super::program::in_namespace(&self.control, &role);
        command
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls={clients}"))
            .arg(format!("--advertise-client-urls={clients}"))
            .arg("--listen-peer-urls=http://127.0.0.1:2380")
            .arg("--unsafe-no-fsync=true");
        let log = self.instance.logs().join("etcd.log");
        self.etcd = Some(Process::start(&self.instance, "etcd", command, &log)?);
        Ok(())
    }
    fn api_server_flags(&self, index: usize) -> Result<Vec<String>> {
        let server = self.server(index)?;
        let file = |name: &str| self.dir.join(name).display().to_string();
        let policy = file("audit-policy.yaml");
        fs::write(&policy, audit::POLICY)?;
        let (first, last) = self.options.node_ports;
        let mut flags = vec![
            format!("--etcd-servers=http://{}:2379", plan::management(plan::CONTROL)[0]),
            "--bind-address=::".into(),
            format!("--secure-port={}", plan::API_PORT),
            format!("--advertise-address={}", server.addresses[0]),
            format!("--service-cluster-ip-range={}", plan::SERVICES.join(",")),
            format!("--service-node-port-range={first}-{last}"),
            format!("--tls-cert-file={}", file(&format!("{}.crt", server.name))),
            format!("--tls-private-key-file={}", file(&format!("{}.key", server.name))),
            format!("--client-ca-file={}", file("ca.crt")),
            "--authorization-mode=RBAC".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--audit-policy-file={policy}"),
            format!("--audit-log-path={}", server.audit.display()),
            "--audit-log-maxsize=10000".into(),
            "--profiling=false".into(),
        ];
        flags.extend(self.options.api_server_flags.iter().cloned());
        Ok(flags)
    }
    fn wait_for_api_server(&mut self, index: usize) -> Result<()> {
        let begun = Instant::now();
        let mut told = 0;
        let target = SocketAddr::new(self.server(index)?.addresses[0], plan::API_PORT);
        loop {
            if let Some(etcd) = &mut self.etcd {
                etcd.check_runs()?;
            }
            self.process(index)?.check_runs()?;
            // A kubectl costs a tenth of a second, a connection nothing.
            let listens = self
                .control
                .within(|| TcpStream::connect_timeout(&target, LOOK_PATIENCE).is_ok())?;
            let mut ask = self.kubectl_command(index)?;
            ask.args(["get", "--raw", "/readyz"]);
            if listens && finish(&mut ask, LOOK_PATIENCE).is_ok_and(|said| said.stdout == b"ok") {
                return Ok(());
            }
            // Two seconds on a machine that has nothing else to do.
            let waited = begun.elapsed().as_secs() / 5 * 5;
            if waited > told {
                eprintln!("  waiting for the API server: {waited} s");
                told = waited;
            }
            if begun.elapsed() > START_PATIENCE {
                let said = self.process(index)?.last_words();
                bail!("the API server isn't ready after {START_PATIENCE:?}; {said}");
            }
            sleep(Duration::from_millis(100));
        }
    }
    pub(super) fn start_controllers(&mut self) -> Result<()> {
        let who = self.user("controllers");
        let kubeconfig = self.kubeconfig_with("controllers", &who, Via::Shared)?;
        let role = self.program.role("controllers", None);
        let grace = self.options.node_grace;
        let mut command = super::program::in_namespace(&self.managers, &role);
        command
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--controllers={}", CONTROLLERS.join(",")))
            .args(["--leader-elect=false", "--use-service-account-credentials=true"])
            .args(["--secure-port=0", "--kube-api-qps=500", "--kube-api-burst=1000"])
            .arg(format!("--node-monitor-grace-period={}ms", grace.as_millis()))
            .arg(format!("--node-monitor-period={}ms", self.options.heartbeat().as_millis()))
            .arg(format!("--root-ca-file={}", self.authority().display()))
            .arg(format!(
                "--service-account-private-key-file={}",
                self.dir.join("sa.key").display()
            ));
        let log = self.instance.logs().join("controllers.log");
        self.controllers = Some(Process::start(&self.instance, "controllers", command, &log)?);
        Ok(())
    }
}

/// The options' defaults are those of a small test.
impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            node_ports: (30_000, 32_767),
            node_grace: Duration::from_secs(40),
            api_server_flags: Vec::new(),
            api_only: false,
        }
    }
}

/// Names and addresses that a server's certificate is for.
pub(super) fn names_of_servers(own: &[IpAddr]) -> String {
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default.svc", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .to_vec();
    names.extend(["198.19.0.1".to_owned(), "2001:db8:5e::1".to_owned()]);
    names.extend(own.iter().chain(&plan::shared()).map(ToString::to_string));
    names.join(",")
}
