//! What of the network namespace's settings forwarding depends on, opened while that is allowed.

#![expect(clippy::disallowed_methods, reason = "procfs answers from memory")]

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// Whether the kernel follows associations of SCTP.
pub(super) fn follows_associations() -> bool {
    Path::new("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established").exists()
}

fn read(mut file: &File) -> io::Result<String> {
    let mut value = [0; 32];
    file.seek(SeekFrom::Start(0))?;
    let length = file.read(&mut value)?;
    Ok(String::from_utf8_lossy(value.get(..length).unwrap_or_default()).trim().to_owned())
}

/// A setting without which nothing is forwarded.
#[derive(Debug)]
pub(super) struct Switch {
    name: &'static str,
    file: io::Result<File>,
}

impl Switch {
    pub(super) fn open(name: &'static str) -> Self {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let file = OpenOptions::new().read(true).write(true).open(&path).or_else(|_| File::open(&path));
        Self { name, file }
    }

    /// Turns it on, if it is not: whether that was to be done.
    pub(super) fn turn_on(&self) -> Result<bool, String> {
        let name = self.name;
        let file = self.file.as_ref().map_err(|error| format!("{name} cannot be read: {error}"))?;
        let turn = |mut file: &File| -> io::Result<bool> {
            if read(file)? != "0" {
                return Ok(false);
            }
            file.seek(SeekFrom::Start(0))?;
            file.write_all(b"1\n")?;
            Ok(true)
        };
        let turned = turn(file).map_err(|error| format!("{name} is 0, and cannot be set: {error}"))?;
        if turned {
            tracing::info!("{name} is on: datagrams are forwarded");
        }
        Ok(turned)
    }
}

/// The flows that there are, and how many there may be: what is beyond is dropped, of whatever kind.
#[derive(Debug)]
pub(super) struct Room {
    flows: io::Result<File>,
    most: io::Result<File>,
    /// It was told that there is little room.
    told: bool,
}

impl Room {
    /// To be called where conntrack has its settings.
    pub(super) fn open() -> Self {
        let open = |name: &str| File::open(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
        Self { flows: open("count"), most: open("max"), told: false }
    }

    /// Warns once when little room is left, until there is enough again.
    pub(super) fn look(&mut self) {
        let number = |file: &io::Result<File>| read(file.as_ref().ok()?).ok()?.parse::<u64>().ok();
        let Some((flows, most)) = number(&self.flows).zip(number(&self.most)) else { return };
        match is_scarce(flows, most, self.told) {
            true if !self.told => tracing::warn!(
                "the kernel follows {flows} flows of at most {most} (nf_conntrack_max): new ones are dropped beyond"
            ),
            false if self.told => tracing::info!("the kernel follows {flows} flows of at most {most}"),
            _ => {}
        }
        self.told = is_scarce(flows, most, self.told);
    }
}

/// From nine tenths on, until it is less than eight. None of 0 is too many.
fn is_scarce(flows: u64, most: u64, already: bool) -> bool {
    most > 0 && flows.saturating_mul(10) >= most.saturating_mul(if already { 8 } else { 9 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_scarce_from_nine_tenths_until_less_than_eight() {
        let scarce = |flows, already| is_scarce(flows, 1000, already);
        assert!(!scarce(899, false) && scarce(900, false));
        assert!(scarce(800, true) && !scarce(799, true));
        assert!(!is_scarce(1_000_000, 0, false), "0 is no limit");
    }
}
