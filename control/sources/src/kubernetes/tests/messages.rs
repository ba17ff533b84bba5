//! Each thing that goes wrong at an operator's hands names its remedy.

use super::fake::Fault;
use super::rules::Rules;
use super::*;
use crate::kubernetes::connect::Facts;
use crate::kubernetes::examine::examine_over;
use crate::kubernetes::said;
use crate::kubernetes::trouble::{Doing, Trouble};
use crate::kubernetes::{Examined, KubeError, LeaseOptions};

/// What the source says while this is wrong.
fn said(fault: Fault) -> String {
    timeless(async {
        let fake = Fake::default();
        fake.with(|cluster| cluster.fault = fault);
        let rig = Rig::new(&fake, Options::new("gateway-1"));
        pass(40_000).await;
        let health = rig.source.health();
        assert!(!health.in_step);
        health.what
    })
}

fn assert_says(what: &str, parts: &[&str]) {
    for part in parts {
        assert!(what.contains(part), "{part:?} isn't in {what:?}");
    }
}

#[test]
fn an_expired_token_names_the_command_that_makes_another() {
    let what = said(Fault::Status(401, "Unauthorized".to_owned()));
    assert_says(
        &what,
        &[
            "expired",
            "kubectl -n headgate-system create token headgate --duration=24h > /etc/headgate/token",
        ],
    );
}

#[test]
fn a_role_that_is_too_small_names_verb_resource_and_manifest() {
    let what = timeless(async {
        let fake = Fake::default();
        fake.with(|cluster| cluster.rules = Some(Rules::default()));
        let rig = Rig::new(&fake, Options::new("gateway-1"));
        pass(5_000).await;
        rig.source.health().what
    });
    assert_says(
        &what,
        &[
            "RBAC is too small",
            "cannot list resource \"services\"",
            "ClusterRole headgate",
            "kubectl apply -k control/deploy",
        ],
    );
}

/// What is said of a refusal with this status.
fn refused(code: u16, doing: &Doing, token: &str) -> String {
    let status = json!({ "code": code, "message": "User cannot", "status": "Failure" });
    let facts = Facts {
        server: "https://192.0.2.1:6443".to_owned(),
        config: "there".to_owned(),
        token_file: Some(token.to_owned()),
    };
    Trouble::answered(&serde_json::from_value(status).unwrap(), doing, &facts).what
}

#[test]
fn each_right_has_a_remedy_of_its_own() {
    let namespaces = Doing::namespaces("listing namespaces".to_owned());
    let what = refused(403, &namespaces, "");
    assert_says(&what, &["User cannot", "kubectl apply -k control/deploy/namespaces"]);
    let shipped = LeaseOptions::default();
    let what = refused(403, &Doing::lease("updating", &shipped), "");
    assert!(what.ends_with("kubectl apply -k control/deploy"), "{what}");
    let own = LeaseOptions { name: "edge".to_owned(), ..LeaseOptions::default() };
    let what = refused(403, &Doing::lease("updating", &own), "");
    assert_says(&what, &["control/deploy/lease.yaml", "headgate-system/edge"]);
    assert_says(&said::missing(&own), &["control/deploy/lease.yaml", "headgate-system/edge"]);
}

#[test]
fn a_token_of_a_pod_is_the_kubelets_to_write() {
    let doing = Doing::new("listing services".to_owned());
    let file = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let what = refused(401, &doing, file);
    assert_says(&what, &["the kubelet renews", file, "delete the pod"]);
    assert!(!what.contains("create token"), "{what}");
}

/// What one look says with these rights.
fn looked(rules: Rules, options: &Options) -> Examined {
    timeless(async {
        let fake = Fake::default();
        let lease = json!({ "metadata": { "name": "headgate", "namespace": "headgate-system" } });
        fake.with(|cluster| {
            cluster.apply("leases", lease);
            cluster.rules = Some(rules);
        });
        let (_sender, line) = Line::fixed(fake.client());
        let examined = examine_over(&line.get(), options).await;
        let reviews = "selfsubjectaccessreviews";
        let wrote = |cluster: &mut super::fake::Cluster| {
            let reads = ["list", "get"];
            cluster.asked.iter().any(|one| !reads.contains(&one.verb) && one.resource != reviews)
        };
        assert!(!fake.with(wrote), "a look writes nothing");
        examined
    })
}

