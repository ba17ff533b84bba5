//! The daemon: joins the engine, `translate`, the source of objects and the admin API.

use crate::config::Config;

/// Runs the gateway until it is told to stop.
///
/// Called on the main thread outside any runtime, with logging set up: the EAL pins the thread
/// that initialises it, so it gets one of its own, and tokio's threads start apart from it.
///
/// # Errors
/// Where the gateway can't start, or ends other than by being told to.
pub fn run(config: Config) -> anyhow::Result<()> {
    // Temporary, until the engine exists.
    anyhow::bail!(
        "this build has no engine yet; the configuration is good ({} ports, {} workers)",
        config.ports.len(),
        config.workers.len()
    )
}
