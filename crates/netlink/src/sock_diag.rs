//! Connections of TCP that the kernel knows (sock_diag(7)): handshakes under way, of clients that were let in and whom no program knows
//! yet, and connections of addresses that go.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::NetError;

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLM_F_REQUEST_ACK: u16 = 0x5;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;
/// `TCP_SYN_RECV` of linux/tcp_states.h.
const SYN_RECV: u32 = 3;
/// Every state of linux/tcp_states.h in which something is to be waited for: none of `TCP_TIME_WAIT`, `TCP_CLOSE` and `TCP_LISTEN`.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << SYN_RECV | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Where an answer (`struct inet_diag_msg`) has the local address.
const LOCAL: usize = 8;
/// Where it has the id of the socket (`struct inet_diag_sockid`), and where that ends.
const ID: usize = 4;
const TOLD: usize = ID + 48;

/// How many handshakes there are with these local addresses, in the network namespace of this thread.
///
/// # Errors
/// When the kernel does not tell.
pub fn handshakes(local: &[IpAddr]) -> Result<usize, NetError> {
    let socket = open()?;
    let mut found = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let is_v6 = family == libc::AF_INET6;
        if local.iter().any(|address| address.is_ipv6() == is_v6) {
            dump(&socket, family, 1 << SYN_RECV, local, |_| found += 1)
                .map_err(NetError::socket("ask sock_diag"))?;
        }
    }
    Ok(found)
}

/// Ends the connections of TCP with these local addresses, in the network namespace of this thread, and says how many: those at the
/// other end are told (RST) while the address is there, and what this host has of them fails with `ECONNABORTED` at once, where it
/// would wait for answers that cannot come any more. Sockets that listen stay.
///
/// # Errors
/// When the kernel does not tell, or cannot do it (`CONFIG_INET_DIAG_DESTROY`). Connections may be left then.
pub fn end_connections(local: &[IpAddr]) -> Result<usize, NetError> {
    if local.is_empty() {
        return Ok(0);
    }
    let socket = open()?;
    let mut found = Vec::new();
    // Those of IPv4 may be sockets of IPv6.
    for family in [libc::AF_INET, libc::AF_INET6] {
        dump(&socket, family, CONNECTED, local, |body| found.extend(body.first_chunk::<TOLD>().copied()))
            .map_err(NetError::socket("ask sock_diag"))?;
    }
    let mut ended = 0;
    for told in found {
        match destroy(&socket, &told) {
            Ok(()) => ended += 1,
            // It has ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(NetError::socket("end a connection by sock_diag")(error)),
        }
    }
    Ok(ended)
}

fn open() -> Result<Socket, NetError> {
    let protocol = Some(Protocol::from(NETLINK_SOCK_DIAG));
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW.cloexec(), protocol);
    socket.map_err(NetError::socket("open a socket for sock_diag"))
}

/// A message with `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8, states: u32, id: &[u8]) -> Vec<u8> {
    let mut request = Vec::with_capacity(NLMSG_HEADER + REQUEST);
    let length = u32::try_from(NLMSG_HEADER + REQUEST).unwrap_or_default();
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, u8::try_from(libc::IPPROTO_TCP).unwrap_or_default(), 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(id);
    request.resize(NLMSG_HEADER + REQUEST, 0);
    request
}

/// Tells of each socket of these states that has one of the addresses.
fn dump(
    mut socket: &Socket,
    family: i32,
    states: u32,
    local: &[IpAddr],
    mut found: impl FnMut(&[u8]),
) -> io::Result<()> {
    let family = u8::try_from(family).unwrap_or_default();
    // Without a destination it goes to the kernel (netlink(7)).
    socket.write_all(&request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, family, states, &[]))?;
    let mut buffer = vec![0; 32 << 10];
    loop {
        // The kernel answers before it returns from the request, and from each receive.
        let length = socket.read(&mut buffer)?;
        if each(&buffer[..length], local, &mut found)? {
            return Ok(());
        }
    }
}

/// Ends the connection of an answer (`struct inet_diag_msg`), which begins with its family and has the id of the socket behind the
/// first four octets.
fn destroy(mut socket: &Socket, told: &[u8; TOLD]) -> io::Result<()> {
    socket.write_all(&request(SOCK_DESTROY, NLM_F_REQUEST_ACK, told[0], 0, &told[ID..]))?;
    let mut buffer = [0; 1024];
    let length = socket.read(&mut buffer)?;
    each(&buffer[..length], &[], &mut |_| {}).map(drop)
}

/// What one datagram of messages tells of the addresses; true behind the last.
fn each(mut messages: &[u8], local: &[IpAddr], found: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while let Some((header, _)) = messages.split_at_checked(NLMSG_HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(body) = messages.get(NLMSG_HEADER..length) else { break };
        match u16::from_ne_bytes([header[4], header[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => match body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)) {
                0 => return Ok(true),
                code => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
            },
            SOCK_DIAG_BY_FAMILY => {
                let address = body.get(LOCAL..).and_then(|rest| match i32::from(body[0]) {
                    libc::AF_INET => rest.first_chunk().map(|octets| IpAddr::from(Ipv4Addr::from(*octets))),
                    _ => {
                        rest.first_chunk().map(|octets| IpAddr::from(Ipv6Addr::from(*octets)).to_canonical())
                    }
                });
                if address.is_some_and(|address| local.contains(&address)) {
                    found(body);
                }
            }
            _ => {}
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
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

    fn count(messages: &[u8], local: &[IpAddr]) -> io::Result<(usize, bool)> {
        let mut found = 0;
        let is_done = each(messages, local, &mut |_| found += 1)?;
        Ok((found, is_done))
    }

    #[test]
    fn those_of_the_addresses_are_counted() {
        let local = ["10.77.0.100".parse().unwrap(), "fd77::100".parse().unwrap()];
        let v6 = "fd77::100".parse::<Ipv6Addr>().unwrap().octets();
        let mut answers = answer(libc::AF_INET, &[10, 77, 0, 100]);
        answers.extend(answer(libc::AF_INET, &[10, 77, 0, 101]));
        answers.extend(answer(libc::AF_INET6, &v6));
        let mapped = Ipv4Addr::new(10, 77, 0, 100).to_ipv6_mapped().octets();
        answers.extend(answer(libc::AF_INET6, &mapped));
        assert_eq!(count(&answers, &local).unwrap(), (3, false));
        answers.extend(message(NLMSG_DONE, &[0; 4]));
        assert_eq!(count(&answers, &local).unwrap(), (3, true));
        assert_eq!(count(&message(NLMSG_ERROR, &[0; 4]), &local).unwrap(), (0, true));
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
