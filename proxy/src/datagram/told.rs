//! What the kernel remembers of clients, as it was told: the helper's half of what is [kept alike](super::alike) with the pair's other
//! amphora.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use amphora_netlink::{
    NetError,
    nft::{Batch, Memory, Nft},
};
use nix::errno::Errno;
use uuid::Uuid;

use super::{
    render::{CLIENTS, TABLE},
    wire::{Client, Network},
};

/// Clients that are told at once; the others are with the next call.
const MOST: usize = 16_384;

/// What was told last, of each map: a client's mark, and when it is forgotten.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<String, HashMap<Vec<u8>, (u32, Instant)>>);

/// One map of a listener's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass<'a> {
    pub(super) now: Instant,
    pub(super) map: &'a str,
    pub(super) listener: Uuid,
    /// By member.
    pub(super) marks: &'a HashMap<Uuid, u32>,
    /// Seconds for which a client is remembered.
    pub(super) timeout: u64,
}

impl Told {
    /// Puts what was learnt into the map, and adds to `told` what is in it and was not told.
    pub(super) fn exchange(
        &mut self,
        nft: &mut Nft,
        pass: Pass<'_>,
        learnt: &[Client],
        told: &mut Vec<Client>,
    ) -> Result<(), NetError> {
        let there = nft.remembered(TABLE, pass.map)?;
        let known = self.0.entry(pass.map.to_owned()).or_default();
        told.extend(news(&pass, known, &there, MOST.saturating_sub(told.len())));
        let (gone, new) = wanted(&pass, &there, learnt);
        if new.is_empty() {
            return Ok(());
        }
        let replace = |gone: &[Vec<u8>], new: &[Memory]| {
            let mut batch = Batch::forget(TABLE, pass.map, gone);
            batch.remember(pass.map, new);
            batch
        };
        if nft.commit(&replace(&gone, &new)).is_err() {
            // A packet or a timeout was there before: one by one, and what clients have done meanwhile is newer.
            for memory in &new {
                let gone: Vec<_> = gone.iter().filter(|key| **key == memory.key).cloned().collect();
                match nft.commit(&replace(&gone, std::slice::from_ref(memory))) {
                    Err(error)
                        if matches!(error.errno(), Some(Errno::ENOENT | Errno::EEXIST | Errno::EBUSY)) => {}
                    committed => committed?,
                }
            }
        }
        known.extend(new.into_iter().map(|memory| (memory.key, (memory.mark, pass.now + memory.left))));
        Ok(())
    }

    /// Forgets what was told of other maps.
    pub(super) fn keep(&mut self, there: impl Fn(&str) -> bool) {
        self.0.retain(|map, _| there(map));
    }
}

/// What is there and was not told, or was told otherwise, and from now on is.
fn news(
    pass: &Pass<'_>,
    known: &mut HashMap<Vec<u8>, (u32, Instant)>,
    there: &[Memory],
    most: usize,
) -> Vec<Client> {
    let present: HashSet<&[u8]> = there.iter().map(|memory| &memory.key[..]).collect();
    known.retain(|key, _| present.contains(&key[..]));
    let members: HashMap<u32, Uuid> = pass.marks.iter().map(|(member, mark)| (*mark, *member)).collect();
    let slack = slack(pass.timeout);
    let mut news = Vec::new();
    for Memory { key, mark, left } in there {
        if news.len() == most {
            break;
        }
        let until = pass.now + *left;
        let same = known.get(key).is_some_and(|(told, at)| told == mark && until <= *at + slack);
        let Some((member, network)) = members.get(mark).copied().zip(network(key)).filter(|_| !same) else {
            continue;
        };
        known.insert(key.clone(), (*mark, until));
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        news.push(Client { listener: pass.listener, member, network, left });
    }
    news
}

