//! What floods are paid with.

use std::time::Instant;

/// Tokens of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: u32,
    most: u32,
    a_second: u32,
    since: Instant,
}

impl Bucket {
    pub(super) fn new(most: u32, a_second: u32, now: Instant) -> Self {
        Self { tokens: most, most, a_second, since: now }
    }

    #[inline]
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if self.tokens == 0 {
            let millis = now.saturating_duration_since(self.since).as_millis();
            let earned = millis * u128::from(self.a_second) / 1000;
            if earned == 0 {
                return false;
            }
            self.since = now;
            self.tokens = u32::try_from(earned).unwrap_or(u32::MAX).min(self.most);
        }
        self.tokens -= 1;
        true
    }

    #[inline]
    pub(super) fn give(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(self.most);
    }
}
