//! A whole boot, in its three parts: before the network there is the drive; after it, where there was no drive, the metadata
//! service; last, the commands of user data.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    apply::Changes,
    command, drive,
    network::{self, Mac},
    plan::Plan,
    remarks::{Remark, Remarks},
    root::Root,
    source::{Directory, Service},
};

/// How long a drive may take to show up once no device is being set up: it is there when the kernel has looked at its devices, unless
/// that is slow.
const DRIVE_WAIT: Duration = Duration::from_secs(15);

/// How long it may take in all, on a machine that gets so little of its processor that devices are set up for minutes.
const DRIVE_WAIT_AT_MOST: Duration = Duration::from_secs(120);

/// How long the metadata service may take, with the network before it: of a machine that has never been told anything, which without
/// it is of no use, and of one that has.
const SERVICE_WAIT: Duration = Duration::from_secs(90);
const SERVICE_WAIT_AGAIN: Duration = Duration::from_secs(10);

/// How often it is looked again.
const DRIVE_STEP: Duration = Duration::from_millis(50);
const SERVICE_STEP: Duration = Duration::from_millis(500);

/// The instance whose plan has been carried out.
const STAMP: &str = "/var/lib/amphora-first-boot/instance-id";

/// What has come about of a plan of which something has not: the instance, and a line for each.
const PARTLY: &str = "/var/lib/amphora-first-boot/partly";

/// The most of it: 512 paths of files, 512 keys, and the rest.
const MAX_PARTLY: u64 = 16 << 20;

/// There while the metadata service is to be asked.
const NO_DRIVE: &str = "/run/amphora-first-boot/no-drive";

/// Where the drive is mounted.
const MOUNT_POINT: &str = "/run/amphora-first-boot/drive";

/// Where it is read from and written to.
#[derive(Clone, Debug)]
pub struct Place {
    /// What stands for `/`.
    pub root: PathBuf,
    /// A drive that is mounted already, for tests and containers.
    pub drive: Option<PathBuf>,
}

impl Place {
    /// The machine itself, whose name and interfaces are the kernel's.
    fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    fn open(&self) -> Result<Root, String> {
        // What is written has the permissions that it is to have.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        Root::open(&self.root).map_err(|e| format!("{}: {e}", self.root.display()))
    }
}

/// Writes what is new of the log: with syslog's priorities where the journal takes it.
pub fn tell(remarks: &mut Remarks) {
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    for Remark { severity, text } in remarks.untold() {
        if to_journal {
            eprintln!("<{}>{text}", *severity as u8)
        } else {
            eprintln!("amphora-first-boot: {text}")
        }
    }
}

/// Before the network: what the drive says, or a network that may lead to the metadata service.
///
/// # Errors
/// When something that was asked for did not come about. Without a drive that is so only where it was named.
pub fn boot(place: &Place, remarks: &mut Remarks) -> Result<(), String> {
    let root = place.open()?;
    let plan = match &place.drive {
        Some(path) => Some(read(path, remarks)?),
        None if place.is_machine() => from_drive(remarks),
        None => return Err("which drive? --root needs --drive".to_owned()),
    };
    tell(remarks);
    let Some(plan) = plan else {
        let mut changes = Changes::new(&root, remarks);
        changes.private(NO_DRIVE, "", "no config drive: the metadata service will be asked");
        fallback(&mut changes);
        return Ok(());
    };
    root.remove(NO_DRIVE).map_err(|e| format!("{NO_DRIVE}: {e}"))?;
    let has_network = plan.network.as_ref().is_some_and(|network| !network.files.is_empty());
    let done = carry_out(place, &root, &plan, remarks);
    if !has_network && place.is_machine() {
        remarks.error("the drive names no network that can be set up");
        fallback(&mut Changes::new(&root, remarks));
    }
    done
}

