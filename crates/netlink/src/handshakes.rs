//! Handshakes of TCP that are under way: clients that were let in and whom no program knows yet (sock_diag(7)).

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::NetError;

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;
/// `TCP_SYN_RECV` of linux/tcp_states.h.
const SYN_RECV: u32 = 3;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Where an answer (`struct inet_diag_msg`) has the local address.
const LOCAL: usize = 8;

/// How many there are with these local addresses, in the network namespace of this thread.
///
/// # Errors
/// When the kernel does not tell.
pub fn handshakes(local: &[IpAddr]) -> Result<usize, NetError> {
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW.cloexec(),
        Some(Protocol::from(NETLINK_SOCK_DIAG)),
    )
    .map_err(NetError::socket("open a socket for sock_diag"))?;
    let mut found = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let is_v6 = family == libc::AF_INET6;
        if local.iter().any(|address| address.is_ipv6() == is_v6) {
            found += dump(&socket, family, local).map_err(NetError::socket("ask sock_diag"))?;
        }
    }
    Ok(found)
}

fn dump(mut socket: &Socket, family: i32, local: &[IpAddr]) -> io::Result<usize> {
    let mut request = Vec::with_capacity(NLMSG_HEADER + REQUEST);
    let length = u32::try_from(NLMSG_HEADER + REQUEST).unwrap_or_default();
    request.extend(length.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([
        u8::try_from(family).unwrap_or_default(),
        u8::try_from(libc::IPPROTO_TCP).unwrap_or_default(),
        0,
        0,
    ]);
    request.extend((1u32 << SYN_RECV).to_ne_bytes());
    request.resize(NLMSG_HEADER + REQUEST, 0);
    // Without a destination it goes to the kernel (netlink(7)).
    socket.write_all(&request)?;

    let mut found = 0;
    let mut buffer = vec![0; 32 << 10];
    loop {
        // The kernel answers before it returns from the request, and from each receive.
        let length = socket.read(&mut buffer)?;
        let (count, is_done) = count(&buffer[..length], local)?;
        found += count;
        if is_done {
            return Ok(found);
        }
    }
}

/// Counts in one datagram of messages; true behind the last.
fn count(mut messages: &[u8], local: &[IpAddr]) -> io::Result<(usize, bool)> {
    let mut found = 0;
    while let Some((header, _)) = messages.split_at_checked(NLMSG_HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(body) = messages.get(NLMSG_HEADER..length) else { break };
        match u16::from_ne_bytes([header[4], header[5]]) {
            NLMSG_DONE => return Ok((found, true)),
            NLMSG_ERROR => {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return Err(io::Error::from_raw_os_error(-code));
            }
            SOCK_DIAG_BY_FAMILY => {
                let address = body.get(LOCAL..).and_then(|rest| match i32::from(body[0]) {
                    libc::AF_INET => rest.first_chunk().map(|octets| IpAddr::from(Ipv4Addr::from(*octets))),
                    _ => rest.first_chunk().map(|octets| IpAddr::from(Ipv6Addr::from(*octets))),
                });
                found += usize::from(address.is_some_and(|address| local.contains(&address)));
            }
            _ => {}
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok((found, false))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = u32::try_from(NLMSG_HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(NLMSG_HEADER, 0);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn answer(family: i32, address: &[u8]) -> Vec<u8> {
        let mut body = vec![0; 72];
        body[0] = u8::try_from(family).unwrap();
        body[LOCAL..LOCAL + address.len()].copy_from_slice(address);
        message(SOCK_DIAG_BY_FAMILY, &body)
    }

    #[test]
    fn those_of_the_addresses_are_counted() {
        let local = ["10.77.0.100".parse().unwrap(), "fd77::100".parse().unwrap()];
        let v6 = "fd77::100".parse::<Ipv6Addr>().unwrap().octets();
        let mut answers = answer(libc::AF_INET, &[10, 77, 0, 100]);
        answers.extend(answer(libc::AF_INET, &[10, 77, 0, 101]));
        answers.extend(answer(libc::AF_INET6, &v6));
        assert_eq!(count(&answers, &local).unwrap(), (2, false));
        answers.extend(message(NLMSG_DONE, &[0; 4]));
        assert_eq!(count(&answers, &local).unwrap(), (2, true));
        let refused = message(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes());
        assert_eq!(count(&refused, &local).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_kernel_answers_and_an_established_connection_is_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        match handshakes(&[listener.local_addr().unwrap().ip(), Ipv6Addr::LOCALHOST.into()]) {
            Ok(found) => assert_eq!(found, 0),
            Err(error) => eprintln!("SKIPPED: no sock_diag here: {error}"),
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(messages in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = count(&messages, &[]);
        }
    }
}
