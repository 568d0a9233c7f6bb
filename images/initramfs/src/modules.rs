//! Which files a kernel module needs: depmod's `modules.dep` and `modules.builtin`.

use std::collections::HashMap;
use std::fmt;

/// The modules of a kernel, by their names with `_` for `-`, as the kernel calls them.
#[derive(Debug)]
pub struct Modules<'a> {
    /// Path of a module, and the paths of what it needs, nearest first.
    files: HashMap<String, (&'a str, Vec<&'a str>)>,
    builtin: Vec<String>,
}

/// A module that the kernel does not have.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel has no module {}", self.0)
    }
}

impl<'a> Modules<'a> {
    /// Reads `modules.dep` and `modules.builtin`. Lines that are no entry are passed over, as depmod's readers do.
    pub fn parse(dep: &'a str, builtin: &str) -> Self {
        let files = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| (name(path), (path, needs.split_ascii_whitespace().collect())))
            .collect();
        Self { files, builtin: builtin.lines().map(name).collect() }
    }

    /// Adds to `order` the files of a module, what it needs first, each once. One that is built in needs none.
    ///
    /// # Errors
    /// A module that is neither there nor built in.
    pub fn load(&self, module: &str, order: &mut Vec<&'a str>) -> Result<(), Missing> {
        let wanted = name(module);
        let Some((path, needs)) = self.files.get(&wanted) else {
            return if self.builtin.contains(&wanted) { Ok(()) } else { Err(Missing(module.to_owned())) };
        };
        for file in needs.iter().rev().chain([path]) {
            if !order.contains(file) {
                order.push(file);
            }
        }
        Ok(())
    }
}

fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEP: &str = "kernel/drivers/scsi/sd_mod.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz kernel/drivers/scsi/scsi_common.ko.xz\n\
        kernel/drivers/scsi/virtio_scsi.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz kernel/drivers/scsi/scsi_common.ko.xz\n\
        kernel/drivers/block/virtio_blk.ko.xz:\n\
        kernel/fs/nls/nls_iso8859-1.ko:\n";

    #[test]
    fn what_a_module_needs_comes_first_and_once() {
        let modules = Modules::parse(DEP, "kernel/fs/ext4/ext4.ko\n");
        let mut order = Vec::new();
        for module in ["sd_mod", "virtio_blk", "ext4", "virtio-scsi", "nls_iso8859_1"] {
            modules.load(module, &mut order).unwrap();
        }
        let names: Vec<String> = order.iter().map(|path| name(path)).collect();
        assert_eq!(
            names,
            ["scsi_common", "scsi_mod", "sd_mod", "virtio_blk", "virtio_scsi", "nls_iso8859_1"]
        );
        assert_eq!(modules.load("zfs", &mut order), Err(Missing("zfs".to_owned())));
    }

    proptest! {
        #[test]
        fn no_file_is_too_strange(dep in any::<String>(), builtin in any::<String>(), module in any::<String>()) {
            let _ = Modules::parse(&dep, &builtin).load(&module, &mut Vec::new());
        }
    }
}
