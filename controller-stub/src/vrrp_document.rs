//! VRRP configurations as an operator writes them, and what each amphora of a pair is given of one.
//!
//! As with load balancers the amphora's own parser judges the content.

use std::{net::IpAddr, path::Path};

use serde_json::{Value, json};

use crate::{
    document::{parse_value, read_text},
    error::{Error, Result},
};

/// The priorities of a pair, in the order in which its amphorae are given: Octavia's.
const PRIORITIES: [u8; 2] = [100, 90];

/// A VRRP configuration. What is in it is unchecked.
#[derive(Clone, Debug, PartialEq)]
pub enum VrrpDocument {
    /// The native document: `{"instances": [...]}`.
    Native(Value),
    /// keepalived.conf, as it is.
    Keepalived(String),
}

impl VrrpDocument {
    /// Reads the file, or standard input when the path is `-`.
    ///
    /// # Errors
    /// [`Error::Usage`] when it cannot be read, or is a native document that is neither JSON nor YAML.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&read_text(path)?).map_err(|reason| Error::file(path, reason))
    }

    /// The native document when the first word is `{`, `---` or `instances:`, else keepalived.conf.
    ///
    /// # Errors
    /// The reason, with line and column where the text is at fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().map(str::trim_start);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with(['#', '!'])).unwrap_or_default();
        if !["{", "---", "instances:"].into_iter().any(|start| first.starts_with(start)) {
            return Ok(Self::Keepalived(text.to_owned()));
        }
        let document = parse_value(text)?;
        if document.get("instances").is_none() {
            return Err("no `instances` at the top of the document".to_owned());
        }
        Ok(Self::Native(document))
    }

    /// What each amphora of a pair is given: the first the higher priority, and each the other as its unicast peer.
    /// `unicast.peers` of the document are the addresses of both, in the order of the amphorae.
    ///
    /// # Errors
    /// The place of the document that does not fit a pair.
    pub fn pair(&self) -> Result<[Self; 2], String> {
        let Self::Native(document) = self else {
            return Err("keepalived.conf is for one amphora; a pair takes the native document".to_owned());
        };
        let mut pair = [document.clone(), document.clone()];
        for (n, document) in pair.iter_mut().enumerate() {
            let instances = document["instances"].as_array_mut().ok_or("instances: must be a list")?;
            for (i, instance) in instances.iter_mut().enumerate() {
                give(instance, n).map_err(|(field, reason)| format!("instances[{i}]{field}: {reason}"))?;
            }
        }
        Ok(pair.map(Self::Native))
    }

    /// The addresses of both amphorae: those of the first instance with unicast, in the order of the amphorae.
    pub fn addresses(&self) -> Option<[IpAddr; 2]> {
        let Self::Native(document) = self else { return None };
        let unicast = document["instances"]
            .as_array()?
            .iter()
            .find_map(|instance| instance.get("unicast").filter(|unicast| !unicast.is_null()))?;
        both(unicast.get("peers")?)
    }
}

/// The two addresses that a list says, if it does.
fn both(addresses: &Value) -> Option<[IpAddr; 2]> {
    let [one, other] = addresses.as_array()?.as_slice() else { return None };
    let pair = [one.as_str()?.parse().ok()?, other.as_str()?.parse().ok()?];
    (pair[0] != pair[1]).then_some(pair)
}

