//! `meta_data.json`, as Nova writes it.

use serde_json::Value;

use crate::{
    path::AbsolutePath,
    remarks::{Remarks, named},
};

/// The most files that are taken.
const MAX_FILES: usize = 256;

/// The most keys, and the longest.
const MAX_KEYS: usize = 256;
const MAX_KEY: usize = 16 << 10;

/// Who the machine is, and what it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaData {
    /// `uuid`: another one is another machine, though its disk may be a copy.
    pub instance: String,
    /// `hostname`.
    pub host_name: Option<HostName>,
    /// `public_keys`, a line each.
    pub keys: Vec<String>,
    /// `files`.
    pub files: Vec<File>,
}

/// A name that the kernel and `/etc/hosts` take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// With its domain, if it has one.
    pub full: String,
    /// The first label.
    pub short: String,
}

/// One of `files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it belongs.
    pub path: AbsolutePath,
    /// Where it is, below `openstack/`.
    pub content: String,
}

/// Reads it.
///
/// # Errors
/// When it is no JSON, or says nothing of who the machine is.
pub fn parse(text: &[u8], remarks: &mut Remarks) -> Result<MetaData, String> {
    let value: Value = serde_json::from_slice(text).map_err(|e| format!("not JSON: {e}"))?;
    let instance = value["uuid"].as_str().unwrap_or_default();
    if instance.is_empty() || instance.len() > 255 || !instance.chars().all(|c| c.is_ascii_graphic()) {
        return Err("no uuid".to_owned());
    }
    if !value["admin_pass"].is_null() {
        remarks.warning("meta data: `admin_pass` is not used; a key is the way in");
    }
    Ok(MetaData {
        instance: instance.to_owned(),
        host_name: host_name(&value["hostname"], remarks),
        keys: public_keys(&value, remarks),
        files: files(&value["files"], remarks),
    })
}

fn host_name(value: &Value, remarks: &mut Remarks) -> Option<HostName> {
    if value.is_null() {
        return None;
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let full = value.as_str().unwrap_or_default().trim_end_matches('.');
    if full.len() > 253 || !full.split('.').all(label) {
        remarks.error(format!("meta data: no host name: {}", named(full)));
        return None;
    }
    let short = full.split('.').next().unwrap_or_default().to_owned();
    Some(HostName { full: full.to_owned(), short })
}

fn public_keys(value: &Value, remarks: &mut Remarks) -> Vec<String> {
    let mut keys = Keys::default();
    if let Some(map) = value["public_keys"].as_object() {
        map.iter().for_each(|(name, text)| {
            keys.add(text.as_str(), &format!("public key {}", named(name)), remarks)
        });
    } else {
        let list = value["keys"].as_array().into_iter().flatten();
        for key in list.filter(|key| key["type"] == "ssh") {
            keys.add(key["data"].as_str(), "an ssh key", remarks);
        }
    }
    keys.0
}

/// Lines of an `authorized_keys`.
#[derive(Debug, Default)]
pub(crate) struct Keys(pub(crate) Vec<String>);

impl Keys {
    /// Adds the keys in a text, a line each.
    pub(crate) fn add(&mut self, text: Option<&str>, what: &str, remarks: &mut Remarks) {
        let lines = text.unwrap_or_default().lines().map(str::trim);
        let mut any = false;
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            any = true;
            if line.len() > MAX_KEY || line.chars().any(char::is_control) || self.0.len() == MAX_KEYS {
                remarks.error(format!("{what}: not taken: too long, too many, or no key"));
            } else if !self.0.iter().any(|known| known == line) {
                self.0.push(line.to_owned());
            }
        }
        if !any {
            remarks.error(format!("{what}: there is none in it"));
        }
    }
}

fn files(value: &Value, remarks: &mut Remarks) -> Vec<File> {
    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.len() > MAX_FILES {
        remarks
            .error(format!("meta data: {} files; those after the first {MAX_FILES} are left out", all.len()));
    }
    let mut files = Vec::new();
    for file in all.iter().take(MAX_FILES) {
        let path = file["path"].as_str().unwrap_or_default();
        let parsed = AbsolutePath::parse(path);
        let content = file["content_path"].as_str().and_then(content_path);
        match (parsed, content) {
            (Ok(path), Some(content)) => files.push(File { path, content }),
            (Err(reason), _) => {
                remarks.error(format!("meta data: file {} is left out: {reason}", named(path)))
            }
            (_, None) => {
                remarks.error(format!("meta data: file {} is left out: no content_path", named(path)))
            }
        }
    }
    files
}

