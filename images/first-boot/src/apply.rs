//! Carrying a plan out. What fails is said, and the rest is done all the same.

use std::{fmt, io};

use crate::{
    cloud_config::Zone,
    meta_data::HostName,
    network::{self, Network, NetworkFile},
    plan::{FileMode, FileWrite, Owner},
    remarks::Remarks,
    root::Root,
};

/// Where systemd-networkd looks, for good and until the next boot.
pub const NETWORK_DIRECTORY: &str = "/etc/systemd/network";
const VOLATILE_NETWORK_DIRECTORY: &str = "/run/systemd/network";

/// The largest file that is added to, and that is read to see who is who.
const MAX_READ: u64 = 4 << 20;

const ROOT: (u32, u32) = (0, 0);

/// What is done, what is said of it, and how much did not come about.
#[derive(Debug)]
pub struct Changes<'a> {
    root: &'a Root,
    remarks: &'a mut Remarks,
    /// Who owns what has no owner: root, or in a test who runs it.
    nobody: (u32, u32),
    failures: usize,
}

impl<'a> Changes<'a> {
    /// Changes of a root.
    pub fn new(root: &'a Root, remarks: &'a mut Remarks) -> Self {
        let user = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let nobody = if user.0 == 0 { ROOT } else { user };
        Self { root, remarks, nobody, failures: 0 }
    }

    /// How many did not come about.
    pub fn failures(&self) -> usize {
        self.failures
    }

    fn note(&mut self, what: impl fmt::Display, done: io::Result<()>) -> bool {
        match &done {
            Ok(()) => self.remarks.info(what),
            Err(error) => self.failed(&format!("{what}: {error}")),
        }
        done.is_ok()
    }

    fn write(&self, path: &str, content: &str) -> io::Result<()> {
        self.root.write(path, content.as_bytes(), FileMode::PUBLIC, self.nobody)
    }

    /// `/etc/hostname`, and a line of `/etc/hosts`, without which rsyslogd asks name servers for the machine's own name.
    pub fn host_name(&mut self, name: &HostName) {
        let done = self.write("/etc/hostname", &format!("{}\n", name.short)).and_then(|()| {
            let known = self.root.read("/etc/hosts", MAX_READ)?;
            let known = known.unwrap_or_else(|| {
                b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_vec()
            });
            self.write("/etc/hosts", &hosts(&String::from_utf8_lossy(&known), name))
        });
        self.note(format_args!("host name {}", name.short), done);
    }

    /// The name that the kernel has.
    pub fn kernel_host_name(&mut self, name: &HostName) {
        if let Err(error) = crate::sys::set_host_name(&name.short) {
            self.failed(&format!("the kernel's host name: {error}"));
        }
    }

    /// Something that did not come about.
    pub fn failed(&mut self, what: &str) {
        self.failures += 1;
        self.remarks.error(what);
    }

    /// The files of systemd-networkd; those that an earlier boot has written and that are not among them are removed.
    pub fn network(&mut self, network: &Network) {
        for name in self.root.names(NETWORK_DIRECTORY) {
            let is_ours = name.starts_with(network::PREFIX) && name.ends_with(".network");
            if is_ours && !network.files.iter().any(|file| file.name == name) {
                let done = self.root.remove(&format!("{NETWORK_DIRECTORY}/{name}"));
                self.note(format_args!("{name}: no longer on the drive"), done);
            }
        }
        for NetworkFile { name, text } in &network.files {
            let path = format!("{NETWORK_DIRECTORY}/{name}");
            let done = self.write(&path, text);
            self.note(path, done);
        }
        // Where it is a link, it is systemd-resolved's, which networkd tells.
        if !network.servers.is_empty() && !self.root.is_link("/etc/resolv.conf") {
            let done = self.write("/etc/resolv.conf", &network::resolv_conf(&network.servers));
            self.note("/etc/resolv.conf", done);
        }
    }

    /// A network until the next boot.
    pub fn fallback(&mut self, file: &NetworkFile) {
        let path = format!("{VOLATILE_NETWORK_DIRECTORY}/{}", file.name);
        let done = self.write(&path, &file.text);
        self.note(path, done);
    }

