//! The cluster's programs: ours, built from `tests/cluster` with Go's own cache, or those of
//! `KUBEBUILDER_ASSETS`.

use crate::command::{lines_of, output_of, wait_until};
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The version of Kubernetes, as `go.mod` has it.
pub const VERSION: &str = "v1.36.3";

/// Where the real components are, if not ours shall be used: kube-apiserver, etcd and kubectl.
const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// The one that the folder is named for. Of the others ours take the place of what isn't there.
const API_SERVER: &str = "kube-apiserver";
const OTHERS: [&str; 2] = ["etcd", "kubectl"];

/// Time that building gets: ten times what it takes.
const BUILD_PATIENCE: Duration = Duration::from_secs(60 * 60);

/// A program that plays a role, as the words before its arguments.
#[derive(Clone, Debug)]
pub(super) struct Role(Vec<OsString>);

impl Role {
    pub(super) fn words(&self) -> &[OsString] {
        &self.0
    }
}

/// The built program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    assets: Option<PathBuf>,
}

impl Program {
    /// Builds it, which takes seconds where nothing has changed.
    pub(super) fn build() -> Result<Self> {
        let assets = assets(std::env::var_os(ASSETS))?;
        Ok(Self { path: build()?, assets })
    }
    /// The version of the API server that is started: ours, or what the asset says of itself.
    pub(super) fn server_version(&self) -> Result<String> {
        let Some(asset) = self.asset(API_SERVER) else { return Ok(VERSION.to_owned()) };
        let said = output_of(Command::new(&asset).arg("--version"))?;
        let version = said.split_whitespace().last();
        version.map(str::to_owned).with_context(|| format!("{} said {said:?}", asset.display()))
    }
    /// `real` is the component's name among the assets, where they hold it.
    pub(super) fn role(&self, role: &str, real: Option<&str>) -> Role {
        match real.and_then(|name| self.asset(name)) {
            Some(path) => Role(vec![path.into()]),
            None => Role(vec![self.path.clone().into(), role.into()]),
        }
    }
    fn asset(&self, name: &str) -> Option<PathBuf> {
        self.assets.as_ref().map(|dir| dir.join(name)).filter(|path| path.is_file())
    }
}

/// The folder that the variable names. Without an API server in it, somebody believes to test with
/// one that isn't there.
fn assets(variable: Option<OsString>) -> Result<Option<PathBuf>> {
    let Some(dir) = variable.filter(|dir| !dir.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let is_missing = |name: &&str| !dir.join(name).is_file();
    if is_missing(&API_SERVER) {
        let others = OTHERS.into_iter().filter(is_missing);
        let missing: Vec<&str> = [API_SERVER].into_iter().chain(others).collect();
        bail!(
            "{ASSETS} is {}, which has no {}: let it name a folder with them, or unset it",
            dir.display(),
            missing.join(", ")
        );
    }
    Ok(Some(dir))
}

/// Builds the program with Go, once a process; gives its path. The first build takes four minutes
/// on two cores, and says so.
pub fn build() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    match &*built {
        Some(path) => Ok(path.clone()),
        None => Ok(built.insert(build_anew()?).clone()),
    }
}

fn build_anew() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster").canonicalize()?;
    check_go(&source)?;
    let folder = folder()?;
    fs::create_dir_all(&folder)?;
    let program = folder.join("cluster");
    // Tests are processes of their own and may all come here at once.
    let lock = File::create(folder.join("lock"))?;
    let _alone = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let begun = Instant::now();
    if !program.is_file() {
        eprintln!("building Kubernetes {VERSION} from tests/cluster: four minutes the first time");
    }
    let mut child = Command::new("go")
        .args(["build", "-v", "-buildvcs=false", "-ldflags", &linker_flags(), "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(&source)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start go")?;
    let said = lines_of(child.stderr.take().context("go's output")?);
    let until = begun + BUILD_PATIENCE;
    let mut words = Vec::new();
    // It ends with go, or when its time is over.
    while let Ok(line) = said.recv_timeout(until.saturating_duration_since(Instant::now())) {
        words.push(line);
        if words.len() % 100 == 0 {
            eprintln!("  {} modules and packages, {} s", words.len(), begun.elapsed().as_secs());
        }
    }
    let tail = || words[words.len().saturating_sub(20)..].join("\n");
    match wait_until(&mut child, until)? {
        Some(status) if status.success() => {}
        Some(_) => bail!("go can't build {}:\n{}", source.display(), tail()),
        None => bail!("go still built after {BUILD_PATIENCE:?}: killed\n{}", tail()),
    }
    Ok(program)
}

