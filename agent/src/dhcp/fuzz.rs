//! A client against whatever a network sends, for fuzzing.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use amphora_netlink::MacAddress;

use super::{
    Client, Event, Lease, Transmit, frame,
    lease::{ENDLESS, SHORTEST, SHORTEST_RENEWAL},
    message::Answer,
};

const MAC: MacAddress = MacAddress([0xfa, 0x16, 0x3e, 0, 0x21, 2]);

/// Octets of a message of DHCP before its options, which begin behind these four.
const HEADER: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// The input is steps. The first octet of each says what comes, the second how much time has passed before, in a unit that its upper two
/// bits choose; where something comes, its length is in two more, and then it follows.
///
/// | by 6 | what comes |
/// | --- | --- |
/// | 0 | a frame as it is |
/// | 1 | a message, made to be for this client and about what it asked last |
/// | 2 | its address (`yiaddr`) and its options alone, likewise |
/// | 3 | a message of ARP: the address of the sender, the IP address |
/// | 4 | nothing: the last lease cannot be used here |
/// | 5 | nothing |
///
/// A first step of which the highest bit is set is not sent: it is the lease of before.
///
/// What is in use is what makes sense, and is not in use for longer than it was given; there is an end to what is
/// done at one time, and what goes out stays little.
///
/// # Panics
/// When something of this does not hold.
pub fn fuzz(data: &[u8]) {
    let mut rest = data;
    let now = tokio::time::Instant::now().into_std();
    let before = data.first().filter(|kind| *kind & 0x80 != 0).and_then(|_| {
        let (_, _, content) = step(&mut rest)?;
        Lease::of(&Answer::read(&in_brief(content, 0)?).ok()?).ok()
    });
    let held = before.map(|lease| {
        let ends = (lease.seconds != ENDLESS).then(|| now + Duration::from_secs(lease.seconds.into()));
        (lease, ends)
    });
    let mut link = Link::new(now, held);
    while let Some((kind, passed, content)) = step(&mut rest) {
        link.pass(passed);
        link.deliver(kind % 6, content);
        link.drain();
    }
    link.pass(Duration::from_secs(4000));
}

/// What is sane in a lease of whatever answer.
///
/// # Panics
/// When it is not.
pub(super) fn assert_sane(lease: &Lease) {
    let address = lease.address.addr();
    let octets = address.octets();
    assert!(octets[0] != 0 && octets[0] < 224 && !address.is_loopback() && !address.is_link_local());
    assert!(lease.address.prefix_len() >= 8);
    let edge = address == lease.address.network() || address == lease.address.broadcast();
    assert!(lease.address.prefix_len() > 30 || !edge);
    assert!(lease.seconds >= SHORTEST);
    assert!(lease.renewal >= SHORTEST_RENEWAL);
    assert!(lease.renewal < lease.rebinding && lease.rebinding < lease.seconds);
    assert!(lease.mtu.is_none_or(|mtu| (1280..=65_535).contains(&mtu)));
    assert!(lease.routes.len() <= 64);
    for route in &lease.routes {
        assert_eq!(route.destination, route.destination.trunc());
        assert!(!route.destination.addr().is_multicast() && !route.destination.addr().is_loopback());
        assert!(route.gateway.is_none_or(|gateway| gateway != address && !gateway.is_unspecified()));
    }
}

/// What comes, after how long, and its octets.
fn step<'a>(rest: &mut &'a [u8]) -> Option<(u8, Duration, &'a [u8])> {
    let (&[kind, time], after) = rest.split_first_chunk()?;
    let (count, unit) = (u64::from(time & 0x3f), time >> 6);
    let passed = Duration::from_millis(count * [10, 1000, 16_000, 64_000][usize::from(unit)]);
    if matches!(kind % 6, 4 | 5) {
        *rest = after;
        return Some((kind, passed, &[]));
    }
    let (length, after) = after.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
    let (content, after) = after.split_at(length);
    *rest = after;
    Some((kind, passed, content))
}