    /// One file; whether it is there now, if not as whose it was to be.
    pub fn file(&mut self, file: &FileWrite) -> bool {
        let path = file.path.as_str();
        let owner = self.owner(&file.owner, path);
        let secret = file.path.is_in("/etc/octavia/certs");
        let done = (|| {
            if secret {
                self.root.make_directory("/etc/octavia/certs", 0o700)?;
            }
            if !file.append {
                return self.root.write(path, &file.content, file.mode, owner);
            }
            let mut content = self.root.read(path, MAX_READ)?.unwrap_or_default();
            // Done already, by a boot that was cut off.
            if !content.ends_with(&file.content) {
                content.extend_from_slice(&file.content);
            }
            self.root.write(path, &content, file.mode, owner)
        })();
        self.note(format_args!("{path} ({} bytes, mode {:04o})", file.content.len(), file.mode.bits()), done)
    }

    /// Root's `authorized_keys`: those that are there stay.
    pub fn keys(&mut self, keys: &[String]) -> bool {
        const PATH: &str = "/root/.ssh/authorized_keys";
        let done = self.root.make_directory("/root/.ssh", 0o700).and_then(|_| {
            let known = self.root.read(PATH, MAX_READ)?.unwrap_or_default();
            let mut text = String::from_utf8_lossy(&known).into_owned();
            for key in keys {
                if !text.lines().any(|line| line.trim() == key) {
                    if !text.is_empty() && !text.ends_with('\n') {
                        text.push('\n');
                    }
                    text.push_str(key);
                    text.push('\n');
                }
            }
            self.root.write(PATH, text.as_bytes(), FileMode::PRIVATE, self.nobody)
        });
        self.note(format_args!("{PATH} ({} keys)", keys.len()), done)
    }

    /// `/etc/localtime`.
    pub fn zone(&mut self, zone: &Zone) -> bool {
        const LINK: &str = "/etc/localtime";
        let target = format!("/usr/share/zoneinfo/{}", zone.as_str());
        let done = if self.root.is_file(&target) {
            self.root.link(LINK, &target)
        } else if zone.is_utc() {
            self.root.remove(LINK)
        } else {
            Err(io::Error::other(format!("there is no {target}")))
        };
        self.note(format_args!("time zone {}", zone.as_str()), done)
    }

    /// A file of our own, for root alone; `what` is said of it.
    pub fn private(&mut self, path: &str, content: &str, what: &str) -> bool {
        let done = self.root.write(path, content.as_bytes(), FileMode::PRIVATE, self.nobody);
        self.note(what, done)
    }

    /// By the root's own `passwd` and `group`. Who is not in them is root, which is said.
    fn owner(&mut self, owner: &Owner, path: &str) -> (u32, u32) {
        let mut find = |name: &Option<String>, file: &str, default: u32| {
            let Some(name) = name else { return default };
            let known = self.root.read(file, MAX_READ).ok().flatten().unwrap_or_default();
            id(&String::from_utf8_lossy(&known), name).unwrap_or_else(|| {
                self.failures += 1;
                self.remarks.error(format!("{path}: there is no {name} in {file}: it is root's"));
                default
            })
        };
        (find(&owner.user, "/etc/passwd", self.nobody.0), find(&owner.group, "/etc/group", self.nobody.1))
    }
}

/// The third field of the line whose first is the name; a number is itself.
fn id(table: &str, name: &str) -> Option<u32> {
    let mut lines = table.lines().map(|line| line.split(':'));
    let found =
        lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?);
    found.or_else(|| name.parse().ok())
}

