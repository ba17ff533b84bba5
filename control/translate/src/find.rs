//! Which address a Service may have, or why none.

use crate::index::{Index, Wait};
use crate::pools::Pool;
use crate::problem::{Problem, reason};
use crate::spec::{POOL, SHARE_KEY, Spec};
use model::ids::Family;
use std::net::IpAddr;
use std::sync::Arc;

/// Why a Service gets no address of a family, and what it waits for.
pub(crate) struct Refused {
    pub(crate) family: Family,
    /// `None` where the pools that it may have are used up, of which the Service can do without
    /// if it has an address of another family.
    pub(crate) problem: Option<Box<Problem>>,
    pub(crate) waits: Vec<Wait>,
}

/// An address that a Service may have, and the name of its pool.
pub(crate) type Found = (IpAddr, Arc<str>);

impl Index {
    /// A free address of a pool. One that some Service writes as externalIP is given on request
    /// alone, also to that Service: what is barred must be so for all, since the ledger remembers
    /// where it searched in vain.
    pub(crate) fn free_in(&mut self, pool: usize, family: Family) -> Option<IpAddr> {
        let (settings, nodes, external) = (&self.settings, &self.nodes, &self.external_ips);
        let (api, configured) = (&self.api_servers, &settings.wishes().forwarding.api_servers);
        let of = settings.pools().get(pool)?;
        self.ledger.find_address(settings, pool, family, |address| {
            of.avoids(address)
                || settings.reserved(address).is_some()
                || api.contains_key(&address)
                || configured.contains(&address)
                || nodes.owner(address).is_some()
                || external.contains_key(&address)
        })
    }

    /// An address, or the reason why not, for each family that lacks one.
    pub(crate) fn find_all(&mut self, spec: &Spec) -> (Vec<Found>, Vec<Refused>) {
        let (mut found, mut refused) = (Vec::new(), Vec::new());
        if spec.request.broken {
            return (found, refused);
        }
        let request = &spec.request;
        for &address in &request.addresses {
            let family = Family::of(address);
            if !spec.families.contains(&family) {
                let what = format!("{address} is asked for, yet its ipFamilies have no {family}");
                let problem = Some(Box::new(Problem::new(reason::ALLOCATION_FAILED, what)));
                refused.push(Refused { family, problem, waits: Vec::new() });
            }
        }
        for &family in &spec.families {
            let mut held = self.ledger.addresses_of(spec.name()).iter();
            if held.any(|one| Family::of(one.address) == family) {
                continue;
            }
            let asked = request.addresses.iter().find(|&&asked| Family::of(asked) == family);
            let result = match asked {
                Some(&address) => self.find_requested(spec, address),
                None => self.find_any(spec, family),
            };
            match result {
                Ok(one) => found.push(one),
                Err(why) => refused.push(why),
            }
        }
        (found, refused)
    }

    fn find_requested(&self, spec: &Spec, address: IpAddr) -> Result<Found, Refused> {
        let refuse = |reason, what: String| {
            let what = format!("{address} is asked for, yet {what}");
            let problem = Some(Box::new(Problem::new(reason, what)));
            let waits = vec![Wait::Address(address), self.wait_for_namespace(spec)];
            Refused { family: Family::of(address), problem, waits }
        };
        if let Some(whose) = self.never_a_services(address) {
            return Err(refuse(reason::ADDRESS_REFUSED, format!("it is {whose}: ask for another")));
        }
        let at = self.settings.pool_of(address);
        let pool = at.and_then(|at| Some((at, self.settings.pools().get(at)?)));
        let Some((at, pool)) = pool else {
            return Err(refuse(reason::ALLOCATION_FAILED, "no pool has it".to_owned()));
        };
        let asked = spec.request.pool.as_ref().filter(|asked| **asked != pool.name);
        let why = match asked {
            Some(asked) => Some(format!("it is in pool {}, not in {asked}", pool.name)),
            None if pool.avoids(address) => {
                Some(format!("pool {} keeps addresses that end in .0 or .255 back", pool.name))
            }
            None => self.not_for(spec, at, pool).map(|why| format!("it is in a pool that {why}")),
        };
        if let Some(what) = why.or_else(|| self.not_shared(spec, address)) {
            return Err(refuse(reason::ALLOCATION_FAILED, what));
        }
        if let Some(others) = self.external_ips.get(&address)
            && let Some(other) = others.iter().find(|other| *other != spec.name())
        {
            return Err(refuse(
                reason::ALLOCATION_FAILED,
                format!("it is an externalIP of {other}"),
            ));
        }
        // Last, since only who is told waits for the pool.
        if let Some(why) = self.refused_pool(at) {
            let mut refused = refuse(reason::ADDRESS_REFUSED, why.to_owned());
            refused.waits.push(Wait::Pool(at, Family::of(address)));
            return Err(refused);
        }
        Ok((address, pool.name.clone()))
    }

