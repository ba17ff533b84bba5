//! All that one run makes, recorded on disk before it is made, and removed together.
//!
//! Each instance has a folder below [`BASE`], with a file that names its owner (a process) and one
//! that lists its things. Whoever starts next removes the things of owners that are dead.

use crate::command::output_of;
use crate::process::{Identity, end_all};
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

/// Where the instances of this machine are recorded; gone when there is none.
pub const BASE: &str = "/run/headgate-rig";

/// Time that recorded processes get to end by themselves.
const PATIENCE: Duration = Duration::from_secs(3);

/// Instances of this process, for whoever catches Ctrl-C.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// All that one run makes. Clones are the same instance: it is removed with the last of them.
#[derive(Clone)]
pub struct Instance(Arc<Things>);

struct Things {
    dir: PathBuf,
    logs: PathBuf,
    tag: String,
}

impl Instance {
    /// Begins one, after removing what dead runs have left. `kind` is a word for people. Logs go
    /// to `target/rig/KIND`, so that they can be read when all else is gone.
    pub fn create(kind: &str) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces need root: run it as root");
        }
        remove_on_signals()?;
        sweep()?;
        fs::create_dir_all(BASE)?;
        let own = Identity::own();
        for number in 0..1000_u32 {
            let tag = tag_of(own.pid, number);
            if is_taken(&tag) {
                continue;
            }
            let dir = Path::new(BASE).join(format!("{kind}-{tag}"));
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            fs::write(dir.join("owner"), format!("{} {}", own.pid, own.start))?;
            if let Ok(mut live) = LIVE.lock() {
                live.push(dir.clone());
            }
            let logs = logs_folder().join(kind);
            let _ = fs::remove_dir_all(&logs);
            fs::create_dir_all(&logs)?;
            return Ok(Self(Arc::new(Things { dir, logs, tag })));
        }
        bail!("{BASE} is full of instances: remove it")
    }
    /// Its folder for files that go away with it.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }
    /// Its folder for logs, which stay.
    pub fn logs(&self) -> &Path {
        &self.0.logs
    }
    /// Four characters that no other instance has: for names of interfaces and namespaces.
    pub fn tag(&self) -> &str {
        &self.0.tag
    }
    /// Records a namespace, to be called before it is made.
    pub fn record_namespace(&self, name: &str) -> Result<()> {
        self.record(&format!("netns {name}"))
    }
    /// Records a process that leads a group of its own.
    pub fn record_process(&self, pid: i32) -> Result<()> {
        let start = Identity::of(pid).map_or(0, |identity| identity.start);
        self.record(&format!("process {pid} {start}"))
    }
    /// Records a file or folder outside of [`Instance::dir`].
    pub fn record_path(&self, path: &Path) -> Result<()> {
        self.record(&format!("path {}", path.display()))
    }
    /// Records the number of huge pages to go back to.
    pub fn record_huge_pages(&self, former: u64) -> Result<()> {
        self.record(&format!("hugepages {former}"))
    }
    /// The file of records, for programs that make things themselves: lines as `netns NAME` and
    /// `process PID START`.
    pub fn record_file(&self) -> PathBuf {
        self.0.dir.join("things")
    }
    fn record(&self, line: &str) -> Result<()> {
        let path = self.record_file();
        let mut file = File::options().create(true).append(true).open(&path)?;
        writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Things {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// Whether another instance has this tag, of whatever kind it is.
fn is_taken(tag: &str) -> bool {
    let end = format!("-{tag}");
    let mut folders = fs::read_dir(BASE).into_iter().flatten().flatten();
    folders.any(|folder| folder.file_name().to_string_lossy().ends_with(&end))
}

/// Four characters of base 36 from a process number and a counter.
fn tag_of(pid: i32, number: u32) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut value = (pid.unsigned_abs() as usize).wrapping_mul(37) + number as usize;
    let mut tag = String::new();
    for _ in 0..4 {
        tag.push(char::from(DIGITS[value % 36]));
        value /= 36;
    }
    tag
}

/// Where logs stay: `rig` in the folder that cargo builds in, else in that for temporary files.
pub(crate) fn logs_folder() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let target = exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.map_or_else(std::env::temp_dir, Path::to_path_buf).join("rig")
}

