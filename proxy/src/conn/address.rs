//! Addresses as text.

use std::{fmt::Write, net::IpAddr};

/// Room for the text of an IPv6 address.
const LONGEST: usize = 46;

/// The text of an address.
#[derive(Debug)]
pub(crate) struct AddressText {
    text: [u8; LONGEST],
    length: u8,
}

impl Default for AddressText {
    fn default() -> Self {
        Self { text: [0; LONGEST], length: 0 }
    }
}

impl AddressText {
    /// Of this address, as its `Display` has it. Those of IPv4 take no formatter.
    pub(crate) fn new(address: IpAddr) -> Self {
        let mut text = Self::default();
        match address {
            IpAddr::V4(v4) => {
                for (n, octet) in v4.octets().into_iter().enumerate() {
                    if n > 0 {
                        text.put(b'.');
                    }
                    text.octet(octet);
                }
            }
            // The longest address fits, so this cannot fail.
            IpAddr::V6(v6) => {
                let _ = write!(text, "{v6}");
            }
        }
        text
    }

    /// What it is; nothing before it is known.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.text[..self.length.into()]
    }

    fn octet(&mut self, octet: u8) {
        if octet >= 100 {
            self.put(b'0' + octet / 100);
        }
        if octet >= 10 {
            self.put(b'0' + octet / 10 % 10);
        }
        self.put(b'0' + octet % 10);
    }

    fn put(&mut self, byte: u8) {
        self.text[usize::from(self.length)] = byte;
        self.length += 1;
    }
}

impl Write for AddressText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let from = usize::from(self.length);
        let room = self.text.get_mut(from..from + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len() as u8;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_text_is_the_addresss() {
        for address in [
            "0.0.0.0",
            "192.0.2.1",
            "9.10.99.100",
            "255.255.255.255",
            "::",
            "::ffff:255.255.255.255",
            "2001:db8:1111:2222:3333:4444:5555:6666",
            "fe80::1",
        ] {
            assert_eq!(AddressText::new(address.parse().unwrap()).bytes(), address.as_bytes());
        }
        for octet in 0..=255 {
            let address = Ipv4Addr::new(1, octet, 2, octet);
            assert_eq!(AddressText::new(address.into()).bytes(), address.to_string().as_bytes());
        }
    }
}