#[test]
fn a_look_names_the_right_that_is_missing() {
    let mut options = Options::new("gateway-1");
    (options.write, options.lease) = (true, Some(LeaseOptions::default()));
    let all = || Rules::of(&["role.yaml", "lease.yaml"]);
    assert_eq!(looked(all(), &options), Examined::Good("https://192.0.2.1:6443".to_owned()));
    for (resource, verb, named) in [
        ("endpointslices", "watch", "watching endpointslices is forbidden"),
        ("services/status", "patch", "writing the status of Services is forbidden"),
        ("events", "create", "creating Events is forbidden"),
        ("events", "patch", "counting on in Events is forbidden"),
        ("leases", "update", "updating the Lease headgate-system/headgate is forbidden"),
    ] {
        match looked(all().without(resource, verb), &options) {
            Examined::Refused(what) => {
                assert_says(&what, &[named, "kubectl apply -k control/deploy"]);
            }
            other => panic!("{resource} {verb}: {other:?}"),
        }
    }
    // What is never done needs no right.
    options.events = false;
    let good = looked(all().without("events", "create"), &options);
    assert!(matches!(good, Examined::Good(_)), "{good:?}");
    (options.write, options.lease) = (false, None);
    let good = looked(all().without("services/status", "patch"), &options);
    assert!(matches!(good, Examined::Good(_)), "{good:?}");
}

#[test]
fn a_wrong_authority_a_wrong_name_and_an_old_certificate_are_told_apart() {
    let what = said(Fault::Certificate("UnknownIssuer"));
    assert_says(&what, &["wrong CA", "/etc/headgate/kubeconfig", "kubectl config view --raw"]);
    let what = said(Fault::Certificate("certificate not valid for name \"x\""));
    assert_says(&what, &["other names", "tls-server-name"]);
    let what = said(Fault::Certificate("certificate expired: verification time 1"));
    assert_says(&what, &["has expired", "renew it there"]);
}

#[test]
fn an_api_server_that_is_away_is_named() {
    let what = said(Fault::Refused);
    assert_says(&what, &["https://192.0.2.1:6443", "nothing listens there", "forwarding goes on"]);
    let what = said(Fault::Silent);
    assert_says(&what, &["is silent", "forwarding goes on"]);
    let what = said(Fault::Status(503, "etcd is away".to_owned()));
    assert_says(&what, &["503", "etcd is away", "/readyz?verbose"]);
}

const GOOD: &str = "apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: a, context: {cluster: c, user: u}}, {name: b, context: {cluster: x}}]
current-context: a
";

/// Starts with this kubeconfig and context.
fn start(text: Option<&str>, context: Option<&str>) -> Result<KubernetesSource, KubeError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    if let Some(text) = text {
        std::fs::write(&path, text).unwrap();
    }
    let mut options = Options::new("gateway-1");
    options.kubeconfig = Some(path);
    options.context = context.map(str::to_owned);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    KubernetesSource::start(options, runtime.handle())
}

#[test]
fn a_wrong_kubeconfig_is_told_at_once() {
    let message = |text, context| start(text, context).unwrap_err().to_string();
    assert_says(&message(None, None), &["can't be read", "kubernetes.kubeconfig"]);
    assert_says(&message(Some("a: ["), None), &["kubectl --kubeconfig", "version tests it"]);
    assert_says(&message(Some(GOOD), Some("z")), &["no context z", "of: a, b"]);
    let none = GOOD.replace("current-context: a", "current-context: ''");
    assert_says(&message(Some(&none), None), &["no current context", "of: a, b"]);
    assert_says(&message(Some(GOOD), Some("b")), &["cluster of context", "x"]);
    let ca = GOOD.replace("server:", "certificate-authority: /nowhere/ca.crt, server:");
    assert_says(&message(Some(&ca), None), &["/nowhere/ca.crt"]);
}

/// Against real sockets: a server that is away is waited for, and its address is in the message.
#[test]
fn a_server_that_is_away_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    std::fs::write(&path, GOOD).unwrap();
    let mut options = Options::new("gateway-1");
    options.kubeconfig = Some(path);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut source = KubernetesSource::start(options, runtime.handle()).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while !source.health().what.contains("https://127.0.0.1:1") {
        assert!(source.next(Duration::from_millis(50)).is_none());
        assert!(std::time::Instant::now() < until, "{:?}", source.health());
    }
    assert_says(&source.health().what, &["nothing listens there"]);
}
