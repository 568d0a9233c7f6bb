//! Which members get which of the next flows: tables that the kernel goes through in turn, or by a hash.

use uuid::Uuid;

use super::plan::Target;
use crate::balance::hash::{HashKey, mix};

/// The longest table of turns: with more than so many turns weights are rounded.
pub(super) const MOST_TURNS: usize = 1024;
/// The turns that are planned ahead by flows.
const AHEAD: usize = 256;
/// Places of the table that the hash of a client's address is looked up in. Prime, so that nothing of addresses shows.
const PLACES: u32 = 1021;

/// Those that get new flows: who has a weight, and of backups only when there is nobody else.
pub(super) fn eligible(members: impl Iterator<Item = Target> + Clone) -> Vec<Target> {
    let weighted = members.filter(|member| member.weight > 0);
    let regular: Vec<_> = weighted.clone().filter(|member| !member.backup).collect();
    if regular.is_empty() { weighted.collect() } else { regular }
}

/// Indexes of members in turn, by weight and as even as can be: as many turns as weights add up to, without what they have
/// in common.
pub(super) fn turns(members: &[Target]) -> Vec<usize> {
    let common = members.iter().fold(0, |common, member| gcd(common, member.weight));
    let sum: usize = members.iter().map(|member| usize::from(member.weight / common.max(1))).sum();
    fill(members, &vec![0; members.len()], sum.min(MOST_TURNS.max(members.len())))
}

/// The same beginning from the flows that each has: who has the fewest for its weight is next.
pub(super) fn fewest(members: &[Target], flows: &[u64]) -> Vec<usize> {
    fill(members, flows, AHEAD.max(members.len()))
}

/// Each next turn is that of the member whose flows, with that one more, are the fewest for its weight.
fn fill(members: &[Target], flows: &[u64], turns: usize) -> Vec<usize> {
    let mut flows = flows.to_vec();
    let mut chosen = Vec::with_capacity(turns);
    for _ in 0..turns {
        let cost = |index: &usize| (flows[*index] + 1, u64::from(members[*index].weight));
        let next = (0..members.len()).min_by(|a, b| {
            let ((a, of_a), (b, of_b)) = (cost(a), cost(b));
            (u128::from(a) * u128::from(of_b)).cmp(&(u128::from(b) * u128::from(of_a)))
        });
        let Some(next) = next else { break };
        flows[next] += 1;
        chosen.push(next);
    }
    chosen
}

/// Indexes of members by place: weighted rendezvous hashing of the place, as `balance::source_hash` does of the client. A member
/// that leaves moves what it had alone, and it is the same on both amphorae of a pair.
pub(super) fn places(members: &[Target]) -> Vec<usize> {
    let seeds: Vec<_> = members.iter().map(|member| seed(member.member)).collect();
    let best = |place: u32| {
        let wait = |index: usize| {
            let hash = mix(seeds[index] ^ u64::from(place).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            // In (0, 1].
            let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
            -uniform.ln() / f64::from(members[index].weight)
        };
        (0..members.len()).min_by(|a, b| wait(*a).total_cmp(&wait(*b)))
    };
    (0..PLACES).filter_map(best).collect()
}

fn seed(member: Uuid) -> u64 {
    HashKey::ZERO.hash(member.as_bytes())
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn members(weights: &[u16]) -> Vec<Target> {
        let member = |(index, weight): (usize, &u16)| Target {
            member: Uuid::from_u128(index as u128 + 1),
            address: "10.0.0.1:53".parse().unwrap(),
            weight: *weight,
            backup: false,
        };
        weights.iter().enumerate().map(member).collect()
    }

    #[test]
    fn turns_are_spread() {
        assert_eq!(turns(&members(&[1, 1])), [0, 1]);
        assert_eq!(turns(&members(&[2, 1])), [0, 0, 1]);
        assert_eq!(turns(&members(&[20, 10, 10])).len(), 4);
        assert_eq!(turns(&members(&[])), [0; 0]);
    }

    #[test]
    fn who_has_the_fewest_flows_for_its_weight_is_next() {
        let next = fewest(&members(&[1, 1, 2]), &[3, 0, 0]);
        assert_eq!(next[..7], [2, 1, 2, 2, 1, 2, 2]);
    }

    #[test]
    fn backups_come_when_nobody_else_is_there() {
        let mut all = members(&[1, 1, 0]);
        all[1].backup = true;
        let ids = |members: &[Target]| {
            eligible(members.iter().copied()).iter().map(|m| m.member).collect::<Vec<_>>()
        };
        assert_eq!(ids(&all), [all[0].member]);
        assert_eq!(ids(&all[1..]), [all[1].member]);
        assert!(ids(&all[2..]).is_empty());
    }

    proptest! {
        #[test]
        fn turns_go_by_weights(weights in vec(1_u16..=256, 1..20)) {
            let members = members(&weights);
            let turns = turns(&members);
            let sum: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            for (index, weight) in weights.iter().enumerate() {
                let got = turns.iter().filter(|turn| **turn == index).count();
                let due = f64::from(*weight) / sum as f64 * turns.len() as f64;
                // Exact where the table holds them all.
                let off = (got as f64 - due).abs();
                prop_assert!(off < 1e-6 || sum > MOST_TURNS && off <= weights.len() as f64, "{got} for {due}");
            }
        }

        #[test]
        fn a_member_that_leaves_moves_only_what_it_had(weights in vec(1_u16..=256, 2..8), gone in 0_usize..8) {
            let all = members(&weights);
            let gone = gone % all.len();
            let mut rest = all.clone();
            rest.remove(gone);
            for (before, after) in places(&all).into_iter().zip(places(&rest)) {
                prop_assert!(before == gone || all[before].member == rest[after].member);
            }
        }
    }
}
