//! The test cluster itself, before any gateway: what other tests rely on.

use anyhow::{Context, Result, ensure};
use kubernetes::{AT_ONCE, get, wait, who_answers};
use rig::cluster::{AuditMark, Cluster, ClusterOptions, Via};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: nginx
        image: nginx
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1, failureThreshold: 1}
        lifecycle: {preStop: {sleep: {seconds: 3}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 30080}]
";

const ECHO: &str = "
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  containers:
  - name: echo
    image: headgate.dev/echo
    ports: [{containerPort: 7007, protocol: TCP}, {containerPort: 7007, protocol: UDP}]
---
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  containers:
  - name: shell
    image: anything
    command: [sh, -c, 'echo $POD_NAME; exec sleep 1000']
";

/// One endpoint of a Service: pod, ready, serving, terminating.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen(String, bool, bool, bool);

/// The IPv4 endpoints of a Service, as its slices have them.
fn endpoints(cluster: &Cluster, service: &str) -> Result<Vec<Seen>> {
    let list = cluster.get(&format!("endpointslices -l kubernetes.io/service-name={service}"))?;
    let mut seen = Vec::new();
    for slice in list["items"].as_array().context("items")? {
        if slice["addressType"] != "IPv4" {
            continue;
        }
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let is = |name: &str| endpoint["conditions"][name] == Value::Bool(true);
            let pod = endpoint["targetRef"]["name"].as_str().unwrap_or_default();
            seen.push(Seen(pod.into(), is("ready"), is("serving"), is("terminating")));
        }
    }
    seen.sort();
    Ok(seen)
}

/// The client's addresses where it is joined to the nodes' bridge.
fn sources() -> Vec<IpAddr> {
    (0..rig::plan::CLIENTS).flat_map(|index| rig::plan::back(101 + index)).collect()
}

fn wait_for_ready(cluster: &Cluster, count: usize) -> Result<()> {
    wait(&format!("{count} endpoints, all ready"), || {
        let seen = endpoints(cluster, "web")?;
        Ok(seen.len() == count && seen.iter().all(|endpoint| endpoint.1))
    })
}

#[test]
fn a_deployment_is_served_scaled_and_loses_a_pod() -> Result<()> {
    let Some(test) = kubernetes::begin("cluster", &ClusterOptions::default(), 2)? else {
        return Ok(());
    };
    let (cluster, client) = (&test.cluster, &test.world.net.client);
    test.world.net.join_plain()?;
    cluster.apply(WEB)?;
    cluster.kubectl("rollout status deployment/web --timeout=60s")?;
    wait_for_ready(cluster, 3)?;
    let targets: Vec<SocketAddr> = cluster
        .nodes()
        .iter()
        .flat_map(|node| node.addresses)
        .map(|address| SocketAddr::new(address, 30_080))
        .collect();
    assert_eq!(targets.len(), 4);
    for target in &targets {
        // It writes its rules once a second at most, and knows one pod before the others.
        wait(&format!("kube-proxy serves three pods at {target}"), || {
            let answers = who_answers(client, &sources(), *target, 60)?;
            ensure!(answers.len() == 3, "{target} is answered by {answers:?}");
            Ok(true)
        })?;
    }

    cluster.kubectl("scale deployment/web --replicas=5")?;
    wait_for_ready(cluster, 5)?;
    let pods = cluster.get("pods -l app=web")?;
    let node_of = |pod: &Value| pod["spec"]["nodeName"].as_str().unwrap_or("").to_owned();
    let on_first =
        pods["items"].as_array().context("pods")?.iter().filter(|p| node_of(p) == "node-1").count();
    ensure!((2..=3).contains(&on_first), "{on_first} of 5 pods are on node-1");

    roll_under_load(&test, targets[0])?;

    // A pod that fails its probe is no ready endpoint, and comes back.
    let pod = endpoints(cluster, "web")?.remove(0).0;
    let unready = cluster.pod_dir("default", &pod).join("unready");
    std::fs::write(&unready, "")?;
    let is = |wanted: bool| -> Result<bool> {
        Ok(endpoints(cluster, "web")?.contains(&Seen(pod.clone(), wanted, wanted, false)))
    };
    wait("an unready endpoint", || is(false))?;
    std::fs::remove_file(&unready)?;
    wait("a ready endpoint", || is(true))?;

    // A pod that is deleted serves on while it is terminating.
    let address: IpAddr = cluster
        .kubectl(&format!("get pod {pod} -o jsonpath={{.status.podIP}}"))?
        .parse()
        .context("podIP")?;
    let begun = Instant::now();
    cluster.kubectl(&format!("delete pod {pod} --wait=false"))?;
    let terminating = Seen(pod.clone(), false, true, true);
    wait("a serving, terminating endpoint", || {
        Ok(endpoints(cluster, "web")?.contains(&terminating))
    })?;
    let node = &cluster.nodes()[0].namespace;
    let answer = get(node, SocketAddr::new(address, 8080), "/")?;
    ensure!(answer == pod || begun.elapsed() > Duration::from_secs(3), "answered {answer}");
    cluster.kubectl(&format!("wait --for=delete pod/{pod} --timeout=30s"))?;
    ensure!(begun.elapsed() >= Duration::from_secs(3), "the preStop hook was cut short");
    wait_for_ready(cluster, 5)?;
    // Its address leads nowhere, neither to the gateway nor round in circles.
    let inside = cluster.nodes()[1].namespace.clone();
    ensure!(get(&inside, SocketAddr::new(address, 8080), "/").is_err(), "{address} answers still");

    // With no grace it is gone at once, with its namespace.
    let pod = endpoints(cluster, "web")?.remove(0).0;
    cluster.kubectl(&format!("delete pod {pod} {AT_ONCE}"))?;
    wait("the pod's namespace is gone", || Ok(cluster.pod_namespace("default", &pod).is_err()))?;
    wait_for_ready(cluster, 5)?;

    let writes = cluster.audit(&AuditMark::default())?;
    check_status_writes(&writes)?;
    let scaled = writes.iter().any(|e| e.is_write() && e.object.subresource == "scale");
    ensure!(scaled, "no write to deployments/scale among {} entries", writes.len());
    check_nothing_is_left(test)
}