/// Removes what dead runs have left; gives how many there were.
pub fn sweep() -> Result<usize> {
    let Ok(base) = File::open(BASE) else { return Ok(0) };
    let _alone = Flock::lock(base, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let mut swept = 0;
    for entry in fs::read_dir(BASE)?.flatten() {
        let dir = entry.path();
        let owner = fs::read_to_string(dir.join("owner")).unwrap_or_default();
        let mut words = owner.split(' ');
        let pid = words.next().and_then(|word| word.parse().ok());
        let start = words.next().and_then(|word| word.parse().ok());
        let alive = match (pid, start) {
            (Some(pid), Some(start)) => Identity { pid, start }.is_alive(),
            // Another run has made the folder and is about to write its name.
            _ => age(&dir).is_none_or(|age| age < PATIENCE),
        };
        if !alive {
            remove(&dir);
            swept += 1;
        }
    }
    Ok(swept)
}

/// Processes that were recorded with the instances of these owners.
pub(crate) fn recorded_of(owners: &[Identity]) -> Vec<Identity> {
    let mut found = Vec::new();
    for entry in fs::read_dir(BASE).into_iter().flatten().flatten() {
        let owner = fs::read_to_string(entry.path().join("owner")).unwrap_or_default();
        if process_of(&format!("process {owner}")).is_some_and(|one| owners.contains(&one)) {
            let things = fs::read_to_string(entry.path().join("things")).unwrap_or_default();
            found.extend(things.lines().filter_map(process_of).filter(|one| one.is_alive()));
        }
    }
    found
}

fn age(path: &Path) -> Option<Duration> {
    fs::metadata(path).ok()?.modified().ok()?.elapsed().ok()
}

/// Removes the things of an instance, the latest first. Nothing is left for a second call.
fn remove(dir: &Path) {
    if let Ok(mut live) = LIVE.lock() {
        live.retain(|other| other != dir);
    }
    let things = fs::read_to_string(dir.join("things")).unwrap_or_default();
    let processes: Vec<Identity> = things.lines().filter_map(process_of).collect();
    end_all(&processes, PATIENCE);
    for line in things.lines().rev() {
        match line.split_once(' ') {
            Some(("netns", name)) if Path::new("/run/netns").join(name).exists() => {
                if let Err(error) = output_of(Command::new("ip").args(["netns", "del", name])) {
                    eprintln!("cannot remove namespace {name}: {error:#}");
                }
            }
            Some(("path", path)) => {
                let path = Path::new(path);
                let _ =
                    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            }
            Some(("hugepages", former)) => {
                let _ = fs::write("/proc/sys/vm/nr_hugepages", former);
            }
            _ => {}
        }
    }
    let _ = fs::remove_dir_all(dir);
    // The last one takes the base away; while others are there this fails, as it should.
    let _ = fs::remove_dir(BASE);
}

fn process_of(line: &str) -> Option<Identity> {
    let mut words = line.strip_prefix("process ")?.split(' ');
    Some(Identity { pid: words.next()?.parse().ok()?, start: words.next()?.parse().ok()? })
}

/// Exit status after Ctrl-C where it is the expected end, as in the demo.
static STATUS_AFTER_SIGNAL: Mutex<Option<i32>> = Mutex::new(None);

/// Says that Ctrl-C is the way to end from now on, with this exit status.
pub fn expect_signal(status: i32) {
    if let Ok(mut slot) = STATUS_AFTER_SIGNAL.lock() {
        *slot = Some(status);
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP remove the instances of this process and end it.
fn remove_on_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    static ONCE: Once = Once::new();
    let mut outcome = Ok(());
    ONCE.call_once(|| {
        outcome = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
            .context("cannot catch signals")
            .map(|mut signals| {
                std::thread::spawn(move || {
                    let Some(signal) = signals.forever().next() else { return };
                    let dirs = LIVE.lock().map(|live| live.clone()).unwrap_or_default();
                    dirs.iter().for_each(|dir| remove(dir));
                    let expected = STATUS_AFTER_SIGNAL.lock().ok().and_then(|slot| *slot);
                    std::process::exit(expected.unwrap_or(128 + signal));
                });
            });
    });
    outcome
}