/// A message of which `content` is the address and the options.
fn in_brief(content: &[u8], transaction: u32) -> Option<Vec<u8>> {
    let (address, options) = content.split_at_checked(4)?;
    let mut message = vec![0; HEADER];
    message[..3].copy_from_slice(&[2, 1, 6]);
    message[16..20].copy_from_slice(address);
    message[HEADER - COOKIE.len()..].copy_from_slice(&COOKIE);
    message.extend(options);
    address_to(&mut message, transaction);
    Some(message)
}

/// It is for this client, and about this question.
fn address_to(message: &mut [u8], transaction: u32) {
    if message.len() >= HEADER {
        message[4..8].copy_from_slice(&transaction.to_be_bytes());
        message[28..34].copy_from_slice(&MAC.0);
    }
}

/// A client, and what is known of it.
struct Link {
    client: Client,
    begun: Instant,
    now: Instant,
    transaction: u32,
    /// Until when an address is in use, if one is; without, it has no end.
    in_use: Option<Option<Instant>>,
    sent: u64,
}

impl Link {
    fn new(now: Instant, held: Option<(Lease, Option<Instant>)>) -> Self {
        let in_use = held.as_ref().map(|(_, ends)| *ends);
        let client = Client::new(MAC, 1500, 7, now, held);
        let mut link = Self { client, begun: now, now, transaction: 0, in_use, sent: 0 };
        link.drain();
        link
    }

    /// Time passes, and the client is woken whenever it wants to be.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut at_once = 0;
        while let Some(due) = self.client.poll_timeout().filter(|due| *due <= end) {
            at_once = if due > self.now { 0 } else { at_once + 1 };
            assert!(at_once < 10, "it is never done");
            self.now = self.now.max(due);
            self.client.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.drain();
        if let Some(Some(ends)) = self.in_use {
            assert!(ends >= self.now, "an address is used after its end");
        }
    }

    fn deliver(&mut self, kind: u8, content: &[u8]) {
        match kind {
            0 => {
                if let Some(message) = frame::from_server(content) {
                    self.answer(message);
                }
                if let Some((sender, target)) = frame::read_arp(content) {
                    self.client.handle_arp(sender, target, self.now);
                }
            }
            1 => {
                let mut message = content.to_vec();
                address_to(&mut message, self.transaction);
                self.answer(&message);
            }
            2 => {
                if let Some(message) = in_brief(content, self.transaction) {
                    self.answer(&message);
                }
            }
            3 => {
                if let Some((&[a, b, c, d, e, f, w, x, y, z], _)) = content.split_first_chunk() {
                    let address = Ipv4Addr::new(w, x, y, z);
                    self.client.handle_arp((MacAddress([a, b, c, d, e, f]), address), address, self.now);
                }
            }
            4 => self.client.refuse(self.now),
            _ => {}
        }
    }

    fn answer(&mut self, message: &[u8]) {
        match Answer::read(message) {
            Ok(answer) => self.client.handle_answer(&answer, self.now),
            Err(malformed) => assert!(!malformed.to_string().is_empty()),
        }
    }

    /// What the client wants to be done.
    fn drain(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Bound { lease, expires } => {
                    assert_sane(&lease);
                    assert_eq!(expires.is_none(), lease.seconds == ENDLESS);
                    assert!(expires.is_none_or(|expires| expires > self.now), "it has ended already");
                    self.in_use = Some(expires);
                }
                Event::Lost => assert!(self.in_use.take().is_some(), "it had none"),
            }
        }
        while let Some(transmit) = self.client.poll_transmit() {
            self.sent += 1;
            if let Transmit::Broadcast { message, .. } | Transmit::Unicast { message, .. } = &transmit {
                assert!(message.len() >= 300 && message[..3] == [1, 1, 6] && message[28..34] == MAC.0);
                self.transaction = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
            }
            if let Transmit::Broadcast { from, message } = &transmit {
                let sent = frame::to_servers(MAC, *from, message);
                assert!(frame::from_server(&sent).is_none(), "it is for servers");
            }
        }
        let most = 20 + 2 * (self.now - self.begun).as_secs();
        assert!(self.sent <= most, "{} messages in {:?}", self.sent, self.now - self.begun);
    }
}
