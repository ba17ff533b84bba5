//! The rules of the house, as tests. Here is what they share: the files of the workspace.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}

/// All files of the workspace but what is built or belongs to git, as paths relative to it.
pub fn files() -> Result<Vec<PathBuf>> {
    let root = workspace();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            let is_link = path.is_symlink();
            if name == ".git" || is_link {
                // Git's own: a folder, or in a worktree a file that names one.
                continue;
            }
            if path.is_dir() {
                // What cargo builds into says so itself.
                let is_built = name == "target" || path.join("CACHEDIR.TAG").exists();
                if !is_built {
                    folders.push(path);
                }
            } else {
                found.push(path.strip_prefix(&root)?.to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}
