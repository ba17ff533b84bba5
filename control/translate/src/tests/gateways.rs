//! Several gateways on one API server, whatever happens: no address is given twice, and they end
//! alike.

use super::writers::written;
use super::*;
use crate::Authority;
use crate::writes::StatusWrite;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Clone, Debug)]
enum Step {
    /// A Service appears or changes: name, day of creation, address asked for, share key, port.
    Apply(usize, u8, Option<u8>, bool, u16),
    Delete(usize),
    /// Somebody puts an address into a status.
    Forge(usize, u8),
    /// Another gateway, or none, has the Lease.
    Lead(Option<bool>),
    /// The gateway sees what happened so far.
    See(bool),
    /// What a gateway told is written; or lost.
    Write(bool),
    Lose,
}

fn any_step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let last = 10u8..13;
    prop_oneof![
        4 => (name.clone(), 1u8..4, prop::option::weighted(0.4, last.clone()), any::<bool>(), 80u16..83)
            .prop_map(|(name, day, asks, shares, port)| Step::Apply(name, day, asks, shares, port)),
        1 => name.clone().prop_map(Step::Delete),
        1 => (name, last).prop_map(|(name, last)| Step::Forge(name, last)),
        1 => prop::option::of(any::<bool>()).prop_map(Step::Lead),
        4 => any::<bool>().prop_map(Step::See),
        4 => any::<bool>().prop_map(Step::Write),
        1 => Just(Step::Lose),
    ]
}

/// One gateway and what it has not seen, and not written, yet.
struct Gateway {
    index: Index,
    unseen: Vec<ObjectKey>,
    unwritten: VecDeque<StatusWrite>,
    writes: bool,
}

impl Gateway {
    fn new() -> Self {
        let wishes = Wishes { authority: Authority::ApiServer, ..wishes() };
        let index = Index::new(Settings::new(wishes).unwrap(), Allocations::default());
        Self { index, unseen: Vec::new(), unwritten: VecDeque::new(), writes: false }
    }
}

/// The API server: its objects, and two gateways that watch it.
struct World {
    objects: BTreeMap<ObjectKey, Object>,
    gateways: [Gateway; 2],
    uids: u32,
}

impl World {
    fn put(&mut self, object: Object) {
        let key = object.key();
        self.objects.insert(key.clone(), object);
        self.gateways.iter_mut().for_each(|one| one.unseen.push(key.clone()));
    }

    fn see(&mut self, at: usize) -> Built {
        let gateway = &mut self.gateways[at];
        for key in std::mem::take(&mut gateway.unseen) {
            match self.objects.get(&key) {
                Some(object) => gateway.index.apply(object.clone()),
                None => gateway.index.delete(&key),
            }
        }
        let built = gateway.index.build();
        if gateway.writes {
            gateway.unwritten.extend(built.writes.clone());
        }
        built
    }

    fn write(&mut self, at: usize) {
        let Some(write) = self.gateways[at].unwritten.pop_front() else { return };
        let key = ObjectKey { kind: Kind::Service, name: write.service.clone() };
        let Some(object) = self.objects.get(&key) else { return };
        let uid = |object: &Object| match object {
            Object::Service(service, _) => service.metadata.uid.clone().unwrap_or_default(),
            _ => String::new(),
        };
        if uid(object) == *write.uid {
            let object = written(object, &write);
            self.put(object);
        }
    }

    fn lead(&mut self, who: Option<bool>) {
        // A new holder lists what there is before it begins.
        if let Some(who) = who {
            let at = usize::from(who);
            if !self.gateways[at].writes {
                self.see(at);
            }
        }
        for at in [0, 1] {
            let writes = who.is_some_and(|who| usize::from(who) == at);
            let gateway = &mut self.gateways[at];
            gateway.writes = writes;
            gateway.index.set_writer(writes);
            if !writes {
                gateway.unwritten.clear();
            }
            if !writes && who.is_some() {
                gateway.index.follow_another();
            }
        }
    }

