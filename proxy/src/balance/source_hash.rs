//! `SOURCE_IP` and `SOURCE_IP_PORT`: weighted rendezvous hashing.
//!
//! Each member draws a waiting time from an exponential distribution with its weight as the rate, from a hash
//! of its id and the client's address; the shortest wins. That makes shares proportional to weights; a member that
//! leaves moves only what it had, one that comes takes only what it gets, and a changed weight moves nothing
//! between others. It depends on ids and addresses alone, so that it is the same after a restart, in all
//! workers and on both amphorae of a pair, whatever the order of the members in the document.
//!
//! Why this one: a ring (pingora-ketama) wants some 100 points per unit of weight to be as even as HAProxy's
//! map, 1.5 GB at 5000 members of weight 256; scaled down to fit, its points depend on the sum of weights, and
//! any member that leaves moves clients of others. Maglev's table is small but moves a few of the others'
//! clients by construction. Rendezvous has neither fault and needs 16 bytes a member; what it costs is O(n) for
//! a client not seen lately: a multiplication and a comparison a member, 2 µs per 1000. A small cache makes
//! it O(1) for the requests that follow.

use std::net::IpAddr;

use super::{
    Balancer, Flow, MembersView,
    eligible::Eligible,
    hash::{HashKey, mix},
};

/// Slots of the cache of recent picks; 16 bytes each.
const CACHE: usize = 1024;
/// With fewer members than this a scan is as fast as the cache.
const CACHE_FROM: usize = 8;

/// The members' hashes and recent picks.
#[derive(Debug)]
pub struct SourceHash {
    with_port: bool,
    eligible: Eligible,
    /// Of each eligible member, in its order.
    candidates: Vec<Candidate>,
    /// (hash of the client, place in `candidates` + 1), 0 being none. Empty for small pools.
    recent: Vec<(u64, u32)>,
}

#[derive(Debug)]
struct Candidate {
    seed: u64,
    mean: f64,
}

impl SourceHash {
    /// By the client's address, and its port if `with_port`.
    pub fn new(with_port: bool) -> Self {
        Self { with_port, eligible: Eligible::default(), candidates: Vec::new(), recent: Vec::new() }
    }

    #[cold]
    fn rebuild(&mut self, view: &impl MembersView) {
        let candidate = |&member: &u32| {
            let member = member as usize;
            Candidate {
                seed: HashKey::ZERO.hash(view.id(member).0.as_bytes()),
                mean: 1.0 / f64::from(view.weight(member)),
            }
        };
        self.candidates.clear();
        self.candidates.extend(self.eligible.members().iter().map(candidate));
        self.recent.clear();
        if self.candidates.len() >= CACHE_FROM {
            self.recent.resize(CACHE, (0, 0));
        }
    }

    fn key(&self, flow: &Flow) -> u64 {
        let mut bytes = [0u8; 18];
        let len = match flow.source.to_canonical() {
            IpAddr::V4(ip) => {
                bytes[..4].copy_from_slice(&ip.octets());
                4
            }
            IpAddr::V6(ip) => {
                bytes[..16].copy_from_slice(&ip.octets());
                16
            }
        };
        let len = if self.with_port {
            bytes[len..len + 2].copy_from_slice(&flow.source_port.to_be_bytes());
            len + 2
        } else {
            len
        };
        HashKey::ZERO.hash(&bytes[..len])
    }

    /// The place of the candidate with the shortest time among those that pass.
    fn shortest(&self, key: u64, allow: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best = None;
        let mut least = f64::INFINITY;
        for (place, candidate) in self.candidates.iter().enumerate() {
            // 1 - u, with u uniform in [0, 1). -ln(1 - x) >= x, so most candidates are out without a logarithm.
            // (By way of i64: converting a u64 takes a branch.)
            let x = (mix(key ^ candidate.seed) >> 11) as i64 as f64 * (1.0 / (1u64 << 53) as f64);
            if x * candidate.mean < least && allow(place) {
                let time = exponential(x) * candidate.mean;
                if time < least {
                    (best, least) = (Some(place), time);
                }
            }
        }
        best
    }
}

