//! The directories that the agent makes, into which programs of other users look.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use nix::unistd::geteuid;

/// Makes a directory, and those above it, where they are missing. An agent that is root lets everybody through those that it
/// makes, whatever its umask: the proxy and the VRRP daemon are users of their own. The files in them have their own modes.
///
/// # Errors
/// As the file system says.
#[expect(clippy::disallowed_methods, reason = "at the start, before anybody is served")]
pub fn make(directory: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    let missing: Vec<_> = missing.collect();
    fs::create_dir_all(directory)?;
    if geteuid().is_root() {
        for made in missing {
            fs::set_permissions(made, Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}
