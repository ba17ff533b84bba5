//! What is refused of a Service, and where the message points.

use super::*;

/// Reads a Service with this spec; the message and the line it points at.
fn refused(spec: &str) -> Option<(u32, String)> {
    let text = format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n{spec}");
    let directory = directory(&[("a.yaml", &text)]);
    let changes = open(&directory).load();
    let [event] = &changes.diagnostics[..] else {
        assert_eq!(changes.diagnostics, []);
        assert_eq!(changes.changes.len(), 1);
        return None;
    };
    assert!(changes.changes.is_empty(), "{spec}");
    assert_eq!((&*event.reason, &*event.kind), ("ManifestInvalid", "Service"));
    assert_eq!(event.object.to_string(), "default/web");
    let line = event.place.strip_prefix("a.yaml:").unwrap().parse().unwrap();
    Some((line, event.message.clone()))
}

#[test]
fn what_the_api_server_refuses_is_refused() {
    // The spec begins on line 6.
    let cases: &[(&str, u32, &str)] = &[
        ("  type: Balancer\n  ports: [{port: 80}]", 6, "spec.type: \"Balancer\" is none of"),
        ("  type: LoadBalancer\n", 6, "spec.ports: a Service needs at least one"),
        (
            "  ports:\n  - port: 80\n    protocol: tcp\n",
            8,
            "spec.ports.0.protocol: \"tcp\" is none",
        ),
        ("  ports:\n  - port: 0\n", 7, "spec.ports.0.port: 0 is not a port"),
        ("  ports:\n  - port: 65536\n", 7, "65536 is not a port"),
        ("  ports:\n  - port: -1\n", 7, "-1 is not a port"),
        ("  ports:\n  - port: \"80\"\n", 7, "spec.ports[0].port: invalid type"),
        ("  ports:\n  - port: 99999999999\n", 7, "spec.ports[0].port: invalid value"),
        ("  ports:\n  - port: 80\n    targetPort: 70000\n", 8, "70000 is not a port"),
        ("  ports:\n  - port: 80\n    targetPort: Not_A_Name\n", 8, "neither a port nor"),
        ("  ports:\n  - port: 80\n  - port: 81\n", 7, "spec.ports.0.name: needed"),
        (
            "  ports:\n  - {name: a, port: 80}\n  - {name: a, port: 81}\n",
            8,
            "spec.ports.1.name: \"a\" is there twice",
        ),
        (
            "  ports:\n  - {name: a, port: 80}\n  - {name: b, port: 80}\n",
            8,
            "spec.ports.1.port: 80/TCP is there twice",
        ),
        (
            "  type: NodePort\n  ports:\n  - port: 80\n    nodePort: 80\n",
            9,
            "80 is out of range: expected 30000 to 32767",
        ),
        (
            "  type: NodePort\n  ports:\n  - {name: a, port: 80, nodePort: 30001}\n  - {name: b, port: 81, nodePort: 30001}\n",
            9,
            "spec.ports.1.nodePort: 30001/TCP is there twice",
        ),
        ("  ports:\n  - port: 80\n    nodePort: 30001\n", 8, "type ClusterIP can't have one"),
        (
            "  ports: [{port: 80}]\n  externalIPs:\n  - 192.0.2.1\n  - 192.0.2.256\n",
            9,
            "spec.externalIPs.1: \"192.0.2.256\" is not an IP address",
        ),
        ("  ports: [{port: 80}]\n  externalIPs: [127.0.0.1]\n", 7, "a loopback address"),
        ("  ports: [{port: 80}]\n  externalIPs: ['ff02::1']\n", 7, "a multicast address"),
        ("  ports: [{port: 80}]\n  externalIPs: [0.0.0.0]\n", 7, "the unspecified address"),
        ("  ports: [{port: 80}]\n  clusterIP: here\n", 7, "neither an IP address nor None"),
        ("  ports: [{port: 80}]\n  sessionAffinity: Cookie\n", 7, "none of None, ClientIP"),
        (
            "  ports: [{port: 80}]\n  sessionAffinity: ClientIP\n  sessionAffinityConfig:\n    clientIP:\n      timeoutSeconds: 86401\n",
            10,
            "expected 1 to 86400",
        ),
        ("  ports: [{port: 80}]\n  ipFamilies: [IPv5]\n", 7, "none of IPv4, IPv6"),
        ("  ports: [{port: 80}]\n  ipFamilies: [IPv4, IPv4]\n", 7, "is there twice"),
        ("  ports: [{port: 80}]\n  ipFamilyPolicy: Dual\n", 7, "none of SingleStack"),
        ("  ports: [{port: 80}]\n  externalTrafficPolicy: local\n", 7, "none of Cluster, Local"),
        ("  ports: [{port: 80}]\n  internalTrafficPolicy: local\n", 7, "none of Cluster, Local"),
        (
            "  type: LoadBalancer\n  ports: [{port: 80}]\n  loadBalancerSourceRanges:\n  - 10.0.0.0/33\n",
            9,
            "is not a prefix",
        ),
        ("  ports: [{port: 80}]\n  loadBalancerClass: a/b\n", 7, "only a Service of type"),
        ("  type: ExternalName\n", 6, "spec.externalName"),
        ("  ports: 80\n", 6, "spec.ports: invalid type"),
        ("  ports: [{port: 80}]\n  selector: {app: 1}\n", 7, "spec.selector.app: invalid type"),
    ];
    for (spec, line, expected) in cases {
        let (at, message) = refused(spec).unwrap_or_else(|| panic!("accepted: {spec}"));
        assert!(message.contains(expected), "{spec}: {message}");
        assert_eq!(at, *line, "{spec}: {message}");
    }
}

