//! Keys that stay the same from one start to the next.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// Bytes of a Toeplitz key.
const TOEPLITZ: usize = 40;

/// The keys of a gateway. Not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Chooses backends: one for all gateways that serve the same addresses.
    pub selection: u64,
    /// Chooses workers: each gateway has its own.
    #[serde(serialize_with = "whole", deserialize_with = "of_length")]
    pub toeplitz: [u8; TOEPLITZ],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

fn whole<S: serde::Serializer>(key: &[u8; TOEPLITZ], to: S) -> Result<S::Ok, S::Error> {
    key.as_slice().serialize(to)
}

fn of_length<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; TOEPLITZ], D::Error> {
    let bytes = Vec::<u8>::deserialize(from)?;
    let len = bytes.len();
    bytes.try_into().map_err(|_| D::Error::invalid_length(len, &"40 bytes"))
}