/// `/etc/hosts` with the machine's own name at 127.0.1.1, as Debian's installer has it.
fn hosts(known: &str, name: &HostName) -> String {
    let own = if name.full == name.short {
        format!("127.0.1.1 {}", name.short)
    } else {
        format!("127.0.1.1 {} {}", name.full, name.short)
    };
    let mut lines: Vec<&str> = known.lines().collect();
    let is_own = |line: &&str| line.split_whitespace().next() == Some("127.0.1.1");
    match lines.iter().position(is_own) {
        Some(at) => lines[at] = &own,
        None => lines.push(&own),
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::path::AbsolutePath;

    fn file(path: &str, content: &str, append: bool) -> FileWrite {
        let path = AbsolutePath::parse(path).unwrap();
        let mode = FileMode::by_place(&path);
        FileWrite { path, content: content.as_bytes().to_vec(), mode, owner: Owner::default(), append }
    }

    #[test]
    fn what_is_there_is_kept_where_it_is_added_to() {
        let directory = tempfile::tempdir().unwrap();
        let text = |path: &str| fs::read_to_string(directory.path().join(path)).unwrap();
        let root = Root::open(directory.path()).unwrap();
        for path in ["root/.ssh", "etc/systemd/network"] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        fs::write(directory.path().join("root/.ssh/authorized_keys"), "ssh-rsa A a").unwrap();
        fs::write(directory.path().join("etc/motd"), "hello\n").unwrap();
        fs::write(directory.path().join("etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 old\n::1 localhost\n")
            .unwrap();
        for name in ["10-amphora-000000000001.network", "20-own.network"] {
            fs::write(directory.path().join("etc/systemd/network").join(name), "old").unwrap();
        }
        let mut remarks = Remarks::default();
        let mut changes = Changes::new(&root, &mut remarks);
        let name = HostName { full: "amphora-1.novalocal".to_owned(), short: "amphora-1".to_owned() };
        let network = Network {
            files: vec![NetworkFile {
                name: "10-amphora-000000000002.network".to_owned(),
                text: "new".to_owned(),
            }],
            servers: vec!["10.0.0.2".parse().unwrap()],
        };
        for _ in 0..2 {
            changes.keys(&["ssh-rsa A a".to_owned(), "ssh-rsa B".to_owned()]);
            changes.file(&file("/etc/motd", "world\n", true));
            changes.file(&file("/etc/octavia/certs/server.pem", "secret", false));
            changes.host_name(&name);
            changes.network(&network);
            changes.zone(&Zone::parse("UTC").unwrap());
        }
        assert_eq!(changes.failures(), 0, "{remarks:?}");
        assert_eq!(text("root/.ssh/authorized_keys"), "ssh-rsa A a\nssh-rsa B\n");
        assert_eq!(text("etc/motd"), "hello\nworld\n");
        assert_eq!(
            text("etc/hosts"),
            "127.0.0.1 localhost\n127.0.1.1 amphora-1.novalocal amphora-1\n::1 localhost\n"
        );
        assert_eq!(
            (text("etc/hostname"), text("etc/resolv.conf")),
            ("amphora-1\n".to_owned(), "nameserver 10.0.0.2\n".to_owned())
        );
        let mut names = root.names(NETWORK_DIRECTORY);
        names.sort();
        assert_eq!(names, ["10-amphora-000000000002.network", "20-own.network"]);
        let mode =
            |path: &str| fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            [
                mode("root/.ssh/authorized_keys"),
                mode("etc/octavia/certs"),
                mode("etc/octavia/certs/server.pem"),
                mode("etc/hosts")
            ],
            [0o600, 0o700, 0o600, 0o644]
        );
        assert!(remarks.iter().all(|remark| !remark.text.contains("secret")));
    }

    #[test]
    fn what_fails_is_counted_and_the_rest_is_done() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("etc/motd")).unwrap();
        fs::create_dir_all(directory.path().join("usr/share/zoneinfo/Europe")).unwrap();
        fs::write(directory.path().join("usr/share/zoneinfo/Europe/Berlin"), "").unwrap();
        let root = Root::open(directory.path()).unwrap();
        let mut remarks = Remarks::default();
        let mut changes = Changes::new(&root, &mut remarks);
        changes.file(&file("/etc/motd", "x", false));
        changes.file(&file("/etc/issue", "x", false));
        changes.file(&FileWrite {
            owner: Owner::parse("nobody-known").unwrap(),
            ..file("/etc/other", "x", false)
        });
        changes.zone(&Zone::parse("Mars/Olympus").unwrap());
        changes.zone(&Zone::parse("Europe/Berlin").unwrap());
        assert_eq!(changes.failures(), 3);
        assert!(root.is_file("/etc/issue") && root.is_file("/etc/other") && root.is_link("/etc/localtime"));
        let errors: Vec<&str> = remarks
            .iter()
            .filter(|r| r.severity == crate::remarks::Severity::Error)
            .map(|r| r.text.as_str())
            .collect();
        assert!(
            errors[0].starts_with("/etc/motd")
                && errors[1].contains("there is no nobody-known in /etc/passwd"),
            "{errors:?}"
        );
        assert!(errors[2].contains("there is no /usr/share/zoneinfo/Mars/Olympus"), "{errors:?}");
    }

    #[test]
    fn users_are_found_by_name_or_number() {
        let table = "root:x:0:0:root:/root:/bin/sh\nsyslog:x:104:111::/:/x\nodd\n7:x:8:8::/:/x\n";
        assert_eq!(
            [id(table, "root"), id(table, "syslog"), id(table, "1000"), id(table, "7")],
            [Some(0), Some(104), Some(1000), Some(8)]
        );
        assert_eq!([id(table, "sys"), id(table, "odd"), id(table, "-1")], [None; 3]);
    }
}
