//! Which backend takes a new connection: Maglev (Eisenbud et al., NSDI 2016).

mod affinity;
mod maglev;

pub use affinity::{AffinityClient, AffinityFull, AffinityTable, Sticky};
pub use maglev::{Maglev, Target};