/// Makes an instance that of the amphora `n`; else the field that does not fit, and why.
fn give(instance: &mut Value, n: usize) -> Result<(), (&'static str, &'static str)> {
    let instance = instance.as_object_mut().ok_or(("", "must be an object"))?;
    for (field, path) in [("priority", ".priority"), ("initially_master", ".initially_master")] {
        if instance.contains_key(field) {
            return Err((path, "differs between the amphorae of a pair: leave it out"));
        }
    }
    instance.insert("priority".to_owned(), json!(PRIORITIES[n]));
    let Some(unicast) = instance.get_mut("unicast").filter(|unicast| !unicast.is_null()) else {
        return Ok(());
    };
    let unicast = unicast.as_object_mut().ok_or((".unicast", "must be an object"))?;
    if unicast.contains_key("source") {
        return Err((".unicast.source", "differs between the amphorae of a pair: leave it out"));
    }
    match unicast.get("peers").and_then(both) {
        Some(pair) => {
            unicast.insert("source".to_owned(), json!(pair[n]));
            unicast.insert("peers".to_owned(), json!([pair[1 - n]]));
            Ok(())
        }
        None => Err((".unicast.peers", "must be the addresses of both amphorae, in the order of --amphora")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_kind_is_known_by_its_first_word() {
        let native = VrrpDocument::Native(json!({"instances": [{"name": "lb"}]}));
        for text in [
            r#"  {"instances": [{"name": "lb"}]}"#,
            "# a comment\ninstances:\n- name: lb\n",
            "---\ninstances: [{name: lb}]\n",
        ] {
            assert_eq!(VrrpDocument::parse(text).unwrap(), native, "{text}");
        }
        let text = "! a comment\nvrrp_instance lb {\n}\n";
        assert_eq!(VrrpDocument::parse(text).unwrap(), VrrpDocument::Keepalived(text.to_owned()));
        assert!(VrrpDocument::parse("{\"x\": 1}").unwrap_err().contains("`instances`"));
        assert!(VrrpDocument::parse("instances: [").unwrap_err().contains("not YAML"));
    }

    #[test]
    fn a_pair_differs_in_priority_and_peers() {
        let document = json!({"instances": [
            {"name": "a", "vrid": 1, "unicast": {"peers": ["192.0.2.1", "192.0.2.2"], "check_source": true}},
            {"name": "b", "vrid": 2}]});
        let pair = VrrpDocument::Native(document).pair().unwrap();
        let expected = |priority: u8, source: &str, peer: &str| {
            let unicast = json!({"source": source, "peers": [peer], "check_source": true});
            VrrpDocument::Native(json!({"instances": [
                {"name": "a", "vrid": 1, "priority": priority, "unicast": unicast},
                {"name": "b", "vrid": 2, "priority": priority}]}))
        };
        assert_eq!(pair, [expected(100, "192.0.2.1", "192.0.2.2"), expected(90, "192.0.2.2", "192.0.2.1")]);
    }

    #[test]
    fn the_first_instance_with_unicast_says_the_addresses() {
        let addresses =
            |instances: Value| VrrpDocument::Native(json!({ "instances": instances })).addresses();
        let unicast = |peers: [&str; 2]| json!({"unicast": {"peers": peers}});
        let (first, second) = (unicast(["192.0.2.1", "192.0.2.2"]), unicast(["2001:db8::1", "2001:db8::2"]));
        let expected = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        assert_eq!(addresses(json!([{"unicast": null}, {}, first, second])), Some(expected));
        assert_eq!(addresses(json!([{}])), None);
        assert_eq!(VrrpDocument::Keepalived(String::new()).addresses(), None);
    }

    #[test]
    fn what_does_not_fit_a_pair_is_named() {
        for (instance, place) in [
            (json!({"priority": 1}), "instances[0].priority: differs"),
            (json!({"initially_master": true}), "instances[0].initially_master: differs"),
            (json!({"unicast": {"source": "192.0.2.1"}}), "instances[0].unicast.source: differs"),
            (json!({"unicast": {"peers": ["192.0.2.1"]}}), "instances[0].unicast.peers: must be"),
            (
                json!({"unicast": {"peers": ["192.0.2.1", "192.0.2.1"]}}),
                "instances[0].unicast.peers: must be",
            ),
            (json!({"unicast": {"peers": ["192.0.2.1", 2]}}), "instances[0].unicast.peers: must be"),
            (json!(1), "instances[0]: must be an object"),
        ] {
            let fault = VrrpDocument::Native(json!({"instances": [instance]})).pair().unwrap_err();
            assert!(fault.starts_with(place), "{fault}");
        }
        assert!(VrrpDocument::Keepalived(String::new()).pair().is_err());
    }
}
