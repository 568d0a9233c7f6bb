//! `#cloud-config`, of which `write_files`, `runcmd`, `timezone` and `ssh_authorized_keys` are carried out.
//!
//! cloud-init is the judge of what they mean. It reads YAML 1.1, where `0644` is a number and `yes` a truth; here every scalar
//! is the text that was written, and each field says what it makes of it.

use serde_json::{Map, Value};

use crate::{
    meta_data::Keys,
    path::AbsolutePath,
    plan::{FileMode, FileWrite, Owner},
    remarks::{Remarks, named},
    user_data::{MAX_UNPACKED, base64, gunzip},
};

/// The most files, and the most commands.
const MAX_FILES: usize = 256;
const MAX_COMMANDS: usize = 256;

/// What user data asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudConfig {
    /// `write_files`.
    pub files: Vec<FileWrite>,
    /// `runcmd`, as one script for `/bin/sh`.
    pub script: Option<String>,
    /// `timezone`.
    pub zone: Option<Zone>,
    /// `ssh_authorized_keys`, a line each.
    pub keys: Vec<String>,
}

/// The name of a time zone: a relative path without `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(String);

impl Zone {
    /// Takes a name such as `Europe/Berlin`.
    pub fn parse(text: &str) -> Option<Self> {
        let name = |name: &str| {
            !name.is_empty()
                && !name.starts_with(['.', '-'])
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b))
        };
        (text.len() <= 64 && text.split('/').all(name)).then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a machine without `/etc/localtime` has.
    pub fn is_utc(&self) -> bool {
        matches!(
            self.0.as_str(),
            "UTC" | "Etc/UTC" | "UCT" | "Etc/UCT" | "Zulu" | "Etc/Zulu" | "Universal" | "Etc/Universal"
        )
    }
}

/// Reads cloud-configs; where a later one has the same key, that counts.
pub fn read(texts: &[String], remarks: &mut Remarks) -> CloudConfig {
    let mut all = Map::new();
    for text in texts {
        match amphora_yaml::parse_as_text(text, MAX_UNPACKED) {
            Ok(Value::Object(map)) => {
                for (key, value) in map {
                    if all.contains_key(&key) {
                        remarks
                            .warning(format!("user data: {} is said again; the later counts", named(&key)));
                    }
                    all.insert(key, value);
                }
            }
            Ok(Value::Null) => {}
            Ok(_) => remarks.error("user data: a cloud-config that is no mapping is left out"),
            Err(reason) => remarks.error(format!("user data: a cloud-config is left out: {reason}")),
        }
    }
    let mut config = CloudConfig::default();
    for (key, value) in &all {
        match key.as_str() {
            "write_files" => config.files = files(value, remarks),
            "runcmd" => config.script = script(value, remarks),
            "timezone" => {
                config.zone = value.as_str().and_then(Zone::parse);
                if config.zone.is_none() {
                    remarks.error("user data: `timezone` is left out: no name of a zone");
                }
            }
            "ssh_authorized_keys" => {
                let mut keys = Keys::default();
                for key in value.as_array().into_iter().flatten() {
                    keys.add(key.as_str(), "user data: `ssh_authorized_keys`", remarks);
                }
                config.keys = keys.0;
            }
            other => {
                remarks.error(format!("user data: {} is left out: it is not carried out here", named(other)))
            }
        }
    }
    config
}

fn files(value: &Value, remarks: &mut Remarks) -> Vec<FileWrite> {
    let Some(all) = value.as_array() else {
        remarks.error("user data: `write_files` is left out: no list");
        return Vec::new();
    };
    if all.len() > MAX_FILES {
        remarks
            .error(format!("user data: {} files; those after the first {MAX_FILES} are left out", all.len()));
    }
    let mut files = Vec::new();
    for entry in all.iter().take(MAX_FILES) {
        let path = entry["path"].as_str().unwrap_or_default();
        match file(entry, path, remarks) {
            Ok(file) => files.push(file),
            Err(reason) => remarks.error(format!("user data: file {} is left out: {reason}", named(path))),
        }
    }
    files
}

