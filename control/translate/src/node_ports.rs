//! Second step of a build, for nodePorts that Services don't give themselves.

use crate::index::{Index, Wait};
use crate::problem::{Problem, reason};
use crate::settings::NodePortSettings;
use crate::spec::Rank;
use model::desired::ObjectName;
use model::ids::Protocol;
use std::collections::BTreeSet;

impl Index {
    /// Gives nodePorts to the Services named, and to those that wait for what was freed.
    pub(crate) fn allocate_node_ports(
        &mut self,
        names: &[ObjectName],
        touched: &mut BTreeSet<ObjectName>,
    ) {
        let freed = std::mem::take(&mut self.freed_node_ports);
        let entries = names.iter().filter_map(|name| self.services.get(name));
        let mut todo: BTreeSet<Rank> = entries.map(|entry| entry.spec.rank.clone()).collect();
        for protocol in freed {
            let waiting = self.waiting.get(&Wait::NodePort(protocol)).into_iter().flatten();
            todo.extend(waiting.cloned());
        }
        let mut exhausted = BTreeSet::new();
        for rank in todo {
            self.give_node_ports(&rank, touched, &mut exhausted);
        }
    }

    fn give_node_ports(
        &mut self,
        rank: &Rank,
        touched: &mut BTreeSet<ObjectName>,
        exhausted: &mut BTreeSet<Protocol>,
    ) {
        let Some(entry) = self.services.get_mut(&rank.name) else { return };
        let before = std::mem::take(&mut entry.node_port_problems);
        let spec = entry.spec.clone();
        self.stop_waiting_for(rank, |wait| matches!(wait, Wait::NodePort(_)));
        let settings = self.settings.node_port().clone();
        if !spec.wants_node_ports || !settings.allocate {
            return;
        }
        let mut problems = Vec::new();
        for port in &spec.ports {
            let held = self.ledger.node_port_of(spec.name(), &port.name, port.protocol);
            if port.node_port.is_some() || port.withheld.is_some() || held.is_some() {
                continue;
            }
            let taken = &self.node_ports;
            let barred = |number| taken.contains_key(&(port.protocol, number));
            let key = (&port.name, port.protocol);
            let given = (!exhausted.contains(&port.protocol)).then(|| {
                self.ledger.give_node_port(spec.name(), spec.uid(), key, &settings, barred)
            });
            if given.flatten().is_some() {
                touched.insert(rank.name.clone());
                continue;
            }
            exhausted.insert(port.protocol);
            let wait = Wait::NodePort(port.protocol);
            self.waiting.entry(wait.clone()).or_default().insert(rank.clone());
            let NodePortSettings { first, last, .. } = settings;
            let what = format!(
                "no nodePort from {first} to {last} is free for port {}/{}",
                port.port, port.protocol
            );
            problems.push(Problem::new(reason::ALLOCATION_FAILED, what));
            if let Some(entry) = self.services.get_mut(&rank.name) {
                entry.waits.insert(wait);
            }
        }
        if problems != before {
            touched.insert(rank.name.clone());
        }
        if let Some(entry) = self.services.get_mut(&rank.name) {
            entry.node_port_problems = problems;
        }
    }
}
