//! Process 1 of the initramfs.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{chdir, chroot, execv};

use crate::cmdline::Boot;
use crate::ext4;

/// How long a disk may take to show up. A cloud's disks are there at once; a slow one is an emulated controller.
const WAIT: Duration = Duration::from_secs(30);

/// How long a message stands before the reboot, so that the console's log has it and people can read it.
const READ: Duration = Duration::from_secs(10);

/// `MODULE_INIT_COMPRESSED_FILE` of include/uapi/linux/module.h: the kernel unpacks the module itself.
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// Boots, or says why not and reboots.
pub fn run() -> ! {
    let Err(reason) = boot();
    println!("\namphora-initramfs: CANNOT BOOT: {reason}");
    println!("amphora-initramfs: rebooting in {} s", READ.as_secs());
    sleep(READ);
    // Only process 1 is here, and process 1 may: this cannot fail. If it does, the kernel panics for want of an init.
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    panic!("reboot: {error}");
}

/// Mounts the root and becomes its init.
fn boot() -> Result<Infallible, String> {
    let pseudo = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    attach("proc", "/proc", "proc", pseudo, None)?;
    attach("sysfs", "/sys", "sysfs", pseudo, None)?;
    attach("devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID, Some("mode=0755"))?;
    let line = fs::read_to_string("/proc/cmdline").map_err(|error| format!("/proc/cmdline: {error}"))?;
    let boot = Boot::parse(&line).map_err(|fault| fault.to_string())?;
    let init = CString::new(boot.init.as_str()).map_err(|error| format!("init={}: {error}", boot.init))?;
    load_modules();
    let device = find(&boot.label)?;
    let mut flags = MsFlags::MS_NOATIME;
    if !boot.writable {
        flags |= MsFlags::MS_RDONLY;
    }
    attach(&device, "/root", "ext4", flags, None)?;
    switch_root(&init)
}

fn attach(source: &str, target: &str, kind: &str, flags: MsFlags, data: Option<&str>) -> Result<(), String> {
    mount(Some(source), target, Some(kind), flags, data)
        .map_err(|error| format!("mounting {source} on {target}: {error}"))
}

/// Loads the modules of the archive in its order. One that fails is told, and the root may be found without it.
fn load_modules() {
    let order = fs::read_to_string("/modules/order").unwrap_or_default();
    for name in order.lines() {
        let path = Path::new("/modules").join(name);
        // Debian's modules are compressed; those of another kernel may not be.
        let flags = if path.extension().is_some_and(|extension| extension == "ko") {
            ModuleInitFlags::empty()
        } else {
            COMPRESSED
        };
        let loaded =
            File::open(&path).and_then(|file| finit_module(file, c"", flags).map_err(io::Error::from));
        match loaded {
            Ok(()) => {}
            // Built in, or no such hardware: nothing that anybody has to see.
            Err(error)
                if matches!(
                    error.raw_os_error().map(Errno::from_raw),
                    Some(Errno::EEXIST | Errno::ENODEV)
                ) => {}
            Err(error) => println!("amphora-initramfs: module {name}: {error}"),
        }
    }
}

/// The device whose file system has the label, waiting for it.
fn find(label: &str) -> Result<String, String> {
    let deadline = Instant::now() + WAIT;
    loop {
        let disks = labels();
        let mut found = disks.iter().filter(|(_, has)| has.as_deref() == Some(label.as_bytes()));
        if let Some((device, _)) = found.next() {
            for (other, _) in found {
                println!("amphora-initramfs: {other} has the label {label} as well; {device} is taken");
            }
            return Ok(device.clone());
        }
        if Instant::now() > deadline {
            let seen: Vec<String> = disks
                .iter()
                .map(|(device, has)| match has {
                    Some(has) => format!("{device} (ext4, label \"{}\")", has.escape_ascii()),
                    None => format!("{device} (no ext4)"),
                })
                .collect();
            let seen = if seen.is_empty() { "none at all".to_owned() } else { seen.join(", ") };
            return Err(format!(
                "no file system with label {label} within {} s; block devices seen: {seen}",
                WAIT.as_secs()
            ));
        }
        sleep(Duration::from_millis(10));
    }
}

/// The block devices, by name, and the labels of those that hold an ext4 file system.
fn labels() -> Vec<(String, Option<Vec<u8>>)> {
    let mut names: Vec<String> = fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy()))
        .collect();
    names.sort();
    let label = |device: &str| {
        let mut superblock = [0; ext4::LENGTH];
        File::open(device).ok()?.read_exact_at(&mut superblock, ext4::OFFSET).ok()?;
        ext4::label(&superblock).map(<[u8]>::to_vec)
    };
    names.into_iter().map(|device| (label(&device), device)).map(|(label, device)| (device, label)).collect()
}

/// Makes `/root` the root, gives the initramfs's memory back, and becomes init.
fn switch_root(init: &CStr) -> Result<Infallible, String> {
    for name in ["dev", "proc", "sys"] {
        let target = format!("/root/{name}");
        attach_moved(&format!("/{name}"), &target)?;
    }
    // Of the memory that holds the initramfs only the running program's is still needed, which the kernel keeps until exec.
    let _ = fs::remove_dir_all("/modules");
    let _ = fs::remove_file("/init");
    chdir("/root").map_err(|error| format!("the root: {error}"))?;
    attach_moved(".", "/")?;
    chroot(".").map_err(|error| format!("chroot: {error}"))?;
    let Err(error) = execv(init, &[init]);
    Err(format!("{}: {error}", init.to_string_lossy()))
}

fn attach_moved(from: &str, to: &str) -> Result<(), String> {
    let none = None::<&str>;
    mount(Some(from), to, none, MsFlags::MS_MOVE, none)
        .map_err(|error| format!("moving {from} to {to}: {error}"))
}