/// Every pod is replaced, and serves for 3 s more while kube-proxy learns of it: no request fails.
fn roll_under_load(test: &kubernetes::Test, target: SocketAddr) -> Result<()> {
    let cluster = &test.cluster;
    cluster.kubectl("rollout restart deployment/web")?;
    std::thread::scope(|scope| -> Result<()> {
        let rolled = scope.spawn(|| cluster.kubectl("rollout status deployment/web --timeout=60s"));
        let mut asked = 0;
        while !rolled.is_finished() {
            asked +=
                who_answers(&test.world.net.client, &sources(), target, 20)?.values().sum::<u64>();
        }
        println!("{asked} requests during the rollout, none failed");
        ensure!(asked > 20, "only {asked} requests were made during the rollout");
        rolled.join().map_err(|_| anyhow::anyhow!("the rollout panicked"))?.map(drop)
    })?;
    wait_for_ready(cluster, 5)
}

/// A pod's status is written when it changes, and at no other time.
fn check_status_writes(entries: &[rig::cluster::AuditEntry]) -> Result<()> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for entry in entries.iter().filter(|e| e.is_write() && e.user.username == "kubelets") {
        if entry.object.resource == "pods" && entry.object.subresource == "status" {
            *counts.entry(&entry.object.name).or_default() += 1;
        }
    }
    println!("writes of status by pod: {counts:?}");
    // Waiting, running, ready, ended; one was unready for a while.
    ensure!(counts.len() > 10 && counts.values().all(|count| *count <= 8), "{counts:?}");
    Ok(())
}

/// As if the whole run had been killed with `kill -9`, kubelets first.
#[test]
fn nothing_is_left_of_a_killed_run() -> Result<()> {
    let Some(test) = kubernetes::begin("killed", &ClusterOptions::default(), 1)? else {
        return Ok(());
    };
    test.cluster.apply(ECHO)?;
    test.cluster.kubectl("wait --for=condition=Ready pod/echo pod/shell --timeout=60s")?;
    let instance = test.world.net.instance.clone();
    let things = std::fs::read_to_string(instance.record_file())?;
    let runs_kubelets = |pid: &&str| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|words| words.windows(10).any(|word| word == b"\0kubelets\0"))
    };
    let kubelets = recorded(&things).into_iter().find(runs_kubelets).context("kubelets")?;
    rig::command::output_of(std::process::Command::new("kill").args(["-9", kubelets]))?;
    // The pid of a process that has ended stands for the dead owner's.
    let mut ended = std::process::Command::new("true").spawn()?;
    rig::command::wait_until(&mut ended, Instant::now() + kubernetes::PATIENCE)?;
    std::fs::write(instance.dir().join("owner"), format!("{} 1", ended.id()))?;
    ensure!(rig::instance::sweep()? >= 1, "nothing was swept");
    check_gone(&things, instance.tag(), instance.dir())
}