    fn apply(&mut self, name: usize, day: u8, asks: Option<u8>, shares: bool, port: u16) {
        let name = NAMES[name];
        let new = service(name, "LoadBalancer", |value| {
            let metadata = &mut value["metadata"];
            metadata["creationTimestamp"] = format!("2026-01-0{day}T00:00:00Z").into();
            if let Some(last) = asks {
                metadata["annotations"]["headgate.dev/addresses"] =
                    format!("203.0.113.{last}").into();
            }
            if shares {
                metadata["annotations"]["headgate.dev/share-key"] = "k".into();
            }
            value["spec"]["ports"][0]["port"] = port.into();
            value["spec"]["loadBalancerClass"] = "headgate.dev/gateway".into();
        });
        let Object::Service(mut new, place) = new else { return };
        let key = key(Kind::Service, name);
        match self.objects.get(&key) {
            Some(Object::Service(old, _)) => {
                new.status = old.status.clone();
                new.metadata.uid = old.metadata.uid.clone();
                new.metadata.creation_timestamp = old.metadata.creation_timestamp.clone();
            }
            _ => {
                self.uids += 1;
                new.metadata.uid = Some(self.uids.to_string());
            }
        }
        self.put(Object::Service(new, place));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Apply(name, day, asks, shares, port) => self.apply(name, day, asks, shares, port),
            Step::Delete(name) => {
                let key = key(Kind::Service, NAMES[name]);
                self.objects.remove(&key);
                self.gateways.iter_mut().for_each(|one| one.unseen.push(key.clone()));
            }
            Step::Forge(name, last) => {
                let key = key(Kind::Service, NAMES[name]);
                if let Some(Object::Service(service, place)) = self.objects.get(&key) {
                    let mut service = service.clone();
                    let address = format!("203.0.113.{last}");
                    let status = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
                    service.status = Some(serde_json::from_value(status).unwrap());
                    let object = Object::Service(service, place.clone());
                    self.put(object);
                }
            }
            Step::Lead(who) => self.lead(who),
            Step::See(at) => drop(self.see(usize::from(at))),
            Step::Write(at) => self.write(usize::from(at)),
            Step::Lose => self.gateways.iter_mut().for_each(|one| one.unwritten.clear()),
        }
    }

    /// Everything is seen and written until nothing happens any more; how many writes that took.
    fn settle(&mut self) -> usize {
        let mut writes = 0;
        for _ in 0..100 {
            self.see(0);
            self.see(1);
            let waiting = self.gateways.iter().map(|one| one.unwritten.len()).sum::<usize>();
            if waiting == 0 && self.gateways.iter().all(|one| one.unseen.is_empty()) {
                return writes;
            }
            for at in [0, 1] {
                while !self.gateways[at].unwritten.is_empty() {
                    self.write(at);
                    writes += 1;
                }
            }
        }
        panic!("it never comes to rest");
    }
}

/// Who has an address has it alone, or shares it by one key.
pub fn given_once(index: &Index) -> Result<(), TestCaseError> {
    let mut holders: BTreeMap<IpAddr, Vec<&ObjectName>> = BTreeMap::new();
    for one in index.allocations().iter() {
        for held in &one.addresses {
            holders.entry(held.address).or_default().push(&one.service);
        }
    }
    for (address, names) in holders.into_iter().filter(|(_, names)| names.len() > 1) {
        let keys: BTreeSet<_> =
            names.iter().map(|name| index.services[*name].spec.share_key.clone()).collect();
        prop_assert!(keys.len() == 1 && !keys.contains(&None), "{address}: {names:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn gateways_never_give_twice_and_end_alike(steps in prop::collection::vec(any_step(), 0..60)) {
        let mut world =
            World { objects: BTreeMap::new(), gateways: [Gateway::new(), Gateway::new()], uids: 0 };
        for step in &steps {
            world.step(step);
            for gateway in &world.gateways {
                given_once(&gateway.index)?;
            }
        }
        // The Lease comes to rest with one of them, which may have lost what it told before.
        world.lead(None);
        world.lead(Some(true));
        let writes = world.settle();
        prop_assert!(writes <= 4 * NAMES.len(), "{writes} writes");
        let [one, other] = &world.gateways;
        prop_assert_eq!(one.index.desired(), other.index.desired());
        given_once(&one.index)?;
        // Another holder has nothing to add.
        world.lead(None);
        world.lead(Some(false));
        prop_assert_eq!(world.settle(), 0);
        // Nor has one that starts now.
        let mut fresh = Gateway::new();
        fresh.index.take(world.objects.values().cloned());
        prop_assert_eq!(fresh.index.desired(), world.gateways[0].index.desired());
    }
}