/// After the network, where there was no drive.
///
/// # Errors
/// When the service does not answer in time, or as in [`boot`].
pub fn metadata(place: &Place, mut service: Service, remarks: &mut Remarks) -> Result<(), String> {
    let root = place.open()?;
    let known = root.read(STAMP, 4096).ok().flatten().is_some();
    remarks.info("asking the metadata service");
    tell(remarks);
    let deadline = Instant::now() + if known { SERVICE_WAIT_AGAIN } else { SERVICE_WAIT };
    let mut plan = loop {
        // What is said of a try that fails is said again by the next.
        let mut said = Remarks::default();
        match Plan::read(&mut service, &mut said) {
            // A service that is busy may answer for one file and not for another.
            Ok(plan) if plan.unread && Instant::now() < deadline => thread::sleep(SERVICE_STEP),
            Ok(plan) => {
                remarks.append(said);
                break plan;
            }
            Err(error) if Instant::now() >= deadline => return Err(format!("the metadata service: {error}")),
            Err(_) => thread::sleep(SERVICE_STEP),
        }
    };
    if plan.network.take().is_some() {
        remarks.info("network data are not carried out: the network by which they came stays");
    }
    let done = carry_out(place, &root, &plan, remarks);
    root.remove(NO_DRIVE).map_err(|e| format!("{NO_DRIVE}: {e}"))?;
    done
}

/// Last of all.
///
/// # Errors
/// As [`command::run`].
pub fn commands(place: &Place, remarks: &mut Remarks) -> Result<(), String> {
    let root = place.open()?;
    command::run(&root, &place.root, command::MOST, remarks)
}

/// A drive that shows up in time and can be read.
fn from_drive(remarks: &mut Remarks) -> Option<Plan> {
    let began = Instant::now();
    let mut busy = began;
    let (device, kind) = loop {
        if drive::udev_is_busy() {
            busy = Instant::now();
        }
        match drive::find() {
            Some(found) => break found,
            None if Instant::now() >= give_up(began, busy) => return None,
            None => thread::sleep(DRIVE_STEP),
        }
    };
    remarks.info(format!("config drive {}", device.display()));
    let mounted = drive::Mounted::new(&device, kind, Path::new(MOUNT_POINT)).map_err(|e| e.to_string());
    match mounted.and_then(|mounted| read(mounted.path(), remarks)) {
        Ok(plan) => Some(plan),
        Err(error) => {
            remarks.error(format!("{}: {error}", device.display()));
            None
        }
    }
}

/// Until when a drive is waited for since `began`, when devices were being set up at `busy` last.
fn give_up(began: Instant, busy: Instant) -> Instant {
    (busy + DRIVE_WAIT).min(began + DRIVE_WAIT_AT_MOST)
}

fn read(path: &Path, remarks: &mut Remarks) -> Result<Plan, String> {
    let mut directory = Directory::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Plan::read(&mut directory, remarks)
}

fn carry_out(place: &Place, root: &Root, plan: &Plan, remarks: &mut Remarks) -> Result<(), String> {
    let stamp = root.read(STAMP, 4096).ok().flatten();
    let is_known = stamp.is_some_and(|stamp| stamp.trim_ascii() == plan.instance.as_bytes());
    let mut changes = Changes::new(root, remarks);
    if let Some(name) = &plan.host_name {
        changes.host_name(name);
        if place.is_machine() {
            changes.kernel_host_name(name);
        }
    }
    if let Some(network) = &plan.network {
        changes.network(network);
    }
    if !is_known {
        once(root, plan, &mut changes);
    }
    match changes.failures() {
        0 if plan.unread => Err("not all of it could be read".to_owned()),
        0 => Ok(()),
        failures => Err(format!("{failures} of what was asked for did not come about")),
    }
}

