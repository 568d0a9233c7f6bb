//! Points in time, as certificates write them.

use crate::der::{Element, tag};

/// `Time` (RFC 5280 section 4.1.2.5): `YYMMDDHHMMSSZ` as UTCTime, `YYYYMMDDHHMMSSZ` as GeneralizedTime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<'a> {
    /// Whether it is a GeneralizedTime, with four digits of year.
    pub generalized: bool,
    /// The text, as it is there.
    pub text: &'a [u8],
}

impl<'a> Time<'a> {
    pub(crate) fn read(element: Element<'a>) -> Option<Self> {
        match element.tag {
            tag::UTC_TIME => Some(Self { generalized: false, text: element.content }),
            tag::GENERALIZED_TIME => Some(Self { generalized: true, text: element.content }),
            _ => None,
        }
    }

    /// Seconds since 1970. `None` for what is not a time in the form of RFC 5280.
    pub fn unix(&self) -> Option<i64> {
        let digits = self.text.strip_suffix(b"Z")?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number = |part: &[u8]| part.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
        let (year, rest) = match (self.generalized, digits.len()) {
            (false, 12) => {
                let year = number(&digits[..2]);
                (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
            }
            (true, 14) => (number(&digits[..4]), &digits[4..]),
            _ => return None,
        };
        let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(&rest[at..at + 2]));
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        // Days since 1970 in the proleptic Gregorian calendar, whose years are counted from March here.
        let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days =
            365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day
                - 1
                - 719_468;
        Some(((days * 24 + hour) * 60 + minute) * 60 + second)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ::time::{Duration, OffsetDateTime};
    use proptest::prelude::*;

    use super::*;

    fn at(generalized: bool, text: &str) -> Option<i64> {
        Time { generalized, text: text.as_bytes() }.unix()
    }

    #[test]
    fn moments() {
        assert_eq!(at(false, "700101000000Z"), Some(0));
        assert_eq!(at(false, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(at(false, "500101000000Z"), Some(-631_152_000));
        assert_eq!(at(true, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(at(true, "99991231235959Z"), Some(253_402_300_799));
        assert_eq!(at(true, "20240229000000Z"), Some(1_709_164_800));
        for text in
            ["", "Z", "700101000000", "701301000000Z", "7001010000Z", "700101246060Z", "70010100000\u{e9}Z"]
        {
            assert_eq!(at(false, text), None, "{text}");
        }
        assert_eq!(at(true, "21000229000000Z"), None);
        assert_eq!(at(true, "20240230000000Z"), None);
    }

    proptest! {
        #[test]
        fn every_second_is_what_the_calendar_says(seconds in -62_167_219_200i64..253_402_300_800) {
            let moment = OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
            let text = format!(
                "{:04}{:02}{:02}{:02}{:02}{:02}Z",
                moment.year(), u8::from(moment.month()), moment.day(),
                moment.hour(), moment.minute(), moment.second(),
            );
            prop_assert_eq!(at(true, &text), Some(seconds));
        }
    }
}