impl Balancer for SourceHash {
    fn pick(&mut self, view: &impl MembersView, flow: &Flow, avoid: impl Fn(usize) -> bool) -> Option<usize> {
        if self.eligible.refresh(view) {
            self.rebuild(view);
        }
        let key = self.key(flow);
        let members = self.eligible.members();
        let slot = (key >> 54) as usize;
        let place = match self.recent.get(slot) {
            Some(&(seen, place)) if seen == key && place > 0 => place as usize - 1,
            _ => self.shortest(key, |_| true)?,
        };
        if let Some(recent) = self.recent.get_mut(slot) {
            *recent = (key, place as u32 + 1);
        }
        let member = members[place] as usize;
        if avoid(member) {
            // The next shortest is where this client goes should the member be taken out.
            let other = self.shortest(key, |place| !avoid(members[place] as usize));
            return Some(other.map_or(member, |place| members[place] as usize));
        }
        Some(member)
    }
}

/// 1, 1/3, 1/5, ...: the series of artanh.
const ODD_RECIPROCALS: [f64; 16] = {
    let mut terms = [1.0; 16];
    let mut k = 0;
    while k < terms.len() {
        terms[k] = 1.0 / (2 * k + 1) as f64;
        k += 1;
    }
    terms
};

/// `-ln(1 - x)` for `x` in [0, 1), from operations that IEEE 754 defines to the bit: unlike libm's `ln` it is
/// the same on every machine, so that the two amphorae of a pair agree.
fn exponential(x: f64) -> f64 {
    let y = 1.0 - x;
    // y = m * 2^e with m in [1, 2); ln m = 2 artanh((m - 1) / (m + 1)), whose series ends soon for s <= 1/3.
    let bits = y.to_bits();
    let e = (bits >> 52) as i64 - 1023;
    let m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let sum = ODD_RECIPROCALS.iter().rev().fold(0.0, |sum, term| sum * square + term);
    -(e as f64 * std::f64::consts::LN_2 + 2.0 * s * sum)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::View, *};

    #[test]
    fn what_was_picked_lately_is_not_looked_for_again() {
        let flow = Flow { source: IpAddr::from([192, 0, 2, 7]), source_port: 4000 };
        let pick = |hash: &mut SourceHash, view: &View| hash.pick(view, &flow, |_| false);
        let view = View::weights(&[1; CACHE_FROM]);
        let mut hash = SourceHash::new(false);
        let first = pick(&mut hash, &view);
        let (key, slot) = (hash.key(&flow), (hash.key(&flow) >> 54) as usize);
        let place = first.map(|member| member as u32 + 1);
        assert_eq!((hash.recent.len(), Some(hash.recent[slot])), (1024, place.map(|place| (key, place))));
        assert_eq!(hash.recent.iter().filter(|recent| **recent != (0, 0)).count(), 1);
        // It is believed, and only for this client.
        let other = (first.unwrap_or(0) + 1) % CACHE_FROM;
        hash.recent[slot] = (key, other as u32 + 1);
        assert_eq!(pick(&mut hash, &view), Some(other));
        hash.recent[slot] = (key ^ 1, other as u32 + 1);
        assert_eq!(pick(&mut hash, &view), first);
        // Until the members change.
        hash.recent[slot] = (key, other as u32 + 1);
        view.set_usable(other, false);
        assert_eq!(pick(&mut hash, &view), first);
        let mut small = SourceHash::new(false);
        pick(&mut small, &View::weights(&[1; CACHE_FROM - 1]));
        assert!(small.recent.is_empty());
    }

    #[test]
    fn exponential_is_the_logarithm() {
        for i in 0..10_000 {
            let x = f64::from(i) / 10_000.0;
            let want = -(1.0 - x).ln();
            assert!((exponential(x) - want).abs() <= 1e-12 * want.max(1.0), "{x}");
        }
        assert!(exponential(1.0 - f64::EPSILON / 2.0) > 36.0);
        assert_eq!(exponential(0.0), 0.0);
    }
}
