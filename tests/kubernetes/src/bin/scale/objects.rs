//! Thousands of Services and their slices, created and changed in the API server.

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::hash::{BuildHasher, Hasher};
use std::net::Ipv4Addr;
use std::path::Path;

const NAMESPACE: &str = "scale";
/// Requests at once.
const AT_ONCE: usize = 16;
/// Endpoints never get a packet here.
const FIRST_POD: u32 = 0x0a00_0001;

/// What there is in the API server.
pub struct Objects {
    client: Client,
    node: String,
    random: u64,
    /// By Service, which of its endpoints are ready.
    ready: Vec<Vec<bool>>,
}

impl Objects {
    /// With the rights of this kubeconfig; all endpoints are on `node`.
    pub async fn connect(kubeconfig: &Path, node: &str, seed: u64) -> Result<Self> {
        let options = KubeConfigOptions::default();
        let config =
            Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &options).await?;
        let client = Client::try_from(config)?;
        Ok(Self { client, node: node.to_owned(), random: seed, ready: Vec::new() })
    }

    /// Creates the Services and one slice for each, all endpoints ready.
    pub async fn create(&mut self, services: u32, endpoints: u32) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        self.ready = vec![vec![true; endpoints as usize]; services as usize];
        let all: &Self = self;
        stream::iter(0..services)
            .map(|number| async move {
                let parameters = PostParams::default();
                let service: Service = serde_json::from_value(service(number))?;
                all.services().create(&parameters, &service).await?;
                let slice: EndpointSlice = serde_json::from_value(all.slice(number))?;
                all.slices().create(&parameters, &slice).await?;
                anyhow::Ok(())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
            .context("creating Services and slices")
    }

    /// Turns one endpoint ready, or unready.
    pub async fn change(&mut self) -> Result<()> {
        let service = self.below(self.ready.len());
        let endpoint = self.below(self.ready[service].len());
        let ready = &mut self.ready[service][endpoint];
        *ready = !*ready;
        let number = u32::try_from(service)?;
        let patch = Patch::Merge(self.slice(number));
        self.slices().patch(&name(number), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Services that have an address in their status.
    pub async fn with_address(&self) -> Result<usize> {
        let mut parameters = ListParams::default().limit(1_000);
        let mut count = 0;
        loop {
            let page = self.services().list(&parameters).await?;
            count += page.items.iter().filter(|service| has_address(service)).count();
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(count),
            }
        }
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// As the EndpointSlice controller writes it; the annotation is what kube-proxy measures from.
    fn slice(&self, number: u32) -> Value {
        let ready = &self.ready[number as usize];
        let first = FIRST_POD + number * ready.len() as u32;
        let endpoints = (first..).zip(ready).map(|(pod, ready)| {
            json!({
                "addresses": [Ipv4Addr::from(pod)],
                "conditions": {"ready": ready, "serving": ready, "terminating": false},
                "nodeName": self.node,
            })
        });
        json!({
            "metadata": {
                "name": name(number),
                "labels": {"kubernetes.io/service-name": name(number)},
                "annotations": {
                    "endpoints.kubernetes.io/last-change-trigger-time": Timestamp::now().to_string(),
                },
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    }

    fn below(&mut self, end: usize) -> usize {
        let mut hasher =
            std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().build_hasher();
        hasher.write_u64(self.random);
        self.random = hasher.finish();
        (self.random % end as u64) as usize
    }
}

fn has_address(service: &Service) -> bool {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.is_some_and(|status| status.ingress.as_ref().is_some_and(|all| !all.is_empty()))
}

fn name(number: u32) -> String {
    format!("service-{number}")
}

fn service(number: u32) -> Value {
    json!({
        "metadata": {
            "name": name(number),
            "annotations": {"headgate.dev/pool": "scale"},
        },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ipFamilyPolicy": "SingleStack",
            "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}
