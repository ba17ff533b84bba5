//! Real web servers: one nginx a backend, which answers with the backend's name.

use crate::instance::Instance;
use crate::net::Host;
use crate::plan::{HTTP_ALT_PORT, HTTP_PORT};
use crate::process::Process;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For one try to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// An nginx in a backend's namespace. Dropped means gone.
pub struct Nginx {
    process: Process,
    access_log: PathBuf,
}

impl Nginx {
    /// Starts one; `/` answers with the host's name, `/blob` with the file `blob`.
    pub fn start(instance: &Instance, host: &Host, blob: Option<&Path>) -> Result<Self> {
        let dir = instance.dir().join(&host.name);
        fs::create_dir_all(&dir)?;
        // Its workers run as nobody.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
        let config = dir.join("nginx.conf");
        fs::write(&config, configuration(&dir, &host.name, blob))?;
        let mut command = host.namespace.command("nginx");
        command.arg("-p").arg(&dir).arg("-c").arg(&config).args(["-e", "stderr"]);
        let log = instance.logs().join(format!("{}.log", host.name));
        let process = Process::start(instance, &host.name, command, &log)?;
        Ok(Self { process, access_log: dir.join("access.log") })
    }
    /// Waits until it accepts connections in both families.
    pub fn wait(&mut self, host: &Host) -> Result<()> {
        let begun = Instant::now();
        for address in host.addresses {
            let address = SocketAddr::new(address, HTTP_PORT);
            let refused = || TcpStream::connect_timeout(&address, CONNECT_PATIENCE).is_err();
            while host.namespace.within(refused)? {
                self.process.check_runs()?;
                if begun.elapsed() > Duration::from_secs(30) {
                    bail!("nginx of {} doesn't listen on {address} after 30 s", host.name);
                }
                sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
    /// Requests that it has answered, by its own log: a witness that isn't ours.
    pub fn requests_logged(&self) -> Result<u64> {
        let text = fs::read(&self.access_log).context("access log")?;
        Ok(text.iter().filter(|byte| **byte == b'\n').count() as u64)
    }
    /// Asks it to end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(Signal::SIGTERM, Duration::from_secs(10)).map(drop)
    }
}

fn configuration(dir: &Path, name: &str, blob: Option<&Path>) -> String {
    let dir = dir.display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {dir}/{kind};\n"))
        .concat();
    let listen: String = [HTTP_PORT, HTTP_ALT_PORT]
        .map(|port| {
            format!("    listen {port} backlog=4096;\n    listen [::]:{port} backlog=4096;\n")
        })
        .concat();
    let blob = blob.map_or_else(String::new, |file| {
        format!("    location = /blob {{ alias {}; }}\n", file.display())
    });
    format!(
        "daemon off;\npid {dir}/pid;\nworker_processes 1;\nworker_rlimit_nofile 16384;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n{temp}  sendfile on;\n  default_type text/plain;\n  \
         log_format line '$msec $remote_addr:$remote_port $request $status';\n  \
         access_log {dir}/access.log line;\n  server {{\n{listen}    \
         location = / {{ return 200 \"{name}\\n\"; }}\n{blob}  }}\n}}\n"
    )
}
