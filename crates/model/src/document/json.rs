//! Reading JSON text strictly: one document, no member named twice in one object.

use std::{borrow::Cow, cell::Cell, collections::HashMap, fmt};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use crate::fault::Path;

/// The largest document that is looked at, in bytes. A member takes about 300, so 5,000 members are 1.5 MB.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// The most values that a document has, those in lists and objects counted too: else a byte or two of text that means nothing would
/// take the room of a value. What means something has some twenty bytes for each, and meets the bound on bytes first.
const MAX_VALUES: usize = 1_000_000;

/// Room for the fields of an object that has no elder sibling to tell how many there are.
const USUAL_FIELDS: usize = 8;

/// An object with more fields than these is searched by an index while it is read: comparing each name with each would
/// take time by the square of their number.
const FEW_FIELDS: usize = 32;

/// A JSON value that borrows from the text what is spelled there without escapes: one allocation for an object, one for
/// a list, none for most strings.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, an integer when it was written as one that has at most 64 bits.
    Number(Number),
    /// A string.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Json<'a>>),
    /// An object.
    Object(Fields<'a>),
}

impl<'a> Json<'a> {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The boolean, if it is one.
    pub(crate) fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = *self { Some(value) } else { None }
    }

    /// The number, if it is one that was written as an integer and fits.
    pub(crate) fn as_i64(&self) -> Option<i64> {
        if let Self::Number(number) = self { number.as_i64() } else { None }
    }

    /// The number, if it is one that was written as an integer and fits.
    pub(crate) fn as_u64(&self) -> Option<u64> {
        if let Self::Number(number) = self { number.as_u64() } else { None }
    }

    /// The number, if it is one.
    pub(crate) fn as_f64(&self) -> Option<f64> {
        if let Self::Number(number) = self { number.as_f64() } else { None }
    }

    /// The elements, if it is an array.
    pub(crate) fn as_list(&self) -> Option<&[Json<'a>]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    /// True for `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl<'a> From<&'a Value> for Json<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number.clone()),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Array(list) => Self::List(list.iter().map(Self::from).collect()),
            Value::Object(map) => {
                let field =
                    |(name, value): (&'a String, &'a Value)| (Cow::Borrowed(name.as_str()), value.into());
                Self::Object(Fields(map.iter().map(field).collect()))
            }
        }
    }
}

/// The fields of an object in the order of the text, no name twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Fields<'a> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Where the field is among the others, and its value.
    pub(crate) fn find(&self, name: &str) -> Option<(usize, &Json<'a>)> {
        self.0.iter().enumerate().find(|(_, (key, _))| key == name).map(|(at, (_, value))| (at, value))
    }

    /// The field's value.
    pub(crate) fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.find(name).map(|(_, value)| value)
    }
}

/// The document in `bytes`; `None`, with the fault noted, when it is not JSON or larger than `max` bytes. Each name that
/// comes twice in one object is noted with its path, and the last value stands so that reading can go on to the next
/// fault. `fault` takes the path, empty for the document as a whole, and the reason.
///
/// Nesting is bounded by `serde_json` (128 levels).
pub fn strict_json<'a>(
    bytes: &'a [u8],
    max: usize,
    fault: &dyn Fn(&dyn fmt::Display, String),
) -> Option<Json<'a>> {
    if bytes.len() > max {
        fault(&"", format!("the document is larger than {max} bytes"));
        return None;
    }
    // Text is looked through once as a whole, and not each string by itself; what is none is told with its place.
    let value = match std::str::from_utf8(bytes) {
        Ok(text) => whole(serde_json::Deserializer::from_str(text), fault),
        Err(_) => whole(serde_json::Deserializer::from_slice(bytes), fault),
    };
    value.map_err(|reason| fault(&"", reason)).ok()
}

/// The one document that there is to be.
fn whole<'a, R: serde_json::de::Read<'a>>(
    mut deserializer: serde_json::Deserializer<R>,
    fault: &dyn Fn(&dyn fmt::Display, String),
) -> Result<Json<'a>, String> {
    let left = &Cell::new(MAX_VALUES + 1);
    let value = Strict { path: Path::Root, fault, fields: &Cell::new(USUAL_FIELDS), left }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| match left.get() {
        0 => format!("the document has more than {MAX_VALUES} values"),
        _ => format!("not a JSON document: {error}"),
    })
}

