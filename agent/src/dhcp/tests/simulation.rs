//! A link that loses, delays, doubles and reorders, and a server that comes and goes: whatever happens, an address is used only
//! while the server has it given, nobody is asked too often, and in the end there is one.

use std::collections::BTreeMap;

use super::*;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// One address, which it gives to who asks.
struct Server {
    lease: u32,
    /// Until when the client may use it.
    given: Option<Instant>,
}

impl Server {
    fn handle(&mut self, question: &Question, dice: &mut Dice, now: Instant) -> Option<Answer> {
        let grant = |kind| Answer { lease: Some(self.lease), ..answer(kind, question) };
        match question.kind {
            Kind::Discover => Some(grant(Kind::Offer)),
            Kind::Request => {
                let asked = question.requested.unwrap_or(question.address);
                // Now and then it has forgotten, or changed its mind.
                if asked != ADDRESS || dice.roll(20) == 0 {
                    self.given = None;
                    return Some(grant(Kind::Nak));
                }
                self.given = Some(now + seconds(self.lease.into()));
                Some(grant(Kind::Ack))
            }
            _ => {
                self.given = None;
                None
            }
        }
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let start = Instant::now();
    let mut server = Server { lease: 30 + dice.roll(3600) as u32, given: None };
    let mut client = Client::new(MAC, 1500, seed, start, None);
    let (loss, end) = (dice.roll(60), start + seconds(40_000));
    // The server is away for a while.
    let away = start + seconds(dice.roll(20_000))..start + seconds(20_000 + dice.roll(5_000));
    // By the time that they come, and a number.
    let (mut on_the_way, mut number) = (BTreeMap::new(), 0u64);
    let (mut now, mut in_use, mut questions) = (start, None::<Option<Instant>>, 0u64);
    loop {
        while let Some(event) = client.poll_event() {
            match event {
                Event::Bound { lease, expires } => {
                    assert_eq!(lease.address.addr(), ADDRESS);
                    in_use = Some(expires);
                }
                Event::Lost => {
                    assert!(in_use.is_some(), "seed {seed}: lost what it did not have");
                    in_use = None;
                }
            }
        }
        if let Some(expires) = in_use {
            assert!(expires.unwrap() >= now, "seed {seed}: used after its end");
            // A server that was asked later gave more than the client knows of, never less, unless it took it back.
            assert!(server.given.is_none_or(|given| expires.unwrap() <= given), "seed {seed}");
        }
        while let Some(transmit) = client.poll_transmit() {
            let (Transmit::Broadcast { message, .. } | Transmit::Unicast { message, .. }) = transmit else {
                continue;
            };
            questions += 1;
            for _ in 0..=u64::from(dice.roll(10) == 0) {
                if dice.roll(100) >= loss && !away.contains(&now) {
                    number += 1;
                    let at = now + Duration::from_millis(dice.roll(3000));
                    on_the_way.insert((at, number), (true, message.clone()));
                }
            }
        }
        let wakes = client.poll_timeout().unwrap_or(end);
        let arrives = on_the_way.keys().next().map_or(end, |(at, _)| *at);
        now = wakes.min(arrives).max(now);
        if now >= end {
            break;
        }
        if arrives <= wakes {
            let (_, (to_server, message)) = on_the_way.pop_first().unwrap();
            if to_server {
                if let Some(answer) = server.handle(&read_question(&message), &mut dice, now)
                    && dice.roll(100) >= loss
                {
                    number += 1;
                    let at = now + Duration::from_millis(dice.roll(3000));
                    on_the_way.insert((at, number), (false, write_answer(&answer)));
                }
            } else {
                client.handle_answer(&Answer::read(&message).unwrap(), now);
            }
        } else {
            client.handle_timeout(now);
        }
    }
    // A renewal for each half of a lease, and what loss and refusals make more of them.
    let expected = 40_000 / (u64::from(server.lease) / 2) + 40_000 / 60;
    assert!(questions <= 4 * expected, "seed {seed}: {questions} questions where {expected} are expected");
    assert!(in_use.is_some() || loss > 20 || server.lease < 120, "seed {seed}: no address in the end");
}

#[test]
fn whatever_the_link_does() {
    for seed in 0..400 {
        run(seed);
    }
}
