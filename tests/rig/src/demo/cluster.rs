//! The steps of the demo on a real Kubernetes cluster: what a person does with kubectl, under load.

use super::{Demo, FOLDER};
use crate::admin::{self, Admin};
use crate::cluster::{self, Cluster, ClusterOptions, NodeOptions, Via};
use crate::lines::LineClients;
use crate::load::{Load, Outcome, Running};
use crate::plan;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a person finds in [`FOLDER`], and what is applied.
const MANIFESTS: [(&str, &str); 2] =
    [("web.yaml", include_str!("web.yaml")), ("echo.yaml", include_str!("echo.yaml"))];
/// Scheduling, starting, probing, and two cores for all of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// For a person who keeps the demo for long.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Long-lived connections that must outlive all changes.
const LONG_LIVED: usize = 100;
/// New connections after a pod has turned unready.
const PROBES: usize = 300;
/// Requests that are open at a time while things change: the cluster needs the cores as well.
const CLIENTS: usize = 4;

impl Demo {
    /// The cluster, its nodes, and what the gateway may do there.
    pub(super) fn start_cluster(&mut self) -> Result<()> {
        cluster::build()?;
        println!(
            "starting Kubernetes {}: API server, etcd, controllers, two nodes",
            cluster::VERSION
        );
        let net = &self.world.net;
        let mut cluster = Cluster::start(&net.instance, &ClusterOptions::default())?;
        cluster.attach(&net.gateway)?;
        for zone in ["a", "b"] {
            cluster.add_node(&net.switch, &NodeOptions::in_zone(zone))?;
        }
        cluster.wait_for_nodes()?;
        for (name, text) in MANIFESTS {
            fs::write(Path::new(FOLDER).join(name), text)?;
        }
        let who = cluster.install_headgate()?;
        cluster.renew_token(&who, DAY)?;
        let kubeconfig = cluster.kubeconfig_with("headgate", &who, Via::Shared)?;
        self.world.options.kubeconfig = Some(kubeconfig);
        self.cluster = Some(cluster);
        Ok(())
    }
    /// What a person types first.
    pub(super) fn show_access(&self) -> Result<()> {
        let cluster = self.cluster()?;
        let folder = cluster.kubectl_program()?;
        let folder = folder.parent().context("kubectl's folder")?.display();
        println!("export KUBECONFIG={} PATH={folder}:$PATH", cluster.host_kubeconfig()?.display());
        print!("{}", cluster.kubectl("get nodes -o wide")?);
        Ok(())
    }
    fn cluster(&self) -> Result<&Cluster> {
        self.cluster.as_ref().context("no cluster runs")
    }
    /// Deployments and Services, up to the address and the condition.
    pub(super) fn apply(&mut self) -> Result<String> {
        let cluster = self.cluster()?;
        let begun = Instant::now();
        for (name, _) in MANIFESTS {
            cluster.kubectl(&format!("apply -f {FOLDER}/{name}"))?;
        }
        let patience = format!("--timeout={}s", PATIENCE.as_secs());
        let condition = "--for=condition=headgate.dev/Programmed";
        cluster.kubectl(&format!("wait {condition} svc/web svc/echo {patience}"))?;
        let programmed = begun.elapsed();
        for name in ["web", "echo"] {
            cluster.kubectl(&format!("rollout status deployment/{name} {patience}"))?;
        }
        let pods = self.wait_for_pods("web", 3)?;
        for line in cluster.kubectl("get svc,pods")?.lines() {
            println!("    {line}");
        }
        let [v4, v6] = self.load_balancer("web")?;
        Ok(format!(
            "kubectl apply: {v4} and {v6} in kubectl get svc; kubectl wait {condition} returned \
             after {:.1} s; pods {}",
            programmed.as_secs_f64(),
            pods.join(" ")
        ))
    }
    /// Waits until so many pods are ready, no other is there, and the workers know them; gives
    /// their names.
    fn wait_for_pods(&self, app: &str, count: usize) -> Result<Vec<String>> {
        let begun = Instant::now();
        loop {
            let list = self.cluster()?.get(&format!("pods -l app={app}"))?;
            let pods = list["items"].as_array().context("items")?;
            let ready = pods.iter().filter(|pod| {
                let conditions = pod["status"]["conditions"].as_array();
                conditions
                    .into_iter()
                    .flatten()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True")
            });
            if ready.count() == count && pods.len() == count {
                let name = |pod: &serde_json::Value| {
                    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
                };
                let admin = self.world.admin()?;
                admin.wait_until(&format!("{count} backends of {app}"), |admin| {
                    Ok(addresses_of(admin, app)?.len() == 2 * count)
                })?;
                return Ok(pods.iter().map(name).collect());
            }
            ensure!(begun.elapsed() < PATIENCE, "not {count} ready pods of {app}: {list:#}");
            sleep(Duration::from_millis(200));
        }
    }
    /// The addresses that `kubectl get svc` shows, IPv4 first.
    fn load_balancer(&self, name: &str) -> Result<[IpAddr; 2]> {
        let service = self.cluster()?.get(&format!("svc/{name}"))?;
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
        let ip = |entry: &serde_json::Value| entry["ip"].as_str().and_then(|ip| ip.parse().ok());
        let mut found: Vec<IpAddr> = ingress.into_iter().flatten().filter_map(ip).collect();
        found.sort();
        found.try_into().map_err(|found| {
            anyhow::anyhow!("{name} has the addresses {found:?}, expected one of each family")
        })
    }
    /// Requests to addresses of every kind, while nothing changes.
    pub(super) fn serve_from_pods(&mut self) -> Result<String> {
        let targets = self.world.http_targets()?;
        ensure!(
            self.load_balancer("web")? == [targets[0].1.ip(), targets[1].1.ip()],
            "kubectl get svc and headgate show services name different addresses"
        );
        let pods = self.wait_for_pods("web", 3)?;
        let before = self.answered(&pods)?;
        let addresses: Vec<SocketAddr> = targets.iter().map(|(_, target)| *target).collect();
        let outcome = self.world.load(&addresses, self.requests)?;
        let after = self.answered(&pods)?;
        self.summary.requests = outcome.requests;
        self.summary.failed = outcome.failed;
        self.summary.by_backend.clone_from(&outcome.by_backend);
        super::steps::show_targets(&targets, &outcome);
        outcome.check_complete()?;
        outcome.check_even(&pods, 0.1)?;
        for (index, pod) in pods.iter().enumerate() {
            let answered = after[index] - before[index];
            if outcome.by_backend.get(pod) != Some(&answered) {
                bail!("{pod} logged {answered} requests: expected {:?}", outcome.by_backend);
            }
        }
        let connect = &outcome.connect_us;
        Ok(format!(
            "{} connections from {} addresses   ok {}  failed {}   connect median {:.2} ms, longest \
             {:.2} ms   pods' logs agree",
            outcome.requests,
            self.world.sources().len() / 2,
            outcome.requests - outcome.failed,
            outcome.failed,
            connect.value_at_quantile(0.5) as f64 / 1e3,
            connect.max() as f64 / 1e3,
        ))
    }
    /// Requests for `/` in the pods' own logs; their probes ask for another path.
    fn answered(&self, pods: &[String]) -> Result<Vec<u64>> {
        let cluster = self.cluster()?;
        let count = |pod: &String| {
            let log = cluster.pod_dir("default", pod).join("nginx/access.log");
            let text = fs::read_to_string(&log).with_context(|| log.display().to_string())?;
            Ok(text.lines().filter(|line| line.contains(" GET / HTTP/1.1 ")).count() as u64)
        };
        pods.iter().map(count).collect()
    }
    /// Waits until each of the pods has answered a request.
    fn wait_for_answers(&self, pods: &[String]) -> Result<()> {
        admin::wait(&format!("an answer of each of {pods:?}"), || {
            Ok(self.answered(pods)?.iter().all(|count| *count > 0))
        })
    }
    /// Does something while requests are made, and gives what came of these. None may fail.
    fn under_load(&mut self, change: impl FnOnce(&Self) -> Result<()>) -> Result<Outcome> {
        let targets = self.world.http_targets()?.into_iter().map(|(_, target)| target).collect();
        let sources = self.world.sources();
        let load = Load { targets, sources, requests: 0, concurrency: CLIENTS };
        let running = Running::endless(&self.world.net.client, &load);
        let changed = change(self);
        let outcome = running.stop()?;
        self.summary.failed += outcome.failed;
        changed?;
        ensure!(outcome.requests > 0, "no request was made meanwhile");
        outcome.check_complete()?;
        Ok(outcome)
    }
    /// More pods, then fewer.
    pub(super) fn scale(&mut self) -> Result<String> {
        let [address, _] = self.world.addresses("echo")?;
        let target = SocketAddr::new(address, plan::ECHO_PORT);
        let sources = self.world.net.client_addresses(address);
        let client = &self.world.net.client;
        self.lines = Some(LineClients::open(client, &sources, target, LONG_LIVED, |_| true)?);
        let outcome = self.under_load(|demo| {
            for count in [6, 2] {
                demo.cluster()?.kubectl(&format!("scale deployment/web --replicas={count}"))?;
                let pods = demo.wait_for_pods("web", count)?;
                demo.wait_for_answers(&pods)?;
            }
            Ok(())
        })?;
        ensure!(outcome.by_backend.len() >= 6, "not all six answered: {:?}", outcome.by_backend);
        Ok(format!("kubectl scale 3 -> 6 -> 2 under load: {}", told(&outcome)))
    }
    /// Every pod is replaced.
    pub(super) fn roll(&mut self) -> Result<String> {
        let before = self.wait_for_pods("web", 2)?;
        let outcome = self.under_load(|demo| {
            let cluster = demo.cluster()?;
            cluster.kubectl("rollout restart deployment/web")?;
            let patience = PATIENCE.as_secs();
            cluster.kubectl(&format!("rollout status deployment/web --timeout={patience}s"))?;
            demo.wait_for_pods("web", 2).map(drop)
        })?;
        let after = self.wait_for_pods("web", 2)?;
        ensure!(after.iter().all(|pod| !before.contains(pod)), "{before:?} became {after:?}");
        Ok(format!("kubectl rollout restart under load: {}", told(&outcome)))
    }
    /// One pod goes, another comes in its place.
    pub(super) fn delete_pod(&mut self) -> Result<String> {
        let pod = self.wait_for_pods("web", 2)?.remove(0);
        let outcome = self.under_load(|demo| {
            let seconds = PATIENCE.as_secs();
            demo.cluster()?.kubectl(&format!("delete pod {pod} --timeout={seconds}s"))?;
            let now = demo.wait_for_pods("web", 2)?;
            ensure!(!now.contains(&pod), "{pod} is still there");
            Ok(())
        })?;
        Ok(format!("kubectl delete pod {pod} under load: {}", told(&outcome)))
    }
    /// A pod turns unready: its connections go on, and it gets no new ones.
    pub(super) fn unready(&mut self) -> Result<String> {
        let lines = self.lines.take().context("no long-lived connections are open")?;
        let pods = self.wait_for_pods("echo", 3)?;
        let (pod, open) = pods
            .iter()
            .filter_map(|pod| lines.by_backend().get(pod).map(|count| (pod.clone(), *count)))
            .next()
            .context("no connection to any pod of echo")?;
        let file = self.cluster()?.pod_dir("default", &pod).join("unready");
        fs::write(&file, "")?;
        let admin = self.world.admin()?;
        let (begun, patience) = (Instant::now(), PATIENCE);
        while addresses_of(admin, "echo")?.len() != 4 {
            ensure!(begun.elapsed() < patience, "{pod} is active though it is unready");
            sleep(Duration::from_millis(50));
        }
        admin.wait_for_generation()?;
        let [address, _] = self.world.addresses("echo")?;
        let target = SocketAddr::new(address, plan::ECHO_PORT);
        let sources = self.world.net.client_addresses(address);
        let fresh = LineClients::open(&self.world.net.client, &sources, target, PROBES, |_| true)?;
        let new = fresh.by_backend().get(&pod).copied().unwrap_or(0);
        fresh.stop()?;
        lines.wait_for_lines(5);
        let report = lines.stop()?;
        fs::remove_file(&file)?;
        self.summary.broken = report.broken;
        report.check()?;
        ensure!(new == 0, "{new} of {PROBES} new connections went to {pod}, expected none");
        self.wait_for_pods("echo", 3)?;
        Ok(format!(
            "{pod} unready with {open} of {} connections that were open all the time ({} lines): \
             broken {}, new to it {new} of {PROBES}",
            report.connections, report.lines, report.broken,
        ))
    }
    /// What the API server keeps of it.
    pub(super) fn story(&mut self) -> Result<String> {
        let text = self.cluster()?.kubectl("describe svc web")?;
        let (_, events) = text.split_once("Events:").context("no Events in kubectl describe")?;
        ensure!(events.contains("IPAllocated"), "no IPAllocated among the Events: {events}");
        let lines: String = events.trim().lines().map(|line| format!("\n    {line}")).collect();
        Ok(format!("$ kubectl describe svc web{lines}"))
    }
}

/// Addresses of active backends, both families, each once.
fn addresses_of(admin: &Admin, service: &str) -> Result<Vec<SocketAddr>> {
    let mut active = admin.active(service)?;
    active.sort();
    active.dedup();
    Ok(active)
}

fn told(outcome: &Outcome) -> String {
    format!(
        "{} requests to {} pods, failed {}",
        outcome.requests,
        outcome.by_backend.len(),
        outcome.failed
    )
}
