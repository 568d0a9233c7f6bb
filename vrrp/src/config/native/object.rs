//! One JSON object under inspection: typed access to its fields, with every fault noted under its path.

use std::{ops::RangeInclusive, time::Duration};

use serde_json::{Map, Value};

use super::super::fault::{Faults, excerpt};

/// The path of a field of the object at `parent`.
pub(super) fn field(parent: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_');
    match (plain && name.len() <= 64, parent.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{parent}.{name}"),
        (false, _) => format!("{parent}[{}]", excerpt(name)),
    }
}

/// A JSON object, what was asked of it, and where faults go.
///
/// A field that is `null` is as good as absent. A method that returns `None` for a field that is there has noted a fault,
/// so that what is read with a default in its place is not used.
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
    faults: &'a Faults,
    known: Vec<&'static str>,
}

impl<'a> Object<'a> {
    /// Reads `value` by `read`, then notes each field that `read` did not ask for.
    pub(super) fn read<T>(
        value: &'a Value,
        path: String,
        faults: &'a Faults,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let Value::Object(map) = value else {
            faults.push(path, "must be an object");
            return None;
        };
        let mut object = Self { map, path, faults, known: Vec::new() };
        let result = read(&mut object);
        for name in map.keys().filter(|name| !object.known.contains(&name.as_str())) {
            object.fault(name, "is not a field of this object");
        }
        result
    }

    /// Notes a fault of a field.
    pub(super) fn fault(&self, name: &str, reason: impl Into<String>) {
        self.faults.push(field(&self.path, name), reason);
    }

    fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The field, which must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Option<T>,
    ) -> Option<T> {
        if self.map.get(name).is_none_or(Value::is_null) {
            self.known.push(name);
            self.fault(name, "is required");
            return None;
        }
        read(self, name)
    }

    /// A string that `parse` understands.
    pub(super) fn text<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let parsed = text(self.get(name)?, parse);
        parsed.map_err(|reason| self.fault(name, reason)).ok()
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.get(name)?.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            self.fault(name, format!("must be a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// A whole number that fits into 32 bits.
    pub(super) fn count(&mut self, name: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.number(name, u64::from(*range.start())..=u64::from(*range.end()))?;
        u32::try_from(number).ok()
    }

    /// A whole number that fits into an octet.
    pub(super) fn octet(&mut self, name: &'static str, range: RangeInclusive<u8>) -> Option<u8> {
        let number = self.number(name, u64::from(*range.start())..=u64::from(*range.end()))?;
        u8::try_from(number).ok()
    }

    /// Milliseconds.
    pub(super) fn millis(&mut self, name: &'static str, max: u64) -> Option<Duration> {
        self.number(name, 0..=max).map(Duration::from_millis)
    }

    /// A boolean.
    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let flag = self.get(name)?.as_bool();
        if flag.is_none() {
            self.fault(name, "must be true or false");
        }
        flag
    }

    /// An object.
    pub(super) fn object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Object<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        Object::read(value, field(&self.path, name), self.faults, read)
    }

    /// A list, empty when it is absent. `read` gets the place of each element, and its path.
    fn list<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&'a Value, String) -> Option<T>,
    ) -> Vec<(usize, T)> {
        let Some(value) = self.get(name) else { return Vec::new() };
        let Value::Array(list) = value else {
            self.fault(name, "must be a list");
            return Vec::new();
        };
        let path = field(&self.path, name);
        let read = |(index, value)| read(value, format!("{path}[{index}]")).map(|item| (index, item));
        list.iter().enumerate().filter_map(read).collect()
    }

    /// A list of objects, each with its place in the document: those with faults are missing.
    pub(super) fn placed_objects<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Object<'a>) -> Option<T>,
    ) -> Vec<(usize, T)> {
        let faults = self.faults;
        self.list(name, |value, path| Object::read(value, path, faults, &mut read))
    }

    /// A list of objects.
    pub(super) fn objects<T>(
        &mut self,
        name: &'static str,
        read: impl FnMut(&mut Object<'a>) -> Option<T>,
    ) -> Vec<T> {
        self.placed_objects(name, read).into_iter().map(|(_, item)| item).collect()
    }

    /// A list of strings that `parse` understands.
    pub(super) fn texts<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let faults = self.faults;
        let read = |value: &Value, path| text(value, &parse).map_err(|reason| faults.push(path, reason)).ok();
        self.list(name, read).into_iter().map(|(_, item)| item).collect()
    }
}

fn text<T>(value: &Value, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
    value.as_str().ok_or_else(|| "must be a string".to_owned()).and_then(parse)
}
