//! What went wrong with a request, in one sentence with its remedy.

use super::connect::Facts;
use super::options::{ACCOUNT, NAMESPACE};
use kube::core::Status;
use std::error::Error as _;
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
    pub(super) fn of(error: &kube::Error, doing: &str, facts: &Facts) -> Self {
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
    pub(super) fn silent(doing: &str, after: Duration, facts: &Facts) -> Self {
        let what = format!(
            "the API server {} is silent: {doing} had no answer within {} s; it is asked again \
             over a new connection, and forwarding goes on as it was",
            facts.server,
            after.as_secs_f32()
        );
        Self::new(Sort::Silent, what)
    }

    /// The server said no.
    pub(super) fn answered(status: &Status, doing: &str, facts: &Facts) -> Self {
        let server = &facts.server;
        let message = status.message.trim();
        let (sort, what) = match status.code {
            401 => (Sort::Credentials, credentials(facts)),
            403 => (
                Sort::Forbidden,
                format!(
                    "RBAC is too small, {doing} is forbidden: {message}; apply the ClusterRole \
                 {ACCOUNT} that comes with this release: kubectl apply -k control/deploy"
                ),
            ),
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

    fn unanswered(error: &kube::Error, doing: &str, facts: &Facts) -> Self {
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

/// An error and its causes, without repetition.
pub(super) fn chain(error: &kube::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next: Option<&dyn std::error::Error> = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|told| told.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
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
