//! Services that are written for AWS: the AWS Load Balancer Controller's annotations, and those of
//! the older provider inside Kubernetes.

use crate::aliases::Annotations;
use crate::forwarding::{
    NODE_PROBE, PROBE, PROBE_HEALTHY_AFTER, PROBE_INTERVAL, PROBE_PATH, PROBE_PORT, PROBE_TIMEOUT,
    PROBE_UNHEALTHY_AFTER, PROXY_PROTOCOL, RESET_AFTER, TARGET,
};
use crate::problem::{NAMED_MAX, Problem, reason, shown};
use crate::spec::{SCHEDULER, SCHEME};
use k8s_openapi::api::core::v1::Service;

/// The class of the AWS Load Balancer Controller.
pub(crate) const CLASS: &str = "service.k8s.aws/nlb";
/// What all of its annotations begin with.
pub(crate) const PREFIX: &str = "service.beta.kubernetes.io/aws-load-balancer-";
/// Values of `aws-load-balancer-type` that it takes a Service without a class by.
const TYPES: [&str; 3] = ["nlb", "external", "nlb-ip"];

/// What the annotations mean in ours, and what they can't.
struct Reading<'a> {
    all: &'a Annotations,
    meant: Vec<(&'static str, String)>,
    /// Those that mean nothing here.
    idle: Vec<String>,
    /// Those that make no sense.
    odd: usize,
    problems: &'a mut Vec<Problem>,
}

/// Whether a Service is written for AWS: of type LoadBalancer, and by class, or without a class by
/// its annotation.
pub(crate) fn is_meant(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer") {
        return false;
    }
    match spec.and_then(|spec| spec.load_balancer_class.as_deref()) {
        Some(class) => class == CLASS,
        None => type_of(service).is_some_and(|text| TYPES.contains(&text)),
    }
}

fn type_of(service: &Service) -> Option<&str> {
    let all = service.metadata.annotations.as_ref()?;
    all.get(&format!("{PREFIX}type")).map(|text| text.trim())
}

/// What the annotations of such a Service mean in ours.
pub(crate) fn meant(service: &Service, problems: &mut Vec<Problem>) -> Vec<(&'static str, String)> {
    let none = Annotations::new();
    let all = service.metadata.annotations.as_ref().unwrap_or(&none);
    let mut reading = Reading { all, meant: Vec::new(), idle: Vec::new(), odd: 0, problems };
    reading.target(service);
    reading.scheme();
    for (key, value) in all {
        if let Some(key) = key.strip_prefix(PREFIX) {
            reading.one(key, value.trim());
        }
    }
    if !reading.idle.is_empty() {
        let more = match reading.idle.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named: Vec<&str> = reading.idle.iter().take(NAMED_MAX).map(String::as_str).collect();
        let what = format!(
            "these mean nothing here: {}{more}{}",
            named.join(", "),
            if reading.idle.iter().any(|key| key.starts_with("ssl-")) {
                "; TLS is passed through to the backends as it comes"
            } else {
                ""
            }
        );
        reading.problems.push(Problem::new(reason::NOT_HONOURED, what));
    }
    reading.meant
}

