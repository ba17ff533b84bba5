//! The keys of the packet path: where they come from, and whether gateways agree on the one that
//! they have to share.
//!
//! What keys the choice of backends must be the same in all gateways that serve the same addresses,
//! and known to nobody outside: the configuration says it, else the Lease, else it is one that this
//! gateway made and keeps.

use super::books::own_event;
use super::gateway::Running;
use super::path::PacketPath;
use crate::config::Config;
use anyhow::Context as _;
use pipeline::secret::Secret;
use pipeline::steer::good_key;
use sources::store::{Keys, Store, StoreError};
use std::path::Path;

/// What is wrong while the keys of gateways differ.
const SELECTION: &str = "selection key";

/// The keys that the process started with.
#[derive(Clone, Debug)]
pub struct Started {
    /// Those that are kept.
    pub keys: Keys,
    /// The key of the choice of backends is the configuration's.
    pub configured: bool,
    /// What all other secrets are derived from.
    pub secret: Secret,
    /// What was lost of what had been kept.
    pub problems: Vec<String>,
}

/// The keys of this gateway: those that were kept, else new ones, which are kept from now on.
///
/// # Errors
/// The system gives no random bytes, or the state directory can't be used.
pub fn start(config: &Config) -> anyhow::Result<Started> {
    let configured = config.selection_key.map(crate::config::SelectionKey::get);
    let (mut keys, problems) = kept(&config.state_dir)?;
    keys.selection = configured.unwrap_or(keys.selection);
    let secret = Secret::new(random()?);
    Ok(Started { keys, configured: configured.is_some(), secret, problems })
}

fn kept(state_dir: &Path) -> anyhow::Result<(Keys, Vec<String>)> {
    let store = Store::open(state_dir)?;
    let mut problems = Vec::new();
    let mut are_kept = true;
    match store.load_keys() {
        Ok(Some(keys)) => return Ok((keys, problems)),
        Ok(None) => tracing::info!("no keys were kept: they are made now"),
        // They may be good: the next start may be able to read them.
        Err(problem @ StoreError::Read { .. }) => {
            are_kept = false;
            problems.push(format!("{problem}; until then other keys are used"));
        }
        Err(problem) => problems.push(format!("{problem}; new keys are made")),
    }
    // A source that fails after it gave bytes gives no key, and the start fails below.
    let toeplitz = good_key(|| random().unwrap_or([0; 40]));
    let keys = Keys { selection: u64::from_ne_bytes(random()?), toeplitz };
    if are_kept && let Err(problem) = store.save_keys(&keys) {
        problems.push(format!("{problem}; the next start makes other keys"));
    }
    Ok((keys, problems))
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    Ok(bytes)
}

/// The key of the choice of backends while the process runs.
#[derive(Debug)]
pub struct Selection {
    keys: Keys,
    configured: bool,
}

impl Selection {
    /// As the process started.
    pub fn new(started: &Started) -> Self {
        Self { keys: started.keys.clone(), configured: started.configured }
    }
    /// Follows the key that the source says all gateways have, or says that this one differs.
    pub fn agree<P: PacketPath>(&mut self, shared: Option<u64>, running: &Running<P>, to: &Store) {
        let Some(shared) = shared else { return };
        let same = shared == self.keys.selection;
        if self.configured {
            let what = "gateway.selection_key isn't the key of the gateway that holds the Lease: a \
                        client may be sent to another backend by each of them; set the same key in \
                        all of them, or in none";
            let mut books = running.books();
            if books.wrong(SELECTION, (!same).then_some(what)) && !same {
                tracing::warn!("{what}");
                books.record(own_event("SelectionKeyDiffers", what.to_owned()));
            }
            return;
        }
        // Also where it is known already: this may be begun anew, and workers have another one.
        running.engine.set_selection_key(shared);
        if same {
            return;
        }
        tracing::info!("choosing backends by the key that the Lease says");
        self.keys.selection = shared;
        running.keep("keys", to.save_keys(&self.keys));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_anew_where_they_are_lost() {
        let directory = tempfile::tempdir().unwrap();
        let (first, problems) = kept(directory.path()).unwrap();
        assert_eq!(problems, [] as [String; 0]);
        assert_eq!(kept(directory.path()).unwrap(), (first.clone(), vec![]));
        let file = directory.path().join("keys.json");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&file, "no keys").unwrap();
        let (second, problems) = kept(directory.path()).unwrap();
        assert!(problems.len() == 1 && problems[0].contains("new keys are made"), "{problems:?}");
        assert!(first.selection != second.selection && first.toeplitz != second.toeplitz);
        assert_eq!(kept(directory.path()).unwrap(), (second, vec![]));
    }

    #[test]
    fn keys_that_cannot_be_read_now_are_left_for_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let (first, _) = kept(directory.path()).unwrap();
        let (file, aside) = (directory.path().join("keys.json"), directory.path().join("aside"));
        std::fs::rename(&file, &aside).unwrap();
        // Reading it fails, whoever asks.
        std::os::unix::fs::symlink(&file, &file).unwrap();
        let (other, problems) = kept(directory.path()).unwrap();
        assert_ne!(other.selection, first.selection);
        assert!(problems.len() == 1 && problems[0].contains("can't be read"), "{problems:?}");
        assert!(file.is_symlink(), "nothing is written over it");
        std::fs::rename(&aside, &file).unwrap();
        assert_eq!(kept(directory.path()).unwrap(), (first, vec![]));
    }
}
