//! A client's address as members are told it.

use std::net::IpAddr;

use crate::conn::AddressText;

/// The text of a client's address, written once for all requests of its connection.
#[derive(Debug, Default)]
pub(super) struct ClientAddress(AddressText);

impl ClientAddress {
    /// The text of `address`, which is the same each time.
    #[inline]
    pub(super) fn of(&mut self, address: IpAddr) -> &[u8] {
        if self.0.bytes().is_empty() {
            self.0 = AddressText::new(address);
        }
        self.0.bytes()
    }
}
