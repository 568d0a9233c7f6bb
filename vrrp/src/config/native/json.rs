//! Reading JSON text strictly: one document, no member named twice in one object.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{super::fault::Faults, object::field};

/// The largest document that is looked at, in octets.
pub const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// The document; `None`, with the fault noted, when it is not JSON or too large. A name that comes twice is noted, and
/// reading goes on to the next fault. `serde_json` bounds the nesting (128 levels).
pub(super) fn read(text: &str, faults: &Faults) -> Option<Value> {
    if text.len() > MAX_DOCUMENT {
        faults.push("", format!("the document is larger than {MAX_DOCUMENT} octets"));
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { path: String::new(), faults }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| faults.push("", format!("not a JSON document: {error}"))).ok()
}

/// Builds a [`Value`] as `serde_json` does, except that a name that comes twice is a fault.
struct Strict<'f> {
    path: String,
    faults: &'f Faults,
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
            let path = format!("{}[{}]", self.path, list.len());
            match access.next_element_seed(Strict { path, faults: self.faults })? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = field(&self.path, &name);
            if map.contains_key(&name) {
                self.faults.push(&path, "is given twice in one object");
            }
            let value = access.next_value_seed(Strict { path, faults: self.faults })?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}
