//! A member's health as the checks see it, in one atomic word.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What the health checks say of a member; its text is HAProxy's (`UP`, `UP 1/2`, `DOWN`, `DOWN 1/2`, `no check`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CheckState {
    /// The pool has no health monitor that is enabled.
    #[default]
    NoCheck,
    /// Up, with the failures so far forgiven.
    Up,
    /// Still up, but failing: `passed` of `of` (HAProxy prints `UP passed/of`).
    UpFailing {
        /// `max_retries_down` less the failures so far.
        passed: u8,
        /// `max_retries_down`.
        of: u8,
    },
    /// Down.
    Down,
    /// Still down, but `passed` of the `of` successes it takes have come (HAProxy prints `DOWN passed/of`).
    DownRising {
        /// Successes so far.
        passed: u8,
        /// `max_retries`.
        of: u8,
    },
}

impl CheckState {
    /// Whether the member may be given traffic.
    #[inline]
    pub fn is_up(self) -> bool {
        matches!(self, Self::NoCheck | Self::Up | Self::UpFailing { .. })
    }

    fn pack(self) -> u32 {
        match self {
            Self::NoCheck => 0,
            Self::Up => 1,
            Self::UpFailing { passed, of } => 2 | u32::from(passed) << 8 | u32::from(of) << 16,
            Self::Down => 3,
            Self::DownRising { passed, of } => 4 | u32::from(passed) << 8 | u32::from(of) << 16,
        }
    }

    fn unpack(word: u32) -> Self {
        let [kind, passed, of, _] = word.to_le_bytes();
        match kind {
            1 => Self::Up,
            2 => Self::UpFailing { passed, of },
            3 => Self::Down,
            4 => Self::DownRising { passed, of },
            _ => Self::NoCheck,
        }
    }
}

impl fmt::Display for CheckState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCheck => f.write_str("no check"),
            Self::Up => f.write_str("UP"),
            Self::UpFailing { passed, of } => write!(f, "UP {passed}/{of}"),
            Self::Down => f.write_str("DOWN"),
            Self::DownRising { passed, of } => write!(f, "DOWN {passed}/{of}"),
        }
    }
}

impl FromStr for CheckState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || format!("not a check state: {text:?}");
        let fraction = |rest: &str| {
            let (passed, of) = rest.split_once('/').ok_or_else(unknown)?;
            Ok::<_, String>((passed.parse().map_err(|_| unknown())?, of.parse().map_err(|_| unknown())?))
        };
        match text {
            "no check" => Ok(Self::NoCheck),
            "UP" => Ok(Self::Up),
            "DOWN" => Ok(Self::Down),
            _ => {
                if let Some(rest) = text.strip_prefix("UP ") {
                    let (passed, of) = fraction(rest)?;
                    Ok(Self::UpFailing { passed, of })
                } else if let Some(rest) = text.strip_prefix("DOWN ") {
                    let (passed, of) = fraction(rest)?;
                    Ok(Self::DownRising { passed, of })
                } else {
                    Err(unknown())
                }
            }
        }
    }
}

impl Serialize for CheckState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CheckState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A [`CheckState`] that the control thread writes and workers read.
#[derive(Debug, Default)]
pub struct HealthCell(AtomicU32);

impl HealthCell {
    /// The present state.
    #[inline]
    pub fn get(&self) -> CheckState {
        CheckState::unpack(self.0.load(Ordering::Acquire))
    }

    /// Sets the state; true when that moved the member between up and down.
    pub fn set(&self, state: CheckState) -> bool {
        let before = CheckState::unpack(self.0.swap(state.pack(), Ordering::AcqRel));
        before.is_up() != state.is_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_word_round_trip() {
        for state in [
            CheckState::NoCheck,
            CheckState::Up,
            CheckState::UpFailing { passed: 1, of: 2 },
            CheckState::Down,
            CheckState::DownRising { passed: 9, of: 10 },
        ] {
            assert_eq!(state.to_string().parse(), Ok(state));
            assert_eq!(CheckState::unpack(state.pack()), state);
        }
        assert!("UP 1".parse::<CheckState>().is_err());
    }
}
