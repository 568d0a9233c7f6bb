//! The block device that is the config drive.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// The label that OpenStack gives it; `mkfs.vfat` has it in upper case.
const LABEL: &[u8] = b"config-2";

/// What is read of a device: up to the end of an ISO 9660 volume's first descriptor.
pub const HEAD: usize = 0x8800;

/// What the drive may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ISO 9660, Nova's default.
    Iso9660,
    /// FAT, for `config_drive_format = vfat`.
    Vfat,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            Self::Iso9660 => "iso9660",
            Self::Vfat => "vfat",
        }
    }
}

/// What a device is whose first bytes these are, if it is a config drive.
pub fn recognise(head: &[u8]) -> Option<FileSystem> {
    let labelled = |at: std::ops::Range<usize>| {
        head.get(at).is_some_and(|label| label.trim_ascii_end().eq_ignore_ascii_case(LABEL))
    };
    // ECMA-119 section 8.4: the primary volume descriptor is in sector 16.
    if head.get(0x8000..0x8006) == Some(&b"\x01CD001"[..]) && labelled(0x8028..0x8048) {
        return Some(FileSystem::Iso9660);
    }
    // The extended boot signature stands before the volume's id and label: at one place in FAT12 and FAT16, at another in FAT32.
    let fat =
        |signature: usize| head.get(signature) == Some(&0x29) && labelled(signature + 5..signature + 16);
    (head.get(510..512) == Some(&[0x55, 0xaa][..]) && (fat(0x26) || fat(0x42))).then_some(FileSystem::Vfat)
}

/// Whether udev is about to set devices up: it keeps this file for as long as it has any in its queue.
pub fn udev_is_busy() -> bool {
    Path::new("/run/udev/queue").exists()
}

/// Looks at every block device.
pub fn find() -> Option<(PathBuf, FileSystem)> {
    let mut names: Vec<_> =
        fs::read_dir("/sys/class/block").ok()?.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    names.into_iter().find_map(|name| {
        // A floppy drive takes seconds to say that it is empty; the others are the kernel's own.
        if ["fd", "loop", "ram", "zram"]
            .iter()
            .any(|kind| name.as_encoded_bytes().starts_with(kind.as_bytes()))
        {
            return None;
        }
        let device = Path::new("/dev").join(name);
        let mut head = Vec::new();
        File::open(&device).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head)).ok()?;
        recognise(&head).map(|kind| (device, kind))
    })
}

/// A drive that is mounted while this lives.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts it, for reading alone: no devices, no programs, nobody's privileges.
    ///
    /// # Errors
    /// As mount(2).
    pub fn new(device: &Path, kind: FileSystem, at: &Path) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some(device), at, Some(kind.name()), flags, None::<&str>)?;
        Ok(Self(at.to_owned()))
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What holds it is over soon, and the mount with it.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(size: usize, writes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; size];
        for (at, bytes) in writes {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn by_label_alone() {
        let iso: &[(usize, &[u8])] = &[(0x8000, b"\x01CD001"), (0x8028, b"config-2                        ")];
        assert_eq!(recognise(&head(HEAD, iso)), Some(FileSystem::Iso9660));
        assert_eq!(
            recognise(&head(HEAD, &[iso[0], (0x8028, b"CONFIG-2 ")])),
            None,
            "a label is filled up with spaces"
        );
        assert_eq!(recognise(&head(HEAD, &[iso[0], (0x8028, b"config-20                       ")])), None);
        assert_eq!(recognise(&head(HEAD, &[iso[1]])), None);
        for at in [0x26, 0x42] {
            let fat: &[(usize, &[u8])] = &[(510, &[0x55, 0xaa]), (at, &[0x29]), (at + 5, b"CONFIG-2   ")];
            assert_eq!(recognise(&head(512, fat)), Some(FileSystem::Vfat));
            assert_eq!(recognise(&head(512, &fat[1..])), None);
            assert_eq!(recognise(&head(512, &fat[..2])), None);
            assert_eq!(recognise(&head(512, &[fat[0], fat[2]])), None);
        }
        for size in [0, 511, 512, 0x8005] {
            assert_eq!(recognise(&head(size, &[])), None);
        }
    }
}
