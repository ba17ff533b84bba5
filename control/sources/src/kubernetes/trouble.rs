//! What went wrong with a request, in one sentence with its remedy.

use super::connect::{Facts, POD_CREDENTIALS, chain};
use super::options::{ACCOUNT, LEASE, LeaseOptions, NAMESPACE};
use kube::core::Status;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

/// Signs of a connection that was there and has ended.
const BROKEN: [&str; 4] =
    ["broken pipe", "keep-alive timed out", "connection reset", "connection closed"];

/// What sort of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// 410: what was asked for from is compacted away. A list helps.
    Gone,
    /// 404.
    Missing,
    /// 409.
    Conflict,
    /// 401: who we are isn't believed.
    Credentials,
    /// The server's certificate isn't believed.
    Certificate,
    /// 403.
    Forbidden,
    /// 400 and 422: what was sent makes no sense to it, and won't another time.
    Invalid,
    /// Nothing answers.
    Unreachable,
    /// Something should have answered in time.
    Silent,
    /// Its answer is from before what was seen.
    Older,
    /// 429 and 5xx: another time.
    Busy,
    /// Everything else.
    Other,
}

impl Sort {
    /// Whether every other request would meet the same.
    pub(super) const fn concerns_all(self) -> bool {
        matches!(
            self,
            Self::Credentials
                | Self::Certificate
                | Self::Forbidden
                | Self::Unreachable
                | Self::Silent
                | Self::Busy
        )
    }
}

/// Which manifest grants what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Grant {
    Base,
    Namespaces,
    /// Namespace and name of a Lease.
    Lease(String, String),
}

impl Grant {
    /// What to do where it isn't granted.
    fn remedy(&self) -> String {
        match self {
            Self::Lease(namespace, name) if (&**namespace, &**name) != (NAMESPACE, LEASE) => {
                format!(
                    "the Role in control/deploy/lease.yaml grants the Lease {NAMESPACE}/{LEASE} \
                     alone: apply a copy of that file with {namespace}/{name}"
                )
            }
            Self::Base | Self::Lease(..) => format!(
                "apply the ClusterRole {ACCOUNT} and the Role {ACCOUNT}-lease that come with this \
                 release: kubectl apply -k control/deploy"
            ),
            Self::Namespaces => "pools choose by the labels of Namespaces, which takes a \
                                 ClusterRole of its own: kubectl apply -k \
                                 control/deploy/namespaces"
                .to_owned(),
        }
    }
}

/// What a request is for, in a few words, and what grants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doing {
    what: String,
    grant: Grant,
}

impl Doing {
    pub(super) const fn new(what: String) -> Self {
        Self { what, grant: Grant::Base }
    }

    /// About Namespaces.
    pub(super) const fn namespaces(what: String) -> Self {
        Self { what, grant: Grant::Namespaces }
    }

    /// About the Lease: `reading`, for one.
    pub(super) fn lease(verb: &str, lease: &LeaseOptions) -> Self {
        let LeaseOptions { namespace, name, .. } = lease;
        let what = format!("{verb} the Lease {namespace}/{name}");
        Self { what, grant: Grant::Lease(namespace.clone(), name.clone()) }
    }

    /// What is wrong where the account may not do it.
    pub(super) fn forbidden(&self, message: &str) -> String {
        let why = if message.is_empty() { String::new() } else { format!(": {message}") };
        format!("RBAC is too small, {self} is forbidden{why}; {}", self.grant.remedy())
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub sort: Sort,
    /// One sentence with its remedy.
    pub what: String,
    /// The server asks not to come back sooner.
    pub retry_after: Option<Duration>,
}

impl Trouble {
    pub(super) const fn new(sort: Sort, what: String) -> Self {
        Self { sort, what, retry_after: None }
    }

    /// An error of the client, met while doing what `doing` says.
    pub(super) fn of(error: &kube::Error, doing: &Doing, facts: &Facts) -> Self {
        match error {
            kube::Error::Api(status) => Self::answered(status, doing, facts),
            kube::Error::Auth(_) => Self::new(
                Sort::Credentials,
                format!(
                    "no credentials for the API server {}: {}; look at the user in {}",
                    facts.server,
                    chain(error),
                    facts.config
                ),
            ),
            kube::Error::SerdeError(why) => Self::new(
                Sort::Other,
                format!(
                    "{doing}: the answer of {} can't be read: {why}; is it a Kubernetes API server \
                 of 1.33 or newer?",
                    facts.server
                ),
            ),
            _ => Self::unanswered(error, doing, facts),
        }
    }