/// What of what was learnt the map is to have, and what of that it has otherwise. What it has for longer stays.
fn wanted(pass: &Pass<'_>, there: &[Memory], learnt: &[Client]) -> (Vec<Vec<u8>>, Vec<Memory>) {
    let present: HashMap<&[u8], &Memory> = there.iter().map(|memory| (&memory.key[..], memory)).collect();
    let of_v4 = pass.map.starts_with('p');
    let mut room = (CLIENTS as usize).saturating_sub(there.len());
    let (mut gone, mut new, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for client in learnt.iter().filter(|client| client.listener == pass.listener) {
        let (key, v4) = match client.network {
            Network::V4(address) => (address.to_be_bytes().to_vec(), true),
            Network::V6(hash) => (hash.to_ne_bytes().to_vec(), false),
        };
        let left = Duration::from_millis(client.left).min(Duration::from_secs(pass.timeout));
        let Some(&mark) = pass.marks.get(&client.member) else { continue };
        if v4 != of_v4 || left.is_zero() || !seen.insert(key.clone()) {
            continue;
        }
        match present.get(&key[..]) {
            Some(held) if held.left >= left => continue,
            Some(_) => gone.push(key.clone()),
            None if room == 0 => continue,
            None => room -= 1,
        }
        new.push(Memory { key, mark, left });
    }
    (gone, new)
}

/// A client that comes all the time is told once in so long.
pub(super) fn slack(timeout: u64) -> Duration {
    Duration::from_secs((timeout / 8).clamp(1, 60))
}

fn network(key: &[u8]) -> Option<Network> {
    let v4 = || Some(Network::V4(u32::from_be_bytes(key.try_into().ok()?)));
    v4().or_else(|| Some(Network::V6(u64::from_ne_bytes(key.try_into().ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(key: u8, mark: u32, left: u64) -> Memory {
        Memory { key: vec![10, 0, 0, key], mark, left: Duration::from_secs(left) }
    }

    #[test]
    fn what_is_known_is_not_told_again() {
        let member = Uuid::from_u128;
        let marks = HashMap::from([(member(1), 1), (member(2), 2)]);
        let now = crate::net::now();
        let pass = Pass { now, map: "p4", listener: member(9), marks: &marks, timeout: 80 };
        let mut known = HashMap::new();
        let mut told = |there: &[Memory], most: usize| {
            let news = news(&pass, &mut known, there, most);
            news.into_iter().map(|client| (client.network, client.member, client.left)).collect::<Vec<_>>()
        };
        let network = |key: u32| Network::V4(0x0a00_0000 + key);
        let there = [memory(1, 1, 60), memory(2, 2, 70), memory(3, 3, 70)];
        assert_eq!(told(&there, 1), [(network(1), member(1), 60_000)], "no more than there is room for");
        assert_eq!(told(&there, 9), [(network(2), member(2), 70_000)], "and of no member that is not there");
        assert_eq!(told(&there, 9), []);
        let renewed = [memory(1, 1, 70), memory(2, 2, 81)];
        assert_eq!(told(&renewed, 9), [(network(2), member(2), 81_000)], "for a tenth longer it is the same");
        assert_eq!(told(&[memory(1, 2, 60)], 9), [(network(1), member(2), 60_000)], "another member");
        assert_eq!(told(&[], 9), []);
        assert_eq!(told(&[memory(1, 2, 60)], 9).len(), 1, "it was forgotten in between");
    }

    #[test]
    fn what_is_learnt_takes_the_place_of_what_is_older() {
        let member = Uuid::from_u128;
        let marks = HashMap::from([(member(1), 1), (member(2), 2)]);
        let (listener, now) = (member(9), crate::net::now());
        let pass = Pass { now, map: "p4", listener, marks: &marks, timeout: 80 };
        let client = |key: u32, whose: u128, left: u64| Client {
            listener,
            member: member(whose),
            network: Network::V4(0x0a00_0000 + key),
            left: left * 1000,
        };
        let there = [memory(1, 1, 60), memory(2, 1, 60)];
        let mut learnt =
            vec![client(1, 2, 70), client(2, 2, 50), client(3, 2, 500), client(4, 3, 50), client(5, 1, 0)];
        learnt.push(Client { listener: member(8), ..client(6, 1, 50) });
        learnt.push(Client { network: Network::V6(7), ..client(7, 1, 50) });
        let (gone, new) = wanted(&pass, &there, &learnt);
        assert_eq!(gone, [memory(1, 0, 0).key]);
        assert_eq!(new, [memory(1, 2, 70), memory(3, 2, 80)]);
    }
}
