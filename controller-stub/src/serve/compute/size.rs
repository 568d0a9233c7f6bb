//! How large a machine is.

/// What a flavor's `compute_flavor` says, as `memory=2048,cpus=2`; what it does not say is the configuration's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
}

impl Size {
    /// MiB that a machine may have: the image needs the least of them.
    pub const MEMORY: std::ops::RangeInclusive<u32> = 256..=1_048_576;

    /// Processors that it may have.
    pub const CPUS: std::ops::RangeInclusive<u32> = 1..=255;

    /// Reads it; what is not said stays.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(self, text: &str) -> Result<Self, String> {
        let mut size = self;
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let (field, bounds) = match name.trim() {
                "memory" => (&mut size.memory, Self::MEMORY),
                "cpus" => (&mut size.cpus, Self::CPUS),
                _ => return Err(format!("not memory=MIB or cpus=N: {word:?}")),
            };
            let value = value.trim().parse().ok().filter(|value| bounds.contains(value));
            *field =
                value.ok_or_else(|| format!("not from {} to {}: {word:?}", bounds.start(), bounds.end()))?;
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavor_says_what_is_not_as_usual() {
        let usual = Size { memory: 1024, cpus: 1 };
        assert_eq!(usual.parse(""), Ok(usual));
        assert_eq!(usual.parse("cpus=4"), Ok(Size { memory: 1024, cpus: 4 }));
        assert_eq!(usual.parse("memory = 2048, cpus=2"), Ok(Size { memory: 2048, cpus: 2 }));
        for wrong in ["2048", "memory", "memory=255", "cpus=0", "cpus=256", "cpus=x", "disk=1"] {
            assert!(usual.parse(wrong).is_err(), "{wrong}");
        }
    }
}
