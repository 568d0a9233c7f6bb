//! Reading JSON text strictly: one document, no member named twice in one object.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, map::Entry};

use crate::fault::Path;

/// The largest document that is looked at, in bytes. A member takes about 300, so 5,000 members are 1.5 MB.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// The document in `bytes`; `None`, with the fault noted, when it is not JSON or larger than `max` bytes. Each name that
/// comes twice in one object is noted with its path, and the last value stands so that reading can go on to the next
/// fault. `fault` takes the path, empty for the document as a whole, and the reason.
///
/// Nesting is bounded by `serde_json` (128 levels).
pub fn strict_json(bytes: &[u8], max: usize, fault: &dyn Fn(&dyn fmt::Display, String)) -> Option<Value> {
    if bytes.len() > max {
        fault(&"", format!("the document is larger than {max} bytes"));
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { path: Path::Root, fault }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| fault(&"", format!("not a JSON document: {error}"))).ok()
}

/// Builds a [`Value`] as `serde_json` does, except that a name that comes twice is a fault.
struct Strict<'a> {
    path: Path<'a>,
    fault: &'a dyn Fn(&dyn fmt::Display, String),
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let element = Strict { path: Path::Index(&self.path, list.len()), fault: self.fault };
            match access.next_element_seed(element)? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = Path::Field(&self.path, &name);
            let value = access.next_value_seed(Strict { path, fault: self.fault })?;
            match map.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => {
                    let path = Path::Field(&self.path, entry.key());
                    (self.fault)(&path, "is given twice in one object".to_owned());
                    entry.insert(value);
                }
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::Faults;

    fn read(bytes: &[u8], faults: &Faults) -> Option<Value> {
        strict_json(bytes, MAX_DOCUMENT_BYTES, &|path, reason| faults.push(path, reason))
    }

    fn reasons(text: &str) -> Vec<(String, String)> {
        let faults = Faults::default();
        let value = read(text.as_bytes(), &faults);
        match faults.into_result(value) {
            Ok(_) => Vec::new(),
            Err(refusal) => refusal.faults.into_iter().map(|f| (f.path, f.reason)).collect(),
        }
    }

    #[test]
    fn a_name_given_twice_is_a_fault_with_its_path() {
        let found = reasons(r#"{"a": [{"b": 1}, {"b": 1, "c": {}, "b": 2}], "a": 3}"#);
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["a[1].b", "a"]);
    }

    #[test]
    fn what_is_not_one_json_document_is_refused() {
        for text in ["", "{", "{} {}", "{\"a\":}", "nul", "\u{feff}{}", "1e999", "{\"a\": \"\u{1}\"}"] {
            let found = reasons(text);
            assert_eq!(found.len(), 1, "{text:?}");
            assert!(found[0].1.starts_with("not a JSON document"), "{found:?}");
        }
        assert!(reasons(&"[".repeat(100_000))[0].1.contains("recursion limit"));
        let huge = vec![b' '; MAX_DOCUMENT_BYTES + 1];
        let faults = Faults::default();
        assert_eq!(read(&huge, &faults), None);
        assert!(faults.into_result(None::<()>).unwrap_err().to_string().contains("larger than"));
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(text in r#"[\[\]{}:,"a1 -.e]{0,12}|\{"a":[0-9.e-]{1,6}\}"#) {
            let faults = Faults::default();
            let ours = read(text.as_bytes(), &faults);
            prop_assert_eq!(ours, serde_json::from_str::<Value>(&text).ok());
        }
    }
}