/// One sentence that says what to install, where Go is missing or too old.
fn check_go(source: &Path) -> Result<()> {
    let needed = fs::read_to_string(source.join("go.mod")).context("go.mod")?;
    let needed = needed.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or("1.26");
    let remedy = format!("install Go {needed} or newer from https://go.dev/dl");
    let Ok(found) = output_of(Command::new("go").args(["env", "GOVERSION"]).current_dir("/"))
    else {
        bail!("there is no Go here, which the test cluster is built with: {remedy}");
    };
    let found = found.trim().trim_start_matches("go");
    if numbers(found) < numbers(needed) {
        bail!("Go {found} is too old for the test cluster: {remedy}");
    }
    Ok(())
}

fn numbers(version: &str) -> Vec<u32> {
    version.split(['.', '-', ' ']).map_while(|word| word.parse().ok()).collect()
}

/// In the folder that cargo builds in, for all profiles.
fn folder() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    Ok(target.map_or_else(std::env::temp_dir, Path::to_path_buf).join("cluster"))
}

/// No symbols, and the version that kubectl and clients ask for.
fn linker_flags() -> String {
    let mut flags = "-s -w".to_owned();
    let minor = VERSION.split('.').nth(1).unwrap_or("0");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [
            ("gitVersion", VERSION),
            ("gitMajor", "1"),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
            ("buildDate", "1970-01-01T00:00:00Z"),
        ] {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

/// A command that plays a role in a namespace.
pub(super) fn in_namespace(namespace: &Namespace, role: &Role) -> Command {
    let mut command = crate::namespace::enter_by_name(namespace.name());
    command.args(role.words());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("1.9.1") < numbers("1.26.0"));
        assert!(numbers("1.26.8") >= numbers("1.26.0"));
        assert!(numbers("1.27rc1") >= numbers("1.26.0") || numbers("1.27rc1") == [1]);
        assert_eq!(numbers("1.26.8 X:nocoverageredesign"), [1, 26, 8]);
    }

    #[test]
    fn components_that_are_given_play_their_roles() {
        let dir = std::env::temp_dir().join(format!("rig-assets-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let of = |dir: &Path| assets(Some(dir.into()));
        let said = format!("{:#}", of(&dir).unwrap_err());
        assert!(said.contains("no kube-apiserver, etcd, kubectl"), "{said}");
        assert!(said.contains(&dir.display().to_string()), "{said}");
        fs::write(dir.join("etcd"), "").unwrap();
        let said = format!("{:#}", of(&dir).unwrap_err());
        assert!(said.contains("no kube-apiserver, kubectl"), "{said}");
        fs::write(dir.join("kube-apiserver"), "").unwrap();

        let path = PathBuf::from("/ours/cluster");
        let given = Program { path: path.clone(), assets: of(&dir).unwrap() };
        let words = |program: &Program, role, real| program.role(role, real).words().to_vec();
        let asset = |name: &str| vec![OsString::from(dir.join(name))];
        let own = |role: &str| vec![OsString::from(&path), role.into()];
        assert_eq!(words(&given, "apiserver", Some("kube-apiserver")), asset("kube-apiserver"));
        assert_eq!(words(&given, "etcd", Some("etcd")), asset("etcd"));
        assert_eq!(words(&given, "kubectl", Some("kubectl")), own("kubectl"));
        assert_eq!(words(&given, "kube-proxy", None), own("kube-proxy"));
        fs::remove_dir_all(&dir).unwrap();
        for none in [None, Some(OsString::new())] {
            let plain = Program { path: path.clone(), assets: assets(none).unwrap() };
            assert_eq!(words(&plain, "apiserver", Some("kube-apiserver")), own("apiserver"));
            assert_eq!(plain.server_version().unwrap(), VERSION);
        }
    }

    #[test]
    fn the_version_is_that_of_the_module() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/go.mod");
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(&format!("k8s.io/kubernetes {VERSION}")), "{VERSION}");
    }
}
