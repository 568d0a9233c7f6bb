//! All that a machine is given, as what is to be done. No I/O but by a [`Source`].

use std::io;

use crate::{
    cloud_config::{self, Zone},
    meta_data::{self, HostName},
    network::{self, Network},
    path::AbsolutePath,
    remarks::{Remarks, named},
    user_data,
};

/// The most that a file of JSON, user data as it comes, or one of `files` may have, in bytes.
pub const MAX_FILE: usize = 1 << 20;

/// The most that all `files` may have together, in bytes.
const MAX_FILES: usize = 16 << 20;

/// Where secrets are: readable by root alone unless user data says otherwise.
const SECRET: &str = "/etc/octavia";

/// What there is below `openstack/`, on a drive or at the metadata service.
pub trait Source {
    /// The content of a file of at most so many bytes, or `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read; [`io::ErrorKind::FileTooLarge`] when it is larger, [`io::ErrorKind::InvalidInput`] when it
    /// is no file.
    fn read(&mut self, path: &str, most: usize) -> io::Result<Option<Vec<u8>>>;
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Who the machine is.
    pub instance: String,
    /// At every boot.
    pub host_name: Option<HostName>,
    /// At every boot.
    pub network: Option<Network>,
    /// Once for an instance, as all that follows.
    pub files: Vec<FileWrite>,
    /// Lines of root's `authorized_keys`.
    pub keys: Vec<String>,
    /// The time zone.
    pub zone: Option<Zone>,
    /// What is run later.
    pub script: Option<String>,
    /// Whether something is there that could not be read this time, and may be the next.
    pub unread: bool,
}

/// A file that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileWrite {
    /// Where.
    pub path: AbsolutePath,
    /// What.
    pub content: Vec<u8>,
    /// For whom.
    pub mode: FileMode,
    /// Whose.
    pub owner: Owner,
    /// To what is there already.
    pub append: bool,
}

/// Permission bits, with set-user-ID and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u32);

impl FileMode {
    /// Twelve bits.
    pub fn new(bits: u32) -> Option<Self> {
        (bits <= 0o7777).then_some(Self(bits))
    }

    /// What a file has of which nothing is said: 0600 where secrets are, else 0644.
    pub fn by_place(path: &AbsolutePath) -> Self {
        if path.is_in(SECRET) { Self::PRIVATE } else { Self::PUBLIC }
    }

    /// For everybody to read.
    pub const PUBLIC: Self = Self(0o644);

    /// For the owner alone.
    pub const PRIVATE: Self = Self(0o600);

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

/// User and group, by name or number; root where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: Option<String>,
    /// The group.
    pub group: Option<String>,
}

impl Owner {
    /// `user`, `user:group` or `:group`.
    pub fn parse(text: &str) -> Option<Self> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let name = |name: &str| {
            name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.$".contains(&b))
        };
        let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        (name(user) && name(group.unwrap_or_default()))
            .then(|| Self { user: some(user), group: group.and_then(some) })
    }
}

impl Plan {
    /// Reads a source. `remarks` says what is left out.
    ///
    /// # Errors
    /// When there are no usable meta data, and so nothing that could be done.
    pub fn read(source: &mut impl Source, remarks: &mut Remarks) -> Result<Self, String> {
        const META_DATA: &str = "latest/meta_data.json";
        let text = source.read(META_DATA, MAX_FILE).map_err(|e| format!("{META_DATA}: {e}"))?;
        let text = text.ok_or_else(|| format!("there is no {META_DATA}"))?;
        let meta_data =
            meta_data::parse(&text, remarks).map_err(|reason| format!("{META_DATA}: {reason}"))?;
        let mut plan = Self {
            instance: meta_data.instance,
            host_name: meta_data.host_name,
            keys: meta_data.keys,
            ..Self::default()
        };
        let mut left = MAX_FILES;
        for file in meta_data.files {
            let path = &file.path;
            let content = match source.read(&file.content, MAX_FILE.min(left)) {
                Ok(Some(content)) => content,
                Ok(None) => {
                    remarks.error(format!("file {path} is left out: there is no {}", named(&file.content)));
                    continue;
                }
                Err(error) => {
                    plan.unread |= is_passing(&error);
                    remarks.error(format!("file {path} is left out: {error}"));
                    continue;
                }
            };
            left -= content.len();
            let mode = FileMode::by_place(path);
            plan.files.push(FileWrite {
                path: file.path,
                content,
                mode,
                owner: Owner::default(),
                append: false,
            });
        }
        if let Some(text) = optional(source, "latest/network_data.json", &mut plan.unread, remarks) {
            match network::parse(&text, remarks) {
                Ok(network) => plan.network = Some(network),
                Err(reason) => remarks.error(format!("network data is left out: {reason}")),
            }
        }
        if let Some(data) = optional(source, "latest/user_data", &mut plan.unread, remarks) {
            let configs = user_data::cloud_configs(&data, remarks);
            let config = cloud_config::read(&configs, remarks);
            plan.files.extend(config.files);
            let new = config.keys.into_iter().filter(|key| !plan.keys.contains(key)).collect::<Vec<_>>();
            plan.keys.extend(new);
            plan.zone = config.zone;
            plan.script = config.script;
        }
        for name in ["latest/vendor_data.json", "latest/vendor_data2.json"] {
            // Nothing is done with them, so that there is nothing to come back for.
            let text = optional(source, name, &mut false, remarks);
            if text.is_some_and(|text| !says_nothing(&text)) {
                remarks.error(format!("{name} is left out: vendor data are not carried out here"));
            }
        }
        Ok(plan)
    }
}

