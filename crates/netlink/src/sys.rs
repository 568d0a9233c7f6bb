//! What the kernel offers that neither nix nor socket2 nor the standard library wraps: the address of a packet socket. The one
//! place with `unsafe`.
#![allow(unsafe_code, reason = "nothing makes a sockaddr_ll")]

use nix::libc;
use socket2::{SockAddr, SockAddrStorage};

use crate::InterfaceIndex;

/// Where a whole frame of this EtherType goes out (packet(7)); the link-layer address is in the frame.
pub fn packet_address(interface: InterfaceIndex, ethertype: u16) -> SockAddr {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: interface.0.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut storage = SockAddrStorage::zeroed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: a `sockaddr_ll` is one of the addresses that the storage is made for, and is written whole.
    unsafe {
        *storage.view_as::<libc::sockaddr_ll>() = address;
    }
    // SAFETY: the storage holds an address of this length, of the family that it begins with.
    unsafe { SockAddr::new(storage, length) }
}