fn check_nothing_is_left(test: kubernetes::Test) -> Result<()> {
    let instance = test.world.net.instance.clone();
    let things = std::fs::read_to_string(instance.record_file())?;
    let (tag, dir) = (instance.tag().to_owned(), instance.dir().to_owned());
    drop(instance);
    drop(test);
    check_gone(&things, &tag, &dir)
}

fn recorded(things: &str) -> Vec<&str> {
    things.lines().filter_map(|l| l.strip_prefix("process ")?.split(' ').next()).collect()
}

fn check_gone(things: &str, tag: &str, dir: &Path) -> Result<()> {
    let pids = recorded(things);
    ensure!(pids.len() > 5, "{} processes were recorded", pids.len());
    let left: Vec<_> = std::fs::read_dir("/run/netns")?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(&format!("-{tag}")))
        .collect();
    ensure!(left.is_empty(), "namespaces are left: {left:?}");
    ensure!(!dir.exists(), "{dir:?} is left");
    for pid in pids {
        let words = std::fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        ensure!(!words.contains(&*dir.to_string_lossy()), "{pid} is left: {words}");
    }
    Ok(())
}

#[test]
fn access_is_by_rbac_and_tokens_end() -> Result<()> {
    let options = ClusterOptions { api_only: true, ..ClusterOptions::default() };
    let Some(test) = kubernetes::begin("access", &options, 0)? else { return Ok(()) };
    let (cluster, net) = (&test.cluster, &test.world.net);
    let ask = |kubeconfig: &Path, what: &str| {
        let url = format!("--kubeconfig={}", kubeconfig.display());
        let mut command = net.gateway.command(&cluster.kubectl_program()?.display().to_string());
        rig::command::output_of(command.args([&url, "get", what, "-A"]))
    };
    // From the gateway's namespace, both families, as who it is.
    let mark = cluster.audit_mark();
    let hour = Duration::from_secs(3600);
    let who = cluster.install_headgate()?;
    for via in [Via::V4(0), Via::V6(0), Via::Shared] {
        ask(&cluster.kubeconfig_with("headgate", &who, via)?, "services")?;
    }
    let kubeconfig = cluster.kubeconfig_with("headgate", &who, Via::V4(0))?;
    ensure!(ask(&kubeconfig, "secrets").is_err(), "secrets were given");
    let refused: Vec<_> =
        cluster.audit(&mark)?.into_iter().filter(|entry| entry.code() == 403).collect();
    ensure!(!refused.is_empty() && refused.iter().all(|e| e.object.resource == "secrets"));
    ensure!(
        refused[0].user.username == "system:serviceaccount:headgate-system:headgate",
        "{refused:?}"
    );
    // A token that has ended is of no use, and its file takes a new one.
    cluster.renew_token(&who, Duration::from_secs(1))?;
    wait("the token's end", || Ok(ask(&kubeconfig, "services").is_err()))?;
    cluster.renew_token(&who, hour)?;
    ask(&kubeconfig, "services")?;
    // A user with a certificate, and somebody outside of all namespaces.
    let user = cluster.kubeconfig_for_user("somebody", &["people"])?;
    ensure!(ask(&user, "services").is_err(), "somebody was let in");
    let outside = cluster.host_kubeconfig()?;
    let mut kubectl = std::process::Command::new(cluster.kubectl_program()?);
    let flag = format!("--kubeconfig={}", outside.display());
    let version = rig::command::output_of(kubectl.args([&flag, "version"]))?;
    let wanted = format!("Server Version: {}", cluster.server_version()?);
    ensure!(version.contains(&wanted), "{version}, expected {wanted}");
    Ok(())
}