fn file(entry: &Value, path: &str, remarks: &mut Remarks) -> Result<FileWrite, String> {
    let map = entry.as_object().ok_or("no mapping")?;
    let mut ignored = |what: &str| remarks.warning(format!("user data: file {}: {what}", named(path)));
    let path = AbsolutePath::parse(path)?;
    for key in map.keys() {
        match key.as_str() {
            "path" | "content" | "encoding" | "permissions" | "owner" | "append" => {}
            // There are no users or packages to wait for.
            "defer" => {}
            "source" => return Err("its content is to come from elsewhere (`source`)".to_owned()),
            other => ignored(&format!("{} is ignored", named(other))),
        }
    }
    let content = match map.get("content") {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text.as_str(),
        Some(_) => return Err("its content is no text".to_owned()),
    };
    let content = decode(content, text(map, "encoding")?, &mut ignored)?;
    let mode = match text(map, "permissions")? {
        Some(text) => permissions(text).ok_or_else(|| format!("no permissions: {}", named(text)))?,
        None => FileMode::by_place(&path),
    };
    let owner = match text(map, "owner")? {
        Some(text) => Owner::parse(text).ok_or_else(|| format!("no owner: {}", named(text)))?,
        None => Owner::default(),
    };
    let append = match text(map, "append")? {
        Some(text) => matches!(text.trim().to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1"),
        None => false,
    };
    Ok(FileWrite { path, content, mode, owner, append })
}

/// A field that is one scalar, if it is there.
fn text<'v>(map: &'v Map<String, Value>, name: &str) -> Result<Option<&'v str>, String> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("its {name} is no text")),
    }
}

fn decode(content: &str, encoding: Option<&str>, ignored: &mut impl FnMut(&str)) -> Result<Vec<u8>, String> {
    let unbase = || base64(content).ok_or("its content is not base64");
    let unzip =
        |data: &[u8]| gunzip(data, MAX_UNPACKED).map_err(|reason| format!("its content: gzip: {reason}"));
    let encoding = encoding.unwrap_or_default().trim().to_ascii_lowercase();
    match encoding.as_str() {
        "" | "text/plain" => Ok(content.as_bytes().to_vec()),
        "b64" | "base64" => Ok(unbase()?),
        "gz" | "gzip" => unzip(content.as_bytes()),
        "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" => unzip(&unbase()?),
        other => {
            ignored(&format!("encoding {} is not known; its content is taken as it is", named(other)));
            Ok(content.as_bytes().to_vec())
        }
    }
}

/// Octal, however it is spelled.
fn permissions(text: &str) -> Option<FileMode> {
    let text = text.trim();
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix("0O")).unwrap_or(text);
    let octal = !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten().and_then(FileMode::new)
}

