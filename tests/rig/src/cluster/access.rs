//! Who may ask the API servers, and by which way: certificates, tokens, kubeconfigs.

use super::{Cluster, plan};
use crate::command::{feed, output_of};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A lifetime below this is refused by the API server's TokenRequest: such a token is signed here,
/// with the cluster's own key.
const LEAST_REQUESTED: Duration = Duration::from_secs(600);

/// How one proves who one is. Files stay where they are, so that what is in them can be changed.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Files in PEM.
    Certificate {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// A ServiceAccount's token.
    Token {
        /// The file with the token.
        file: PathBuf,
        /// Of the ServiceAccount.
        namespace: String,
        /// Of the ServiceAccount.
        name: String,
    },
}

/// By which way an API server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// API server of this index at its IPv4 address on the management network.
    V4(usize),
    /// The same at its IPv6 address.
    V6(usize),
    /// At the address that [`Cluster::move_shared_address`] moves, IPv4.
    Shared,
    /// API server of this index from outside of all namespaces, at 127.0.0.1.
    Host(usize),
}

impl Cluster {
    /// The administrator's kubeconfig, for programs in attached namespaces.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        self.kubeconfig_with("admin", &self.user("admin"), Via::V4(0))
    }
    /// The administrator's kubeconfig for programs outside of all namespaces: a person's kubectl.
    pub fn host_kubeconfig(&self) -> Result<PathBuf> {
        self.kubeconfig_with("admin-host", &self.user("admin"), Via::Host(0))
    }
    /// A kubeconfig for a user that this makes, with a certificate.
    pub fn kubeconfig_for_user(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let credentials = self.credentials_for_user(user, groups)?;
        self.kubeconfig_with(user, &credentials, Via::V4(0))
    }
    /// A kubeconfig for a ServiceAccount that is there already, with a token of this lifetime.
    pub fn kubeconfig_for_account(
        &self,
        namespace: &str,
        name: &str,
        lifetime: Duration,
    ) -> Result<PathBuf> {
        let credentials = self.credentials_for_account(namespace, name, lifetime)?;
        self.kubeconfig_with(&format!("{namespace}.{name}"), &credentials, Via::V4(0))
    }
    /// Applies what is shipped for the gateway (`control/deploy`) and gives its ServiceAccount's
    /// credentials, good for an hour.
    pub fn install_headgate(&self) -> Result<Credentials> {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../control/deploy");
        let deploy = deploy.canonicalize().context("control/deploy")?;
        output_of(self.kubectl_command(0)?.args(["apply", "-k"]).arg(deploy))?;
        self.credentials_for_account("headgate-system", "headgate", Duration::from_secs(3600))
    }
    /// Writes a kubeconfig called `name`.
    pub fn kubeconfig_with(&self, name: &str, who: &Credentials, via: Via) -> Result<PathBuf> {
        let server = match via {
            Via::V4(index) => self.server(index)?.url(0),
            Via::V6(index) => self.server(index)?.url(1),
            Via::Shared => plan::url(plan::shared()[0], plan::API_PORT),
            Via::Host(index) => format!("https://127.0.0.1:{}", self.server(index)?.host_port()),
        };
        let user = match who {
            Credentials::Certificate { certificate, key } => format!(
                "client-certificate: {}, client-key: {}",
                certificate.display(),
                key.display()
            ),
            Credentials::Token { file, .. } => format!("tokenFile: {}", file.display()),
        };
        let path = self.dir.join(format!("{name}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: headgate\n\
             clusters:\n- name: headgate\n  cluster: {{server: \"{server}\", certificate-authority: {}}}\n\
             users:\n- name: {name}\n  user: {{{user}}}\n\
             contexts:\n- name: headgate\n  context: {{cluster: headgate, user: {name}}}\n",
            self.authority().display()
        );
        // Others may be reading it meanwhile: all of it or what was there before.
        let fresh = self.dir.join(format!("{name}.kubeconfig.{:?}", std::thread::current().id()));
        fs::write(&fresh, text).with_context(|| fresh.display().to_string())?;
        fs::rename(&fresh, &path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
    /// The file with the certificate of the CA that signs the servers' certificates.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }
    /// The same of a CA that has signed nothing here.
    pub fn foreign_authority(&self) -> Result<PathBuf> {
        let dir = self.dir.join("foreign");
        fs::create_dir_all(&dir)?;
        make_pki(self.program.role("pki", None).words(), &dir, &["ca"])?;
        Ok(dir.join("ca.crt"))
    }
    /// A certificate for a user.
    pub fn credentials_for_user(&self, user: &str, groups: &[&str]) -> Result<Credentials> {
        let file = user.replace([':', '/'], ".");
        let groups = groups.join(",");
        self.pki(&[&format!("user {file} --user {user} --groups {groups}")])?;
        Ok(self.user(&file))
    }
    /// A token for a ServiceAccount that is there already.
    pub fn credentials_for_account(
        &self,
        namespace: &str,
        name: &str,
        lifetime: Duration,
    ) -> Result<Credentials> {
        let file = self.dir.join(format!("{namespace}.{name}.token"));
        let who = Credentials::Token { file, namespace: namespace.into(), name: name.into() };
        self.renew_token(&who, lifetime)?;
        Ok(who)
    }
    /// Puts a new token into the file of an account's credentials, at once for its readers.
    pub fn renew_token(&self, who: &Credentials, lifetime: Duration) -> Result<()> {
        let Credentials::Token { file, namespace, name } = who else {
            bail!("only a ServiceAccount has a token");
        };
        let seconds = lifetime.as_secs();
        let fresh = file.with_extension("fresh.token");
        if lifetime >= LEAST_REQUESTED {
            let token =
                self.kubectl(&format!("create token {name} -n {namespace} --duration={seconds}s"))?;
            fs::write(&fresh, token.trim())?;
        } else {
            let uid = self
                .kubectl(&format!("get sa {name} -n {namespace} -o jsonpath={{.metadata.uid}}"))?;
            let stem = fresh.with_extension("");
            let stem = stem.file_name().unwrap_or_default().to_string_lossy();
            self.pki(&[&format!(
                "token {stem} --account {namespace}/{name} --uid {uid} --lifetime {seconds}s"
            )])?;
        }
        fs::rename(&fresh, file).with_context(|| file.display().to_string())
    }
    pub(super) fn user(&self, file: &str) -> Credentials {
        Credentials::Certificate {
            certificate: self.dir.join(format!("{file}.crt")),
            key: self.dir.join(format!("{file}.key")),
        }
    }
    /// Makes certificates, keys and tokens, one a line.
    pub(super) fn pki(&self, lines: &[&str]) -> Result<()> {
        make_pki(self.program.role("pki", None).words(), &self.dir, lines)
    }
    /// `kubectl ARGS` as the administrator; the arguments are words with spaces between them.
    /// What waits (`delete`, `wait`, `rollout status`) says for how long.
    pub fn kubectl(&self, args: &str) -> Result<String> {
        check_bounded(args)?;
        output_of(self.kubectl_command(0)?.args(args.split_whitespace()))
    }
    /// A kubectl of the administrator that asks the API server of this index, for arguments that
    /// hold spaces.
    pub fn kubectl_command(&self, server: usize) -> Result<Command> {
        let name = format!("admin-{server}");
        let kubeconfig = self.kubeconfig_with(&name, &self.user("admin"), Via::V4(server))?;
        let role = self.program.role("kubectl", Some("kubectl"));
        let mut command = super::program::in_namespace(&self.control, &role);
        command.arg("--kubeconfig").arg(kubeconfig);
        // What it has learned of the API's kinds belongs to this cluster.
        command.arg("--cache-dir").arg(self.dir.join("kubectl-cache"));
        Ok(command)
    }
    /// `kubectl apply` of a YAML text, as the administrator.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        feed(self.kubectl_command(0)?.args(["apply", "-f", "-"]), yaml)
    }
    /// `kubectl get` in JSON: `get("svc/web -n shop")`.
    pub fn get(&self, what: &str) -> Result<serde_json::Value> {
        let text = self.kubectl(&format!("get {what} -o json"))?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {what}"))
    }
    /// The version of the API servers.
    pub fn server_version(&self) -> Result<String> {
        self.program.server_version()
    }
    /// A file for a person's `PATH`: a kubectl of the cluster's own version.
    pub fn kubectl_program(&self) -> Result<PathBuf> {
        let role = self.program.role("kubectl", Some("kubectl"));
        let path = self.dir.join("bin/kubectl");
        if !path.exists() {
            fs::create_dir_all(self.dir.join("bin"))?;
            let program = role.words().first().context("kubectl")?;
            std::os::unix::fs::symlink(program, &path)?;
        }
        Ok(path)
    }
}

/// Without a flag these wait for ever, and the error would be that of whoever gives up first.
fn check_bounded(args: &str) -> Result<()> {
    let waits = ["delete ", "wait ", "rollout status "].iter().any(|verb| args.starts_with(verb));
    let is_bounded = args.contains("--timeout=") || args.contains("--wait=false");
    ensure!(is_bounded || !waits, "kubectl {args} needs a --timeout");
    Ok(())
}

/// Runs the role `pki` with these lines.
pub(super) fn make_pki(role: &[std::ffi::OsString], dir: &Path, lines: &[&str]) -> Result<()> {
    let (program, args) = role.split_first().context("no program")?;
    feed(Command::new(program).args(args).arg(dir), &lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_says_for_how_long() {
        for good in ["get pods", "delete pod a --wait=false", "wait pod/a --timeout=3s"] {
            check_bounded(good).unwrap();
        }
        for bad in ["delete pod a", "wait --for=delete pod/a", "rollout status deployment/a"] {
            assert!(check_bounded(bad).is_err(), "{bad}");
        }
    }
}