#[test]
fn what_the_api_server_takes_is_taken() {
    let cases = [
        "  ports: [{port: 80}]\n",
        "  type: NodePort\n  ports: [{port: 80, nodePort: 30000}]\n",
        "  type: NodePort\n  ports: [{port: 80, nodePort: 0}]\n",
        "  type: NodePort\n  ports:\n  - {name: a, port: 53, protocol: UDP, nodePort: 30053}\n  - {name: b, port: 53, nodePort: 30053}\n",
        "  clusterIP: None\n",
        "  type: ExternalName\n  externalName: example.org\n",
        "  ports: [{port: 80, targetPort: http-web}]\n  clusterIP: None\n  clusterIPs: [None]\n",
        "  ports: [{port: 9, protocol: SCTP}]\n",
        "  type: LoadBalancer\n  loadBalancerSourceRanges: [10.0.0.0/8, ' 2001:db8::/32']\n  ports: [{port: 80}]\n",
        "  ports: [{port: 80}]\n  externalIPs: [192.0.2.1, '2001:db8::1']\n  externalTrafficPolicy: Local\n",
    ];
    for spec in cases {
        assert_eq!(refused(spec), None, "{spec}");
    }
}

#[test]
fn names_and_versions() {
    let cases = [
        ("metadata: {name: web}\nkind: Service\n", "has no apiVersion", 1),
        ("apiVersion: v1\nmetadata: {name: web}\n", "it has no kind", 1),
        ("apiVersion: v1\nkind: Service\n", "has no metadata.name", 1),
        ("apiVersion: v2\nkind: Service\nmetadata: {name: web}\n", "\"v2\" is not v1", 1),
        (
            "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1beta1\nmetadata: {name: web}\n",
            "is not discovery.k8s.io/v1",
            2,
        ),
        ("apiVersion: v1\nkind: Node\nmetadata:\n  name: A_b\n", "\"A_b\"", 4),
        ("apiVersion: v1\nkind: Node\nmetadata:\n  name: ../x\n", "\"../x\"", 4),
        ("- 1\n- 2\n", "not an object", 1),
        ("hello\n", "not an object", 1),
        ("apiVersion: v1\nkind: List\nitems: 3\n", "items of List is no list", 3),
        ("apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: 3\n", "spec: invalid type", 4),
        ("apiVersion: v1\nkind: Node\nkind: Node\nmetadata: {name: a}\n", "duplicate", 3),
    ];
    for (text, expected, line) in cases {
        let directory = directory(&[("a.yaml", text)]);
        let changes = open(&directory).load();
        assert!(changes.changes.is_empty(), "{text}");
        let [event] = &changes.diagnostics[..] else { panic!("{text}: {changes:?}") };
        assert_eq!((&*event.reason, event.severity), ("ManifestInvalid", Severity::Warning));
        assert!(event.message.contains(expected), "{text}: {}", event.message);
        assert_eq!(event.place, format!("a.yaml:{line}"), "{text}: {}", event.message);
    }
}

