//! What the script `run` calls.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use rig::runner::Part;
use rig::{demo, instance, runner};
use std::path::PathBuf;
use std::process::ExitCode;

/// Namespaces, programs and traffic around Headgate.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Show a gateway between real clients and real servers.
    Demo {
        /// On a real Kubernetes cluster, in place of a folder of manifests.
        #[arg(value_parser = ["kubernetes"])]
        on: Option<String>,
        /// Once, without a person; the last line is JSON.
        #[arg(long)]
        check: bool,
    },
    /// Run tests: unit, golden, netns, kubernetes, fuzz, flood; all unless named.
    Test {
        #[arg(value_parser = Part::ALL.map(Part::name))]
        parts: Vec<String>,
        /// The workspace's folder.
        #[arg(long, default_value = ".")]
        workspace: PathBuf,
    },
    /// Run a command in a namespace of the running demo.
    In {
        /// client, gateway, switch, web-1, web-2, web-3; with a cluster node-1, node-2 and pods
        namespace: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Ask the gateway of the running demo.
    Headgate {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Ask the cluster of the running demo.
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Remove what runs that were killed have left.
    Clean,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    match Arguments::parse().command {
        Subcommands::Demo { on, check } => {
            let kind = on.map_or(demo::Kind::Manifests, |_| demo::Kind::Kubernetes);
            demo::run(kind, check)
        }
        Subcommands::Test { parts, workspace } => {
            let named: Vec<Part> = parts.iter().filter_map(|name| Part::from_name(name)).collect();
            let parts = if named.is_empty() { Part::ALL.to_vec() } else { named };
            let workspace = workspace.canonicalize().context("--workspace")?;
            runner::run(&workspace, &parts)
        }
        Subcommands::In { namespace, command } => demo::enter(&namespace, &command).map(|()| true),
        Subcommands::Headgate { args } => demo::headgate(&args).map(|()| true),
        Subcommands::Kubectl { args } => demo::kubectl(&args).map(|()| true),
        Subcommands::Clean => {
            println!("removed what {} ended runs had left", instance::sweep()?);
            Ok(true)
        }
    }
}