impl Reading<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.all.get(&format!("{PREFIX}{key}")).map(|text| text.trim())
    }

    fn mean(&mut self, ours: &'static str, value: impl Into<String>) {
        self.meant.push((ours, value.into()));
    }

    fn has(&self, ours: &str, value: &str) -> bool {
        self.meant.iter().any(|(key, has)| *key == ours && has == value)
    }

    fn wrong(&mut self, key: &str, value: &str, expected: &str) {
        self.odd += 1;
        if self.odd > NAMED_MAX {
            return;
        }
        let value = shown(value);
        let what = format!("{PREFIX}{key} is \"{value}\": expected {expected}; it is ignored");
        self.problems.push(Problem::new(reason::INVALID, what));
    }

    /// Instances are nodes, and what is meant where nothing is said.
    fn target(&mut self, service: &Service) {
        let by_type = (self.text("type") == Some("nlb-ip")).then_some("ip");
        let given = self.text("nlb-target-type").or(by_type).unwrap_or("instance").to_owned();
        let spec = service.spec.as_ref();
        let policy = spec.and_then(|spec| spec.external_traffic_policy.as_deref());
        let local = policy == Some("Local");
        match given.as_str() {
            "ip" => self.mean(TARGET, "endpoint"),
            "instance" => {
                self.mean(TARGET, "node");
                if local {
                    self.mean(NODE_PROBE, "health-check-node-port");
                }
            }
            other => self.wrong("nlb-target-type", other, "ip or instance"),
        }
    }

    /// Internal, where nothing is said. The older annotation is true by any word but `false`.
    fn scheme(&mut self) {
        let older = self.text("internal").map(|text| match text {
            "false" => "internet-facing",
            _ => "internal",
        });
        let given = self.text("scheme").or(older).unwrap_or("internal").to_owned();
        match given.as_str() {
            "internal" | "internet-facing" => self.mean(SCHEME, given),
            // Rather too few clients than too many.
            other => {
                self.wrong("scheme", other, "internal or internet-facing; internal");
                self.mean(SCHEME, "internal");
            }
        }
    }

    fn one(&mut self, key: &str, value: &str) {
        match key {
            "type" if TYPES.contains(&value) => {}
            "nlb-target-type" | "scheme" | "internal" => {}
            "healthcheck-protocol" => self.check(value),
            "healthcheck-port" if value == "traffic-port" => {}
            "healthcheck-port" => self.number(key, value, PROBE_PORT, ""),
            "healthcheck-path" => self.mean(PROBE_PATH, value),
            "healthcheck-interval" => self.number(key, value, PROBE_INTERVAL, "s"),
            "healthcheck-timeout" => self.number(key, value, PROBE_TIMEOUT, "s"),
            "healthcheck-healthy-threshold" => self.number(key, value, PROBE_HEALTHY_AFTER, ""),
            "healthcheck-unhealthy-threshold" => {
                self.number(key, value, PROBE_UNHEALTHY_AFTER, "");
            }
            "healthcheck-success-codes" if value == "200-399" => {}
            "cross-zone-load-balancing-enabled" => self.cross_zone(key, value),
            "proxy-protocol" => self.mean(PROXY_PROTOCOL, "v2"),
            "connection-draining-enabled" => {}
            "connection-draining-timeout" => {
                if self.text("connection-draining-enabled") != Some("false") {
                    self.delay(key, value);
                }
            }
            "attributes" | "target-group-attributes" => self.attributes(key, value),
            other => self.idle.push(format!("{PREFIX}{other}")),
        }
        // A port or a path is one to ask at. How often, by itself, says nothing of what.
        let asks = matches!(key, "healthcheck-port" | "healthcheck-path");
        let by_health_port = self.has(NODE_PROBE, "health-check-node-port");
        let checks = key.starts_with("healthcheck-") && key != "healthcheck-success-codes";
        let wanted = checks && (asks || !by_health_port);
        let said = self.text("healthcheck-protocol").is_some();
        if wanted && !said && !self.has(PROBE, "tcp") {
            self.mean(PROBE, "tcp");
        }
    }

    fn check(&mut self, value: &str) {
        match value.to_ascii_lowercase().as_str() {
            "tcp" => self.mean(PROBE, "tcp"),
            "http" => self.mean(PROBE, "http"),
            "https" => {
                self.mean(PROBE, "tcp");
                let what = "health checks by HTTPS are not available: backends are asked by TCP";
                self.problems.push(Problem::new(reason::NOT_HONOURED, what));
            }
            _ => self.wrong("healthcheck-protocol", value, "TCP, HTTP or HTTPS"),
        }
    }

    fn number(&mut self, key: &str, value: &str, ours: &'static str, unit: &str) {
        match value.parse::<u16>() {
            Ok(number) if number > 0 => self.mean(ours, format!("{number}{unit}")),
            _ => self.wrong(key, value, "a number, 1 to 65535"),
        }
    }

    /// One gateway has one zone: what it has it spreads over all backends.
    fn cross_zone(&mut self, key: &str, value: &str) {
        match value {
            "true" => {}
            "false" => self.idle.push(format!("{PREFIX}{key} \"false\"")),
            _ => self.wrong(key, value, "true or false"),
        }
    }

    /// How long a backend that was taken out may go on.
    fn delay(&mut self, key: &str, value: &str) {
        match value.parse::<u32>() {
            Ok(seconds) if seconds <= 3_600 => {
                self.mean(RESET_AFTER, format!("{}s", seconds.max(1)));
            }
            _ => self.wrong(key, value, "0 to 3600 seconds"),
        }
    }

    fn attributes(&mut self, key: &str, value: &str) {
        let pairs = value.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        for pair in pairs {
            let Some((name, value)) = pair.split_once('=') else {
                self.wrong(key, pair, "NAME=VALUE, separated by commas");
                continue;
            };
            match (name.trim(), value.trim()) {
                ("deregistration_delay.timeout_seconds", seconds) => self.delay(key, seconds),
                ("stickiness.enabled", "true") => self.mean(SCHEDULER, "sh"),
                ("stickiness.enabled" | "proxy_protocol_v2.enabled", "false") => {}
                ("stickiness.type", "source_ip") => {}
                ("proxy_protocol_v2.enabled", "true") => self.mean(PROXY_PROTOCOL, "v2"),
                ("preserve_client_ip.enabled", "false") => {}
                ("preserve_client_ip.enabled", "true") => {
                    let what = "preserve_client_ip.enabled is true, yet with forwarding \"nat\" \
                                backends see the gateway's address as the client's";
                    self.problems.push(Problem::new(reason::SOURCE_NOT_KEPT, what));
                }
                (
                    "load_balancing.cross_zone.enabled",
                    "true" | "use_load_balancer_configuration",
                ) => {}
                (name, _) => {
                    self.idle.push(format!("{name} of {PREFIX}{key}"));
                }
            }
        }
    }
}