#[test]
fn the_range_of_node_ports_is_the_callers() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 8080}]}\n";
    let directory = directory(&[("a.yaml", text)]);
    let options = Options { node_port_first: 8_000, node_port_last: 9_000 };
    let mut source = DirectorySource::open(directory.path(), options).unwrap();
    assert_eq!(source.load().changes.len(), 1);
}

#[test]
fn a_field_that_is_not_known_is_named_and_harms_nothing() {
    let cases = [
        ("spec:\n  ports: [{port: 80}]\n  tpye: NodePort\n", "spec.tpye: Service has no", 6),
        ("spec:\n  ports:\n  - port: 80\n    targetport: 81\n", "spec.ports.0.targetport: ", 7),
        ("Spec: {a: 1}\nspec: {ports: [{port: 80}]}\n", "Spec: ", 4),
    ];
    for (rest, expected, line) in cases {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n{rest}");
        let directory = directory(&[("a.yaml", &text)]);
        let changes = open(&directory).load();
        assert_eq!(changes.changes.len(), 1, "{rest}");
        let [event] = &changes.diagnostics[..] else { panic!("{rest}: {changes:?}") };
        assert_eq!(event.reason, "UnknownField");
        assert!(event.message.starts_with(expected), "{}", event.message);
        assert_eq!(event.place, format!("a.yaml:{line}"));
    }
}

/// Objects as `kubectl get -o yaml` writes them, with all that a cluster adds.
#[test]
fn objects_from_a_cluster_are_taken_without_a_word() {
    let text = r#"apiVersion: v1
items:
- apiVersion: v1
  kind: Service
  metadata:
    annotations: {}
    creationTimestamp: "2026-01-02T03:04:05Z"
    managedFields:
    - {apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {f:spec: {}}, manager: kubectl}
    name: web
    namespace: shop
    resourceVersion: "12"
    uid: 00000000-0000-0000-0000-000000000000
  spec:
    allocateLoadBalancerNodePorts: true
    clusterIP: 10.96.0.10
    clusterIPs: [10.96.0.10]
    externalTrafficPolicy: Cluster
    internalTrafficPolicy: Cluster
    ipFamilies: [IPv4]
    ipFamilyPolicy: SingleStack
    ports:
    - {name: http, nodePort: 30080, port: 80, protocol: TCP, targetPort: 8080}
    selector: {app: web}
    sessionAffinity: None
    type: LoadBalancer
  status: {loadBalancer: {}}
- addressType: IPv4
  apiVersion: discovery.k8s.io/v1
  endpoints:
  - addresses: [10.0.0.1]
    conditions: {ready: true, serving: true, terminating: false}
    nodeName: one
    targetRef: {kind: Pod, name: web-1, namespace: shop, uid: a}
    zone: a
  kind: EndpointSlice
  metadata:
    generateName: web-
    labels: {kubernetes.io/service-name: web}
    name: web-abcde
    namespace: shop
    ownerReferences:
    - {apiVersion: v1, blockOwnerDeletion: true, controller: true, kind: Service, name: web, uid: a}
  ports:
  - {name: http, port: 8080, protocol: TCP}
- apiVersion: v1
  kind: Node
  metadata: {name: one}
  spec: {podCIDR: 10.0.0.0/24, podCIDRs: [10.0.0.0/24]}
  status:
    addresses: [{address: 192.0.2.1, type: InternalIP}]
    allocatable: {cpu: "2", memory: 1Gi}
    capacity: {cpu: 2, memory: 1Gi}
    conditions:
    - {lastHeartbeatTime: "2026-01-02T03:04:05Z", message: ok, reason: Ok, status: "True", type: Ready}
kind: List
metadata: {resourceVersion: ""}
"#;
    let directory = directory(&[("a.yaml", text)]);
    let (objects, events) = short(&open(&directory).load());
    let expected = [
        "+ Service shop/web a.yaml:3",
        "+ EndpointSlice shop/web-abcde a.yaml:28",
        "+ Node one a.yaml:46",
    ];
    assert_eq!((objects.len(), events), (3, vec![]), "{objects:?}");
    assert_eq!(objects, expected);
}