/// Builds a [`Json`]; a name that comes twice is a fault.
struct Strict<'a> {
    path: Path<'a>,
    fault: &'a dyn Fn(&dyn fmt::Display, String),
    /// How many fields the last object among the siblings has: those of one list are mostly alike.
    fields: &'a Cell<usize>,
    /// How many values there may be until there are too many.
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        self.left.set(self.left.get().saturating_sub(1));
        if self.left.get() == 0 {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json<'de>, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let mut list = Vec::new();
        let fields = &Cell::new(USUAL_FIELDS);
        loop {
            let path = Path::Index(&self.path, list.len());
            let element = Strict { path, fault: self.fault, fields, left: self.left };
            match access.next_element_seed(element)? {
                Some(value) => list.push(value),
                None => return Ok(Json::List(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let mut fields = Fields::default();
        let mut index = HashMap::new();
        while let Some(Name(name)) = access.next_key()? {
            let path = Path::Field(&self.path, &name);
            let seed = Strict { path, fault: self.fault, fields: &Cell::new(USUAL_FIELDS), left: self.left };
            let value = access.next_value_seed(seed)?;
            let earlier = if fields.len() <= FEW_FIELDS {
                fields.find(&name).map(|(at, _)| at)
            } else {
                if index.is_empty() {
                    index.extend(fields.0.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)));
                }
                index.get(&name).copied()
            };
            if let Some(at) = earlier {
                (self.fault)(&path, "is given twice in one object".to_owned());
                fields.0[at].1 = value;
                continue;
            }
            if fields.0.is_empty() {
                fields.0.reserve_exact(self.fields.get().max(1));
            }
            if !index.is_empty() {
                index.insert(name.clone(), fields.len());
            }
            fields.0.push((name, value));
        }
        self.fields.set(fields.len());
        Ok(Json::Object(fields))
    }
}

/// The name of a field.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(value)))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_str(Visit)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::Faults;

    fn read<'a>(bytes: &'a [u8], faults: &Faults) -> Option<Json<'a>> {
        strict_json(bytes, MAX_DOCUMENT_BYTES, &|path, reason| faults.push(path, reason))
    }

    fn value(json: &Json<'_>) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => (*value).into(),
            Json::Number(number) => Value::Number(number.clone()),
            Json::Text(text) => (**text).into(),
            Json::List(list) => list.iter().map(value).collect(),
            Json::Object(fields) => {
                fields.0.iter().map(|(name, field)| (name.to_string(), value(field))).collect()
            }
        }
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
    fn a_name_given_twice_is_found_among_many_too_and_the_last_value_stands() {
        for n in [1, FEW_FIELDS - 1, FEW_FIELDS, FEW_FIELDS + 1, FEW_FIELDS + 2, 1000] {
            for again in [0, n / 2, n - 1] {
                let mut fields: Vec<_> = (0..n).map(|i| format!("\"n{i}\": {i}")).collect();
                // The same names, spelled otherwise.
                fields.push(format!("\"\\u006e{again}\": [\"\\n\"]"));
                fields.push(format!("\"n{again}\": \"last\""));
                let text = format!("[{{}}, {{{}}}]", fields.join(", "));
                let twice = (format!("[1].n{again}"), "is given twice in one object".to_owned());
                assert_eq!(reasons(&text), [twice.clone(), twice], "{n} fields");
                let read = read(text.as_bytes(), &Faults::default()).unwrap();
                assert_eq!(value(&read), serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }

    #[test]
    fn values_are_counted_wherever_they_stand() {
        let many = |n: usize| format!("[{}0]", "0,".repeat(n - 2));
        assert!(reasons(&many(MAX_VALUES)).is_empty());
        assert!(reasons(&many(MAX_VALUES).replace("0]", "0,]"))[0].1.starts_with("not a JSON document"));
        let too_many = (String::new(), format!("the document has more than {MAX_VALUES} values"));
        for text in [
            many(MAX_VALUES + 1),
            format!("[{}{{}}]", "[],".repeat(MAX_VALUES)),
            format!("[{}0]", "{\"a\":0},".repeat(MAX_VALUES / 2)),
        ] {
            assert_eq!(reasons(&text), std::slice::from_ref(&too_many));
        }
    }

    #[test]
    fn a_string_without_escapes_is_not_copied() {
        let text = br#"[{"a": "plain \u00fc", "b": "plain"}, {"\u0061": "\ud83d\ude00"}]"#;
        let read = read(text, &Faults::default()).unwrap();
        assert_eq!(value(&read), serde_json::from_slice::<Value>(text).unwrap());
        let Some([Json::Object(plain), Json::Object(escaped)]) = read.as_list() else { panic!("{read:?}") };
        assert!(matches!(plain.0[1], (Cow::Borrowed("b"), Json::Text(Cow::Borrowed("plain")))));
        assert!(matches!(escaped.0[0], (Cow::Owned(_), Json::Text(Cow::Owned(_)))));
        assert!(reasons("[\"\\ud800\"]")[0].1.starts_with("not a JSON document"));
        let faults = Faults::default();
        assert_eq!(super::strict_json(b"[\"\xff\"]", 100, &|path, reason| faults.push(path, reason)), None);
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
            prop_assert_eq!(ours.as_ref().map(value), serde_json::from_str::<Value>(&text).ok());
        }
    }
}
