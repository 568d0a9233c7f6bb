//! Names of interfaces.

use std::fmt;

/// The longest name of an interface that Linux has (`IFNAMSIZ` without the zero).
const MAX_INTERFACE_NAME: usize = 15;

/// The name of a network interface: 1 to 15 octets without `/`, blanks or `:`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks a name.
    pub fn new(name: &str) -> Option<Self> {
        let right = !name.is_empty()
            && name.len() <= MAX_INTERFACE_NAME
            && !matches!(name, "." | "..")
            && name.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'/' | b':'));
        right.then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
