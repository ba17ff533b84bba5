//! What can be typed.

use super::terms::Term;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use model::desired::ObjectName;
use model::drops::DropReason;
use model::ids::Protocol;
use model::record::ConnectionState;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  headgate                                   the state of this gateway
  headgate check                             is the configuration good, is the host ready?
  headgate show services -n default          what is served, and what isn't and why
  headgate show connections --src 198.18.0.10 --state established
  headgate explain service default/web       why can't I reach my Service?
  headgate explain tcp 198.18.0.10:40112 203.0.113.10:80
  headgate explain drop neighbour_unresolved what a reason means and what to do

Files: /etc/headgate/headgate.toml, /etc/headgate/conf.d/*.toml
Environment: HEADGATE_* sets keys (HEADGATE_ADMIN_SOCKET), RUST_LOG the log, NO_COLOR no colours
Exit codes: 0 good, 1 failed or degraded, 2 usage, 78 bad configuration";

/// An ingress gateway for Kubernetes: real clients reach your Services through poll-mode cores.
#[derive(Debug, Parser)]
#[command(
    name = "headgate",
    display_name = "Headgate",
    version = crate::VERSION,
    after_help = EXAMPLES,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Admin socket of the gateway to ask [default: the configured one].
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Configuration file; may be repeated. Without it, those of /etc/headgate.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "HEADGATE_CONFIG",
        value_delimiter = ':'
    )]
    pub config: Vec<PathBuf>,
    /// What to do; without one, the state of the gateway.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway in the foreground.
    Run(Run),
    /// Check the configuration, the host and the API server, and change nothing.
    ///
    /// Tells everything that is wrong, each with file, line and remedy. Exits with 78 for a bad
    /// configuration and with 1 for a host that isn't ready.
    Check(Check),
    /// Show the state of the gateway on one screen; fails when degraded.
    Status(Output),
    /// List services, backends, connections, drops, neighbours, ports, workers, budgets, pools or
    /// events.
    #[command(alias = "get", after_help = FILTERS)]
    Show {
        /// What to list.
        #[command(subcommand)]
        what: What,
    },
    /// Say why: what becomes of a packet, a Service, or a drop reason.
    #[command(alias = "why")]
    Explain {
        /// What to explain.
        #[command(subcommand)]
        what: Explain,
    },
    /// Print a completion script for a shell.
    ///
    /// For bash: headgate completion bash > /etc/bash_completion.d/headgate
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page.
    ///
    /// To read it: headgate man | man -l -
    Man,
}

/// Flags of `run`; each is stronger than the files and the environment.
#[derive(Debug, Default, Args)]
pub struct Run {
    /// Directory of manifests to serve ([manifests] dir).
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// Kubeconfig of the API server to watch ([kubernetes] kubeconfig).
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    pub kubeconfig: Option<PathBuf>,
    /// Directory for what must outlive the process ([state] dir).
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Loopback address for metrics ([admin] metrics).
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<String>,
}

/// Flags of `check`.
#[derive(Debug, Default, Args)]
pub struct Check {
    /// List every key of the configuration instead: meaning, range, default, reload.
    #[arg(long)]
    pub keys: bool,
    /// Check the configuration alone.
    #[arg(long)]
    pub config_only: bool,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for a person.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// For programs.
    Json,
    /// For programs, and persons.
    Yaml,
}

/// How an answer is shown, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Output {
    /// Form of the answer.
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// Show it again every second, until Ctrl-C.
    #[arg(short = 'w', long)]
    pub watch: bool,
}

/// Which namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Scope {
    /// One namespace alone.
    #[arg(short = 'n', long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    pub namespace: Option<String>,
    /// All namespaces, as without -n.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Which rows.
    #[command(flatten)]
    pub rows: Rows,
}

const FILTERS: &str = "\
Every list takes filters: KEY=VALUE for rows that have the value, KEY!=VALUE for those that don't.
VALUE may hold * for anything, commas between alternatives, and a prefix for an address. Filters
hold for tables, JSON and YAML alike. The keys:
  services     namespace name type address port state (served, problem)
  backends     namespace service name address node state way
  connections  namespace service protocol client frontend backend nat state worker
  drops        reason state (seen, unseen)
  neighbours   interface address mac state kind (backend, router, client)
  ports        name driver mac state (up, down)
  workers      name core
  budgets      interface purpose state (unused, within, exceeded)
  pools        name
  events       namespace name kind reason state (normal, warning)

Examples:
  headgate show neighbours interface=back state!=reachable
  headgate show services 'name=web*' state=problem -o json
  headgate show connections client=198.18.0.0/24 --limit 1000";

/// What to list. Each has a plural, a singular and a short name.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Services: address, ports, backends, and why something isn't forwarded.
    #[command(visible_aliases = ["service", "svc"])]
    Services(Scope),
    /// Backends: where connections go.
    #[command(visible_aliases = ["backend", "be"])]
    Backends {
        /// Backends of this Service alone.
        #[arg(long, value_name = "[NAMESPACE/]NAME")]
        service: Option<String>,
        /// Which namespace.
        #[command(flatten)]
        scope: Scope,
    },
    /// Connections, by client, frontend, Service or state.
    #[command(visible_aliases = ["connection", "conn"])]
    Connections(Filter),
    /// Packets dropped, with reason and remedy.
    #[command(visible_aliases = ["drop"])]
    Drops(Rows),
    /// Neighbours: next hops and their MAC addresses.
    ///
    /// Next hops of backends and routers; clients on the link are counted.
    #[command(visible_aliases = ["neighbour", "neigh"], aliases = ["neighbors", "neighbor"])]
    Neighbours {
        /// Clients as well, one by one, as with a filter.
        #[arg(long)]
        all: bool,
        /// Which rows.
        #[command(flatten)]
        rows: Rows,
    },
    /// DPDK ports and what the devices count.
    #[command(visible_aliases = ["port"])]
    Ports(Rows),
    /// Workers: load, connections, ledger.
    #[command(visible_aliases = ["worker", "wk"])]
    Workers {
        /// Measure for so long what workers spend their time on.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=60))]
        passes: Option<u32>,
        /// Which rows.
        #[command(flatten)]
        rows: Rows,
    },
    /// Budgets: how much was answered and given to the host, by interface and purpose.
    #[command(visible_aliases = ["budget"])]
    Budgets(Rows),
    /// Pools of LoadBalancer addresses: used and free.
    #[command(visible_aliases = ["pool"])]
    Pools(Rows),
    /// What happened lately.
    #[command(visible_aliases = ["event", "ev"])]
    Events(Scope),
}

/// Which rows of a list, and how they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Rows {
    /// Filters, as state=reachable; see "headgate show --help".
    #[arg(value_name = "KEY=VALUE")]
    pub terms: Vec<Term>,
    /// How to show them.
    #[command(flatten)]
    pub output: Output,
}

/// Which connections.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Client, with or without its port.
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = end)]
    pub src: Option<(IpAddr, Option<u16>)>,
    /// Frontend, with or without its port.
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = end)]
    pub dst: Option<(IpAddr, Option<u16>)>,
    /// Service that they go to.
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pub service: Option<String>,
    /// syn_sent, syn_received, established, fin_wait, close_wait, last_ack, time_wait, reset, closed,
    /// due; unreplied, replied, stream.
    #[arg(long, value_parser = state)]
    pub state: Option<ConnectionState>,
    /// TCP or UDP.
    #[arg(long)]
    pub protocol: Option<Protocol>,
    /// Rows at most.
    #[arg(long, default_value_t = 100, value_parser = limit)]
    pub limit: usize,
    /// Which namespace.
    #[command(flatten)]
    pub scope: Scope,
}

/// What to explain.
#[derive(Debug, Subcommand)]
pub enum Explain {
    /// What becomes of a TCP packet: frontend, connection, backend, way, or the drop.
    Tcp(Flow),
    /// What becomes of a UDP packet.
    Udp(Flow),
    /// Walk from the Service to its backends, up to the first "no".
    #[command(visible_alias = "svc")]
    Service {
        /// The Service.
        #[arg(value_name = "[NAMESPACE/]NAME", value_parser = service_name)]
        name: ObjectName,
        /// How to show it.
        #[command(flatten)]
        output: Output,
    },
    /// What a drop reason means and what to do; needs no running gateway.
    Drop {
        /// The reason, as in "show drops"; without one, all of them.
        #[arg(value_parser = reason)]
        reason: Option<DropReason>,
    },
}

/// A flow.
#[derive(Clone, Copy, Debug, Args)]
pub struct Flow {
    /// Sender, as 198.18.0.10:40112 or [2001:db8::1]:40112.
    #[arg(value_name = "SRC:PORT")]
    pub source: SocketAddr,
    /// Receiver.
    #[arg(value_name = "DST:PORT")]
    pub destination: SocketAddr,
    /// How to show it.
    #[command(flatten)]
    pub output: Output,
}

fn end(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse() {
        return Ok((address, None));
    }
    let both: SocketAddr =
        text.parse().map_err(|_| "expected 198.18.0.10, 198.18.0.10:80 or [2001:db8::1]:80")?;
    Ok((both.ip(), Some(both.port())))
}

/// Connections that are shown, at most.
pub(crate) const LIMIT_MAX: usize = 100_000;

fn limit(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "expected a number")?;
    if (1..=LIMIT_MAX).contains(&number) {
        Ok(number)
    } else {
        Err("allowed are 1 to 100000".into())
    }
}

fn state(text: &str) -> Result<ConnectionState, String> {
    let all = ConnectionState::ALL;
    let found = all.into_iter().find(|state| state.name() == text);
    found.ok_or_else(|| format!("expected one of {}", all.map(ConnectionState::name).join(", ")))
}

/// `NAMESPACE/NAME`; a name alone is of the namespace `default`.
pub(crate) fn service_name(text: &str) -> Result<ObjectName, String> {
    let plain = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
    };
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    if plain(namespace) && plain(name) {
        return Ok(ObjectName::new(namespace, name));
    }
    Err("expected NAMESPACE/NAME, as default/web".to_owned())
}

fn reason(text: &str) -> Result<DropReason, String> {
    DropReason::from_label(text).ok_or_else(|| {
        let labels = DropReason::ALL.iter().map(|reason| reason.label());
        let near = labels.min_by_key(|label| strsim::damerau_levenshtein(label, text));
        format!("did you mean {}? \"headgate explain drop\" lists all", near.unwrap_or_default())
    })
}