/// What is for a machine's first boot. Another boot tries again what has failed, and that alone: meanwhile a certificate may have been
/// renewed, and commands have been run.
fn once(root: &Root, plan: &Plan, changes: &mut Changes<'_>) {
    let known = root.read(PARTLY, MAX_PARTLY).ok().flatten().unwrap_or_default();
    let known = String::from_utf8_lossy(&known);
    let mut lines = known.lines();
    let known: BTreeSet<&str> =
        if lines.next() == Some(&plan.instance) { lines.collect() } else { BTreeSet::new() };
    let mut done: BTreeMap<String, bool> = BTreeMap::new();
    for file in &plan.files {
        let line = format!("file {}", file.path);
        // Of several for one path all are done, or none is.
        let came = known.contains(line.as_str()) || changes.file(file);
        *done.entry(line).or_insert(true) &= came;
    }
    let keys: Vec<String> =
        plan.keys.iter().filter(|key| !known.contains(format!("key {key}").as_str())).cloned().collect();
    let came = keys.is_empty() || changes.keys(&keys);
    done.extend(plan.keys.iter().map(|key| (format!("key {key}"), came)));
    if let Some(zone) = &plan.zone {
        done.insert("zone".to_owned(), changes.zone(zone));
    }
    if let Some(script) = &plan.script {
        let mut come =
            || changes.private(command::SCRIPT, script, "the commands of user data wait for the agent");
        done.insert("commands".to_owned(), known.contains("commands") || come());
    }
    if !plan.unread && done.values().all(|came| *came) {
        let noted =
            changes.private(STAMP, &format!("{}\n", plan.instance), &format!("instance {}", plan.instance));
        if noted && let Err(error) = root.remove(PARTLY) {
            changes.failed(&format!("{PARTLY}: {error}"));
        }
    } else {
        let mut text = format!("{}\n", plan.instance);
        done.into_iter().filter(|(_, came)| *came).for_each(|(line, _)| text += &format!("{line}\n"));
        changes.private(PARTLY, &text, "the next boot tries the rest again");
    }
}

/// The first interface, by DHCP and router advertisements: where a cloud has its metadata service.
fn fallback(changes: &mut Changes<'_>) {
    match interfaces(Path::new("/sys/class/net")) {
        Ok(macs) => match macs.first() {
            Some(mac) => changes.fallback(&network::fallback(*mac)),
            None => changes.failed("a network: there is no interface"),
        },
        Err(error) => changes.failed(&format!("a network: {error}")),
    }
}

/// The hardware addresses of those that are devices, in the order of their coming.
fn interfaces(directory: &Path) -> io::Result<Vec<Mac>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let text = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        let is_ethernet_device = path.join("device").exists() && text("type").trim() == "1";
        let index: Option<u32> = text("ifindex").trim().parse().ok();
        if let Some((index, mac)) =
            index.zip(Mac::parse(text("address").trim())).filter(|_| is_ethernet_device)
        {
            found.push((index, mac));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, mac)| mac).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_drive_is_waited_for_while_devices_are_set_up() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(give_up(began, began), after(15), "of a machine without a drive");
        assert_eq!(give_up(began, after(70)), after(85), "of one that is slow");
        assert_eq!(give_up(began, after(1000)), after(120), "of one whose devices never come to rest");
    }

    #[test]
    fn the_first_interface_is_a_device() {
        let directory = tempfile::tempdir().unwrap();
        for (name, index, kind, address, device) in [
            ("lo", "1", "772", "00:00:00:00:00:00", false),
            ("dummy0", "2", "1", "02:00:00:00:00:01", false),
            ("ens4", "4", "1", "fa:16:3e:00:00:04", true),
            ("ens3", "3", "1", "fa:16:3e:00:00:03", true),
            ("ib0", "5", "32", "fa:16:3e:00:00:05", true),
        ] {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            for (file, text) in [("ifindex", index), ("type", kind), ("address", address)] {
                fs::write(path.join(file), format!("{text}\n")).unwrap();
            }
            if device {
                fs::create_dir(path.join("device")).unwrap();
            }
        }
        let expected = ["fa:16:3e:00:00:03", "fa:16:3e:00:00:04"].map(|mac| Mac::parse(mac).unwrap());
        assert_eq!(interfaces(directory.path()).unwrap(), expected);
    }
}
