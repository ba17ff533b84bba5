//! Commands that ask a running gateway.

use super::args::{Explain, Filter, Format, LIMIT_MAX, Output, Rows, Scope, What, service_name};
use super::terms::{Row, sift};
use super::{FAILED, say};
use crate::config::{Sources, admin_socket};
use crate::render::{self, Look};
use admin::Client;
use anyhow::Context;
use model::answers::{BackendRow, ConnectionFilter, Event, ServiceRow};
use model::desired::ObjectName;
use model::ids::{FiveTuple, Protocol};
use serde::Serialize;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often `-w` asks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

fn look(format: Format) -> Look {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Look {
        wide: format == Format::Wide,
        colour: render::colours(std::io::stdout().is_terminal()),
        now_s: now.as_secs(),
    }
}

fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start a runtime")?.block_on(work)
}

fn client(sources: &Sources) -> Client {
    Client::new(admin_socket(sources))
}

/// Shows an answer in the form that was asked for, and again while somebody watches.
async fn present<T: Serialize>(
    output: Output,
    mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
    table: impl Fn(&T, Look) -> String,
) -> anyhow::Result<()> {
    loop {
        let answer = ask().await?;
        let text = match output.format {
            Format::Json => serde_json::to_string_pretty(&answer)? + "\n",
            Format::Yaml => yaml(&answer)?,
            Format::Table | Format::Wide => table(&answer, look(output.format)),
        };
        if !output.watch {
            return say(&text);
        }
        // A terminal shows one screen; a file or a program gets one answer after the other.
        let program = matches!(output.format, Format::Json | Format::Yaml);
        let clear = !program && std::io::stdout().is_terminal();
        say(&if clear { format!("\x1b[H\x1b[2J{text}") } else { text })?;
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// One document, begun by its marker: `-w` writes one after the other.
pub(super) fn yaml<T: Serialize>(answer: &T) -> anyhow::Result<String> {
    Ok(format!("---\n{}", serde_saphyr::to_string(answer)?))
}

/// Without arguments: the state, and what to try next.
pub(super) fn overview(sources: &Sources) -> anyhow::Result<ExitCode> {
    let client = client(sources);
    let status = wait(async { Ok(client.status().await) })?;
    match status {
        Ok(status) => {
            say(&render::status(&status, look(Format::Table)))?;
            say(&render::next_commands(true))?;
            Ok(ExitCode::from(if status.degraded.is_empty() { 0 } else { FAILED }))
        }
        Err(error) => {
            say(&format!("Headgate {}\n{error}\n", crate::VERSION))?;
            say(&render::next_commands(false))?;
            Ok(ExitCode::from(FAILED))
        }
    }
}

/// `status`.
pub(super) fn status(sources: &Sources, output: Output) -> anyhow::Result<ExitCode> {
    let client = client(sources);
    let mut degraded = false;
    wait(present(
        output,
        async || {
            let status = client.status().await?;
            degraded = !status.degraded.is_empty();
            Ok(status)
        },
        render::status,
    ))?;
    Ok(ExitCode::from(if degraded { FAILED } else { 0 }))
}

/// `show`.
pub(super) fn show(sources: &Sources, what: &What) -> anyhow::Result<()> {
    let client = client(sources);
    wait(async {
        match what {
            What::Services(scope) => {
                let ask = async || services_of(client.services().await?, scope);
                present(scope.rows.output, ask, |rows, look| render::services(rows, look)).await
            }
            What::Backends { service, scope } => {
                let service = service.as_deref().map(|name| scoped(name, scope)).transpose()?;
                let service = service.as_ref();
                let ask = async || backends_of(client.backends().await?, service, scope);
                present(scope.rows.output, ask, |rows, look| render::backends(rows, look)).await
            }
            What::Connections(filter) => connections(&client, filter).await,
            What::Drops(rows) => {
                let ask = async || sifted(client.drops().await?, rows);
                present(rows.output, ask, |rows, look| render::drops(rows, look)).await
            }
            What::Neighbours { all, rows } => {
                let all = *all || !rows.terms.is_empty();
                let ask = async || sifted(client.neighbours().await?, rows);
                present(rows.output, ask, |rows, _| render::neighbours(rows, all)).await
            }
            What::Ports(rows) => {
                let ask = async || sifted(client.ports().await?, rows);
                present(rows.output, ask, |rows, look| render::ports(rows, look)).await
            }
            What::Workers { passes, rows } => workers(&client, *passes, rows).await,
            What::Budgets(rows) => {
                let ask = async || sifted(client.budgets().await?, rows);
                present(rows.output, ask, |rows, look| render::budgets(rows, look)).await
            }
            What::Pools(rows) => {
                let ask = async || sifted(client.pools().await?, rows);
                present(rows.output, ask, |rows, look| render::pools(rows, look)).await
            }
            What::Events(scope) => {
                let ask = async || events_of(client.events().await?, scope);
                present(scope.rows.output, ask, |rows, look| render::events(rows, look)).await
            }
        }
    })
}

/// The rows that the filters let through.
fn sifted<R: Row>(mut found: Vec<R>, rows: &Rows) -> anyhow::Result<Vec<R>> {
    sift(&mut found, &rows.terms)?;
    Ok(found)
}

async fn workers(client: &Client, passes: Option<u32>, rows: &Rows) -> anyhow::Result<()> {
    let ask = async || {
        let mut answer = match passes {
            Some(seconds) => client.workers_measured(seconds).await?,
            None => client.workers().await?,
        };
        sift(&mut answer.workers, &rows.terms)?;
        Ok(answer)
    };
    present(rows.output, ask, render::workers).await
}

async fn connections(client: &Client, filter: &Filter) -> anyhow::Result<()> {
    let mut asked = connection_filter(filter)?;
    let terms = &filter.scope.rows.terms;
    if !terms.is_empty() {
        // What the question doesn't know is sifted here, so the limit holds for what is left.
        asked.limit = LIMIT_MAX;
    }
    let namespace = filter.scope.namespace.as_deref();
    let ask = async || {
        let mut answer = client.connections(&asked).await?;
        // The question knows whole Services alone; a namespace is sifted here.
        if let (Some(namespace), None) = (namespace, &asked.service) {
            answer.connections.retain(|connection| {
                let service = connection.service.as_ref().map(|key| &key.service);
                service.is_some_and(|service| *service.namespace == *namespace)
            });
        }
        sift(&mut answer.connections, terms)?;
        answer.more |= answer.connections.len() > filter.limit;
        answer.connections.truncate(filter.limit);
        Ok(answer)
    };
    present(filter.scope.rows.output, ask, render::connections).await
}

/// The question that the flags ask.
pub(super) fn connection_filter(filter: &Filter) -> anyhow::Result<ConnectionFilter> {
    let service = filter.service.as_deref().map(|name| scoped(name, &filter.scope)).transpose()?;
    Ok(ConnectionFilter {
        source: filter.src,
        destination: filter.dst,
        service,
        state: filter.state.map(|state| state.name().to_owned()),
        protocol: filter.protocol,
        limit: filter.limit,
    })
}

/// A Service's name; without a namespace it is of the one that `-n` names.
fn scoped(name: &str, scope: &Scope) -> anyhow::Result<ObjectName> {
    let full = match (&scope.namespace, name.contains('/')) {
        (Some(namespace), false) => format!("{namespace}/{name}"),
        _ => name.to_owned(),
    };
    service_name(&full).map_err(|error| anyhow::anyhow!("--service {name}: {error}"))
}

fn within(name: &ObjectName, scope: &Scope) -> bool {
    scope.namespace.as_ref().is_none_or(|namespace| *name.namespace == **namespace)
}

fn services_of(mut rows: Vec<ServiceRow>, scope: &Scope) -> anyhow::Result<Vec<ServiceRow>> {
    rows.retain(|row| within(&row.status.name, scope));
    sifted(rows, &scope.rows)
}

fn backends_of(
    mut rows: Vec<BackendRow>,
    service: Option<&ObjectName>,
    scope: &Scope,
) -> anyhow::Result<Vec<BackendRow>> {
    rows.retain(|row| {
        let name = &row.service.service;
        within(name, scope) && service.is_none_or(|service| service == name)
    });
    sifted(rows, &scope.rows)
}

fn events_of(mut rows: Vec<Event>, scope: &Scope) -> anyhow::Result<Vec<Event>> {
    rows.retain(|row| within(&row.object, scope));
    sifted(rows, &scope.rows)
}

/// `explain`, of what only a running gateway knows. Fails where the answer is "no".
pub(super) fn explain(sources: &Sources, what: Explain) -> anyhow::Result<ExitCode> {
    let client = client(sources);
    let mut good = true;
    let (protocol, flow) = match what {
        Explain::Service { name, output } => {
            let ask = async || {
                let answer = client.explain_service(&name).await?;
                good = answer.steps.iter().all(|step| step.good);
                Ok(answer)
            };
            wait(present(output, ask, render::service_explanation))?;
            return Ok(ExitCode::from(if good { 0 } else { FAILED }));
        }
        Explain::Drop { reason } => {
            say(&render::drop_reason(reason))?;
            return Ok(ExitCode::SUCCESS);
        }
        Explain::Tcp(flow) => (Protocol::Tcp, flow),
        Explain::Udp(flow) => (Protocol::Udp, flow),
    };
    let tuple = FiveTuple { protocol, source: flow.source, destination: flow.destination };
    let ask = async || {
        let answer = client.explain_flow(tuple).await?;
        good = answer.answer.drop.is_none();
        Ok(answer)
    };
    wait(present(flow.output, ask, |answer, _| render::flow_explanation(answer)))?;
    Ok(ExitCode::from(if good { 0 } else { FAILED }))
}
