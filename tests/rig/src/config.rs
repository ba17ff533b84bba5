//! The configuration of a gateway in a [`Net`].

use crate::net::Net;
use crate::plan;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What differs from world to world.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// One worker for each of these cores; each port has as many queues.
    pub cores: Vec<u32>,
    /// Whether memory is taken from huge pages.
    pub huge_pages: bool,
    /// How it reaches an API server; without, it reads the folder of manifests.
    pub kubeconfig: Option<PathBuf>,
    /// It runs as a pod does: that is how it reaches an API server.
    pub pod: Option<Pod>,
    /// More keys of `[kubernetes]`, with their values in TOML.
    pub kubernetes: Vec<(&'static str, String)>,
    /// More of the configuration, in TOML: tables that aren't written here.
    pub more: String,
}

/// What a kubelet gives a pod to reach the API server.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The folder with `ca.crt`, `token` and `namespace`.
    pub credentials: PathBuf,
    /// Where the API server is.
    pub server: SocketAddr,
}

impl Default for GatewayOptions {
    /// One worker on core 1, where the machine has huge pages with these.
    fn default() -> Self {
        let huge_pages = crate::hugepages::enough();
        let (kubernetes, more) = (Vec::new(), String::new());
        Self { cores: vec![1], huge_pages, kubeconfig: None, pod: None, kubernetes, more }
    }
}

/// Places that the configuration names.
#[derive(Clone, Debug)]
pub struct Places {
    /// The file itself.
    pub config: PathBuf,
    /// Folder of manifests.
    pub manifests: PathBuf,
    /// The admin socket.
    pub socket: PathBuf,
    /// What outlives the process.
    pub state: PathBuf,
}

impl Places {
    /// All below the instance's folder, but for the manifests.
    pub fn in_folder(dir: &Path, manifests: &Path) -> Self {
        Self {
            config: dir.join("headgate.toml"),
            manifests: manifests.into(),
            socket: dir.join("headgate.sock"),
            state: dir.join("state"),
        }
    }
}

/// The text of the configuration file.
pub fn text(net: &Net, places: &Places, options: &GatewayOptions) -> String {
    let mut out =
        format!("[eal]\nhuge_pages = {}\nmemory_mib = 256\nmbufs = 16384\n", options.huge_pages);
    for core in &options.cores {
        section(&mut out, "[worker]", &[("core", core.to_string())]);
    }
    let sides = [
        ("front", net.front_link(), net.client.name(), plan::GATEWAY_FRONT),
        ("back", net.back_link(), net.switch.name(), plan::GATEWAY_BACK),
    ];
    for (index, (name, link, netns, _)) in sides.iter().enumerate() {
        section(
            &mut out,
            "[port]",
            &[
                ("name", quoted(name)),
                ("device", quoted(&format!("net_tap{index},iface={link}"))),
                ("netns", quoted(netns)),
                ("rx_queues", options.cores.len().to_string()),
            ],
        );
    }
    for (name, _, _, addresses) in &sides {
        let [v4, v6] = addresses;
        section(
            &mut out,
            "[interface]",
            &[
                ("name", quoted(name)),
                ("port", quoted(name)),
                ("addresses", format!("[\"{v4}/24\", \"{v6}/64\"]")),
                ("mtu", "1500".into()),
                ("role", quoted(name)),
                ("host_name", quoted(&format!("hg-{name}"))),
            ],
        );
    }
    section(&mut out, "[nat]", &[("interface", quoted("back")), ("addresses", list(&plan::NAT))]);
    section(&mut out, "[pool]", &[("name", quoted("demo")), ("addresses", list(&plan::POOL))]);
    section(&mut out, "node_port", &[("addresses", list(&plan::GATEWAY_FRONT))]);
    section(&mut out, "external_ips", &[("ranges", list(&plan::EXTERNAL))]);
    let file = |path: &Path| quoted(&path.display().to_string());
    if let Some(kubeconfig) = &options.kubeconfig {
        let keys = [vec![("kubeconfig", file(kubeconfig))], options.kubernetes.clone()].concat();
        section(&mut out, "kubernetes", &keys);
    } else if options.pod.is_some() {
        section(&mut out, "kubernetes", &options.kubernetes);
    } else {
        section(&mut out, "manifests", &[("dir", file(&places.manifests))]);
    }
    if (options.kubeconfig.is_some() || options.pod.is_some())
        && !options.more.contains("[service]")
    {
        // No other controller is there.
        section(&mut out, "service", &[("default_class", "true".into())]);
    }
    section(&mut out, "admin", &[("socket", file(&places.socket))]);
    section(&mut out, "state", &[("dir", file(&places.state))]);
    out.push_str(&options.more);
    out
}

fn section(out: &mut String, name: &str, keys: &[(&str, String)]) {
    // Writing to a String doesn't fail.
    let _ = writeln!(out, "\n[{name}]");
    for (key, value) in keys {
        let _ = writeln!(out, "{key} = {value}");
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn list(texts: &[&str]) -> String {
    format!("{texts:?}")
}
