//! Writes the initramfs of an installed kernel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cpio::Archive;
use crate::modules::{Missing, Modules};

/// Drivers of the disks that Nova gives an instance: virtio-blk, virtio-scsi, SATA, IDE, VMware's. NVMe and ext4 are in the kernel.
pub const MODULES: [&str; 7] =
    ["virtio_blk", "virtio_scsi", "sd_mod", "ahci", "ata_piix", "vmw_pvscsi", "ext4"];

/// Why an initramfs could not be written.
#[derive(Debug)]
pub enum Error {
    /// A file could not be read or written.
    File(PathBuf, io::Error),
    /// The kernel lacks a driver.
    Missing(Missing),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::File(path, error) => write!(f, "{}: {error}", path.display()),
            Error::Missing(missing) => missing.fmt(f),
        }
    }
}

/// Writes the initramfs of kernel `version` of the system at `root` to `output`, whole or not at all: this program, [`MODULES`]
/// and `more`. Gives what it holds, for people.
///
/// # Errors
/// A file that cannot be read or written, a module that the kernel does not have.
pub fn write(root: &Path, version: &str, output: &Path, more: &[String]) -> Result<String, Error> {
    let directory = root.join("lib/modules").join(version);
    let text = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).map_err(|error| Error::File(path, error))
    };
    let (dep, builtin) = (text("modules.dep")?, text("modules.builtin")?);
    let modules = Modules::parse(&dep, &builtin);
    let mut order = Vec::new();
    for module in MODULES.into_iter().chain(more.iter().map(String::as_str)) {
        modules.load(module, &mut order).map_err(Error::Missing)?;
    }
    let read = |path: PathBuf| fs::read(&path).map_err(|error| Error::File(path, error));
    let mut archive = Archive::default();
    for name in ["dev", "modules", "proc", "root", "sys"] {
        archive.directory(name);
    }
    archive.file("init", 0o755, &read(PathBuf::from("/proc/self/exe"))?);
    let mut list = String::new();
    for file in &order {
        let name = file.rsplit('/').next().unwrap_or(file);
        archive.file(&format!("modules/{name}"), 0o644, &read(directory.join(file))?);
        list.push_str(name);
        list.push('\n');
    }
    archive.file("modules/order", 0o644, list.as_bytes());
    let bytes = archive.finish();
    let partial = output.with_extension("new");
    fs::write(&partial, &bytes)
        .and_then(|()| fs::File::open(&partial)?.sync_all())
        .and_then(|()| fs::rename(&partial, output))
        .map_err(|error| Error::File(output.to_owned(), error))?;
    Ok(format!("{} KiB, {}", bytes.len() / 1024, list.trim_end().replace('\n', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_the_program_and_the_modules_in_order() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("lib/modules/6.12-test");
        fs::create_dir_all(directory.join("kernel")).unwrap();
        let names =
            ["virtio_blk", "virtio_scsi", "sd_mod", "ahci", "ata_piix", "vmw_pvscsi", "scsi_mod", "dummy"];
        let dep: String = names
            .map(|name| {
                fs::write(directory.join(format!("kernel/{name}.ko.xz")), format!("content of {name}"))
                    .unwrap();
                let needs = if name == "sd_mod" { " kernel/scsi_mod.ko.xz" } else { "" };
                format!("kernel/{name}.ko.xz:{needs}\n")
            })
            .concat();
        fs::write(directory.join("modules.dep"), dep).unwrap();
        fs::write(directory.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let output = root.path().join("initrd.img");
        write(root.path(), "6.12-test", &output, &["dummy".to_owned()]).unwrap();
        let first = fs::read(&output).unwrap();
        let order = "virtio_blk.ko.xz\nvirtio_scsi.ko.xz\nscsi_mod.ko.xz\nsd_mod.ko.xz\nahci.ko.xz\nata_piix.ko.xz\nvmw_pvscsi.ko.xz\ndummy.ko.xz\n";
        assert!(first.windows(order.len()).any(|window| window == order.as_bytes()));
        write(root.path(), "6.12-test", &output, &["dummy".to_owned()]).unwrap();
        assert!(fs::read(&output).unwrap() == first, "the same files give the same bytes");

        let refused = write(root.path(), "6.12-test", &output, &["zfs".to_owned()]).unwrap_err();
        assert_eq!(refused.to_string(), "the kernel has no module zfs");
        assert!(fs::read(&output).unwrap() == first, "what was there stays");
    }
}
