//! What `check` looks at beside the configuration: whether this host can run it.

use crate::config::{Config, Device, Source};
use sources::kubernetes::Examined;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It will run, though not as well as it could.
    Warning,
    /// It won't run.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it is to be taken.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// The host; tests make one of files.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where `/proc`, `/sys`, `/dev`, `/run` and `/usr` are.
    pub root: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl Host {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }
    /// A number of `/proc/meminfo`.
    fn meminfo(&self, name: &str) -> Option<u64> {
        let text = self.read("/proc/meminfo")?;
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.split_whitespace().next()?.parse().ok()
    }
    /// The CPUs of a list as `0-3,8`.
    fn cpus(&self, path: &str) -> Option<BTreeSet<u32>> {
        cpu_list(self.read(path)?.trim())
    }
}

fn cpu_list(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        cpus.extend(first..=last.min(first.saturating_add(8_192)));
    }
    Some(cpus)
}

fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Good, found: found.into(), remedy: None }
}

fn bad(verdict: Verdict, what: &'static str, found: String, remedy: String) -> Finding {
    Finding { what, verdict, found, remedy: Some(remedy) }
}

/// Looks at all that `config` needs of the host.
pub fn look(config: &Config, host: &Host) -> Vec<Finding> {
    let mut findings = vec![memory(config, host), tun(host), rights(config, host)];
    findings.extend(cores(config, host));
    findings.push(library(host));
    findings.extend(namespaces(config, host));
    findings.extend(directories(config, host));
    findings
}

/// What an API server said when it was asked.
pub fn api_server(answer: anyhow::Result<Examined>) -> Finding {
    let (verdict, found) = match answer {
        Ok(Examined::Good(server)) => return good("API server", server),
        // It is waited for, and what was stored is forwarded meanwhile.
        Ok(Examined::Away(what)) => (Verdict::Warning, what),
        Ok(Examined::Refused(what)) => (Verdict::Failed, what),
        Err(error) => (Verdict::Failed, format!("{error:#}")),
    };
    Finding { what: "API server", verdict, found, remedy: None }
}

/// Bytes of a connection with its share of the index, IPv4 and IPv6.
const CONNECTION_BYTES: [u64; 2] = [128, 224];

/// Bytes of the connection tables: a file in memory for each worker and family.
fn tables(config: &Config) -> impl Iterator<Item = u64> {
    let connections = [config.connections.ipv4, config.connections.ipv6];
    let bytes =
        [0, 1].map(|family| u64::from(connections[family].get()) * CONNECTION_BYTES[family]);
    std::iter::repeat_n(bytes, config.workers.len().max(1)).flatten()
}

fn memory(config: &Config, host: &Host) -> Finding {
    let packets = u64::from(config.eal.memory_mib.get());
    if !config.eal.huge_pages {
        let wanted = packets + tables(config).sum::<u64>().div_ceil(1 << 20);
        let free = host.meminfo("MemAvailable").unwrap_or_default() / 1_024;
        if free < wanted {
            let found = format!("{free} MiB are available, {wanted} are needed");
            let remedy = "lower eal.memory_mib, or [connections] ipv4 and ipv6".to_owned();
            return bad(Verdict::Failed, "memory", found, remedy);
        }
        return good("memory", format!("{free} MiB available, {wanted} wanted, no huge pages"));
    }
    let size_kib = host.meminfo("Hugepagesize").unwrap_or(2_048).max(1);
    let free = host.meminfo("HugePages_Free").unwrap_or_default();
    let for_packets = (packets * 1_024).div_ceil(size_kib);
    let for_tables: u64 = tables(config).map(|bytes| bytes.div_ceil(size_kib << 10)).sum();
    let needed = for_packets + for_tables;
    let size = if size_kib.is_multiple_of(1_024) {
        format!("{} MiB", size_kib / 1_024)
    } else {
        format!("{size_kib} KiB")
    };
    if free >= needed {
        return good("huge pages", format!("{free} x {size} free, {needed} needed"));
    }
    let total = host.meminfo("HugePages_Total").unwrap_or_default();
    let found = format!(
        "{free} of {total} x {size} are free, {needed} are needed, {for_tables} of them for \
         connection tables"
    );
    let remedy = format!(
        "sysctl -w vm.nr_hugepages={}, or set eal.huge_pages = false",
        total - free.min(total) + needed
    );
    // Tables without them lie on ordinary pages, which are slower.
    let verdict = if free >= for_packets { Verdict::Warning } else { Verdict::Failed };
    bad(verdict, "huge pages", found, remedy)
}

