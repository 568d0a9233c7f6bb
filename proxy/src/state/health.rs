//! A member's health as the checks see it, in one atomic word.

use std::sync::atomic::{AtomicU32, Ordering};

use amphora_model::CheckState;

/// A [`CheckState`] that the control thread writes and workers read.
#[derive(Debug, Default)]
pub struct HealthCell(AtomicU32);

impl HealthCell {
    /// The present state.
    #[inline]
    pub fn get(&self) -> CheckState {
        unpack(self.0.load(Ordering::Acquire))
    }

    /// Sets the state; true when that moved the member between up and down.
    pub fn set(&self, state: CheckState) -> bool {
        let before = unpack(self.0.swap(pack(state), Ordering::AcqRel));
        before.is_up() != state.is_up()
    }
}

fn pack(state: CheckState) -> u32 {
    match state {
        CheckState::NoCheck => 0,
        CheckState::Up => 1,
        CheckState::UpFailing { passed, of } => 2 | u32::from(passed) << 8 | u32::from(of) << 16,
        CheckState::Down => 3,
        CheckState::DownRising { passed, of } => 4 | u32::from(passed) << 8 | u32::from(of) << 16,
    }
}

fn unpack(word: u32) -> CheckState {
    let [kind, passed, of, _] = word.to_le_bytes();
    match kind {
        1 => CheckState::Up,
        2 => CheckState::UpFailing { passed, of },
        3 => CheckState::Down,
        4 => CheckState::DownRising { passed, of },
        _ => CheckState::NoCheck,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_round_trips() {
        for state in [
            CheckState::NoCheck,
            CheckState::Up,
            CheckState::UpFailing { passed: 1, of: 2 },
            CheckState::Down,
            CheckState::DownRising { passed: 9, of: 10 },
        ] {
            assert_eq!(unpack(pack(state)), state);
        }
    }
}
