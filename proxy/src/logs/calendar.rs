//! Dates as logs write them. The machine's time zone is asked for once a quarter of an hour, on whose beginnings alone offsets
//! change.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// A moment in microseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub i64);

impl Wall {
    /// This moment.
    pub fn now() -> Self {
        // A line is written in fewer instructions than std takes to tell one moment from another.
        let now = clock_gettime(ClockId::CLOCK_REALTIME);
        Self(now.map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000))
    }

    /// As in RFC 3339, UTC, to a tenth of a second.
    pub(crate) fn rfc3339(self) -> String {
        let (year, month, day) = civil(self.seconds().div_euclid(86_400));
        let second = self.seconds().rem_euclid(86_400);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let tenth = self.milliseconds() / 100;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{tenth}Z")
    }

    /// So much earlier.
    pub(crate) fn before(self, time: Duration) -> Self {
        let us = (time.as_secs() as i64).saturating_mul(1_000_000) + i64::from(time.subsec_micros());
        Self(self.0.saturating_sub(us))
    }

    /// So many milliseconds later, or earlier.
    pub(super) fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// Whole seconds.
    pub(super) fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The milliseconds of the second.
    pub(super) fn milliseconds(self) -> u32 {
        (self.0.rem_euclid(1_000_000) / 1000) as u32
    }
}

/// How local time is found: seconds east of Greenwich at a moment in seconds since 1970.
pub type Zone = fn(i64) -> i32;

/// Writes dates.
#[derive(Debug)]
pub struct Calendar {
    zone: Zone,
    /// The quarter of an hour that the offset holds for.
    quarter: i64,
    offset: i32,
    /// The second that was written last, of local time, as each form has it.
    clf: (i64, [u8; 20]),
    rfc3164: (i64, [u8; 16]),
}

impl Calendar {
    /// In this zone.
    pub fn new(zone: Zone) -> Self {
        let none = i64::MIN;
        Self { zone, quarter: none, offset: 0, clf: (none, [0; 20]), rfc3164: (none, [0; 16]) }
    }

    /// Seconds east of Greenwich.
    fn offset(&mut self, seconds: i64) -> i32 {
        let quarter = seconds.div_euclid(900);
        if quarter != self.quarter {
            (self.quarter, self.offset) = (quarter, (self.zone)(seconds));
        }
        self.offset
    }

    /// `28/Nov/2026:17:48:17.123`, local time: HAProxy's date2str_log.
    pub fn local_ms(&mut self, at: Wall) -> [u8; 24] {
        let mut text = *b"dd/Mmm/yyyy:hh:mm:ss.mmm";
        let local = at.seconds() + i64::from(self.offset(at.seconds()));
        if self.clf.0 != local {
            self.clf.0 = local;
            self.clf.1.copy_from_slice(b"dd/Mmm/yyyy:hh:mm:ss");
            clf(&mut self.clf.1, local);
        }
        text[..20].copy_from_slice(&self.clf.1);
        digits(&mut text[21..], at.milliseconds());
        text
    }

    /// `28/Nov/2026:17:48:17 +0100`, local time: HAProxy's localdate2str_log.
    pub fn local_zone(&mut self, at: Wall) -> [u8; 26] {
        let mut text = *b"dd/Mmm/yyyy:hh:mm:ss +hhmm";
        let offset = self.offset(at.seconds());
        clf(&mut text[..20], at.seconds() + i64::from(offset));
        if offset < 0 {
            text[21] = b'-';
        }
        let minutes = offset.unsigned_abs() / 60;
        digits(&mut text[22..24], minutes / 60);
        digits(&mut text[24..26], minutes % 60);
        text
    }

    /// `28/Nov/2026:17:48:17 +0000`: HAProxy's gmt2str_log.
    pub fn gmt(at: Wall) -> [u8; 26] {
        let mut text = *b"dd/Mmm/yyyy:hh:mm:ss +0000";
        clf(&mut text[..20], at.seconds());
        text
    }

