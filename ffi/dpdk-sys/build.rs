//! Finds DPDK, compiles the shim and generates the bindings. Nothing generated is committed.
//!
//! The flags of `pkg-config` are taken verbatim (`-include rte_config.h -march=...`): the inline
//! functions don't compile without them.

use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

/// The oldest version whose layouts and functions these crates know.
const OLDEST: &str = "22.11";

/// Libraries whose functions are called. Drivers are plug-ins that EAL loads by itself, except
/// net_ring, of which we call `rte_eth_from_rings`.
const LIBRARIES: [&str; 6] =
    ["rte_eal", "rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_net_ring"];

const FUNCTIONS: [&str; 41] = [
    "dk_.*",
    "rte_dev_probe",
    "rte_dev_remove",
    "rte_eal_cleanup",
    "rte_eal_init",
    "rte_eth_allmulticast_enable",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_configure",
    "rte_eth_dev_default_mac_addr_set",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_dev_set_mc_addr_list",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_from_rings",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_stats_reset",
    "rte_eth_tx_queue_setup",
    "rte_eth_xstats_get",
    "rte_eth_xstats_get_names",
    "rte_free",
    "rte_get_tsc_hz",
    "rte_mbuf_dynfield_register_offset",
    "rte_mempool_avail_count",
    "rte_mempool_in_use_count",
    "rte_pktmbuf_clone",
    "rte_pktmbuf_copy",
    "rte_pktmbuf_free_bulk",
    "rte_pktmbuf_pool_create",
    "rte_ring_create",
    "rte_ring_free",
    "rte_strerror",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_zmalloc_socket",
];

const TYPES: [&str; 4] =
    ["rte_mbuf", "rte_eth_fp_ops", "rte_eth_rss_reta_entry64", "rte_mbuf_dynfield"];

fn main() {
    for path in ["build.rs", "shim.c", "shim.h"] {
        println!("cargo:rerun-if-changed={path}");
    }
    for variable in ["PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    check_version();
    let flags = pkg_config(&["--cflags", "libdpdk"]);
    let folders = pkg_config(&["--libs-only-L", "libdpdk"]);
    compile_shim(&flags);
    generate(&flags);
    for folder in folders.iter().filter_map(|word| word.strip_prefix("-L")) {
        println!("cargo:rustc-link-search=native={folder}");
    }
    for library in LIBRARIES {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}

fn check_version() {
    let version = pkg_config(&["--modversion", "libdpdk"]).join(" ");
    let status = Command::new("pkg-config").args(["--atleast-version", OLDEST, "libdpdk"]).status();
    if !status.is_ok_and(|status| status.success()) {
        fail(&format!(
            "DPDK {OLDEST} or newer is needed, and pkg-config finds {version}.\n\
             Debian 12 has it: apt-get install libdpdk-dev. With a DPDK of your own, point \
             PKG_CONFIG_PATH at the folder of its libdpdk.pc."
        ));
    }
}

fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let output = match Command::new("pkg-config").args(arguments).output() {
        Ok(output) => output,
        Err(error) => {
            fail(&format!("pkg-config doesn't run ({error}).\napt-get install pkg-config"))
        }
    };
    if !output.status.success() {
        fail(&format!(
            "DPDK is not installed: pkg-config {} says\n{}\nOn Debian 12: apt-get install \
             libdpdk-dev dpdk-dev clang libclang-dev pkg-config",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim(),
        ));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().map(str::to_owned).collect()
}

fn compile_shim(flags: &[String]) {
    let mut build = cc::Build::new();
    build.file("shim.c").opt_level(3).warnings(false);
    for flag in flags {
        build.flag(flag);
    }
    if let Err(error) = build.try_compile("dk_shim") {
        fail(&format!("shim.c doesn't compile: {error}"));
    }
}

fn generate(flags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header("shim.h")
        .clang_args(flags)
        .use_core()
        .layout_tests(true)
        .derive_debug(false)
        .derive_default(true)
        .prepend_enum_name(false)
        .generate_comments(false)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .wrap_unsafe_ops(true)
        // Thread-local in C; bindgen would make plain statics of them, which link and crash.
        .blocklist_item("per_lcore_.*")
        // Packed and aligned at once, which Rust refuses (E0588).
        .blocklist_type("rte_arp_hdr|rte_arp_ipv4")
        .allowlist_var("DK_.*")
        .opaque_type("rte_mempool|rte_ring|rte_device|_IO_FILE");
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    let Some(folder) = env::var_os("OUT_DIR") else { fail("cargo sets OUT_DIR") };
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(error) => fail(&format!(
            "bindgen cannot read DPDK's headers: {error}\napt-get install clang libclang-dev"
        )),
    };
    if let Err(error) = bindings.write_to_file(PathBuf::from(folder).join("bindings.rs")) {
        fail(&format!("bindings.rs cannot be written: {error}"));
    }
}

fn fail(message: &str) -> ! {
    for line in message.lines() {
        println!("cargo:warning={line}");
    }
    eprintln!("\n{message}\n");
    exit(1)
}