    /// Nothing came in time.
    pub(super) fn silent(doing: &Doing, after: Duration, facts: &Facts) -> Self {
        let what = format!(
            "the API server {} is silent: {doing} had no answer within {} s; it is asked again \
             over a new connection, and forwarding goes on as it was",
            facts.server,
            after.as_secs_f32()
        );
        Self::new(Sort::Silent, what)
    }

    /// The server said no.
    pub(super) fn answered(status: &Status, doing: &Doing, facts: &Facts) -> Self {
        let server = &facts.server;
        let message = status.message.trim();
        let (sort, what) = match status.code {
            401 => (Sort::Credentials, credentials(facts)),
            403 => (Sort::Forbidden, doing.forbidden(message)),
            404 => (Sort::Missing, format!("{doing}: {server} doesn't have it: {message}")),
            409 => (Sort::Conflict, format!("{doing}: {message}")),
            410 => (Sort::Gone, format!("{doing}: {message}")),
            400 | 422 => (Sort::Invalid, format!("{doing}: {server} refuses it: {message}")),
            429 | 500.. => (
                Sort::Busy,
                format!(
                    "{doing}: the API server {server} answers {}: {message}; kubectl get --raw \
                 '/readyz?verbose' tells what it lacks",
                    status.code
                ),
            ),
            code => (Sort::Other, format!("{doing}: {server} answers {code}: {message}")),
        };
        let after = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let retry_after = (after > 0).then(|| Duration::from_secs(u64::from(after.min(30))));
        Self { sort, what, retry_after }
    }

    fn unanswered(error: &kube::Error, doing: &Doing, facts: &Facts) -> Self {
        let text = chain(error);
        let Facts { server, config, .. } = facts;
        if text.contains("invalid peer certificate") || text.contains("UnknownIssuer") {
            return Self::new(Sort::Certificate, certificate(&text, facts));
        }
        let refused = io_kind(error);
        let why = match refused {
            Some(io::ErrorKind::ConnectionRefused) => {
                "nothing listens there: is it running, and is the port right?"
            }
            _ if BROKEN.iter().any(|sign| text.contains(sign)) => {
                "the connection broke, or nobody answered its pings; it is made anew"
            }
            Some(io::ErrorKind::TimedOut) => {
                "no answer in time: is there a firewall or a route missing on the way?"
            }
            Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
                "there is no route to it: ip route get, and look at this host's interfaces"
            }
            _ if text.contains("dns error") || text.contains("lookup") => {
                "its name can't be resolved: look at /etc/resolv.conf"
            }
            _ => "it is asked again",
        };
        let what = format!(
            "the API server {server} (from {config}) can't be reached, {doing}: {text}; {why}; \
             forwarding goes on as it was"
        );
        Self::new(Sort::Unreachable, what)
    }
}

fn credentials(facts: &Facts) -> String {
    let Facts { server, config, token_file, .. } = facts;
    let create = format!("kubectl -n {NAMESPACE} create token {ACCOUNT} --duration=24h");
    let remedy = match token_file {
        // The kubelet writes it, and nobody else can.
        Some(file) if file.starts_with(POD_CREDENTIALS) => format!(
            "the kubelet renews {file} while the pod's service account is there: look at it \
             (kubectl get serviceaccounts, in the pod's namespace), then delete the pod, and the \
             next one gets a token of its own"
        ),
        Some(file) => format!("write a new one, which is picked up at once: {create} > {file}"),
        None => format!("put a new one, or a new client certificate, into {config}: {create}"),
    };
    format!(
        "the API server {server} doesn't accept the credentials of {config} (401): the token has \
         expired or is another cluster's; {remedy}"
    )
}

fn certificate(text: &str, facts: &Facts) -> String {
    let Facts { server, config, .. } = facts;
    if text.contains("NotValidForName") || text.contains("not valid for name") {
        return format!(
            "the certificate of {server} is for other names: {text}; in {config} use one of them \
             as the server, or set tls-server-name in its cluster"
        );
    }
    if text.contains("Expired") || text.contains("expired") {
        return format!("the certificate of {server} has expired: {text}; renew it there");
    }
    format!(
        "the certificate of {server} isn't signed by the authority in {config} (x509): {text}; \
         wrong CA, so write the cluster's own into it: kubectl config view --raw --minify \
         --flatten, on a machine where kubectl works, shows certificate-authority-data"
    )
}

/// What the system said, where it did.
fn io_kind(error: &kube::Error) -> Option<io::ErrorKind> {
    let mut next: Option<&dyn std::error::Error> = error.source();
    let mut found = None;
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            found = Some(io.kind());
        }
        next = error.source();
    }
    found
}
