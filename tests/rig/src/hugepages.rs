//! Huge pages: taken where the machine gives them, given back at the end.

use crate::instance::Instance;
use anyhow::{Context, Result};
use std::fs;

/// 2 MiB pages that the demo and the tests ask for.
pub const WANTED: u64 = 256;
const TOTAL: &str = "/proc/sys/vm/nr_hugepages";

/// Free huge pages of 2 MiB right now.
pub fn free() -> Result<u64> {
    meminfo("HugePages_Free:")
}

/// True where there are enough free ones for a gateway.
pub fn enough() -> bool {
    meminfo("Hugepagesize:").is_ok_and(|size_kib| size_kib == 2048)
        && free().is_ok_and(|free| free >= WANTED)
}

/// Asks the kernel for [`WANTED`] free pages, and records the former number with the instance.
/// True where they are there now.
pub fn reserve(instance: &Instance) -> Result<bool> {
    if enough() {
        return Ok(true);
    }
    let former: u64 = fs::read_to_string(TOTAL)?.trim().parse().context(TOTAL)?;
    instance.record_huge_pages(former)?;
    let missing = WANTED.saturating_sub(free().unwrap_or(0));
    // Refused means that we do without.
    let _ = fs::write(TOTAL, (former + missing).to_string());
    if !enough() {
        let _ = fs::write(TOTAL, former.to_string());
    }
    Ok(enough())
}

fn meminfo(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let words = line.with_context(|| format!("no {name} in /proc/meminfo"))?;
    Ok(words.split_whitespace().next().unwrap_or("0").parse()?)
}
