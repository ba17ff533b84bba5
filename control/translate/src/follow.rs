//! Several gateways, one allocator: who doesn't hold the Lease follows what statuses say.
//!
//! Where Services live in an API server, their statuses are the truth. The gateway that writes
//! gives addresses; the others, and every gateway before it writes for the first time, take from
//! each status what lies in their pools. An address that two statuses name belongs to the older
//! Service.

use crate::find::{Found, Refused};
use crate::index::{Index, Wait};
use crate::problem::{Problem, normal, reason};
use crate::settings::Authority;
use crate::spec::{Rank, Spec};
use model::answers::Severity;
use model::desired::ObjectName;
use model::ids::Family;
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Index {
    /// Whether this gateway allocates addresses and has [`crate::Built::writes`], where Services
    /// live in an API server; false to begin with. The next build of one that begins to gives to
    /// those that wait, and has a write for each status that isn't as it should be. One that
    /// ceases to goes on with what it has, and follows statuses as they change; see
    /// [`Index::follow_another`].
    pub fn set_writer(&mut self, writer: bool) {
        if std::mem::replace(&mut self.writer, writer) == writer {
            return;
        }
        self.may_be_told |= writer;
        for (name, entry) in &mut self.services {
            entry.telling.forget();
            // What was said before it writes is followed as on the first day.
            entry.telling.fresh |= entry.telling.unread;
            if writer {
                self.touched.insert(name.clone());
            }
        }
    }

    /// Another gateway allocates from here on, by what stands in the statuses: what this one told
    /// and didn't see written counts no longer.
    pub fn follow_another(&mut self) {
        for (name, entry) in &mut self.services {
            if std::mem::take(&mut entry.telling.unwritten) {
                entry.telling.unread = true;
                self.touched.insert(name.clone());
            }
        }
    }

    /// Whether this gateway allocates.
    pub(crate) fn leads(&self) -> bool {
        self.writer || self.settings.authority() == Authority::Local
    }

    /// Takes from the statuses of those that were applied what they say, older Services first.
    pub(crate) fn follow(&mut self, touched: &mut BTreeSet<ObjectName>) {
        if self.settings.authority() == Authority::Local {
            return;
        }
        let mut ranks: BTreeSet<Rank> = BTreeSet::new();
        for name in touched.iter() {
            let Some(entry) = self.services.get_mut(name) else { continue };
            let unread = std::mem::take(&mut entry.telling.unread);
            let fresh = std::mem::take(&mut entry.telling.fresh);
            // Who writes knows better than a status that may be older than what was written.
            if unread && entry.spec.balanced && (fresh || !self.writer) {
                ranks.insert(entry.spec.rank.clone());
            }
        }
        for rank in ranks {
            self.follow_one(&rank.name, touched);
        }
    }

    fn follow_one(&mut self, name: &ObjectName, touched: &mut BTreeSet<ObjectName>) {
        let Some(entry) = self.services.get(name) else { return };
        let spec = entry.spec.clone();
        let says = self.says(&spec);
        if !self.writer {
            for held in self.ledger.addresses_of(name).to_vec() {
                if !says.contains(&held.address) {
                    self.free_address(name, held.address);
                }
            }
        }
        for address in says {
            if self.ledger.holds(name, address) {
                continue;
            }
            let Ok(rivals) = self.rivals(&spec, address) else { continue };
            for rival in rivals {
                self.oust(&rival, address, name);
                touched.insert(rival);
            }
            let pool = self.settings.pool_of(address).and_then(|at| self.settings.pools().get(at));
            let pool = pool.map(|pool| pool.name.clone()).unwrap_or_default();
            self.ledger.give(name, spec.uid(), address, pool);
            self.given.insert(address);
            touched.extend(self.writers(address));
        }
    }

    /// The addresses that a Service's status names and that are ours, one of each family.
    fn says(&self, spec: &Spec) -> Vec<IpAddr> {
        let mut says: Vec<IpAddr> = Vec::new();
        for address in spec.standing.addresses() {
            let ours =
                self.settings.pool_of(address).is_some() || self.ledger.holds(spec.name(), address);
            let another = says.iter().any(|&one| Family::of(one) == Family::of(address));
            if ours && !another {
                says.push(address);
            }
        }
        says
    }

    /// Who has the address of a Service's status and must give it up; or why the Service can't
    /// have it.
    fn rivals(&self, spec: &Spec, address: IpAddr) -> Result<Vec<ObjectName>, String> {
        if let Some(whose) = self.never_a_services(address) {
            return Err(format!("it is {whose}"));
        }
        let mut rivals = Vec::new();
        for other in self.ledger.holders(address) {
            let Some(other) = self.services.get(other).map(|entry| &entry.spec) else { continue };
            if other.name() == spec.name() {
                continue;
            }
            // Given by us once and never written: another gateway writes now, and knows nothing
            // of it, also where the two would share.
            let unsaid = !self.writer && !other.standing.addresses().any(|one| one == address);
            if !unsaid && spec.shares_with(other).is_some() {
                continue;
            }
            if unsaid || spec.rank < other.rank {
                rivals.push(other.name().clone());
            } else {
                return Err(format!("it belongs to {}, the older Service", other.name()));
            }
        }
        Ok(rivals)
    }

    fn oust(&mut self, name: &ObjectName, address: IpAddr, by: &ObjectName) {
        if let Some(entry) = self.services.get(name) {
            let what = format!(
                "{address} is no longer its LoadBalancer address: it belongs to {by}, the older \
                 Service, by its status"
            );
            let mut event = normal(reason::ADDRESS_REFUSED, &entry.spec, what);
            event.severity = Severity::Warning;
            self.events.push(event);
        }
        self.free_address(name, address);
    }

    /// Of the addresses in its status those that the Service may have, and why it may not have the
    /// others: for a gateway that doesn't allocate.
    pub(crate) fn find_said(&self, spec: &Spec) -> (Vec<Found>, Vec<Refused>) {
        let (mut found, mut refused) = (Vec::new(), Vec::new());
        for address in self.says(spec) {
            if self.ledger.holds(spec.name(), address) {
                continue;
            }
            let why = match self.rivals(spec, address) {
                Ok(rivals) if rivals.is_empty() => {
                    let pool = self.settings.pool_of(address);
                    let pool = pool.and_then(|at| self.settings.pools().get(at));
                    found.push((address, pool.map(|one| one.name.clone()).unwrap_or_default()));
                    continue;
                }
                Ok(rivals) => rivals
                    .first()
                    .map_or_else(String::new, |rival| format!("it belongs to {rival}")),
                Err(why) => why,
            };
            let what = format!("its status names {address}, yet {why}");
            let problem = Some(Box::new(Problem::new(reason::ADDRESS_REFUSED, what)));
            let waits = vec![Wait::Address(address)];
            refused.push(Refused { family: Family::of(address), problem, waits });
        }
        (found, refused)
    }

    /// A status names an address that another Service has, and this one gets another or none.
    pub(crate) fn tell_twice(&mut self, spec: &Spec) {
        for address in self.says(spec) {
            if self.ledger.holds(spec.name(), address) {
                continue;
            }
            let Err(why) = self.rivals(spec, address) else { continue };
            let what = format!("its status named {address}, yet {why}");
            let mut event = normal(reason::ADDRESS_REFUSED, spec, what);
            event.severity = Severity::Warning;
            self.events.push(event);
        }
    }
}
