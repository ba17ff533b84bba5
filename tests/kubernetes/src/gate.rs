//! A gateway beside the cluster, asked as an operator asks: by kubectl, and by being a client.

use crate::{AT_ONCE, PATIENCE, Test, wait};
use anyhow::{Context, Result, ensure};
use rig::cluster::{AuditEntry, AuditMark, ClusterOptions};
use rig::load::{Load, Outcome, Running};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

/// The gateway's name in the audit log: the ServiceAccount of `control/deploy`.
pub const ACCOUNT: &str = "system:serviceaccount:headgate-system:headgate";
/// Requests that are open at a time while things change: the cluster needs the cores as well.
const CLIENTS: usize = 4;
/// What a change set off has been written after this time.
const REST: Duration = Duration::from_secs(1);

/// A cluster of two nodes and a gateway with more in its configuration; `None` where the machine
/// can't do it, which is reported.
pub fn begin(kind: &str, more: &str) -> Result<Option<Test>> {
    let Some(mut test) = crate::begin(kind, &ClusterOptions::default(), 2)? else {
        return Ok(None);
    };
    more.clone_into(&mut test.world.options.more);
    test.start_gateway()?;
    Ok(Some(test))
}

/// Writes of the gateway's, by what they were to: `services/status`, `events`, `leases`.
pub type Writes = BTreeMap<String, usize>;

