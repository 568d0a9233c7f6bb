//! SipHash-1-3 with a fixed key: 64 bits that are the same after a restart, in every worker, on both amphorae
//! of a pair and in every version of this program. (`std`'s hasher promises none of these.)

use uuid::Uuid;

/// The key of a hash. It need not be secret: what is hashed decides only which member serves a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey(u64, u64);

impl HashKey {
    /// No key.
    pub const ZERO: Self = Self(0, 0);

    /// The key that belongs to an object, so that two pools spread the same clients differently.
    pub fn of(id: Uuid) -> Self {
        let (a, b) = id.as_u64_pair();
        Self(a, b)
    }

    /// One that is kept secret.
    pub fn secret(first: u64, second: u64) -> Self {
        Self(first, second)
    }

    /// The SipHash-1-3 of `bytes`.
    pub fn hash(self, bytes: &[u8]) -> u64 {
        let mut v = [
            self.0 ^ 0x736f_6d65_7073_6575,
            self.1 ^ 0x646f_7261_6e64_6f6d,
            self.0 ^ 0x6c79_6765_6e65_7261,
            self.1 ^ 0x7465_6462_7974_6573,
        ];
        let (words, rest) = bytes.as_chunks::<8>();
        let mut absorb = |word: u64| {
            v[3] ^= word;
            round(&mut v);
            v[0] ^= word;
        };
        for word in words {
            absorb(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = bytes.len() as u8;
        absorb(u64::from_le_bytes(last));
        v[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

#[inline]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// One step of splitmix64's finalizer: spreads every bit of `x` over the whole word.
#[inline]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use super::*;

    #[test]
    fn mix_is_the_finalizer_of_splitmix64() {
        // The first outputs of the reference implementation from seed 0.
        let outputs = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        for (n, output) in (1..).zip(outputs) {
            assert_eq!(mix(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n)), output);
        }
    }

    #[test]
    fn is_siphash_1_3() {
        // Of the reference implementation: key 00 01 .. 0f, input 00 01 .. of each length.
        let key = HashKey(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(key.hash(&[]), 0xabac_0158_050f_c4dc);
        // What std has today is the same function with a zero key.
        let bytes: Vec<u8> = (0..64).collect();
        for len in 0..bytes.len() {
            let mut std = DefaultHasher::new();
            std.write(&bytes[..len]);
            assert_eq!(HashKey::ZERO.hash(&bytes[..len]), std.finish(), "{len}");
        }
    }
}