/// As cloud-init joins them: a list is a command with its arguments, a text is a line of shell, and all of them are one script.
fn script(value: &Value, remarks: &mut Remarks) -> Option<String> {
    let Some(commands) = value.as_array().filter(|commands| commands.len() <= MAX_COMMANDS) else {
        remarks
            .error(format!("user data: `runcmd` is left out: no list, or more than {MAX_COMMANDS} commands"));
        return None;
    };
    let mut lines = Vec::new();
    for command in commands {
        match command {
            Value::Null => {}
            Value::String(line) => lines.push(line.clone()),
            Value::Array(words) if words.iter().all(|word| word.is_string() || word.is_null()) => {
                // A null is what Python prints of it.
                let words = words.iter().map(|word| quoted(word.as_str().unwrap_or("None")));
                lines.push(words.collect::<Vec<_>>().join(" "));
            }
            _ => {
                remarks.error(
                    "user data: `runcmd` is left out: a command that is neither a text nor a list of words",
                );
                return None;
            }
        }
    }
    if lines.iter().any(|line| line.contains('\0')) {
        remarks.error("user data: `runcmd` is left out: a zero in a command");
        return None;
    }
    (!lines.is_empty()).then(|| format!("#!/bin/sh\n{}\n", lines.join("\n")))
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use data_encoding::BASE64;
    use proptest::prelude::*;

    use super::*;
    use crate::user_data::tests::gzip;

    fn take(text: &str) -> (CloudConfig, Vec<String>) {
        let mut remarks = Remarks::default();
        let config = read(&[format!("#cloud-config\n{text}")], &mut remarks);
        (config, remarks.iter().map(|remark| remark.text.clone()).collect())
    }

    fn one(fields: &str) -> FileWrite {
        let (config, remarks) = take(&format!("write_files:\n- path: /x\n  {fields}\n"));
        assert_eq!((config.files.len(), remarks.len()), (1, 0), "{remarks:?}");
        config.files[0].clone()
    }

    #[test]
    fn contents_come_in_every_encoding() {
        let packed = BASE64.encode(&gzip(b"a\0b"));
        for (fields, content) in [
            ("content: |\n    a\n     b\n", &b"a\n b\n"[..]),
            ("content: 0644", b"0644"),
            ("content: yes\n  encoding: text/plain", b"yes"),
            ("content:\n", b""),
            ("permissions: '0600'", b""),
            ("encoding: b64\n  content: YQBi", b"a\0b"),
            ("encoding: ' Base64 '\n  content: |\n    YQ\n    Bi\n", b"a\0b"),
            (&format!("encoding: gz+b64\n  content: {packed}"), b"a\0b"),
            (&format!("encoding: gzip+base64\n  content: {packed}"), b"a\0b"),
        ] {
            assert_eq!(one(fields).content, content, "{fields}");
        }
        for (fields, reason) in [
            ("encoding: b64\n  content: Y", "its content is not base64"),
            ("encoding: gz\n  content: Y", "its content: gzip"),
            ("encoding: gz+b64\n  content: YQBi", "its content: gzip"),
            ("content: [a]", "its content is no text"),
            ("source: {uri: 'http://x'}", "from elsewhere"),
            ("owner: 'a b'", "no owner: \"a b\""),
            ("permissions: 0888", "no permissions: \"0888\""),
            ("permissions: 10000", "no permissions"),
            ("permissions: rw", "no permissions"),
            ("encoding: [b64]", "its encoding is no text"),
        ] {
            let (config, remarks) = take(&format!("write_files:\n- path: /x\n  {fields}\n- path: /y\n"));
            assert_eq!((config.files.len(), remarks.len()), (1, 1), "{fields} {remarks:?}");
            assert!(
                remarks[0].starts_with("user data: file \"/x\" is left out: ") && remarks[0].contains(reason),
                "{remarks:?}"
            );
        }
        let (config, remarks) =
            take("write_files:\n- {path: /x, encoding: rot13, content: a, colour: red}\n");
        assert_eq!(config.files[0].content, b"a");
        assert_eq!(
            remarks,
            [
                "user data: file \"/x\": \"colour\" is ignored",
                "user data: file \"/x\": encoding \"rot13\" is not known; its content is taken as it is"
            ]
        );
    }

    #[test]
    fn permissions_and_owners() {
        for (text, mode) in [
            ("0644", 0o644),
            ("'0644'", 0o644),
            ("644", 0o644),
            ("0o640", 0o640),
            ("'0o640'", 0o640),
            ("00400", 0o400),
            ("4755", 0o4755),
            ("0", 0),
        ] {
            assert_eq!(one(&format!("permissions: {text}")).mode, FileMode::new(mode).unwrap(), "{text}");
        }
        assert_eq!(one("content: a").mode, FileMode::new(0o644).unwrap());
        let secret = take("write_files:\n- path: /etc/octavia/certs/server.pem\n  content: a\n").0;
        assert_eq!(secret.files[0].mode, FileMode::new(0o600).unwrap());
        let (user, group) = (|text: &str| Some(text.to_owned()), |text: &str| Some(text.to_owned()));
        assert_eq!(one("owner: syslog:adm").owner, Owner { user: user("syslog"), group: group("adm") });
        assert_eq!(one("owner: 7").owner, Owner { user: user("7"), group: None });
        assert_eq!(one("owner: ':adm'").owner, Owner { user: None, group: group("adm") });
        for (text, append) in [
            ("true", true),
            ("yes", true),
            ("On", true),
            ("'1'", true),
            ("false", false),
            ("no", false),
            ("x", false),
        ] {
            assert_eq!(one(&format!("append: {text}")).append, append, "{text}");
        }
    }

    #[test]
    fn commands_are_one_script() {
        let script = take(
            "runcmd:\n- systemctl restart rsyslog\n- [ls, -l, \"it's\", 0644, '']\n-\n- |\n  cd /x\n  pwd\n",
        )
        .0
        .script;
        let expected = "#!/bin/sh\nsystemctl restart rsyslog\n'ls' '-l' 'it'\\''s' '0644' ''\ncd /x\npwd\n\n";
        assert_eq!(script.as_deref(), Some(expected));
        for text in ["runcmd: ls", "runcmd: [{a: b}]", "runcmd: [[a, [b]]]", "runcmd: [\"a\\0\"]"] {
            let (config, remarks) = take(text);
            assert_eq!((config.script, remarks.len()), (None, 1), "{text}");
        }
        assert_eq!(take("runcmd: []"), (CloudConfig::default(), vec![]));
    }

    #[test]
    fn zones_keys_and_what_is_not_carried_out() {
        let (config, remarks) = take(
            "timezone: Europe/Berlin\nssh_authorized_keys:\n- ssh-rsa A a\n- ssh-rsa A a\n- ''\nusers: [default]\npackages: [x]\n",
        );
        assert_eq!(config.zone.unwrap().as_str(), "Europe/Berlin");
        assert_eq!(config.keys, ["ssh-rsa A a"]);
        assert_eq!(
            remarks,
            [
                "user data: \"packages\" is left out: it is not carried out here",
                "user data: `ssh_authorized_keys`: there is none in it",
                "user data: \"users\" is left out: it is not carried out here",
            ]
        );
        for zone in ["../etc/passwd", "/etc/passwd", "a//b", "", "[a]", ".", "-x", "a/../b", "a\\nb"] {
            let (config, remarks) = take(&format!("timezone: \"{zone}\"\n"));
            assert_eq!((config.zone, remarks.len()), (None, 1), "{zone}");
        }
        for zone in ["Etc/GMT+1", "America/Port-au-Prince", "GMT0", "UTC"] {
            assert!(take(&format!("timezone: {zone}\n")).0.zone.is_some(), "{zone}");
        }
    }

    #[test]
    fn of_several_the_later_counts() {
        let mut remarks = Remarks::default();
        let texts =
            ["timezone: UTC\nruncmd: [a]\n", "- x\n", "a: [\n", "", "runcmd: [b]\n"].map(str::to_owned);
        let config = read(&texts, &mut remarks);
        assert_eq!((config.script.as_deref(), config.zone.is_some()), (Some("#!/bin/sh\nb\n"), true));
        let remarks: Vec<&str> = remarks.iter().map(|remark| remark.text.as_str()).collect();
        assert_eq!(remarks.len(), 3, "{remarks:?}");
        assert!(
            remarks[0].contains("no mapping")
                && remarks[1].contains("is left out")
                && remarks[2].contains("the later counts")
        );
        let many = format!("write_files:\n{}", "- path: /x\n".repeat(MAX_FILES + 5));
        assert_eq!(take(&many).0.files.len(), MAX_FILES);
    }

    proptest! {
        /// The shell reads back what was quoted.
        #[test]
        fn words_are_quoted(word in "[ -~äö\n]{0,30}") {
            let shell = std::process::Command::new("/bin/sh").args(["-c", &format!("printf %s {}", quoted(&word))]).output().unwrap();
            prop_assert_eq!(shell.stdout, word.into_bytes());
        }

        #[test]
        fn files_come_back(content in proptest::collection::vec(any::<u8>(), 0..200), mode in 0u32..0o10000) {
            let file = one(&format!("encoding: b64\n  content: '{}'\n  permissions: '{mode:04o}'", BASE64.encode(&content)));
            prop_assert_eq!((file.content, file.mode.bits()), (content, mode));
        }
    }
}