    /// Who has the address already and won't share it.
    fn not_shared(&self, spec: &Spec, address: IpAddr) -> Option<String> {
        let others = self.ledger.holders(address).filter(|other| *other != spec.name());
        others.filter_map(|other| self.services.get(other)).find_map(|other| {
            let name = other.spec.name();
            let Some(key) = spec.shares_with(&other.spec) else {
                let keyed = spec.share_key.is_some() || other.spec.share_key.is_some();
                let how = format!(", and the annotation {SHARE_KEY} of both is not the same");
                return Some(format!("it belongs to {name}{}", if keyed { &how } else { "" }));
            };
            let both = spec.ports.iter().find(|port| {
                let same = |one: &crate::spec::PortSpec| {
                    (one.port, one.protocol) == (port.port, port.protocol)
                };
                other.spec.ports.iter().any(same)
            })?;
            let (port, protocol) = (both.port, both.protocol);
            Some(format!(
                "{name}, which shares it by \"{key}\", has port {port}/{protocol} as well"
            ))
        })
    }

    /// Why no new address of a pool is given out.
    pub(crate) fn refused_pool(&self, at: usize) -> Option<&str> {
        self.settings.refused_pool(at).or_else(|| self.occupied.refused(at))
    }

    /// Why a pool is not for the Service.
    fn not_for(&self, spec: &Spec, at: usize, pool: &Pool) -> Option<String> {
        let namespace = &spec.name().namespace;
        let chosen = pool.namespaces.contains(namespace);
        let chosen = chosen
            || match &pool.namespace_selector {
                Some(selector) => selector.matches(self.namespaces.labels(namespace)),
                None => pool.namespaces.is_empty(),
            };
        if !chosen {
            return Some(format!("is not for Services of namespace {namespace}"));
        }
        if spec.request.not_for.contains(&at) {
            let selector = pool.service_selector.as_ref().map(ToString::to_string);
            let selector = selector.unwrap_or_default();
            return Some(format!("is for Services with the labels \"{selector}\" alone"));
        }
        match (pool.scheme, spec.request.scheme) {
            (Some(has), Some(asked)) if has != asked => Some(format!("is {has}, not {asked}")),
            _ => None,
        }
    }

    /// The pools that the Service may have any address of, in their order; or why none.
    fn candidates(&self, spec: &Spec) -> Result<Vec<usize>, Problem> {
        let problem = |what: String| Problem::new(reason::ALLOCATION_FAILED, what);
        let asked = spec.request.pool.as_deref();
        let named = |pool: &Pool| asked.map_or(pool.auto_assign, |asked| *pool.name == *asked);
        let (mut fit, mut unfit) = (Vec::new(), Vec::new());
        for (at, pool) in self.settings.pools_in_order().filter(|(_, pool)| named(pool)) {
            match self.not_for(spec, at, pool) {
                None => fit.push(at),
                Some(why) => unfit.push(format!("pool {} {why}", pool.name)),
            }
        }
        if !fit.is_empty() {
            return Ok(fit);
        }
        Err(problem(if self.settings.pools().is_empty() {
            "no pool of addresses is configured ([[pool]])".to_owned()
        } else if unfit.is_empty() {
            format!("no pool serves Services that name none: name one by the annotation {POOL}")
        } else {
            format!("no pool is for it: {}", unfit.join("; "))
        }))
    }

    fn find_any(&mut self, spec: &Spec, family: Family) -> Result<Found, Refused> {
        let mut waits = vec![self.wait_for_namespace(spec)];
        let pools = self.candidates(spec).map_err(|problem| Refused {
            family,
            problem: Some(Box::new(problem)),
            waits: waits.clone(),
        })?;
        let mut why = None;
        let mut open = 0;
        for &at in &pools {
            waits.push(Wait::Pool(at, family));
            if let Some(refused) = self.refused_pool(at) {
                why = why.or_else(|| Some(refused.to_owned()));
                continue;
            }
            open += 1;
            if let Some(address) = self.free_in(at, family) {
                let name = self.settings.pools().get(at).map(|pool| pool.name.clone());
                return Ok((address, name.unwrap_or_default()));
            }
        }
        let problem = why.filter(|_| open == 0);
        let problem = problem.map(|why| Box::new(Problem::new(reason::ADDRESS_REFUSED, why)));
        Err(Refused { family, problem, waits })
    }

    /// Its labels may come to choose a pool.
    fn wait_for_namespace(&self, spec: &Spec) -> Wait {
        Wait::Namespace(spec.name().namespace.clone())
    }

    /// The pools that the Service may have any address of, in words.
    fn pools_asked(&self, spec: &Spec) -> String {
        let pools = self.candidates(spec).unwrap_or_default();
        let names = pools.iter().filter_map(|&at| self.settings.pools().get(at));
        let names: Vec<_> = names.map(|pool| &*pool.name).collect();
        let (pool, has) = if names.len() == 1 { ("pool", "has") } else { ("pools", "have") };
        format!("{pool} {} {has}", names.join(", "))
    }

    pub(crate) fn none_left(&self, spec: &Spec, family: Family) -> Problem {
        let what = format!("{} no free {family} address", self.pools_asked(spec));
        Problem::new(reason::ALLOCATION_FAILED, what)
    }

    /// Which of two families is used up isn't said, since that may change without this Service
    /// being looked at.
    pub(crate) fn not_both_left(&self, spec: &Spec) -> Problem {
        let pools = self.pools_asked(spec);
        let what = format!("{pools} not a free address of each family, as RequireDualStack asks");
        Problem::new(reason::ALLOCATION_FAILED, what)
    }
}
