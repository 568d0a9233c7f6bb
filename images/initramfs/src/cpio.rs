//! The archive that the kernel unpacks: cpio "newc", uncompressed (Documentation/driver-api/early-userspace/buffer-format.rst).
//! Owners are root, times 0: the same files give the same bytes.

/// A growing archive.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory. Its parents have to be there.
    pub fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    /// Adds a regular file with the permissions of `mode`.
    ///
    /// # Panics
    /// With 4 GiB and more, which the format cannot tell.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | (mode & 0o7777), content);
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let links = if mode & 0o040_000 != 0 { 2 } else { 1 };
        let size = u32::try_from(content.len()).expect("a file of an initramfs is below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a name is short");
        // ino, mode, uid, gid, nlink, mtime, filesize, device (2), special device (2), namesize, checksum
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"abcde");
        let bytes = archive.finish();
        assert_eq!(
            &bytes[..110],
            b"07070100000001000081ed0000000000000000000000010000000000000005000000000000000000000000000000000000000500000000".as_slice()
        );
        assert_eq!(&bytes[110..128], b"init\0\0abcde\0\0\x00070701".get(..18).unwrap());
        assert_eq!(bytes.len() % 4, 0);
    }

    /// cpio itself where it is installed: what it lists is what was put in.
    #[test]
    fn cpio_reads_it() {
        let mut archive = Archive::default();
        archive.directory("modules");
        archive.file("modules/a", 0o644, &[7; 1001]);
        archive.file("init", 0o755, b"x");
        let bytes = archive.finish();
        let Ok(mut cpio) = Command::new("cpio")
            .args(["-tv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("SKIPPED: cpio is not installed");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listed = cpio.wait_with_output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        let told: Vec<(&str, &str, &str)> =
            lines.iter().map(|line| (line[0], line[4], line[line.len() - 1])).collect();
        assert_eq!(
            told,
            [
                ("drwxr-xr-x", "0", "modules"),
                ("-rw-r--r--", "1001", "modules/a"),
                ("-rwxr-xr-x", "1", "init")
            ]
        );
    }
}
