//! The other tests of a binary that was ended: they are run anew, as it was run itself.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::Command;

/// How a test binary was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    program: PathBuf,
    arguments: Vec<OsString>,
    folder: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

impl Again {
    /// As the process was started, but without some of its tests. `None` where the system doesn't tell.
    pub fn without(pid: i32, tests: &BTreeSet<String>) -> Option<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let words = |name: &str| {
            let bytes = std::fs::read(proc.join(name)).ok()?;
            let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
            Some(words.map(|word| OsString::from_vec(word.to_vec())).collect::<Vec<_>>())
        };
        let environment = words("environ")?.into_iter().filter_map(|word| {
            let bytes = word.into_vec();
            let at = bytes.iter().position(|byte| *byte == b'=')?;
            let (name, value) = bytes.split_at(at);
            let value = value.get(1..).unwrap_or_default();
            Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())))
        });
        let mut arguments: Vec<_> = words("cmdline")?.into_iter().skip(1).collect();
        arguments.extend(tests.iter().flat_map(|test| ["--skip".into(), test.into()]));
        Some(Self {
            program: proc.join("exe").read_link().ok()?,
            arguments,
            folder: proc.join("cwd").read_link().ok()?,
            environment: environment.collect(),
        })
    }
    /// The command.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.folder).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}
