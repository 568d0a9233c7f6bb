//! User data as it came, down to its cloud-configs: gzip, base64, MIME with parts in parts, as cloud-init takes them.

use std::io::Read;

use data_encoding::BASE64;
use flate2::read::MultiGzDecoder;

use crate::remarks::{Remarks, named};

/// The most that user data comes to, unpacked, in all its parts together.
pub const MAX_UNPACKED: usize = 4 << 20;

/// How deep parts may be in parts, and what is packed in what is packed.
const MAX_DEPTH: usize = 4;

/// The most parts.
const MAX_PARTS: usize = 256;

/// What cloud-init does by the first line of a text, longest first.
const OTHERS: &[(&str, &str)] = &[
    ("#cloud-config-archive", "an archive of cloud-configs"),
    ("#cloud-config-jsonp", "a JSON patch"),
    ("#cloud-boothook", "a boot hook"),
    ("#part-handler", "a part handler"),
    ("#upstart-job", "an Upstart job"),
    ("#include", "an include"),
    ("## template:", "a template"),
    ("#!", "a script"),
];

/// The cloud-configs in user data, in their order. What else is in it is left out by name.
pub fn cloud_configs(data: &[u8], remarks: &mut Remarks) -> Vec<String> {
    let mut reader = Reader { found: Vec::new(), parts: 0, left: MAX_UNPACKED, remarks };
    reader.read(data, Kind::Unknown, 0);
    reader.found
}

struct Reader<'r> {
    found: Vec<String>,
    parts: usize,
    /// What may yet be unpacked.
    left: usize,
    remarks: &'r mut Remarks,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    CloudConfig,
    Unknown,
}

impl Reader<'_> {
    fn read(&mut self, data: &[u8], kind: Kind, depth: usize) {
        if !self.admit(depth) {
            return;
        }
        if data.starts_with(&[0x1f, 0x8b]) {
            match gunzip(data, self.left) {
                Ok(data) => {
                    self.left -= data.len();
                    self.read(&data, kind, depth + 1);
                }
                Err(reason) => self.remarks.error(format!("user data: a part is left out: gzip: {reason}")),
            }
            return;
        }
        let Ok(text) = std::str::from_utf8(data) else {
            self.remarks.error("user data: a part is left out: not UTF-8");
            return;
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let head = text.trim_start();
        let begins = |with: &str| head.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
        if let Some((_, what)) = OTHERS.iter().find(|(with, _)| begins(with)) {
            self.remarks.error(format!("user data: {what} is left out; a cloud-config alone is carried out"));
        } else if kind == Kind::CloudConfig || begins("#cloud-config") {
            self.found.push(text.to_owned());
        } else if let Some((headers, body)) = message(text) {
            self.entity(&headers, body, depth);
        } else if head.is_empty() {
            // Nothing, as Nova has it where none was given.
        } else if let Some(data) = base64(head) {
            self.read(&data, kind, depth + 1);
        } else {
            self.remarks.error("user data: a part is left out: its kind is not known");
        }
    }

    /// A MIME entity.
    fn entity(&mut self, headers: &[(String, String)], body: &str, depth: usize) {
        let header =
            |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let content_type = header("content-type").unwrap_or("text/plain");
        let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let kind = kind.trim().to_ascii_lowercase();
        if kind.starts_with("multipart/") {
            let Some(boundary) = parameter(parameters, "boundary") else {
                self.remarks.error("user data: a multi-part without a boundary is left out");
                return;
            };
            for part in parts(body, &boundary) {
                if !self.admit(depth + 1) {
                    return;
                }
                match split_message(&part) {
                    Some((headers, body)) => self.entity(&headers, body, depth + 1),
                    None => self.remarks.error("user data: a part without an end of its headers is left out"),
                }
            }
            return;
        }
        let encoding = header("content-transfer-encoding").unwrap_or("7bit").trim().to_ascii_lowercase();
        let data = match encoding.as_str() {
            "7bit" | "8bit" | "binary" => Some(body.as_bytes().to_vec()),
            "base64" => base64(body),
            "quoted-printable" => Some(quoted_printable(body)),
            _ => None,
        };
        let Some(data) = data else {
            self.remarks
                .error(format!("user data: a part in {} is left out: it cannot be read", named(&encoding)));
            return;
        };
        match kind.as_str() {
            "text/cloud-config" => self.read(&data, Kind::CloudConfig, depth + 1),
            "text/plain"
            | "text/x-not-multipart"
            | "application/octet-stream"
            | "application/gzip"
            | "application/x-gzip"
            | "application/gzip-compressed"
            | "application/x-gzip-compressed" => {
                self.read(&data, Kind::Unknown, depth + 1);
            }
            other => self.remarks.error(format!("user data: a part of type {} is left out", named(other))),
        }
    }

    /// Counts a part; `false` when there are too many.
    fn admit(&mut self, depth: usize) -> bool {
        self.parts += 1;
        let admitted = depth <= MAX_DEPTH && self.parts <= MAX_PARTS;
        if !admitted && self.parts <= MAX_PARTS + 1 {
            self.remarks.error("user data: too many parts, or too deep in one another; the rest is left out");
        }
        admitted
    }
}

