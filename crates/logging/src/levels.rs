//! Of which level lines have to be.

use std::str::FromStr;

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::filter::Targets;

/// Libraries whose warnings are of what clients do, each as often as a client likes: below [`LevelFilter::DEBUG`] their errors alone
/// are told.
const OF_CLIENTS: [&str; 1] = ["h2"];

/// Of which level lines have to be to be told: a level, or several with commas in between, of which those of the form `TARGET=LEVEL`
/// are for the lines of one library or module.
#[derive(Clone, Debug)]
pub struct Levels(Targets);

impl Levels {
    fn new(level: LevelFilter, targets: &[(&str, LevelFilter)]) -> Self {
        let mut all = Targets::new().with_default(level);
        if level < LevelFilter::DEBUG {
            all = all.with_targets(OF_CLIENTS.map(|target| (target, level.min(LevelFilter::ERROR))));
        }
        // What is said of a target counts in place of what was said of it before.
        Self(all.with_targets(targets.iter().copied()))
    }

    pub(crate) fn filter(self) -> Targets {
        self.0
    }
}

impl From<LevelFilter> for Levels {
    fn from(level: LevelFilter) -> Self {
        Self::new(level, &[])
    }
}

impl From<Level> for Levels {
    fn from(level: Level) -> Self {
        LevelFilter::from(level).into()
    }
}

impl FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = |text: &str| match text.parse() {
            // Nothing would be `error`.
            Ok(level) if !text.is_empty() => Ok(level),
            _ => Err(format!("{text:?} is none of error, warn, info, debug, trace, off")),
        };
        let (mut all, mut targets) = (None, Vec::new());
        for part in text.split(',') {
            match part.split_once('=') {
                Some((target, text)) if is_target(target) => targets.push((target, level(text)?)),
                Some(_) => return Err(format!("{part:?} names no target")),
                None if all.is_some() => return Err("there are two levels for all targets".to_owned()),
                None => all = Some(level(part)?),
            }
        }
        Ok(Self::new(all.unwrap_or(LevelFilter::INFO), &targets))
    }
}

/// Whether it is the path of a module, or of a library.
fn is_target(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "_:".contains(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["", "loud", "info,", "info,warn", "=warn", "h2=", "h2=loud", "h2==warn", "info;h2=warn"]
        {
            assert!(text.parse::<Levels>().is_err(), "{text}");
        }
    }
}
