//! From a kubeconfig to a client, and to another one when what it was made from changes.
//!
//! The client speaks HTTP/2 where the server does, and pings it: a server that was stopped, or
//! whose host has gone, keeps its connections open, and TCP's own keepalive is answered by its
//! kernel. All watches share one connection, so one ping a second watches over all of them.
//! Kubeconfig, token, CA and client certificate are looked at every few seconds; what differs
//! makes a new client, and watches move over as they are renewed. So does a connection that was
//! found dead.

use super::KubeError;
use super::options::{Options, Timing};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use tower::{BoxError, ServiceBuilder};

/// Where a pod finds its credentials.
pub(super) const POD_CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Bytes in flight on one watch or list, and on all of them: lists of large clusters are large.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// What messages say about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The API server, as a URL.
    pub server: String,
    /// Where that comes from.
    pub config: String,
    /// The file that holds the token, where there is one.
    pub token_file: Option<String>,
}

/// A client and what is known of it.
#[derive(Clone)]
pub(super) struct Connection {
    /// Grows with each new client.
    pub number: u64,
    pub client: Client,
    pub facts: Arc<Facts>,
}

/// The way to the current client.
#[derive(Clone)]
pub(super) struct Line {
    current: watch::Receiver<Connection>,
    doubt: Arc<Notify>,
}

impl Line {
    /// The client to ask now.
    pub(super) fn get(&self) -> Connection {
        self.current.borrow().clone()
    }

    /// A connection may be dead, or its credentials too old: it is made anew, unless that has
    /// happened already.
    pub(super) fn doubt(&self, number: u64) {
        if self.current.borrow().number == number {
            self.doubt.notify_one();
        }
    }

    /// Waits until there is another client.
    pub(super) async fn renewed(&mut self, number: u64) {
        let other = |connection: &Connection| connection.number != number;
        let gone = self.current.wait_for(other).await.is_err();
        if gone {
            std::future::pending::<()>().await;
        }
    }

    /// A line to one client that stays.
    #[cfg(test)]
    pub(super) fn fixed(client: Client) -> (watch::Sender<Connection>, Self) {
        let facts = Facts {
            server: "https://192.0.2.1:6443".to_owned(),
            config: "/etc/headgate/kubeconfig".to_owned(),
            token_file: Some("/etc/headgate/token".to_owned()),
        };
        let connection = Connection { number: 1, client, facts: Arc::new(facts) };
        let (sender, current) = watch::channel(connection);
        (sender, Self { current, doubt: Arc::default() })
    }
}

/// Where the credentials come from.
#[derive(Clone, Debug)]
enum Place {
    Files { paths: Vec<PathBuf>, context: Option<String> },
    Pod,
}

impl Place {
    fn find(options: &Options) -> Result<Self, KubeError> {
        let context = options.context.clone();
        if let Some(path) = &options.kubeconfig {
            return Ok(Self::Files { paths: vec![path.clone()], context });
        }
        if let Some(paths) = std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
            let paths = std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty());
            return Ok(Self::Files { paths: paths.collect(), context });
        }
        if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            return Ok(Self::Pod);
        }
        Err(KubeError::NoKubeconfig)
    }

    fn name(&self) -> String {
        match self {
            Self::Pod => POD_CREDENTIALS.to_owned(),
            Self::Files { paths, .. } => {
                let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
                names.join(":")
            }
        }
    }

    /// The client's configuration, and the files that it was made from.
    async fn load(&self) -> Result<(Config, Vec<PathBuf>), KubeError> {
        let (paths, context) = match self {
            Self::Files { paths, context } => (paths, context),
            Self::Pod => {
                let config = Config::incluster()
                    .map_err(|cause| KubeError::Pod { cause: cause.to_string() })?;
                let files = ["token", "ca.crt"].map(|file| Path::new(POD_CREDENTIALS).join(file));
                return Ok((config, files.to_vec()));
            }
        };
        let mut files = paths.clone();
        let mut merged = Kubeconfig::default();
        for path in paths {
            std::fs::metadata(path)
                .map_err(|cause| KubeError::Missing { path: path.clone(), cause })?;
            let bad = |cause: kube::config::KubeconfigError| KubeError::Bad {
                config: path.display().to_string(),
                cause: cause.to_string(),
            };
            let one = Kubeconfig::read_from(path).map_err(bad)?;
            merged = merged.merge(one).map_err(bad)?;
        }
        let config = self.name();
        let contexts: Vec<_> = merged.contexts.iter().map(|one| one.name.clone()).collect();
        let wanted = context.clone().or_else(|| merged.current_context.clone());
        match wanted.filter(|name| !name.is_empty()) {
            None => return Err(KubeError::NoContext { config, contexts }),
            Some(context) if !contexts.contains(&context) => {
                return Err(KubeError::UnknownContext { config, context, contexts });
            }
            Some(_) => {}
        }
        for cluster in merged.clusters.iter().filter_map(|one| one.cluster.as_ref()) {
            files.extend(cluster.certificate_authority.iter().map(PathBuf::from));
        }
        for user in merged.auth_infos.iter().filter_map(|one| one.auth_info.as_ref()) {
            files.extend(named(user));
        }
        let options = KubeConfigOptions { context: context.clone(), ..Default::default() };
        let bad = |cause: kube::config::KubeconfigError| KubeError::Bad {
            config: config.clone(),
            cause: cause.to_string(),
        };
        let loaded = Config::from_custom_kubeconfig(merged, &options).await.map_err(bad)?;
        Ok((loaded, files))
    }
}

