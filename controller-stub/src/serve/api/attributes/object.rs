//! An object of the API: its attributes by name.

use serde_json::{Map, Value};

/// Attributes with their values, as the API tells them. What is not in it was not said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Object(pub(crate) Map<String, Value>);

impl Object {
    /// The value of an attribute; nothing when there is none, or `null`.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Whether something is said of an attribute, be it `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A text that is there and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A text, or an empty one.
    pub(crate) fn str(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(Value::as_i64)
    }

    /// Whether it is true.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The elements of a list; none when there is no list.
    pub(crate) fn list(&self, name: &str) -> &[Value] {
        self.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        self.list(name).iter().filter_map(Value::as_str).collect()
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Takes an attribute out.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a list of objects out.
    pub(crate) fn take_objects(&mut self, name: &str) -> Vec<Self> {
        match self.take(name) {
            Some(Value::Array(items)) => items.into_iter().filter_map(Self::of).collect(),
            _ => Vec::new(),
        }
    }

    /// Takes an object out.
    pub(crate) fn take_object(&mut self, name: &str) -> Option<Self> {
        self.take(name).and_then(Self::of)
    }

    /// A JSON object as one.
    pub(crate) fn of(value: Value) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self(map)),
            _ => None,
        }
    }

    /// The identifier.
    pub(crate) fn id(&self) -> &str {
        self.str("id")
    }

    /// What it would be with these changes.
    pub(crate) fn with(&self, changes: &Self) -> Self {
        let mut all = self.clone();
        all.0.extend(changes.0.iter().map(|(name, value)| (name.clone(), value.clone())));
        all
    }
}
