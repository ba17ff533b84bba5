//! Names of devices.

use std::ffi::{CStr, CString};
use std::fmt;
use std::str::FromStr;

/// The longest name of a kernel interface.
const IFACE_MAX: usize = 15;

/// A device as DPDK names it: `net_tap0,iface=hg0`, `net_null0`, `net_af_packet0,iface=eth1`,
/// or a PCI address such as `0000:01:00.0` (without the domain it gets `0000:`), each with
/// optional arguments behind a comma.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceString(CString);

/// Why a text names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceStringError {
    /// Nothing before the first comma, or a space or control character.
    #[error("{0:?} names no device; expected something like net_tap0,iface=hg0 or 0000:01:00.0")]
    Malformed(String),
    /// The kernel would cut it, and the cut name may belong to another.
    #[error("the interface name {0:?} is longer than {IFACE_MAX} characters")]
    InterfaceName(String),
}

impl DeviceString {
    /// The whole text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The part before the first comma: DPDK's name of the port.
    pub fn name(&self) -> &str {
        let text = self.as_str();
        text.split_once(',').map_or(text, |(name, _)| name)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

impl FromStr for DeviceString {
    type Err = DeviceStringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || DeviceStringError::Malformed(text.to_owned());
        if text.is_empty() || text.starts_with(',') || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(malformed());
        }
        for argument in text.split(',').skip(1) {
            if let Some(iface) = argument.strip_prefix("iface=")
                && iface.len() > IFACE_MAX
            {
                return Err(DeviceStringError::InterfaceName(iface.to_owned()));
            }
        }
        let full = if is_short_pci(text) { format!("0000:{text}") } else { text.to_owned() };
        CString::new(full).map(Self).map_err(|_| malformed())
    }
}

/// `01:00.0`, as `lspci` prints it.
fn is_short_pci(text: &str) -> bool {
    let name = text.split(',').next().unwrap_or_default().as_bytes();
    let hex = |range: std::ops::Range<usize>| name[range].iter().all(u8::is_ascii_hexdigit);
    name.len() == 7 && name[2] == b':' && name[5] == b'.' && hex(0..2) && hex(3..5) && hex(6..7)
}

impl fmt::Display for DeviceString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing() {
        let device: DeviceString = "net_tap0,iface=hg0".parse().unwrap();
        assert_eq!((device.name(), device.as_str()), ("net_tap0", "net_tap0,iface=hg0"));
        let device: DeviceString = "01:00.0".parse().unwrap();
        assert_eq!(device.name(), "0000:01:00.0");
        let long = "net_tap0,iface=a234567890123456".parse::<DeviceString>();
        assert!(matches!(long, Err(DeviceStringError::InterfaceName(_))));
        for text in ["", ",iface=x", "net tap0", "net_tap0\0"] {
            let wrong = text.parse::<DeviceString>();
            assert!(matches!(wrong, Err(DeviceStringError::Malformed(_))), "{text:?}");
        }
    }
}