/// The files that a user of a kubeconfig names.
fn named(user: &AuthInfo) -> impl Iterator<Item = PathBuf> + '_ {
    let files = [&user.token_file, &user.client_certificate, &user.client_key];
    files.into_iter().flatten().map(PathBuf::from)
}

/// A hash of what is in the files; of what can't be read, that.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

/// A client for once.
pub(super) async fn once(options: &Options) -> Result<Connection, KubeError> {
    let place = Place::find(options)?;
    let (config, _) = place.load().await?;
    connect(config, &place, 1, &options.timing)
}

/// Makes clients, and watches what they are made from.
pub(super) struct Connector {
    place: Place,
    timing: Timing,
    files: Vec<PathBuf>,
    fingerprint: u64,
    sender: watch::Sender<Connection>,
    doubt: Arc<Notify>,
}

impl Connector {
    /// The first client. The server needn't be there.
    pub(super) async fn start(options: &Options) -> Result<(Self, Line), KubeError> {
        let place = Place::find(options)?;
        let (config, files) = place.load().await?;
        let fingerprint = fingerprint(&files);
        let connection = connect(config, &place, 1, &options.timing)?;
        let (sender, current) = watch::channel(connection);
        let doubt = Arc::<Notify>::default();
        let line = Line { current, doubt: doubt.clone() };
        let timing = options.timing;
        Ok((Self { place, timing, files, fingerprint, sender, doubt }, line))
    }

    /// Goes on as long as somebody uses the line. `problem` is told what is wrong with the files,
    /// and `None` when they are good again.
    pub(super) async fn run(mut self, problem: impl Fn(Option<String>)) {
        // What was put back as it was has changed nothing, and is good again.
        let mut is_bad = false;
        while !self.sender.is_closed() {
            let doubted = tokio::select! {
                () = tokio::time::sleep(self.timing.reread) => false,
                () = self.doubt.notified() => true,
            };
            if doubted || is_bad || fingerprint(&self.files) != self.fingerprint {
                let renewed = self.renew().await;
                is_bad = renewed.is_err();
                problem(renewed.err().map(|error| format!("{error}; the old ones stay in use")));
            }
            if doubted {
                // Whoever doubts again has to wait: making clients is no cure for everything.
                tokio::time::sleep(self.timing.retry_longest / 2).await;
            }
        }
    }

    async fn renew(&mut self) -> Result<(), KubeError> {
        let (config, files) = self.place.load().await?;
        let print = fingerprint(&files);
        let number = self.sender.borrow().number + 1;
        let connection = connect(config, &self.place, number, &self.timing)?;
        (self.files, self.fingerprint) = (files, print);
        tracing::debug!(number, server = %connection.facts.server, "a new client");
        self.sender.send_replace(connection);
        Ok(())
    }
}

/// A client for a configuration.
fn connect(
    config: Config,
    place: &Place,
    number: u64,
    timing: &Timing,
) -> Result<Connection, KubeError> {
    let name = place.name();
    let bad = |cause: kube::Error| KubeError::Bad { config: name.clone(), cause: chain(&cause) };
    let facts = Facts {
        server: config.cluster_url.to_string().trim_end_matches('/').to_owned(),
        config: name.clone(),
        token_file: config.auth_info.token_file.clone(),
    };
    if config.proxy_url.is_some() {
        return Err(KubeError::Bad {
            config: name,
            cause: "it names a proxy (proxy-url), and proxies aren't supported".to_owned(),
        });
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let tls = config.rustls_client_config().map_err(bad)?;
    let mut builder =
        hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(server_name) = &config.tls_server_name {
        let server_name = server_name.clone().try_into().map_err(|_| KubeError::Bad {
            config: name.clone(),
            cause: format!("tls-server-name: {server_name} is no name of a server"),
        })?;
        let resolver = hyper_rustls::FixedServerNameResolver::new(server_name);
        builder = builder.with_server_name_resolver(resolver);
    }
    let https = builder.enable_all_versions().wrap_connector(http);
    let mut connector = hyper_timeout::TimeoutConnector::new(https);
    connector.set_connect_timeout(Some(timing.connect));
    let client = hyper_util::client::legacy::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(timing.watch)
        .http2_keep_alive_interval(timing.ping_every)
        .http2_keep_alive_timeout(timing.ping_answer)
        .http2_keep_alive_while_idle(false)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(bad)?)
        .layer(config.extra_headers_layer().map_err(bad)?)
        .map_err(BoxError::from)
        .service(client);
    let client = ClientBuilder::new(service, config.default_namespace.clone()).build();
    Ok(Connection { number, client, facts: Arc::new(facts) })
}

/// An error and its causes, without repetition.
pub(super) fn chain(error: &kube::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|told| told.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}
