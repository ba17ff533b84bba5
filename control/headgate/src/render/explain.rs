//! Answers to "why".

use super::{Look, age, plain};
use model::answers::{FlowExplanation, ServiceExplanation};
use model::drops::DropReason;

/// What becomes of a packet.
pub fn flow_explanation(explanation: &FlowExplanation) -> String {
    let FlowExplanation { flow, answer, origin, backend_name, remedy } = explanation;
    let protocol = flow.protocol.name().to_lowercase();
    let mut text = match &answer.service {
        Some(key) => {
            let port = if key.port_name.is_empty() {
                String::new()
            } else {
                format!(" port {}", key.port_name)
            };
            let origin = origin.as_ref().map_or_else(String::new, |origin| format!(" ({origin})"));
            let service = &key.service;
            format!("frontend {}/{protocol} <- {service}{port}{origin}\n", flow.destination)
        }
        None => format!("{}/{protocol} is no frontend\n", flow.destination),
    };
    let name = backend_name.as_deref().filter(|name| !name.is_empty());
    let name = name.map_or_else(String::new, |name| format!("{name} "));
    if let Some(connection) = &answer.connection {
        let gone = if connection.backend_alive { "" } else { " (has left the Service)" };
        text.push_str(&format!(
            "connection {}, worker {}, age {}; backend {name}{}{gone}, NAT source {}; {}\n",
            connection.state,
            connection.worker,
            age(u64::from(connection.age_s)),
            connection.backend,
            connection.nat,
            chosen(&answer.chosen_by),
        ));
    } else if let Some(backend) = answer.selected {
        text.push_str(&format!(
            "no connection yet; worker {} would send a new one to {name}{backend}; {}\n",
            answer.owner,
            chosen(&answer.chosen_by),
        ));
    } else {
        text.push_str(&format!(
            "no connection (worker {}): {}\n",
            answer.owner,
            chosen(&answer.chosen_by)
        ));
    }
    if let Some(left) = answer.affinity_left_s {
        text.push_str(&format!("affinity for {} more\n", age(u64::from(left))));
    }
    if let Some(left) = answer.reset_in_s {
        text.push_str(&match left {
            0 => "reset due: the client's next packet is answered by a RST\n".to_owned(),
            left => format!("reset in {}, since its backend has gone\n", age(u64::from(left))),
        });
    }
    if let Some(way) = &answer.way {
        text.push_str(&format!("way {way}\n"));
    }
    if let Some(reason) = answer.drop {
        text.push_str(&format!("dropped {}: {}\n", reason.label(), reason.meaning()));
    }
    let remedy = remedy.as_deref().or_else(|| answer.drop.map(DropReason::remedy));
    if let Some(remedy) = remedy {
        text.push_str(&format!("remedy {remedy}\n"));
    }
    text.lines().map(|line| plain(line) + "\n").collect()
}

fn chosen(by: &str) -> String {
    match by {
        "maglev" => "chosen by maglev",
        "affinity" => "kept by session affinity",
        "source_ranges" => "kept out by the Service's source ranges",
        "connection" => "kept by its connection",
        "no_backend" => "the service port has no active backend, new connections are refused",
        "own_address" => "an address of the gateway itself, its host answers",
        "nat_address" => "a NAT address, which only answers to connections",
        "frontend_address" => {
            "an address that we serve, but no Service has this port; it is refused"
        }
        "not_ours" => "none of our addresses",
        other => return format!("chosen by {other}"),
    }
    .to_owned()
}

/// The walk from Service to backend.
pub fn service_explanation(explanation: &ServiceExplanation, look: Look) -> String {
    let mut text = format!("{}\n", plain(&explanation.service.to_string()));
    for step in &explanation.steps {
        let word = if step.good { look.good("yes") } else { look.bad("NO ") };
        let (question, finding) = (plain(&step.question), plain(&step.finding));
        text.push_str(&format!("  {word}  {question}: {finding}\n"));
        if let Some(remedy) = &step.remedy {
            text.push_str(&format!("       -> {}\n", plain(remedy)));
        }
    }
    text
}

/// A drop reason; all of them where none is named.
pub fn drop_reason(reason: Option<DropReason>) -> String {
    let one = |reason: DropReason| {
        format!(
            "{}\n  what    {}\n  remedy  {}\n",
            reason.label(),
            reason.meaning(),
            reason.remedy()
        )
    };
    match reason {
        Some(reason) => one(reason),
        None => DropReason::ALL.iter().map(|reason| one(*reason)).collect(),
    }
}
