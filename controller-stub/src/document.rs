//! Load-balancer documents as an operator writes them: JSON or YAML, from a file or standard input.
//!
//! This end only reads text into JSON and finds the id; the amphora's own parser judges the content, there or, before
//! anything is sent, by [`Document::judge`], so there is one place that knows what a load balancer may be.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use amphora_model::LoadBalancerId;
use serde_json::Value;

use crate::error::{Error, Result};

/// The longest document that is read, in bytes.
pub const MAX_BYTES: u64 = 8 << 20;

/// A document that has an id. What else is in it is unchecked.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// `loadbalancer.id`.
    pub id: LoadBalancerId,
    /// The whole document: `{"loadbalancer": {...}}`.
    pub body: Value,
}

impl Document {
    /// Reads the file, or standard input when the path is `-`.
    ///
    /// # Errors
    /// [`Error::Usage`] when the file cannot be read, is longer than [`MAX_BYTES`], is neither JSON nor YAML, or has
    /// no `loadbalancer.id`.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&read_text(path)?).map_err(|reason| Error::file(path, reason))
    }

    /// Parses JSON when the first character is `{`, else YAML.
    ///
    /// # Errors
    /// The reason, with line and column where the text is at fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = parse_value(text)?;
        let lb = body
            .get("loadbalancer")
            .and_then(Value::as_object)
            .ok_or("no `loadbalancer` object at the top of the document")?;
        let id = lb.get("id").ok_or("loadbalancer.id: missing; give the load balancer a UUID")?;
        let id = id
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| format!("loadbalancer.id: {id} is not a UUID"))?;
        Ok(Self { id, body })
    }
}

/// Reads the file, or standard input when the path is `-`.
///
/// # Errors
/// [`Error::Usage`] when it cannot be read or is longer than [`MAX_BYTES`].
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let text = if path == Path::new("-") {
        read_bounded(io::stdin().lock())
    } else {
        File::open(path).and_then(read_bounded)
    };
    text.map_err(|e| Error::file(path, e))
}

/// Parses JSON when the first character is `{`, else YAML.
///
/// # Errors
/// The reason, with line and column where the text is at fault.
pub(crate) fn parse_value(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))
    } else {
        amphora_yaml::parse(text, MAX_BYTES as usize).map_err(|e| format!("not YAML: {e}"))
    }
}

fn read_bounded(reader: impl Read) -> io::Result<String> {
    let mut text = String::new();
    reader.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    const ID: &str = "6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11";

    #[test]
    fn yaml_and_json_read_the_same() {
        let yaml = format!(
            "# a comment\nloadbalancer:\n  id: {ID}\n  name: no\n  admin_state_up: true\n  listeners:\n  - {{protocol: HTTP, protocol_port: 80}}\n"
        );
        let json = json!({"loadbalancer": {"id": ID, "name": "no", "admin_state_up": true,
            "listeners": [{"protocol": "HTTP", "protocol_port": 80}]}});
        assert_eq!(Document::parse(&yaml).unwrap().body, json);
        assert_eq!(Document::parse(&format!("  {json}")).unwrap(), Document::parse(&yaml).unwrap());
    }

    #[test]
    fn faults_name_their_place() {
        let fault = |text: &str| Document::parse(text).unwrap_err();
        assert!(fault("{\"loadbalancer\": ").contains("line 1"));
        assert!(fault("loadbalancer:\n  - a: [\n").contains("not YAML"));
        assert!(fault("listeners: []").contains("`loadbalancer`"));
        assert!(fault("loadbalancer: {name: x}").contains("loadbalancer.id"));
        assert!(fault("loadbalancer: {id: 7}").contains("7 is not a UUID"));
        assert!(fault("loadbalancer: {id: a, id: b}").to_lowercase().contains("duplicate"));
        assert!(fault("").contains("loadbalancer"));
    }

    #[test]
    fn a_yaml_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(Document::parse(&text).unwrap_err().contains("not YAML"));
        let deep = format!("a: {}1{}", "[".repeat(5000), "]".repeat(5000));
        assert!(Document::parse(&deep).unwrap_err().contains("not YAML"));
    }

    #[test]
    fn all_that_fits_the_bound_is_read() {
        let member = |n: u64| {
            format!(
                "    - {{id: {}, address: 192.0.2.1, protocol_port: {n}, name: '{}'}}\n",
                uuid::Uuid::from_u128(n.into()),
                "n".repeat(100)
            )
        };
        let head = format!("loadbalancer:\n  id: {ID}\n  pools:\n  - members:\n");
        let members: String = (0..20_000).map(member).collect();
        let text = format!("{head}{members}");
        assert!(text.len() > 3_600_000);
        let read = Document::parse(&text).unwrap().body;
        assert_eq!(read["loadbalancer"]["pools"][0]["members"].as_array().unwrap().len(), 20_000);
    }

    #[test]
    fn a_file_is_read_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.yaml");
        std::fs::write(&path, format!("loadbalancer: {{id: {ID}}}")).unwrap();
        assert_eq!(Document::read(&path).unwrap().id.to_string(), ID);
        let missing = Document::read(&dir.path().join("nothing")).unwrap_err();
        assert!(missing.to_string().contains("nothing"));
        assert!(read_bounded(io::repeat(b'x')).unwrap_err().to_string().contains("longer"));
    }
}
