//! Link-layer addresses.

use std::{fmt, str::FromStr};

/// An EUI-48 address, as Ethernet has it. Written in lower case with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text is no [`MacAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not six octets in hexadecimal with colons between them")]
pub struct NotAMacAddress;

impl FromStr for MacAddress {
    type Err = NotAMacAddress;

    fn from_str(text: &str) -> Result<Self, NotAMacAddress> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or(NotAMacAddress)?;
            // `from_str_radix` takes a sign as well.
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(NotAMacAddress);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| NotAMacAddress)?;
        }
        if parts.next().is_some() { Err(NotAMacAddress) } else { Ok(Self(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_in_either_case_and_written_in_lower_case() {
        let mac: MacAddress = "FA:16:3e:00:21:01".parse().expect("it is right");
        assert_eq!(mac, MacAddress([0xfa, 0x16, 0x3e, 0x00, 0x21, 0x01]));
        assert_eq!(mac.to_string(), "fa:16:3e:00:21:01");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "fa:16:3e:00:21",
            "fa:16:3e:00:21:01:02",
            "fa:16:3e:00:21:+1",
            "fa-16-3e-00-21-01",
            "1:2:3:4:5:6",
        ] {
            assert_eq!(text.parse::<MacAddress>(), Err(NotAMacAddress), "{text}");
        }
    }
}
