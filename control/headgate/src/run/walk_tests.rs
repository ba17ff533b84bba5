//! Walks from manifests: what an operator wrote, and what is said about it.

use super::*;
use sources::Change;
use sources::directory::{DirectorySource, Options};
use translate::{Allocations, Index, NodePortSettings, Pool, Settings, Wishes};

/// A Service `shop/web` with port 80 named `http`; `more` stands in its spec.
fn service(kind: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec:\n  type: \
         {kind}\n  selector: {{app: web}}\n  ports: [{{name: http, port: 80}}]\n{more}---\n"
    )
}

/// Its slice with these endpoints, as `{addresses: [198.18.1.11], nodeName: a}`.
fn slice(port: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  \
         namespace: shop\n  labels: {{kubernetes.io/service-name: web}}\naddressType: IPv4\nports: \
         [{{name: {port}, port: 8080}}]\nendpoints: [{endpoints}]\n---\n"
    )
}

const ONE: &str =
    "{addresses: [198.18.1.11], nodeName: node-a, targetRef: {kind: Pod, name: web-x}}";
const TWO: &str = "{addresses: [198.18.1.11], nodeName: a}, {addresses: [198.18.1.12], nodeName: a}, \
                   {addresses: [198.18.1.21], nodeName: b}";

/// The world around a walk.
struct World {
    wishes: Wishes,
    way: Way,
    heard: fn(SocketAddr) -> io::Result<()>,
}

impl Default for World {
    fn default() -> Self {
        let pool = Pool {
            name: "demo".into(),
            ranges: vec!["203.0.113.10".parse().unwrap()],
            ..Pool::default()
        };
        let wishes = Wishes { pools: vec![pool], ..Wishes::default() };
        Self { wishes, way: Way::Resolved, heard: |_| Ok(()) }
    }
}

impl World {
    /// The explanation as it is printed: `yes|no question: finding -> remedy`.
    fn explain(&self, manifests: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("all.yaml"), manifests).unwrap();
        let mut source = DirectorySource::open(directory.path(), Options::default()).unwrap();
        let settings = Settings::new(self.wishes.clone()).unwrap();
        let mut index = Index::new(settings, Allocations::default());
        for change in source.load().changes {
            match change {
                Change::Apply(object) => index.apply(object),
                Change::Delete(key) => index.delete(&key),
            }
        }
        index.build();
        let status = index.statuses().find(|status| &*status.name.name == "web").unwrap();
        let ports = index.desired().service_ports.values();
        let ports: Vec<_> = ports.filter(|port| port.key.service == status.name).cloned().collect();
        let explanation = walk(&Known {
            status,
            ports: &ports,
            class: &self.wishes.load_balancer_class,
            node_ports: &self.wishes.node_port.addresses,
            fronts: &["198.18.0.1/24".parse().unwrap()],
            way: &|_, _| self.way,
            connect: &|all| all.iter().map(|(address, _)| (self.heard)(*address)).collect(),
        });
        let step = |step: &Step| {
            let word = if step.good { "yes" } else { "no" };
            let remedy = step.remedy.as_ref().map_or(String::new(), |text| format!(" -> {text}"));
            format!("{word} {}: {}{remedy}", step.question, step.finding)
        };
        explanation.steps.iter().map(step).collect()
    }

    /// The last step, after this many good ones.
    fn stops(&self, manifests: &str, after: usize) -> String {
        let mut steps = self.explain(manifests);
        assert_eq!(steps.len(), after + 1, "{steps:#?}");
        assert!(steps.iter().take(after).all(|step| step.starts_with("yes ")), "{steps:#?}");
        steps.pop().unwrap()
    }
}

