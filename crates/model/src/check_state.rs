//! What health checks say of a member.

use std::{fmt, str::FromStr};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for state in [
            CheckState::NoCheck,
            CheckState::Up,
            CheckState::UpFailing { passed: 1, of: 2 },
            CheckState::Down,
            CheckState::DownRising { passed: 9, of: 10 },
        ] {
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        assert!("UP 1".parse::<CheckState>().is_err());
    }
}