/// Unpacks at most so much.
pub(crate) fn gunzip(data: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(data).take(limit).read_to_end(&mut unpacked).map_err(|e| e.to_string())?;
    if unpacked.len() > most { Err(format!("more than {most} bytes")) } else { Ok(unpacked) }
}

/// Base64 in lines.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let dense: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    BASE64.decode(&dense).ok()
}

/// A text that begins as a message does, with a header of MIME's.
fn message(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let (headers, body) = split_message(text)?;
    let is_mime = |name: &str| name == "mime-version" || name == "content-type";
    headers.iter().any(|(name, _)| is_mime(name)).then_some((headers, body))
}

/// Headers with their names in lower case, and what follows the empty line. The first line may be mbox's `From `.
fn split_message(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut rest = text;
    loop {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let ended = after.is_empty() && !rest.ends_with('\n');
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return (!ended || text.is_empty()).then_some((headers, after));
        }
        let is_from = rest.len() == text.len() && line.starts_with("From ");
        if is_from {
            // mbox's.
        } else if line.starts_with([' ', '\t']) {
            headers.last_mut()?.1.push_str(line);
        } else if let Some((name, value)) = line.split_once(':') {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
                return None;
            }
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        } else {
            return None;
        }
        if ended {
            return None;
        }
        rest = after;
    }
}

/// A parameter of a Content-Type, in quotes or not (RFC 2045 section 5.1).
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    loop {
        let (key, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => {
                let mut out = String::new();
                let mut chars = quoted.char_indices();
                let end = loop {
                    match chars.next()? {
                        (at, '"') => break at,
                        (_, '\\') => out.push(chars.next()?.1),
                        (_, c) => out.push(c),
                    }
                };
                (out, &quoted[end + 1..])
            }
            None => {
                let end = value.find(|c: char| c == ';' || c.is_whitespace()).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return (!value.is_empty()).then_some(value);
        }
        rest = after.trim_start().strip_prefix(';').unwrap_or_default();
    }
}

/// The parts between boundaries (RFC 2046 section 5.1.1); the line break before a boundary is the boundary's.
fn parts(body: &str, boundary: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut open = false;
    for line in body.split_inclusive('\n') {
        let delimiter = line.trim_end().strip_prefix("--").and_then(|line| line.strip_prefix(boundary));
        match delimiter {
            Some(end @ ("" | "--")) => {
                if open && let Some(part) = parts.last_mut() {
                    let without = part.strip_suffix('\n').map(|part| part.strip_suffix('\r').unwrap_or(part));
                    let length = without.map_or(part.len(), str::len);
                    part.truncate(length);
                }
                if end == "--" {
                    return parts;
                }
                open = true;
                parts.push(String::new());
                if parts.len() > MAX_PARTS + 1 {
                    return parts;
                }
            }
            _ if open => {
                if let Some(part) = parts.last_mut() {
                    part.push_str(line);
                }
            }
            _ => {}
        }
    }
    parts
}

