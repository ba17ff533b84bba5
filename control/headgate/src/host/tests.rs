//! Hosts made of files.

use super::*;
use crate::config::{Sources, load};

fn config(directory: &Path) -> Config {
    let text = r#"
[eal]
memory_mib = 64
[[worker]]
core = 1
[[port]]
name = "p"
device = "net_tap0,iface=x"
netns = "client"
[[interface]]
name = "i"
port = "p"
addresses = ["198.18.0.1/24"]
"#;
    fs::write(directory.join("headgate.toml"), text).unwrap();
    let sources = Sources {
        directory: directory.to_owned(),
        files: vec![],
        environment: vec![],
        flags: vec![],
    };
    load(&sources).unwrap().config
}

fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host { root: directory.path().to_owned() };
    for (path, text) in files {
        let path = host.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (directory, host)
}

const READY: &[(&str, &str)] = &[
    ("/proc/meminfo", "HugePages_Total: 300\nHugePages_Free: 55\nHugepagesize: 2048 kB\n"),
    ("/dev/net/tun", ""),
    ("/proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"),
    ("/sys/devices/system/cpu/online", "0-3\n"),
    ("/sys/devices/system/cpu/isolated", "1,3\n"),
    ("/usr/lib/x86_64-linux-gnu/librte_eal.so.23", ""),
    ("/run/netns/client", ""),
    ("/etc/headgate/manifests/web.yaml", ""),
];

#[test]
fn a_host_that_is_ready_has_nothing_to_remedy() {
    let (directory, host) = host(READY);
    let findings = look(&config(directory.path()), &host);
    assert!(findings.iter().all(|finding| finding.verdict == Verdict::Good), "{findings:#?}");
    assert_eq!(findings[0].found, "55 x 2 MiB free, 55 needed");
}

#[test]
fn each_lack_is_told_with_its_remedy() {
    let cases = [
        (
            "/proc/meminfo",
            "HugePages_Total: 300\nHugePages_Free: 2\nHugepagesize: 2048 kB\n",
            "huge pages: 2 of 300 x 2 MiB are free, 55 are needed, 23 of them for connection tables",
            "sysctl -w vm.nr_hugepages=353, or set eal.huge_pages = false",
        ),
        (
            "/proc/self/status",
            "CapEff:\t0000000000001000\n",
            "rights: CAP_NET_RAW, CAP_SYS_ADMIN missing",
            "run as root, or give the unit these",
        ),
        (
            "/sys/devices/system/cpu/online",
            "0\n",
            "cores: core 1 is not online",
            "choose from 0 in [[worker]] core",
        ),
        (
            "/sys/devices/system/cpu/isolated",
            "\n",
            "cores: core 1 is shared with other programs",
            "boot with isolcpus=1 for steady latency",
        ),
    ];
    for (path, text, found, remedy) in cases {
        let mut files = READY.to_vec();
        files.retain(|(known, _)| *known != path);
        files.push((path, text));
        let (directory, host) = host(&files);
        let findings = look(&config(directory.path()), &host);
        let wrong: Vec<&Finding> =
            findings.iter().filter(|finding| finding.verdict != Verdict::Good).collect();
        let [finding] = wrong.as_slice() else { panic!("{wrong:#?}") };
        assert_eq!(format!("{}: {}", finding.what, finding.found), found);
        assert_eq!(finding.remedy.as_deref(), Some(remedy));
    }
}

#[test]
fn a_host_without_anything_fails_everywhere_and_panics_nowhere() {
    let (directory, host) = host(&[("/proc/meminfo", "Hugepagesize: 0 kB\nHugePages_Free: x\n")]);
    let findings = look(&config(directory.path()), &host);
    assert!(findings.iter().all(|finding| finding.verdict != Verdict::Good), "{findings:#?}");
    assert_eq!(cpu_list("0-2,7"), Some([0, 1, 2, 7].into()));
    assert_eq!(cpu_list("x"), None);
}