/// Holds where all of these are in the text.
#[track_caller]
fn tells(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_service_that_is_well_is_walked_to_its_end() {
    let steps = World::default().explain(&(service("LoadBalancer", "") + &slice("http", TWO)));
    assert_eq!(
        steps,
        [
            "yes is it ours: shop/web of type LoadBalancer",
            "yes has it an address: 203.0.113.10:80 (LoadBalancer)",
            "yes are all its ports forwarded: 1",
            "yes has it EndpointSlices: 1",
            "yes has it endpoints: 3 over all ports",
            "yes is one ready: 3 of 3 take new connections",
            "yes is there a way to each backend: 3 backends",
            "yes are their next hops resolved: all of them",
            "yes does a backend of each node answer: 198.18.1.11:8080, 198.18.1.21:8080",
            "yes is it announced: 203.0.113.10 is on no link of ours: routers need a route to it \
             by way of this gateway",
        ]
    );
}

#[test]
fn no_slice() {
    let told = World::default().stops(&service("LoadBalancer", ""), 3);
    tells(
        &told,
        &[
            "no has it EndpointSlices: no slice names it",
            "endpointslice controller",
            "kubectl -n shop get endpointslices -l kubernetes.io/service-name=web",
        ],
    );
}

#[test]
fn the_selector_matches_nothing() {
    let told = World::default().stops(&(service("LoadBalancer", "") + &slice("http", "")), 4);
    tells(
        &told,
        &["its selector app=web matches no pod", "kubectl -n shop get pods -l app=web -o wide"],
    );
}

#[test]
fn no_slice_has_the_port() {
    let told = World::default().stops(&(service("LoadBalancer", "") + &slice("web", ONE)), 4);
    tells(&told, &["1 endpoints, yet no slice has a port named \"http\"", "targetPort", "-o yaml"]);
}

#[test]
fn pods_are_not_ready() {
    let endpoint = "{addresses: [198.18.1.11], conditions: {ready: false, serving: false}}";
    let world = World::default();
    let told = world.stops(&(service("LoadBalancer", "") + &slice("http", endpoint)), 5);
    tells(
        &told,
        &["no is one ready: none of 1 endpoints is ready", "readiness probes: kubectl -n shop get"],
    );
}

#[test]
fn the_pool_is_exhausted() {
    let first = service("LoadBalancer", "").replace("name: web, n", "name: a, n");
    let told = World::default().stops(&(first + &service("LoadBalancer", "")), 1);
    tells(
        &told,
        &[
            "no has it an address: ",
            "no free IPv4 address",
            "headgate show pools",
            "kubectl get services -A --field-selector spec.type=LoadBalancer",
        ],
    );
}

#[test]
fn the_class_is_not_ours() {
    let world = World::default();
    let told = world.stops(&service("LoadBalancer", "  loadBalancerClass: example.com/lb\n"), 0);
    tells(
        &told,
        &[
            "no is it ours: ",
            "class \"example.com/lb\"",
            "create it anew with class headgate.dev/gateway",
            "kubectl -n shop get service web -o jsonpath='{.spec.loadBalancerClass}'",
        ],
    );
    let mut world = World::default();
    world.wishes.default_class = false;
    let told = world.stops(&service("LoadBalancer", ""), 0);
    tells(&told, &["no class", "service.default_class = true"]);
}

#[test]
fn what_else_is_not_ours() {
    let mut world = World::default();
    let class = |class: &str| service("LoadBalancer", &format!("  loadBalancerClass: {class}\n"));
    tells(&world.stops(&class("service.k8s.aws/nlb"), 0), &["aliases.aws = true"]);
    world.wishes.default_class = false;
    tells(&world.stops(&service("LoadBalancer", ""), 0), &["a class can't be added to it"]);
    let headless = service("LoadBalancer", "  clusterIP: None\n");
    tells(&world.stops(&headless, 0), &["nothing of it is forwarded: it is headless"]);
}

#[test]
fn a_port_is_left_out() {
    let two = service("LoadBalancer", "")
        .replace("port: 80}]", "port: 80}, {name: sctp, port: 9, protocol: SCTP}]");
    let told = World::default().stops(&(two + &slice("http", ONE)), 2);
    tells(&told, &["no are all its ports forwarded: port 9/SCTP is not: SCTP is not available"]);
}

#[test]
fn node_ports_do_not_hide_an_exhausted_pool() {
    let mut world = World::default();
    world.wishes.node_port.addresses = vec!["198.18.0.1".parse().unwrap()];
    let first = service("LoadBalancer", "").replace("name: web, n", "name: a, n");
    let second = service("LoadBalancer", "")
        .replace("port: 80}", "port: 80, nodePort: 30080}")
        .replace("shop}", "shop, annotations: {headgate.dev/node-ports: \"true\"}}");
    tells(&world.stops(&(first + &second), 1), &["no has it an address: ", "no free IPv4 address"]);
}

#[test]
fn no_node_may_be_a_backend() {
    let node = "apiVersion: v1\nkind: Node\nmetadata:\n  name: node-a\n  labels: \
                {node.kubernetes.io/exclude-from-external-load-balancers: \"\"}\nstatus: {addresses: \
                [{type: InternalIP, address: 198.18.1.1}]}\n---\n";
    let nodes = service("LoadBalancer", "")
        .replace("port: 80}", "port: 80, nodePort: 30080}")
        .replace("shop}", "shop, annotations: {headgate.dev/target: node}}");
    let told = World::default().stops(&(nodes + &slice("http", ONE) + node), 4);
    tells(&told, &["on no node that may be a backend", "kubectl get nodes -o wide -L"]);
}

#[test]
fn an_annotation_without_type_load_balancer() {
    let annotated = service("ClusterIP", "")
        .replace("namespace: shop}", "namespace: shop, annotations: {headgate.dev/pool: demo}}");
    let told = World::default().stops(&annotated, 0);
    tells(
        &told,
        &[
            "the annotation headgate.dev/pool counts for type LoadBalancer alone, and its type is \
             ClusterIP",
            "kubectl -n shop patch service web -p '{\"spec\":{\"type\":\"LoadBalancer\",\
             \"loadBalancerClass\":\"headgate.dev/gateway\"}}'",
        ],
    );
    let told = World::default().stops(&service("ClusterIP", ""), 0);
    tells(&told, &["for clients inside the cluster", "kubectl -n shop patch service web"]);
}

#[test]
fn a_node_port_on_an_address_that_is_not_ours() {
    let told = World::default().stops(&service("NodePort", ""), 1);
    tells(
        &told,
        &[
            "no address of this gateway is configured",
            "node_port.addresses",
            "kubectl -n shop get service web -o wide",
        ],
    );
    let mut world = World::default();
    world.wishes.node_port = NodePortSettings {
        addresses: vec!["198.18.0.1".parse().unwrap()],
        ..NodePortSettings::default()
    };
    let given = service("NodePort", "").replace("port: 80}", "port: 80, nodePort: 30080}");
    let steps = world.explain(&given);
    let expected = "yes has it an address: 198.18.0.1:30080 (NodePort); NodePorts on these \
                    addresses alone";
    assert_eq!(steps[1], expected);
    // An annotation that means nothing here is named, and keeps nobody out.
    let steps =
        world.explain(&given.replace("shop}", "shop, annotations: {headgate.dev/pool: x}}"));
    tells(&steps[0], &["yes is it ours", "headgate.dev/pool counts for type LoadBalancer alone"]);
}

#[test]
fn there_is_no_way() {
    let manifests = service("LoadBalancer", "") + &slice("http", ONE);
    let world = World { way: Way::None, ..World::default() };
    tells(
        &world.stops(&manifests, 6),
        &["no route to 198.18.1.11 on node node-a", "kubectl get nodes"],
    );
    let way = Way::Silent("198.18.1.1".parse().unwrap());
    let world = World { way, ..World::default() };
    tells(&world.stops(&manifests, 7), &["198.18.1.1 does not answer ARP", "kubectl get nodes"]);
}

#[test]
fn a_backend_is_silent() {
    let manifests = service("LoadBalancer", "") + &slice("http", ONE);
    let heard: fn(SocketAddr) -> io::Result<()> = |_| Err(io::ErrorKind::TimedOut.into());
    let world = World { heard, ..World::default() };
    tells(
        &world.stops(&manifests, 8),
        &[
            "no does a backend of each node answer: 198.18.1.11:8080 on node node-a: timed out",
            "Cilium: routingMode native",
            "kubectl -n shop describe pod web-x",
        ],
    );
    let heard: fn(SocketAddr) -> io::Result<()> = |_| Err(io::ErrorKind::ConnectionRefused.into());
    let world = World { heard, ..World::default() };
    tells(&world.stops(&manifests, 8), &["does its process listen on that port"]);
    // One endpoint of each node is enough, and every node is asked.
    let heard: fn(SocketAddr) -> io::Result<()> = |address| match address.ip().to_string().as_str()
    {
        "198.18.1.11" => Ok(()),
        "198.18.1.21" => Err(io::ErrorKind::TimedOut.into()),
        other => panic!("{other} is on a node that was asked already"),
    };
    let world = World { heard, ..World::default() };
    let told = world.stops(&(service("LoadBalancer", "") + &slice("http", TWO)), 8);
    tells(&told, &["198.18.1.21:8080 on node b: timed out"]);
}