/// RFC 2045 section 6.7. What is no escape stays as it is, as Python's decoder leaves it.
fn quoted_printable(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (content, end) = match line.strip_suffix('\n') {
            Some(line) => line.strip_suffix('\r').map_or((line, "\n"), |line| (line, "\r\n")),
            None => (line, ""),
        };
        let content = content.trim_end_matches([' ', '\t']);
        let (content, end) = content.strip_suffix('=').map_or((content, end), |content| (content, ""));
        let mut bytes = content.as_bytes();
        while let [first, rest @ ..] = bytes {
            let hex = |b: &u8| char::from(*b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            if let (b'=', [high, low, after @ ..]) = (first, rest)
                && let Some((high, low)) = hex(high).zip(hex(low))
            {
                out.push((high << 4) | low);
                bytes = after;
            } else {
                out.push(*first);
                bytes = rest;
            }
        }
        out.extend_from_slice(end.as_bytes());
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn read(data: &[u8]) -> (Vec<String>, Vec<String>) {
        let mut remarks = Remarks::default();
        let found = cloud_configs(data, &mut remarks);
        (found, remarks.iter().map(|remark| remark.text.clone()).collect())
    }

    const CONFIG: &str = "#cloud-config\ntimezone: UTC\n";

    #[test]
    fn it_comes_packed_in_many_ways() {
        let packed = gzip(CONFIG.as_bytes());
        let base64 = BASE64
            .encode(&packed)
            .as_bytes()
            .chunks(60)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect::<Vec<_>>()
            .join("\n");
        for data in [
            CONFIG.as_bytes().to_vec(),
            packed.clone(),
            base64.into_bytes(),
            BASE64.encode(CONFIG.as_bytes()).into_bytes(),
            gzip(&packed),
            gzip(BASE64.encode(CONFIG.as_bytes()).as_bytes()),
        ] {
            assert_eq!(read(&data), (vec![CONFIG.to_owned()], vec![]), "{data:?}");
        }
        assert_eq!(read(format!("\u{feff}\n {CONFIG}").as_bytes()).0.len(), 1);
        assert_eq!(read(b" \n"), (vec![], vec![]));
    }

    #[test]
    fn parts_of_mime() {
        let nested = "Content-Type: multipart/mixed; charset=\"x\"; boundary=inner\n\n--inner\nContent-Type: text/cloud-config\n\na: 3\n--inner--\n";
        let text = format!(
            "From nobody Sat Nov 28 11:00:00 2026\r\nContent-Type: multipart/mixed;\r\n boundary=\"=== \\\"1\"\r\nMIME-Version: 1.0\r\n\r\npreamble\r\n\
             --=== \"1\r\nContent-Type: text/cloud-config; charset=\"us-ascii\"\r\nMIME-Version: 1.0\r\n\r\na: 1\r\nb: 1\r\n\
             --=== \"1\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n\
             --=== \"1  \r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n#cloud-config=0Ax=\r\n: =C3=A4=zz\r\n\
             --=== \"1\r\n{nested}\
             --=== \"1\r\nContent-Type: text/x-shellscript\r\n\r\n#!/bin/sh\r\n\
             --=== \"1\r\n\r\n#!/bin/sh\r\n\
             --=== \"1\r\nContent-Transfer-Encoding: x-own\r\n\r\nx\r\n\
             --=== \"1--\r\nepilogue\r\n",
            BASE64.encode(CONFIG.as_bytes())
        );
        let (found, remarks) = read(text.as_bytes());
        assert_eq!(found, ["a: 1\r\nb: 1", CONFIG, "#cloud-config\nx: ä=zz", "a: 3"]);
        assert_eq!(
            remarks,
            [
                "user data: a part of type \"text/x-shellscript\" is left out",
                "user data: a script is left out; a cloud-config alone is carried out",
                "user data: a part in \"x-own\" is left out: it cannot be read",
            ]
        );
        // Without parts.
        assert_eq!(read(b"MIME-Version: 1.0\nContent-Type: text/cloud-config\n\na: 1\n").0, ["a: 1\n"]);
    }

    #[test]
    fn what_else_it_may_be_is_said() {
        for (text, reason) in [
            ("#!/bin/sh\nsecret\n", "a script is left out"),
            ("#cloud-config-archive\n- x\n", "an archive of cloud-configs is left out"),
            ("#Cloud-Boothook\n", "a boot hook is left out"),
            ("#include-once\nhttp://x\n", "an include is left out"),
            ("## template: jinja\n#cloud-config\n", "a template is left out"),
            ("secret", "its kind is not known"),
            ("secret: 1\n\nsecret", "its kind is not known"),
            ("Content-Type: multipart/mixed\n\n--x\n", "without a boundary"),
            (
                "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/plain",
                "without an end of its headers",
            ),
        ] {
            let (found, remarks) = read(text.as_bytes());
            assert_eq!((found.len(), remarks.len()), (0, 1), "{text}");
            assert!(remarks[0].contains(reason) && !remarks[0].contains("secret"), "{remarks:?}");
        }
        assert!(read(&[0xff, 0xfe]).1[0].contains("not UTF-8"));
        assert!(read(&[0x1f, 0x8b, 1, 2]).1[0].contains("gzip"));
    }

    #[test]
    fn it_stays_within_bounds() {
        let bomb = gzip(&vec![b' '; MAX_UNPACKED + 1]);
        assert_eq!(
            read(&bomb).1,
            [format!("user data: a part is left out: gzip: more than {MAX_UNPACKED} bytes")]
        );
        let mut deep = CONFIG.as_bytes().to_vec();
        for _ in 0..=MAX_DEPTH {
            deep = gzip(&deep);
        }
        assert!(read(&deep).1[0].contains("too deep"));
        let many =
            format!("Content-Type: multipart/mixed; boundary=x\n\n{}", "--x\n\n#cloud-config\n".repeat(1000));
        let (found, remarks) = read(many.as_bytes());
        assert!(found.len() < MAX_PARTS && remarks.len() == 1, "{} {remarks:?}", found.len());
    }

    proptest! {
        #[test]
        fn any_message_is_read_or_left_out(text in "(?s)(MIME-Version: 1.0\n|Content-Type: multipart/mixed; boundary=\"?x\"?\r?\n|Content-Transfer-Encoding: (base64|quoted-printable)\n|--x(--)?\r?\n|\r?\n|#cloud-config\n|=4|[a-z: =\"]{0,6}){0,20}") {
            crate::fuzz::user_data(text.as_bytes());
        }

        #[test]
        fn quoted_printable_text_comes_back(text in "[ -~ä\n]{0,200}") {
            // As Python's encoder has it: everything but letters is escaped, lines are cut.
            let mut encoded = String::new();
            for (at, byte) in text.bytes().enumerate() {
                if byte.is_ascii_alphanumeric() { encoded.push(char::from(byte)) } else { encoded += &format!("={byte:02X}") }
                if at % 20 == 19 { encoded += "=\r\n" }
            }
            prop_assert_eq!(quoted_printable(&encoded), text.into_bytes());
        }
    }
}