/// Whether trying again may help: not where there is too much, or something else in the place of a file.
fn is_passing(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput)
}

fn optional(
    source: &mut impl Source,
    path: &str,
    unread: &mut bool,
    remarks: &mut Remarks,
) -> Option<Vec<u8>> {
    source.read(path, MAX_FILE).unwrap_or_else(|error| {
        *unread |= is_passing(&error);
        remarks.error(format!("{path} is left out: {error}"));
        None
    })
}

/// What Nova writes where an operator has no vendor data: `{}`, or `{"static": {}}`.
fn says_nothing(text: &[u8]) -> bool {
    use serde_json::Value;

    fn nothing(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Object(map) => map.values().all(nothing),
            Value::Array(list) => list.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        }
    }
    serde_json::from_slice(text).is_ok_and(|value: Value| nothing(&value))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    /// Files in memory.
    #[derive(Debug, Default)]
    pub(crate) struct Memory(pub(crate) BTreeMap<String, Vec<u8>>);

    impl Source for Memory {
        fn read(&mut self, path: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
            match self.0.get(path) {
                Some(content) if content.len() > most => Err(io::ErrorKind::FileTooLarge.into()),
                content => Ok(content.cloned()),
            }
        }
    }

    fn read(files: &[(&str, &str)]) -> (Result<Plan, String>, Vec<String>) {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
        let mut remarks = Remarks::default();
        let plan = Plan::read(&mut Memory(files.collect()), &mut remarks);
        (plan, remarks.iter().map(|remark| remark.text.clone()).collect())
    }

    #[test]
    fn all_of_a_drive_is_one_plan() {
        let (plan, remarks) = read(&[
            (
                "latest/meta_data.json",
                r#"{"uuid": "i", "hostname": "amphora-1", "public_keys": {"k": "ssh-rsa A"}, "files": [
                {"path": "/etc/octavia/amphora-agent.conf", "content_path": "/content/0000"},
                {"path": "/etc/rsyslog.d/10-rsyslog.conf", "content_path": "/content/0001"}]}"#,
            ),
            ("content/0000", "[DEFAULT]\n"),
            ("content/0001", "*.* @@x\n"),
            (
                "latest/network_data.json",
                r#"{"links": [{"id": "t", "type": "ovs", "ethernet_mac_address": "fa:16:3e:00:00:01"}],
                "networks": [{"id": "n", "type": "ipv4_dhcp", "link": "t"}], "services": []}"#,
            ),
            (
                "latest/user_data",
                "#cloud-config\nruncmd:\n- systemctl restart rsyslog\ntimezone: UTC\nssh_authorized_keys: [ssh-rsa A, ssh-rsa B]\n\
                 write_files:\n- {path: /etc/motd, content: hi, permissions: '0640'}\n",
            ),
            ("latest/vendor_data.json", "{}"),
            ("latest/vendor_data2.json", r#"{"static": {}}"#),
        ]);
        let plan = plan.unwrap();
        assert_eq!((plan.instance.as_str(), plan.host_name.unwrap().short.as_str()), ("i", "amphora-1"));
        let files: Vec<_> = plan
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.content.as_slice(), file.mode.bits()))
            .collect();
        assert_eq!(
            files,
            [
                ("/etc/octavia/amphora-agent.conf", &b"[DEFAULT]\n"[..], 0o600),
                ("/etc/rsyslog.d/10-rsyslog.conf", b"*.* @@x\n", 0o644),
                ("/etc/motd", b"hi", 0o640)
            ]
        );
        assert_eq!(plan.keys, ["ssh-rsa A", "ssh-rsa B"]);
        assert_eq!(
            (plan.zone.unwrap().as_str(), plan.script.as_deref()),
            ("UTC", Some("#!/bin/sh\nsystemctl restart rsyslog\n"))
        );
        assert_eq!(plan.network.unwrap().files.len(), 1);
        assert!(remarks.is_empty(), "{remarks:?}");
    }

    #[test]
    fn what_is_missing_or_odd_does_not_keep_the_rest_away() {
        let large = "x".repeat(MAX_FILE + 1);
        let (plan, remarks) = read(&[
            (
                "latest/meta_data.json",
                r#"{"uuid": "i", "files": [{"path": "/a", "content_path": "/content/0"}, {"path": "/b", "content_path": "/content/1"},
                {"path": "/c", "content_path": "/content/2"}]}"#,
            ),
            ("content/1", &large),
            ("content/2", "c"),
            ("latest/network_data.json", "{"),
            ("latest/user_data", &large),
            ("latest/vendor_data.json", r##"{"cloud-init": "#cloud-config\n"}"##),
        ]);
        assert_eq!(plan.unwrap().files.len(), 1);
        assert_eq!(remarks.len(), 5, "{remarks:?}");
        assert!(
            remarks[0].contains("/a is left out: there is no \"content/0\"")
                && remarks[1].contains("/b is left out")
        );
        assert!(
            remarks[2].contains("network data")
                && remarks[3].contains("user_data")
                && remarks[4].contains("vendor data")
        );
        assert!(read(&[]).0.unwrap_err().contains("no latest/meta_data.json"));
        assert!(read(&[("latest/meta_data.json", "{}")]).0.unwrap_err().contains("no uuid"));
    }
}
