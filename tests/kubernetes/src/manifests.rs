//! Manifests that several tests have in common. Each is text that ends with `---`, so that they can
//! be put one after another. What a test needs otherwise is written out where it is needed.

/// What makes a Service the gateway's, among the fields of [`service`].
pub const BALANCED: &str = "type: LoadBalancer\n  loadBalancerClass: headgate.dev/gateway";
/// The port of a Service for [`web`] servers.
pub const HTTP: &str = "{name: http, port: 80, targetPort: http}";
/// The same as the only port of a Service, which needs no name.
pub const NAMELESS: &str = "{port: 80, targetPort: http}";

/// A Deployment of web servers that answer with the names of their pods. Here as below pods have
/// the label `app: NAME`, and no probe that Kubernetes knows.
pub fn web(name: &str, replicas: usize) -> String {
    deployment(name, replicas, "nginx", "nginx", "{name: http, containerPort: 8080}")
}

/// A Deployment of servers of long-lived connections, and of datagrams.
pub fn echo(name: &str, replicas: usize, protocols: &[&str]) -> String {
    let port = |protocol| format!("{{containerPort: 7007, protocol: {protocol}}}");
    let ports: Vec<String> = protocols.iter().map(port).collect();
    deployment(name, replicas, "echo", "headgate.dev/echo", &ports.join(", "))
}

fn deployment(name: &str, replicas: usize, container: &str, image: &str, ports: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: {container}
        image: {image}
        ports: [{ports}]
---
"
    )
}

/// A dual-stack Service for the pods of `app`, or without a selector where that is empty. `notes`
/// are its annotations; `fields` of its spec are one a line.
pub fn service(name: &str, app: &str, notes: &str, fields: &[&str], ports: &str) -> String {
    let notes =
        if notes.is_empty() { String::new() } else { format!(", annotations: {{{notes}}}") };
    let selector =
        if app.is_empty() { String::new() } else { format!("  selector: {{app: {app}}}\n") };
    let fields: String = fields.iter().map(|field| format!("  {field}\n")).collect();
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}{notes}}}
spec:
  ipFamilyPolicy: RequireDualStack
{fields}{selector}  ports: [{ports}]
---
"
    )
}

/// Such a Service that is the gateway's, and no more than that.
pub fn balanced(name: &str, app: &str, ports: &str) -> String {
    service(name, app, "", &[BALANCED], ports)
}

/// A field as [`BALANCED`], of another class or of none.
pub fn load_balancer(class: Option<&str>) -> String {
    let class = class.map(|class| format!("\n  loadBalancerClass: {class}")).unwrap_or_default();
    format!("type: LoadBalancer{class}")
}
