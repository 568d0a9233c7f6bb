//! The initramfs of the amphora image: one static program, which is two things.
//!
//! As process 1 of the initramfs it loads the drivers of disks, finds the root file system by its label, mounts it and hands
//! over to its init. As a command on a running system (or in the root that is being built) it writes the initramfs of an
//! installed kernel: itself, and the modules as they are, compressed, because the kernel unpacks them itself. So an upgrade of
//! the kernel needs neither a shell nor cpio, zstd or initramfs-tools.
//!
//! | module | what |
//! | --- | --- |
//! | [`cmdline`] | the kernel's command line: which root, how to mount it, which init |
//! | [`ext4`] | the label of an ext4 file system, from its superblock |
//! | [`modules`] | `modules.dep` and `modules.builtin`: which files a module needs, in order |
//! | [`cpio`] | the archive that the kernel unpacks |
//! | [`init`] | what process 1 does |
//! | [`pack`] | what the command does |

pub mod cmdline;
pub mod cpio;
pub mod ext4;
pub mod init;
pub mod modules;
pub mod pack;