    /// `Nov  8 17:48:17 `, local time: the head of a line by RFC 3164.
    pub fn rfc3164(&mut self, at: Wall) -> [u8; 16] {
        let seconds = at.seconds() + i64::from(self.offset(at.seconds()));
        if self.rfc3164.0 == seconds {
            return self.rfc3164.1;
        }
        let mut text = *b"Mmm dd hh:mm:ss ";
        let (_, month, day) = civil(seconds.div_euclid(86_400));
        text[..3].copy_from_slice(MONTHS[month as usize - 1]);
        digits(&mut text[4..6], day);
        if day < 10 {
            text[4] = b' ';
        }
        clock(&mut text[7..15], seconds);
        self.rfc3164 = (seconds, text);
        text
    }
}

/// `dd/Mmm/yyyy:hh:mm:ss`.
fn clf(text: &mut [u8], seconds: i64) {
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    digits(&mut text[..2], day);
    text[3..6].copy_from_slice(MONTHS[month as usize - 1]);
    digits(&mut text[7..11], year);
    clock(&mut text[12..20], seconds);
}

/// `hh:mm:ss`.
fn clock(text: &mut [u8], seconds: i64) {
    let of_day = seconds.rem_euclid(86_400) as u32;
    digits(&mut text[..2], of_day / 3600);
    digits(&mut text[3..5], of_day / 60 % 60);
    digits(&mut text[6..8], of_day % 60);
}

/// A number with as many digits as there is room for.
fn digits(text: &mut [u8], mut number: u32) {
    for place in text.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar; a year begins with March here, so that the day that
/// is not always there is its last.
fn civil(days: i64) -> (u32, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    #[test]
    fn moments_are_those_of_rfc_3339() {
        assert_eq!(Wall(0).rfc3339(), "1970-01-01T00:00:00.0Z");
        // date -u -d 2028-02-29T23:59:58 +%s
        let at = Wall(1_835_481_598_000_000).plus_ms(760);
        assert_eq!(at.rfc3339(), "2028-02-29T23:59:58.7Z");
        assert_eq!(at.before(Duration::from_secs(58)).rfc3339(), "2028-02-29T23:59:00.7Z");
    }

    #[test]
    fn dates_are_what_date_says() {
        // Ends of months and years, a leap day, a century that is none and one that is.
        for seconds in [
            0i64,
            951_782_399,
            951_782_400,
            951_868_800,
            1_078_012_799,
            1_709_164_800,
            1_709_251_199,
            1_798_761_599,
            1_798_761_600,
            4_107_542_399,
            4_107_542_400,
        ] {
            let at = Wall(seconds * 1_000_000 + 45_678);
            let date = |format: &str| {
                let out = Command::new("date")
                    .args(["-u", "-d", &format!("@{seconds}"), &format!("+{format}")])
                    .env("LC_ALL", "C")
                    .output();
                String::from_utf8(out.unwrap().stdout).unwrap().trim_end_matches('\n').to_owned()
            };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let mut calendar = Calendar::new(|_| 0);
            assert_eq!(text(&Calendar::gmt(at)), date("%d/%b/%Y:%H:%M:%S %z"));
            assert_eq!(text(&calendar.local_ms(at)), date("%d/%b/%Y:%H:%M:%S.045"));
            assert_eq!(text(&calendar.rfc3164(at)), date("%b %e %H:%M:%S "));
        }
    }

    #[test]
    fn an_offset_holds_for_a_quarter_of_an_hour() {
        // West of Greenwich before, and east of it from 1980-01-01T00:00:00Z on.
        let mut calendar = Calendar::new(|at| if at < 315_532_800 { -12_600 } else { 5 * 3600 + 2700 });
        let (before, after) = (Wall(315_532_799_999_999), Wall(315_532_800_000_000));
        assert_eq!(&calendar.local_zone(before), b"31/Dec/1979:20:29:59 -0330");
        assert_eq!(&calendar.local_ms(before), b"31/Dec/1979:20:29:59.999");
        assert_eq!(&calendar.local_zone(after), b"01/Jan/1980:05:45:00 +0545");
        assert_eq!(&calendar.rfc3164(after), b"Jan  1 05:45:00 ");
        assert_eq!(before.plus_ms(1), Wall(315_532_800_000_999));
    }
}
