//! One look at an API server, for whoever wants to know beforehand.

use super::KubeError;
use super::connect::{self, Connection};
use super::kinds::Watched;
use super::lease;
use super::options::Options;
use super::trouble::{Sort, Trouble};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Api;
use kube::api::ListParams;
use std::time::Duration;
use tokio::time::timeout;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// All that is to be read can be; the server.
    Good(String),
    /// It doesn't answer, which a gateway waits for. In one sentence, with the remedy.
    Away(String),
    /// It says no, which won't change by itself. In one sentence, with the remedy.
    Refused(String),
}

/// Asks for one object of each kind, and for the Lease.
///
/// # Errors
/// Where nothing says how the API server is to be asked.
pub async fn examine(options: &Options) -> Result<Examined, KubeError> {
    let connection = connect::once(options).await?;
    Ok(match ask(&connection, options).await {
        Ok(()) => Examined::Good(connection.facts.server.clone()),
        Err(trouble) => match trouble.sort {
            Sort::Unreachable | Sort::Silent | Sort::Busy => Examined::Away(trouble.what),
            _ => Examined::Refused(trouble.what),
        },
    })
}

async fn ask(connection: &Connection, options: &Options) -> Result<(), Trouble> {
    let patience = options.timing.answer;
    list::<Service>(connection, patience).await?;
    list::<EndpointSlice>(connection, patience).await?;
    list::<Node>(connection, patience).await?;
    list::<ServiceCIDR>(connection, patience).await?;
    if options.namespaces_needed {
        list::<Namespace>(connection, patience).await?;
    }
    let Some(wanted) = &options.lease else { return Ok(()) };
    let api: Api<Lease> = Api::namespaced(connection.client.clone(), &wanted.namespace);
    let doing = format!("reading the Lease {}/{}", wanted.namespace, wanted.name);
    answer(connection, patience, &doing, api.get(&wanted.name)).await.map(drop).map_err(
        |mut trouble| {
            if trouble.sort == Sort::Missing {
                trouble.what = lease::missing(wanted);
            }
            trouble
        },
    )
}

async fn list<K: Watched>(connection: &Connection, patience: Duration) -> Result<(), Trouble> {
    let api: Api<K> = Api::all(connection.client.clone());
    let doing = format!("listing {}", K::plural(&()));
    let params = ListParams::default().limit(1);
    match answer(connection, patience, &doing, api.list(&params)).await {
        Err(trouble) if K::OPTIONAL && trouble.sort == Sort::Missing => Ok(()),
        other => other.map(drop),
    }
}

async fn answer<T>(
    connection: &Connection,
    patience: Duration,
    doing: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Trouble> {
    match timeout(patience, request).await {
        Err(_) => Err(Trouble::silent(doing, patience, &connection.facts)),
        Ok(answer) => answer.map_err(|error| Trouble::of(&error, doing, &connection.facts)),
    }
}