/// `/content/0000`, as a path below `openstack/`, which it must not leave.
fn content_path(text: &str) -> Option<String> {
    let path = AbsolutePath::parse(text).ok()?;
    path.is_in("/content").then(|| path.as_str()[1..].to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(text: &str) -> (Result<MetaData, String>, Vec<String>) {
        let mut remarks = Remarks::default();
        let read = parse(text.as_bytes(), &mut remarks);
        (read, remarks.iter().map(|remark| remark.text.clone()).collect())
    }

    #[test]
    fn novas_is_read() {
        let (read, remarks) = read(
            r#"{"uuid": "83679162-1378-4288-a2d4-70e13ec132aa", "name": "amphora-1", "hostname": "amphora-1.novalocal", "launch_index": 0,
            "random_seed": "AAAA", "devices": [], "public_keys": {"octavia": "ssh-ed25519 AAAA a\n\n# no\nssh-rsa BBBB b\n"},
            "keys": [{"name": "octavia", "type": "ssh", "data": "ssh-ed25519 AAAA a\n"}],
            "files": [{"path": "/etc/octavia/amphora-agent.conf", "content_path": "/content/0000"}]}"#,
        );
        let read = read.unwrap();
        assert_eq!(read.instance, "83679162-1378-4288-a2d4-70e13ec132aa");
        let name = read.host_name.unwrap();
        assert_eq!((name.full.as_str(), name.short.as_str()), ("amphora-1.novalocal", "amphora-1"));
        assert_eq!(read.keys, ["ssh-ed25519 AAAA a", "ssh-rsa BBBB b"]);
        assert_eq!(
            (read.files[0].path.as_str(), read.files[0].content.as_str()),
            ("/etc/octavia/amphora-agent.conf", "content/0000")
        );
        assert!(remarks.is_empty(), "{remarks:?}");
    }

    #[test]
    fn what_is_odd_is_left_out_by_name() {
        let (odd, remarks) = read(
            r#"{"uuid": "a", "hostname": "-x", "admin_pass": "secret", "public_keys": {"k": "\n", "x\ny": 5},
            "files": [{"path": "etc/x", "content_path": "/content/0000"}, {"path": "/etc/../y", "content_path": "/content/0000"},
            {"path": "/z", "content_path": "/content/../latest/user_data"}, {"path": "/z"}, 7, {"path": "/ok", "content_path": "/content/1"}]}"#,
        );
        let odd = odd.unwrap();
        assert_eq!((odd.host_name, odd.keys.len(), odd.files.len()), (None, 0, 1));
        assert_eq!(
            remarks,
            [
                "meta data: `admin_pass` is not used; a key is the way in",
                "meta data: no host name: \"-x\"",
                "public key \"k\": there is none in it",
                "public key \"x\\ny\": there is none in it",
                "meta data: file \"etc/x\" is left out: not an absolute path",
                "meta data: file \"/etc/../y\" is left out: `..` in a path",
                "meta data: file \"/z\" is left out: no content_path",
                "meta data: file \"/z\" is left out: no content_path",
                "meta data: file \"\" is left out: not an absolute path",
            ]
        );
        for text in [
            "",
            "{}",
            "[]",
            r#"{"uuid": 5}"#,
            r#"{"uuid": ""}"#,
            r#"{"uuid": "a b"}"#,
            "{\"uuid\": \"a\"",
            "\u{feff}{}",
        ] {
            assert!(read(text).0.is_err(), "{text}");
        }
        assert_eq!(
            read(r#"{"uuid": "a"}"#),
            (Ok(MetaData { instance: "a".to_owned(), ..MetaData::default() }), vec![])
        );
        let (old, _) = read(
            r#"{"uuid": "a", "keys": [{"type": "ssh", "data": "ssh-rsa A"}, {"type": "x509", "data": "B"}]}"#,
        );
        assert_eq!(old.unwrap().keys, ["ssh-rsa A"]);
    }
}
