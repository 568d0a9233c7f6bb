//! A client's address as members are told it.

use std::{fmt::Write, net::IpAddr};

/// Room for the text of an IPv6 address.
const LONGEST: usize = 46;

/// The text of a client's address, written once for all requests of its connection.
#[derive(Debug)]
pub(super) struct AddressText {
    text: [u8; LONGEST],
    /// 0 before it is asked for.
    length: u8,
}

impl Default for AddressText {
    fn default() -> Self {
        Self { text: [0; LONGEST], length: 0 }
    }
}

impl AddressText {
    /// The text of `address`, which is the same each time.
    #[inline]
    pub(super) fn of(&mut self, address: IpAddr) -> &[u8] {
        if self.length == 0 {
            // The longest address fits, so this cannot fail.
            let _ = write!(self, "{address}");
        }
        &self.text[..self.length.into()]
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
    use super::*;

    #[test]
    fn the_text_is_the_addresss_and_stays() {
        for address in [
            "192.0.2.1",
            "255.255.255.255",
            "::",
            "::ffff:255.255.255.255",
            "2001:db8:1111:2222:3333:4444:5555:6666",
            "fe80::1",
        ] {
            let mut text = AddressText::default();
            for _ in 0..2 {
                assert_eq!(text.of(address.parse().unwrap()), address.as_bytes());
            }
        }
    }
}
