//! One look at an API server, for whoever wants to know beforehand.

use super::KubeError;
use super::connect::{self, Connection};
use super::kinds::Watched;
use super::options::Options;
use super::said;
use super::trouble::{Doing, Sort, Trouble};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Api;
use kube::api::{ListParams, PostParams};
use std::time::Duration;
use tokio::time::timeout;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// All that is to be read can be, and what is to be written may be; the server.
    Good(String),
    /// It doesn't answer, which a gateway waits for. In one sentence, with the remedy.
    Away(String),
    /// It says no, which won't change by itself. In one sentence, with the remedy.
    Refused(String),
}

/// Asks for one object of each kind and for the Lease, and whether what is to be done beside that
/// is allowed. Nothing is written.
///
/// # Errors
/// Where nothing says how the API server is to be asked.
pub async fn examine(options: &Options) -> Result<Examined, KubeError> {
    let connection = connect::once(options).await?;
    Ok(examine_over(&connection, options).await)
}

/// The same over a connection that is there.
pub(super) async fn examine_over(connection: &Connection, options: &Options) -> Examined {
    match (Look { connection, patience: options.timing.answer }).at_all(options).await {
        Ok(()) => Examined::Good(connection.facts.server.clone()),
        Err(trouble) => match trouble.sort {
            Sort::Unreachable | Sort::Silent | Sort::Busy => Examined::Away(trouble.what),
            _ => Examined::Refused(trouble.what),
        },
    }
}

/// A verb and what it is about.
fn right(verb: &str, group: &str, resource: &str, subresource: &str) -> ResourceAttributes {
    let some = |text: &str| Some(text.to_owned());
    ResourceAttributes {
        verb: some(verb),
        group: some(group),
        resource: some(resource),
        subresource: some(subresource),
        ..ResourceAttributes::default()
    }
}

/// Who asks.
struct Look<'a> {
    connection: &'a Connection,
    patience: Duration,
}

impl Look<'_> {
    async fn at_all(&self, options: &Options) -> Result<(), Trouble> {
        self.at_kind::<Service>().await?;
        self.at_kind::<EndpointSlice>().await?;
        self.at_kind::<Node>().await?;
        self.at_kind::<ServiceCIDR>().await?;
        if options.namespaces_needed {
            self.at_kind::<Namespace>().await?;
        }
        if options.write {
            let doing = Doing::new("writing the status of Services".to_owned());
            self.may(&doing, right("patch", "", "services", "status")).await?;
        }
        if options.write && options.events {
            let doing = Doing::new("creating Events".to_owned());
            self.may(&doing, right("create", "events.k8s.io", "events", "")).await?;
            let doing = Doing::new("counting on in Events".to_owned());
            self.may(&doing, right("patch", "events.k8s.io", "events", "")).await?;
        }
        let Some(wanted) = &options.lease else { return Ok(()) };
        let api: Api<Lease> = Api::namespaced(self.connection.client.clone(), &wanted.namespace);
        let doing = Doing::lease("reading", wanted);
        self.answer(&doing, api.get(&wanted.name)).await.map_err(|mut trouble| {
            if trouble.sort == Sort::Missing {
                trouble.what = said::missing(wanted);
            }
            trouble
        })?;
        let update = ResourceAttributes {
            namespace: Some(wanted.namespace.clone()),
            name: Some(wanted.name.clone()),
            ..right("update", "coordination.k8s.io", "leases", "")
        };
        self.may(&Doing::lease("updating", wanted), update).await
    }

    async fn at_kind<K: Watched>(&self) -> Result<(), Trouble> {
        let api: Api<K> = Api::all(self.connection.client.clone());
        let params = ListParams::default().limit(1);
        match self.answer(&K::doing("listing"), api.list(&params)).await {
            Err(trouble) if K::OPTIONAL && trouble.sort == Sort::Missing => return Ok(()),
            other => other.map(drop)?,
        }
        self.may(&K::doing("watching"), right("watch", &K::group(&()), &K::plural(&()), "")).await
    }

    /// Whether this account may do something, by the server's word: every account may ask that
    /// where nobody has changed the roles that a cluster begins with. Where it mayn't, nothing is
    /// said.
    async fn may(&self, doing: &Doing, right: ResourceAttributes) -> Result<(), Trouble> {
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(right),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.connection.client.clone());
        let asking = Doing::new(format!("asking whether {doing} is allowed"));
        match self.answer(&asking, api.create(&PostParams::default(), &review)).await {
            Ok(review) if review.status.as_ref().is_some_and(|status| !status.allowed) => {
                let reason = review.status.and_then(|status| status.reason).unwrap_or_default();
                Err(Trouble::new(Sort::Forbidden, doing.forbidden(reason.trim())))
            }
            Ok(_) => Ok(()),
            Err(trouble) if matches!(trouble.sort, Sort::Forbidden | Sort::Missing) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    async fn answer<T>(
        &self,
        doing: &Doing,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Trouble> {
        let facts = &self.connection.facts;
        match timeout(self.patience, request).await {
            Err(_) => Err(Trouble::silent(doing, self.patience, facts)),
            Ok(answer) => answer.map_err(|error| Trouble::of(&error, doing, facts)),
        }
    }
}
