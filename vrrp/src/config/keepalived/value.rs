//! The values of a statement.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use amphora_model::Faults;
use ipnet::IpNet;

use super::lexer::Statement;
use crate::config::{InterfaceName, Table};

/// What is wrong with a value.
pub(super) type Reason = String;

impl Statement {
    /// The only value, which `read` understands.
    pub(super) fn value<T>(
        &self,
        faults: &Faults,
        read: impl FnOnce(&str) -> Result<T, Reason>,
    ) -> Option<T> {
        self.without_block(faults)?;
        match self.values() {
            [value] => read(value).map_err(|reason| self.fault(faults, reason)).ok(),
            [] => {
                self.fault(faults, "needs a value");
                None
            }
            _ => {
                self.fault(faults, "has more than one value");
                None
            }
        }
    }

    /// Neither a value nor a block.
    pub(super) fn flag(&self, faults: &Faults) -> Option<()> {
        self.without_block(faults)?;
        if !self.values().is_empty() {
            self.fault(faults, format_args!("{} takes no value", self.keyword()));
            return None;
        }
        Some(())
    }

    /// The statements in the block, which must be there, and no value.
    pub(super) fn block<'s>(&'s self, faults: &Faults) -> Option<&'s [Self]> {
        if !self.values().is_empty() {
            self.fault(faults, format_args!("{} takes no value before its block", self.keyword()));
        }
        self.body(faults)
    }

    /// The statements in the block, which must be there.
    pub(super) fn body<'s>(&'s self, faults: &Faults) -> Option<&'s [Self]> {
        if self.block.is_none() {
            self.fault(faults, format_args!("{} needs a block in braces", self.keyword()));
        }
        self.block.as_deref()
    }

    /// Not a block.
    pub(super) fn without_block(&self, faults: &Faults) -> Option<()> {
        if self.block.is_some() {
            self.fault(faults, "has no block");
            return None;
        }
        Some(())
    }
}

/// A whole number within bounds, in decimal digits.
pub(super) fn number(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, Reason> {
    move |text| {
        let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && range.contains(number));
        number.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A number of times, for which keepalived still takes 0 to mean 1.
pub(super) fn times(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, Reason> {
    let number = number(0..=*range.end());
    move |text| number(text).map(|times| times.max(1))
}

/// Whole seconds within bounds.
pub(super) fn seconds(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<Duration, Reason> {
    let number = number(range);
    move |text| number(text).map(|seconds| Duration::from_secs(seconds.into()))
}

/// Seconds with up to six decimals, as microseconds.
pub(super) fn decimal_seconds(text: &str) -> Option<u64> {
    const DECIMALS: usize = 6;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > DECIMALS {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<DECIMALS$}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction)
}

/// A number of the kernel's, in decimal digits or in hexadecimal ones behind `0x`.
fn kernel_number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        // The real one takes it for octal.
        None if text.len() > 1 && text.starts_with('0') => return None,
        None => (text, 10),
    };
    digits
        .starts_with(|first: char| first.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(digits, radix).ok())?
}

/// A priority or a metric.
pub(super) fn metric(text: &str) -> Result<u32, Reason> {
    kernel_number(text).ok_or_else(|| format!("{text:?} is not a number from 0 to {}", u32::MAX))
}

/// A routing table. Names of iproute2's files are another system's business.
pub(super) fn table(text: &str) -> Result<Table, Reason> {
    match text {
        "main" => Ok(Table::MAIN),
        "local" => Ok(Table(255)),
        "default" => Ok(Table(253)),
        _ => kernel_number(text)
            .filter(|table| *table > 0)
            .map(Table)
            .ok_or_else(|| format!("{text:?} is not a table: main, local, default or 1 to {}", u32::MAX)),
    }
}

/// An address.
pub(super) fn address(text: &str) -> Result<IpAddr, Reason> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

/// An address with or without the length of its prefix; without, it is the whole address.
pub(super) fn net(text: &str) -> Result<IpNet, Reason> {
    let (host, length) = match text.split_once('/') {
        Some((host, length)) => (host, Some(length)),
        None => (text, None),
    };
    let host = address(host)?;
    let full = if host.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(length) => {
            number(0..=full)(length).map_err(|reason| format!("the length of the prefix {reason}"))?
        }
        None => full,
    };
    let length = u8::try_from(length).map_err(|_| format!("{length} is too long"))?;
    IpNet::new(host, length).map_err(|error| format!("{text:?}: {error}"))
}

/// The name of an interface.
pub(super) fn interface(text: &str) -> Result<InterfaceName, Reason> {
    InterfaceName::new(text).ok_or_else(|| format!("{text:?} is not the name of an interface"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_within_bounds() {
        assert_eq!(number(1..=255)("255"), Ok(255));
        for text in ["", "0", "256", "-1", "+1", " 1", "1.0", "99999999999", "0x1"] {
            assert!(number(1..=255)(text).is_err(), "{text:?}");
        }
        assert_eq!(times(1..=10)("0"), Ok(1));
        assert!(times(1..=10)("11").is_err());
    }

    #[test]
    fn seconds_have_up_to_six_decimals() {
        assert_eq!(decimal_seconds("1"), Some(1_000_000));
        assert_eq!(decimal_seconds("0.01"), Some(10_000));
        assert_eq!(decimal_seconds("40.95"), Some(40_950_000));
        assert_eq!(decimal_seconds("1."), Some(1_000_000));
        assert_eq!(decimal_seconds("0.000001"), Some(1));
        for text in ["", ".", ".5", "-1", "1.0000001", "1e3", "1,5", "18446744073709551615"] {
            assert_eq!(decimal_seconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn tables_have_numbers_and_three_names() {
        assert_eq!(table("1"), Ok(Table(1)));
        assert_eq!(table("0xff"), Ok(Table(255)));
        assert_eq!(table("main"), Ok(Table::MAIN));
        for text in ["0", "", "0x", "010", "x", "4294967296", "+1", "0x+1"] {
            assert!(table(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_net_keeps_its_host() {
        assert_eq!(net("10.0.0.5/24").map(|net| net.to_string()), Ok("10.0.0.5/24".to_owned()));
        assert_eq!(net("10.0.0.5").map(|net| net.to_string()), Ok("10.0.0.5/32".to_owned()));
        assert_eq!(net("fd77::1").map(|net| net.to_string()), Ok("fd77::1/128".to_owned()));
        for text in ["10.0.0.5/33", "10.0.0.5/", "10.0.0/24", "fd77::1/129", "10.0.0.5/+8", "fe80::1%eth0"] {
            assert!(net(text).is_err(), "{text:?}");
        }
    }
}