impl Test {
    /// Applies it, and waits until all its pods of these Deployments are ready.
    pub fn roll_out(&self, yaml: &str, deployments: &[&str]) -> Result<()> {
        self.cluster.apply(yaml)?;
        deployments.iter().try_for_each(|name| self.rolled_out(name))
    }
    /// Waits until a Deployment is as it is wanted.
    pub fn rolled_out(&self, deployment: &str) -> Result<()> {
        let seconds = PATIENCE.as_secs();
        let args = format!("rollout status deployment/{deployment} --timeout={seconds}s");
        self.cluster.kubectl(&args).map(drop)
    }
    /// `kubectl wait` for the condition that the gateway writes.
    pub fn programmed(&self, service: &str) -> Result<()> {
        let seconds = PATIENCE.as_secs();
        let condition = "--for=condition=headgate.dev/Programmed";
        self.cluster
            .kubectl(&format!("wait {condition} svc/{service} --timeout={seconds}s"))
            .map(drop)
    }
    /// `kubectl get svc NAME -o json`.
    pub fn service(&self, name: &str) -> Result<Value> {
        self.cluster.get(&format!("svc/{name}"))
    }
    /// The addresses in `status.loadBalancer`, IPv4 first.
    pub fn ingress(&self, service: &str) -> Result<Vec<IpAddr>> {
        let mut found = Vec::new();
        for entry in list(&self.service(service)?["status"]["loadBalancer"]["ingress"]) {
            found.push(entry["ip"].as_str().context("an ingress without ip")?.parse()?);
        }
        found.sort();
        Ok(found)
    }
    /// Both addresses of a dual-stack Service that is programmed, with this port.
    pub fn targets(&self, service: &str, port: u16) -> Result<Vec<SocketAddr>> {
        self.programmed(service)?;
        let addresses = self.ingress(service)?;
        let families: Vec<bool> = addresses.iter().map(IpAddr::is_ipv4).collect();
        ensure!(families == [true, false], "{service} has the addresses {addresses:?}");
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
    /// Waits until this is the number of endpoints of a Service in each of its families that every
    /// worker gives new connections to.
    pub fn at_workers(&self, service: &str, endpoints: usize) -> Result<()> {
        let admin = self.world.admin()?;
        wait(&format!("{endpoints} backends of {service}"), || {
            // A pod has an address in each family, whatever the number of its ports.
            let active: BTreeSet<IpAddr> =
                admin.active(service)?.iter().map(SocketAddr::ip).collect();
            let count = |v4| active.iter().filter(|address| address.is_ipv4() == v4).count();
            Ok(count(true).max(count(false)) == endpoints
                && (count(true) == count(false) || count(true).min(count(false)) == 0))
        })?;
        admin.wait_for_generation().map(drop)
    }
    /// Waits until the gateway counts so many probes in a state: one for each pod and family.
    pub fn probes_are(&self, state: &str, count: u32) -> Result<()> {
        let metric = format!("headgate_probes{{state=\"{state}\"}}");
        wait(&format!("{count} probes are {state}"), || {
            let now = self.world.admin()?.metric(&metric)?;
            ensure!(now >= f64::from(count), "{now}");
            Ok(true)
        })
    }
    /// Gives a Deployment so many replicas, and waits until these and no others are there.
    pub fn scale(&self, deployment: &str, replicas: usize) -> Result<()> {
        self.cluster.kubectl(&format!("scale deployment/{deployment} --replicas={replicas}"))?;
        self.rolled_out(deployment)?;
        wait("pods that aren't wanted are gone", || {
            let pods = self.cluster.get(&format!("pods -l app={deployment}"))?;
            Ok(list(&pods["items"]).count() == replicas)
        })
    }
    /// `kubectl rollout restart`, until the pods from before are gone.
    pub fn restart(&self, deployment: &str) -> Result<()> {
        let before = self.pods(deployment)?;
        self.cluster.kubectl(&format!("rollout restart deployment/{deployment}"))?;
        self.rolled_out(deployment)?;
        self.gone(&before)
    }
    /// Waits until nothing of these pods is left.
    pub fn gone(&self, pods: &[String]) -> Result<()> {
        wait(&format!("{pods:?} are gone"), || {
            Ok(pods.iter().all(|pod| self.cluster.pod_namespace("default", pod).is_err()))
        })
    }
    /// Deletes pods without grace, and waits until they are gone and every worker knows.
    pub fn kill(&self, pods: &[String]) -> Result<()> {
        let names = pods.join(" ");
        self.cluster.kubectl(&format!("delete pod {names} {AT_ONCE}"))?;
        self.gone(pods)?;
        let named = "get endpointslices -o jsonpath={.items[*].endpoints[*].targetRef.name}";
        wait("the slices don't name them", || {
            let named = self.cluster.kubectl(named)?;
            Ok(pods.iter().all(|pod| !named.contains(pod.as_str())))
        })?;
        let admin = self.world.admin()?;
        wait("they take no new connections", || {
            let rows = admin.backends()?;
            Ok(!rows.iter().any(|row| row.state == "active" && pods.contains(&row.name)))
        })?;
        admin.wait_for_generation().map(drop)
    }
    /// Names of the pods with the label `app=APP` that aren't going.
    pub fn pods(&self, app: &str) -> Result<Vec<String>> {
        let pods = self.cluster.get(&format!("pods -l app={app}"))?;
        let stays = list(&pods["items"]).filter(|p| p["metadata"]["deletionTimestamp"].is_null());
        Ok(stays.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }
    /// Who answers on each of these addresses, and that nobody fails.
    pub fn answers(&self, targets: &[SocketAddr], times: usize) -> Result<Outcome> {
        let outcome = self.world.load(targets, times * targets.len())?;
        outcome.check_complete()?;
        Ok(outcome)
    }
    /// Fails unless exactly these pods answer on every one of the addresses.
    pub fn answered_by(&self, targets: &[SocketAddr], pods: &[String]) -> Result<()> {
        // Enough that a pod with its share is missed once in a million runs.
        let outcome = self.answers(targets, 40 * pods.len().max(1))?;
        let mut wanted = pods.to_vec();
        wanted.sort();
        for (target, at) in &outcome.by_target {
            let found: Vec<String> = at.by_backend.keys().cloned().collect();
            ensure!(found == wanted, "{target} is answered by {found:?}, expected {wanted:?}");
        }
        Ok(())
    }
    /// Does something under load, and gives what came of the requests meanwhile.
    pub fn under_load(
        &self,
        targets: &[SocketAddr],
        change: impl FnOnce() -> Result<()>,
    ) -> Result<Outcome> {
        let load = Load {
            targets: targets.to_vec(),
            sources: self.world.sources(),
            requests: 0,
            concurrency: CLIENTS,
        };
        let running = Running::endless(&self.world.net.client, &load);
        let changed = change();
        let outcome = running.stop()?;
        changed?;
        ensure!(outcome.requests > 0, "no request was made meanwhile");
        Ok(outcome)
    }
    /// What the gateway has written since, but for renewals of the Lease. Fails where it was
    /// refused something, but for Events in a namespace that is going away.
    pub fn writes_since(&self, mark: &AuditMark) -> Result<Writes> {
        let entries = self.cluster.audit(mark)?;
        let own: Vec<&AuditEntry> = entries.iter().filter(|e| e.user.username == ACCOUNT).collect();
        let refused: Vec<&&AuditEntry> =
            own.iter().filter(|entry| entry.code() == 403 && !entry.is_event_too_late()).collect();
        ensure!(refused.is_empty(), "the shipped rules don't allow: {refused:#?}");
        let mut writes = Writes::new();
        for entry in own.iter().filter(|entry| entry.is_write()) {
            let object = &entry.object;
            if object.resource != "leases" {
                let what = format!("{} {}", object.resource, object.subresource);
                *writes.entry(what.trim_end().to_owned()).or_default() += 1;
            }
        }
        Ok(writes)
    }
    /// What the gateway writes when something changes, once that has come to rest: no more statuses
    /// and Events than these.
    pub fn writes_at_most(
        &self,
        what: &str,
        [statuses, events]: [usize; 2],
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mark = self.cluster.audit_mark();
        change()?;
        sleep(REST);
        let writes = self.writes_since(&mark)?;
        println!("{what}: writes {writes:?}, at most {statuses} statuses and {events} Events");
        let count = |what: &str| writes.get(what).copied().unwrap_or(0);
        let within = count("services status") <= statuses && count("events") <= events;
        let others = writes.keys().any(|what| what != "services status" && what != "events");
        ensure!(within && !others, "{what}: wrote {writes:?}, allowed {statuses} and {events}");
        Ok(())
    }
    /// Waits for the Events of a Service until these reasons are among them, in this order (others
    /// may stand between), and gives all reasons.
    pub fn story(&self, service: &str, reasons: &[&str]) -> Result<Vec<String>> {
        let mut told = Vec::new();
        wait(&format!("Events of {service}: {reasons:?}"), || {
            told = self.events(service)?.into_iter().map(|(reason, _)| reason).collect();
            let mut rest = told.iter();
            let found = |wanted: &&str| rest.any(|reason| reason == wanted);
            ensure!(reasons.iter().all(found), "{told:?}");
            Ok(true)
        })?;
        Ok(told)
    }
    /// Reasons and messages of the Events of a Service, in the order in which they began.
    pub fn events(&self, service: &str) -> Result<Vec<(String, String)>> {
        let selector = format!("involvedObject.kind=Service,involvedObject.name={service}");
        let events = self.cluster.get(&format!("events --field-selector {selector}"))?;
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let mut found: Vec<(String, String, String)> = list(&events["items"])
            .map(|event| (text(event, "eventTime"), text(event, "reason"), text(event, "message")))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found.into_iter().map(|(_, reason, message)| (reason, message)).collect())
    }
    /// The end of a test: the ledger is exact, the kernel has forwarded nothing, and the gateway
    /// was refused nothing.
    pub fn settle(&self) -> Result<()> {
        println!("ledger: {}", self.world.settle()?);
        self.world.check_kernel_forwards_nothing()?;
        println!("written in all: {:?}", self.writes_since(&AuditMark::default())?);
        Ok(())
    }
}

/// The entries of a list in JSON; none where it isn't there.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