#[test]
fn api_servers_stop_freeze_and_share_an_etcd() -> Result<()> {
    let options = ClusterOptions::default();
    let Some(mut test) = kubernetes::begin("servers", &options, 1)? else { return Ok(()) };
    let cluster = &mut test.cluster;
    let second = cluster.add_api_server()?;
    cluster.kubectl("create namespace one")?;
    // What one was told the other knows; frozen, the first one says nothing.
    cluster.freeze_api_server(0)?;
    let ask = |cluster: &Cluster, server: usize, words: &[&str]| {
        let mut command = cluster.kubectl_command(server)?;
        rig::command::output_of(command.arg("--request-timeout=3s").args(words))
    };
    ask(cluster, second, &["get", "namespace", "one"])?;
    ensure!(ask(cluster, 0, &["get", "namespace", "one"]).is_err(), "a frozen API server answers");
    cluster.move_shared_address(second)?;
    let who = cluster.credentials_for_user("root", &["system:masters"])?;
    let kubeconfig = cluster.kubeconfig_with("shared", &who, Via::Shared)?;
    let mut kubectl =
        test.world.net.gateway.command(&cluster.kubectl_program()?.display().to_string());
    let flag = format!("--kubeconfig={}", kubeconfig.display());
    rig::command::output_of(kubectl.args([&flag, "get", "namespace", "one"]))?;
    ask(cluster, second, &["create", "namespace", "two"])?;
    // Controllers and kubelets have moved with the shared address.
    let pod = "--image=nginx --replicas=1 --port=80".split(' ');
    ask(
        cluster,
        second,
        &["create", "deployment", "late"].into_iter().chain(pod).collect::<Vec<_>>(),
    )?;
    wait("a Deployment is rolled out through the second API server", || {
        Ok(ask(cluster, second, &["rollout", "status", "deployment/late", "--timeout=2s"]).is_ok())
    })?;
    cluster.thaw_api_server(0)?;
    wait("the first API server catches up", || {
        Ok(ask(cluster, 0, &["get", "namespace", "two"]).is_ok())
    })?;
    // An old revision is gone once etcd has forgotten it and no API server remembers it.
    let version = cluster.get("namespace/one")?["metadata"]["resourceVersion"].clone();
    let version = version.as_str().context("resourceVersion")?.to_owned();
    cluster.kubectl("create namespace three")?;
    cluster.kill_api_server(0)?;
    cluster.compact_etcd()?;
    cluster.start_api_server(0)?;
    let watch = format!("/api/v1/namespaces?watch=1&timeoutSeconds=3&resourceVersion={version}");
    let said = ask(cluster, 0, &["get", "--raw", &watch]);
    let text = format!("{said:?}");
    ensure!(text.contains("too old resource version") || text.contains("410"), "{text}");
    // A cut namespace reaches nobody, and is joined again.
    cluster.cut(&test.world.net.gateway, true)?;
    let kubectl = || {
        let mut command =
            test.world.net.gateway.command(&cluster.kubectl_program()?.display().to_string());
        rig::command::output_of(command.args([&flag, "--request-timeout=2s", "get", "namespaces"]))
    };
    ensure!(kubectl().is_err(), "a cut namespace reaches the API server");
    cluster.cut(&test.world.net.gateway, false)?;
    kubectl().map(drop)
}

#[test]
fn kubelets_fall_silent_and_run_any_program() -> Result<()> {
    let grace = Duration::from_secs(4);
    let options = ClusterOptions { node_grace: grace, ..ClusterOptions::default() };
    let Some(test) = kubernetes::begin("kubelets", &options, 2)? else { return Ok(()) };
    let cluster = &test.cluster;
    cluster.apply(ECHO)?;
    cluster.kubectl("wait --for=condition=Ready pod/echo pod/shell --timeout=60s")?;
    let addresses = cluster.get("pod/echo")?["status"]["podIPs"].clone();
    let node = cluster.nodes()[0].namespace.clone();
    for entry in addresses.as_array().context("podIPs")? {
        let address: IpAddr = entry["ip"].as_str().context("ip")?.parse()?;
        let answer = node.within(|| -> std::io::Result<String> {
            let socket = std::net::UdpSocket::bind(match address {
                IpAddr::V4(_) => "0.0.0.0:0",
                IpAddr::V6(_) => "[::]:0",
            })?;
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
            socket.send_to(b"hello", (address, 7007))?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })??;
        ensure!(answer == "echo hello", "{address} answered {answer:?}");
    }
    let log = std::fs::read_to_string(cluster.pod_dir("default", "shell").join("shell/log"))?;
    ensure!(log == "shell\n", "{log:?}");
    // Scheduled evenly, these two are on different nodes.
    let node_of =
        |pod: &str| cluster.kubectl(&format!("get pod {pod} -o jsonpath={{.spec.nodeName}}"));
    ensure!(node_of("echo")? != node_of("shell")?, "both pods are on {}", node_of("echo")?);

    let ready = |wanted: &str| -> Result<bool> {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        Ok(cluster.kubectl(&format!("get node/node-1 -o {path}"))? == wanted)
    };
    ensure!(ready("True")?, "node-1 isn't ready");
    cluster.stop_kubelet(0)?;
    wait("a node that is Unknown", || ready("Unknown"))?;
    cluster.start_kubelet(0)?;
    wait("a node that is ready again", || ready("True"))?;
    cluster.kubectl("wait --for=condition=Ready pod/echo pod/shell --timeout=60s").map(drop)
}
