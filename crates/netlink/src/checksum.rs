//! The Internet checksum (RFC 1071).

/// One's complement sum of 16-bit words.
///
/// ```
/// use amphora_netlink::Checksum;
/// let sum = Checksum::default().over(&[0x00, 0x01, 0xf2, 0x03]).over(&[0xf4, 0xf5, 0xf6, 0xf7]);
/// assert_eq!(sum.finish(), !0xddf2);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum(u64);

impl Checksum {
    /// Adds a run of octets that begins on an even position; the last of an odd number is filled up with a zero.
    #[must_use]
    pub fn over(self, octets: &[u8]) -> Self {
        let (words, rest) = octets.as_chunks::<2>();
        let sum: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
        let last = rest.first().map_or(0, |octet| u64::from(*octet) << 8);
        Self(self.0 + sum + last)
    }

    /// Its complement: what goes into the field.
    #[must_use]
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Checksum::default().over(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn an_odd_octet_counts_as_the_high_half_and_carries_come_round() {
        assert_eq!(Checksum::default().over(&[0x12]).finish(), !0x1200);
        assert_eq!(Checksum::default().over(&[0xff, 0xff, 0x01]).finish(), !0x0100);
    }
}
