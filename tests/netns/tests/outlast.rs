//! Connections outlast what they were begun by: Service, slice and Node go, and data goes on both
//! ways, to a backend on the link and to one behind a node; never by the front.

use anyhow::{Context, Result};
use netns::Test;
use rig::lines::LineClients;
use rig::manifests::{Port, Service};
use rig::node::NODE;
use rig::plan;
use rig::strays::Strays;
use rig::world::WorldOptions;
use std::net::{IpAddr, SocketAddr};

/// What becomes of them stands in their names; those of `whole` lose the Node alone.
const SERVICES: [&str; 4] = ["emptied", "deleted", "internal", "whole"];
/// Connections of each Service, in each family, to each backend.
const CONNECTIONS: usize = 2;
/// Lines on each of them after each change.
const LINES: u64 = 3;

struct Open {
    test: Test,
    clients: Vec<LineClients>,
    strays: Strays,
}

impl Open {
    /// Connections of all kinds; `None` where the machine can't do it.
    fn begin(kind: &str, has_default_route: bool) -> Result<Option<Self>> {
        let options = WorldOptions { backends: 2, node: true, ..WorldOptions::new(kind) };
        let Some(test) = netns::build(&options)? else { return Ok(None) };
        let test = test.start()?;
        if has_default_route {
            test.net.default_routes("add")?;
        }
        for name in SERVICES {
            test.manifests.apply(&service(&test, name))?;
        }
        test.admin()?.wait_until("backends of all", |admin| {
            let counts = SERVICES.map(|name| admin.active(name).map(|list| list.len()));
            Ok(counts.into_iter().collect::<Result<Vec<_>>>()? == [4; SERVICES.len()])
        })?;
        let backends: Vec<IpAddr> = test.net.backends.iter().flat_map(|b| b.addresses).collect();
        let strays = Strays::watch(&test.net.client, backends)?;
        let mut clients = Vec::new();
        for name in SERVICES {
            for address in test.addresses(name)? {
                let sources = test.net.client_addresses(address);
                let target = SocketAddr::new(address, plan::ECHO_PORT);
                for backend in &test.net.backends {
                    let wanted = |name: &str| name == backend.name;
                    let client = &test.net.client;
                    clients.push(LineClients::open(client, &sources, target, CONNECTIONS, wanted)?);
                }
            }
        }
        Ok(Some(Self { test, clients, strays }))
    }
    /// All that they were begun by goes, one after the other.
    fn everything_goes(&self) -> Result<()> {
        let Self { test, .. } = self;
        let (admin, manifests) = (test.admin()?, &test.manifests);
        let mut emptied = service(test, "emptied");
        emptied.endpoints.clear();
        manifests.apply(&emptied)?;
        admin.wait_until("no backend", |admin| Ok(admin.active("emptied")?.is_empty()))?;
        self.go_on("the slices are empty");

        manifests.delete("deleted")?;
        admin.wait_until("no Service", |admin| Ok(admin.service("deleted").is_err()))?;
        self.go_on("the Service is deleted");

        let mut internal = service(test, "internal");
        internal.kind = "ClusterIP";
        manifests.apply(&internal)?;
        admin.wait_until("no address", |admin| {
            Ok(admin
                .services()?
                .iter()
                .all(|row| &*row.status.name.name != "internal" || row.status.addresses.is_empty()))
        })?;
        self.go_on("the Service is a ClusterIP");

        manifests.delete(NODE)?;
        let nodes = plan::node().map(|address| address.to_string());
        admin.wait_until("no way by the node", |admin| {
            Ok(admin.backends()?.iter().all(|row| nodes.iter().all(|ip| !row.way.contains(ip))))
        })?;
        self.go_on("the Node is deleted");
        self.forget()
    }
    /// The kernel forgets the next hops at the back.
    fn forget(&self) -> Result<()> {
        self.test.net.forget_next_hops()?;
        self.go_on("the neighbours are flushed");
        Ok(())
    }
    fn go_on(&self, what: &str) {
        println!("{what}");
        LineClients::wait_for_lines_of_all(&self.clients, LINES);
    }
    fn end(self) -> Result<()> {
        self.forget()?;
        self.strays.check().context("in front")?;
        for lines in self.clients {
            let (_, frontend) = lines.first();
            lines.stop()?.check().with_context(|| frontend.to_string())?;
        }
        self.test.end()
    }
}

fn service(test: &Test, name: &str) -> Service {
    let port = Port::tcp("lines", plan::ECHO_PORT, plan::ECHO_PORT);
    Service::new(name, "LoadBalancer", vec![port], &test.net.backends)
}

#[test]
fn connections_outlast_all_that_they_were_begun_by() -> Result<()> {
    let Some(open) = Open::begin("outlast", false)? else { return Ok(()) };
    open.everything_goes()?;
    // Ways are looked for anew.
    open.test.net.default_routes("add")?;
    open.go_on("there is a default route");
    open.end()
}

#[test]
fn no_default_route_takes_them() -> Result<()> {
    let Some(open) = Open::begin("default", true)? else { return Ok(()) };
    open.everything_goes()?;
    open.test.net.default_routes("del")?;
    open.go_on("there is no default route");
    open.end()
}
