//! The command line.

mod args;
mod ask;
mod terms;

pub use args::{
    Check, Cli, Command, Explain, Filter, Flow, Format, Output, Rows, Run, Scope, What,
};
pub use terms::{Row, Term};

use crate::config::{self, Sources};
use crate::{host, render, run};
use clap::{CommandFactory, Parser};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Something failed, or the gateway is degraded.
const FAILED: u8 = 1;
/// The configuration is bad: `EX_CONFIG` of sysexits(3).
const BAD_CONFIGURATION: u8 = 78;

/// Reads the command line and does what it says. Usage errors exit with 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match perform(cli) {
        Ok(code) => code,
        Err(error) => {
            say_error(&format!("headgate: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn perform(cli: Cli) -> anyhow::Result<ExitCode> {
    let sources = sources(&cli);
    let Some(command) = cli.command else {
        return ask::overview(&sources);
    };
    match command {
        Command::Run(_) => return start(&sources),
        Command::Check(check) if check.keys => say(&config::keys::described())?,
        Command::Check(check) => return examine(&sources, check.config_only),
        Command::Status(output) => return ask::status(&sources, output),
        Command::Show { what } => ask::show(&sources, &what)?,
        Command::Explain { what: Explain::Drop { reason } } => say(&render::drop_reason(reason))?,
        Command::Explain { what } => return ask::explain(&sources, what),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "headgate", &mut script);
            say(&String::from_utf8_lossy(&script))?;
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).title("headgate").render(&mut page)?;
            say(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the configuration comes from: the system's files and environment, and the flags.
fn sources(cli: &Cli) -> Sources {
    let mut sources = Sources::of_the_system();
    sources.files.clone_from(&cli.config);
    let mut set = |flag, table, key, value: String| sources.flags.push((flag, table, key, value));
    if let Some(socket) = &cli.socket {
        // A socket of the working directory is fine for a person, not in a file.
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.clone());
        set("--socket", "admin", "socket", socket.display().to_string());
    }
    if let Some(Command::Run(run)) = &cli.command {
        if let Some(directory) = &run.manifests {
            set("--manifests", "manifests", "dir", directory.display().to_string());
        }
        if let Some(file) = &run.kubeconfig {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            set("--kubeconfig", "kubernetes", "kubeconfig", file.display().to_string());
        }
        if let Some(directory) = &run.state_dir {
            set("--state-dir", "state", "dir", directory.display().to_string());
        }
        if let Some(metrics) = &run.metrics {
            set("--metrics", "admin", "metrics", metrics.clone());
        }
    }
    sources
}

fn start(sources: &Sources) -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(render::colours(io::stderr().is_terminal()))
        .init();
    match config::load(sources) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                tracing::warn!("{warning}");
            }
            run::run(loaded.config)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            say_error(&problems.to_string());
            Ok(ExitCode::from(BAD_CONFIGURATION))
        }
    }
}

fn examine(sources: &Sources, config_only: bool) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(sources) {
        Ok(loaded) => loaded,
        Err(problems) => {
            say_error(&problems.to_string());
            say_error("headgate: the configuration is bad");
            return Ok(ExitCode::from(BAD_CONFIGURATION));
        }
    };
    for warning in &loaded.warnings {
        say_error(&format!("warning: {warning}"));
    }
    let files: Vec<String> = loaded.files.iter().map(|file| file.display().to_string()).collect();
    let files = if files.is_empty() { "environment".to_owned() } else { files.join(", ") };
    say(&format!("ok       configuration: {files}\n"))?;
    if config_only {
        return Ok(ExitCode::SUCCESS);
    }
    let mut findings = host::look(&loaded.config, &host::Host::default());
    findings.extend(run::look_at_api_server(&loaded.config).map(host::api_server));
    say(&render::findings(&findings))?;
    let failed = findings.iter().any(|finding| finding.verdict == host::Verdict::Failed);
    Ok(ExitCode::from(if failed { FAILED } else { 0 }))
}

/// Writes to standard output. Somebody who has read enough, as `head`, is no error.
fn say(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

fn say_error(text: &str) {
    // There is no one left to tell where standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests;
