//! What tests of virtual machines need of the host, and share.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use tempfile::TempDir;

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Why there are no virtual machines here, if so.
pub(crate) fn lacks() -> Option<String> {
    let programs = ["qemu-system-x86_64", "qemu-img", "genisoimage"];
    if let Some(missing) = programs.iter().find(|name| !is_there(name)) {
        return Some(format!("no {missing}"));
    }
    // QEMU runs as nobody, and `serve` starts only where that opens taps.
    let is_open = fs::metadata("/dev/net/tun").is_ok_and(|tun| tun.permissions().mode() & 0o006 == 0o006);
    (!is_open).then(|| "/dev/net/tun is not for everybody, as it usually is".to_owned())
}

/// A directory through which QEMU, which runs as nobody, gets to what is in it.
pub(crate) fn passage() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o711)).tempdir().unwrap()
}

/// An empty disk that everybody may read.
pub(crate) fn make_disk(image: &Path) {
    let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(image).arg("8M").status();
    assert!(made.unwrap().success());
    fs::set_permissions(image, fs::Permissions::from_mode(0o644)).unwrap();
}
