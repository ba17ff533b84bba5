//! Who may use up what: a token bucket for each interface and each purpose. A flood on one link, or
//! of one kind, leaves the others what is theirs.

use super::bucket::{Bucket, Rate};
use model::ids::InterfaceId;
use model::limits::INTERFACES_MAX;

macro_rules! classes {
    ($($variant:ident $label:literal $meaning:literal;)*) => {
        /// What is limited apart from each other, on each interface.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Class {
            $(#[doc = $meaning] $variant,)*
        }

        impl Class {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// The word used in tables, metrics and JSON.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
            /// What it is for, in a few words.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

classes! {
    Refusal "refusal" "RST and port unreachable.";
    TimeExceeded "time_exceeded" "ICMP time exceeded.";
    TooBig "too_big" "ICMP packet too big.";
    Echo "echo" "Echo replies.";
    Neighbour "neighbour" "ARP replies and neighbour advertisements.";
    Challenge "challenge" "Segments that a silent peer has to answer.";
    Reset "reset" "RST to clients whose backend has gone.";
    Doubt "doubt" "Segments to clients whose SYN may be forged.";
    IcmpError "icmp_error" "ICMP errors about connections, passed on.";
    Request "request" "Requests to the kernel about next hops.";
    RequestHalfOpen "request_half_open" "The same about clients that nobody has verified.";
    Seen "seen" "MACs that clients on the link have, told to the kernel.";
    HostNeighbour "host_neighbour" "To the host: ARP and neighbour discovery.";
    HostRouting "host_routing" "To the host: BGP, BFD, OSPF and VRRP of neighbours on the link.";
    HostPeer "host_peer" "To the host: the same of the peers in the configuration.";
    HostBegun "host_begun" "To the host: answers to what the host itself began.";
    HostOther "host_other" "To the host: anything else.";
}

impl Class {
    /// The class with this label.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|class| class.label() == label)
    }
}

/// The rates of all classes, of one worker and on each interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates([Rate; Class::COUNT]);

impl Default for Rates {
    fn default() -> Self {
        Self::all(Rate::per_second(10_000))
            .with(Class::TimeExceeded, Rate::per_second(1_000))
            .with(Class::TooBig, Rate::per_second(1_000))
            .with(Class::RequestHalfOpen, Rate::per_second(200))
            .with(Class::HostNeighbour, Rate::per_second(2_000))
            .with(Class::HostBegun, Rate::per_second(20_000))
            .with(Class::HostOther, Rate::per_second(20_000))
    }
}

impl Rates {
    /// The same rate for all classes.
    pub const fn all(rate: Rate) -> Self {
        Self([rate; Class::COUNT])
    }
    /// These rates with one class changed.
    pub const fn with(mut self, class: Class, rate: Rate) -> Self {
        self.0[class as usize] = rate;
        self
    }
    /// The rate of a class.
    pub const fn of(&self, class: Class) -> Rate {
        self.0[class as usize]
    }
    /// Full buckets, for as many interfaces as there may be: 64 times 17 of 24 bytes, 26 KiB.
    pub fn budgets(&self) -> Budgets {
        Budgets((0..INTERFACES_MAX).map(|_| self.0.map(Bucket::new)).collect())
    }
}

/// The buckets of all interfaces and classes.
#[derive(Clone, Debug)]
pub struct Budgets(Box<[[Bucket; Class::COUNT]]>);

impl Budgets {
    /// Takes a token of a class on an interface; false where there is none.
    #[inline]
    pub fn take(&mut self, class: Class, interface: InterfaceId, now_ms: u64) -> bool {
        let buckets = self.0.get_mut(interface.index());
        buckets.is_some_and(|buckets| buckets[class as usize].take(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one (interface, class) uses up is nobody else's.
    #[test]
    fn nobody_uses_up_what_is_anothers() {
        let mut budgets = Rates::all(Rate { per_second: 1, burst: 3 }).budgets();
        let spent = (InterfaceId(5), Class::HostOther);
        while budgets.take(spent.1, spent.0, 0) {}
        for interface in (0..INTERFACES_MAX as u8).map(InterfaceId) {
            for class in Class::ALL {
                let left = (0..10).filter(|_| budgets.take(*class, interface, 0)).count();
                assert_eq!(left, if (interface, *class) == spent { 0 } else { 3 });
            }
        }
        assert!(!budgets.take(Class::Echo, InterfaceId(INTERFACES_MAX as u8), 0));
    }

    #[test]
    fn labels_are_unique_and_found() {
        for (number, class) in Class::ALL.iter().enumerate() {
            assert_eq!(*class as usize, number);
            assert_eq!(Class::from_label(class.label()), Some(*class));
        }
    }
}