fn tun(host: &Host) -> Finding {
    if host.path("/dev/net/tun").exists() {
        return good("/dev/net/tun", "is there");
    }
    let remedy = "modprobe tun; in a container, pass the device in (--device /dev/net/tun)";
    bad(Verdict::Failed, "/dev/net/tun", "is missing".to_owned(), remedy.to_owned())
}

fn rights(config: &Config, host: &Host) -> Finding {
    let mut wanted = vec![(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")];
    if config.ports.iter().any(|port| port.netns.is_some()) {
        wanted.push((21, "CAP_SYS_ADMIN"));
    }
    let status = host.read("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let effective = effective.unwrap_or_default();
    let lacking: Vec<&str> = wanted
        .iter()
        .filter(|(bit, _)| effective & (1_u64 << bit) == 0)
        .map(|(_, name)| *name)
        .collect();
    if lacking.is_empty() {
        return good("rights", "all capabilities that are needed");
    }
    let found = format!("{} missing", lacking.join(", "));
    bad(Verdict::Failed, "rights", found, "run as root, or give the unit these".to_owned())
}

fn cores(config: &Config, host: &Host) -> Vec<Finding> {
    let online = host.cpus("/sys/devices/system/cpu/online").unwrap_or_default();
    let isolated = host.cpus("/sys/devices/system/cpu/isolated").unwrap_or_default();
    let list = |cores: &[u32]| cores.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let wanted: Vec<u32> = config.workers.iter().map(|worker| worker.core).collect();
    let absent: Vec<u32> = wanted.iter().copied().filter(|core| !online.contains(core)).collect();
    if !absent.is_empty() {
        let online: Vec<u32> = online.into_iter().collect();
        let found = format!("core {} is not online", list(&absent));
        let remedy = format!("choose from {} in [[worker]] core", list(&online));
        return vec![bad(Verdict::Failed, "cores", found, remedy)];
    }
    if wanted.len() >= online.len() {
        let found = "the workers take every core".to_owned();
        let remedy = "leave one to the host: its stack and the control side need it".to_owned();
        return vec![bad(Verdict::Warning, "cores", found, remedy)];
    }
    let shared: Vec<u32> = wanted.iter().copied().filter(|core| !isolated.contains(core)).collect();
    if shared.is_empty() {
        return vec![good("cores", format!("{} isolated", list(&wanted)))];
    }
    let found = format!("core {} is shared with other programs", list(&shared));
    let remedy =
        format!("boot with isolcpus={} for steady latency", list(&shared).replace(' ', ""));
    vec![bad(Verdict::Warning, "cores", found, remedy)]
}

fn library(host: &Host) -> Finding {
    let mut directories = Vec::new();
    for base in ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/lib"] {
        let base = host.path(base);
        let inside = fs::read_dir(&base).into_iter().flatten().filter_map(Result::ok);
        // Multiarch: /usr/lib/x86_64-linux-gnu.
        let inside = inside.map(|entry| entry.path());
        directories.extend(inside.filter(|path| path.to_string_lossy().contains("-linux-gnu")));
        directories.push(base);
    }
    match directories.iter().find_map(|directory| eal_library(directory)) {
        Some(name) => good("DPDK", name),
        None => {
            let found = "librte_eal.so is in no usual directory".to_owned();
            let remedy = "apt-get install dpdk libdpdk-dev".to_owned();
            bad(Verdict::Failed, "DPDK", found, remedy)
        }
    }
}

fn eal_library(directory: &Path) -> Option<String> {
    let entries = fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.find(|name| name.starts_with("librte_eal.so."))
}

fn namespaces(config: &Config, host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    for port in &config.ports {
        let (Some(name), Device::Virtual(_)) = (&port.netns, &port.device) else { continue };
        let path = if name.starts_with('/') { name.clone() } else { format!("/run/netns/{name}") };
        if !host.path(&path).exists() {
            let found = format!("\"{name}\" of port \"{}\" does not exist", port.name);
            let remedy = format!("ip netns add {name}");
            findings.push(bad(Verdict::Failed, "namespace", found, remedy));
        }
    }
    findings
}

fn directories(config: &Config, host: &Host) -> Vec<Finding> {
    let Source::Directory(path) = &config.source else { return Vec::new() };
    let path = path.display().to_string();
    if host.path(&path).is_dir() {
        return vec![good("manifests", path)];
    }
    let found = format!("{path} is no directory: nothing would be served");
    vec![bad(Verdict::Warning, "manifests", found, format!("mkdir -p {path}"))]
}

#[cfg(test)]
mod tests;
