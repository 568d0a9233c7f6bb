//! One JSON object under inspection: typed access to its fields, with every fault noted under its path.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use super::json::{Fields, Json};
use crate::{
    enums::Spelled,
    fault::{Faults, Path, excerpt},
};

/// Octavia's limit of names, descriptions and tags, in characters.
pub(crate) const MAX_NAME: usize = 255;

/// A field that says nothing to an amphora: checked for its type and not kept.
#[derive(Clone, Copy)]
pub(crate) enum Metadata {
    /// A string of at most so many characters.
    Text(usize),
    /// A UUID.
    Id,
    /// A list of UUIDs.
    Ids,
    /// A list of strings of at most 255 characters: `tags`.
    Tags,
    /// A list of `{"id": UUID}`, as Octavia's answers refer to other objects.
    References,
    /// A boolean.
    Flag,
}

/// What every object of Octavia's answers has and an amphora has no use for.
pub(crate) const COMMON: &[(&str, Metadata)] = &[
    ("project_id", Metadata::Text(36)),
    ("tenant_id", Metadata::Text(36)),
    ("description", Metadata::Text(MAX_NAME)),
    ("tags", Metadata::Tags),
    ("created_at", Metadata::Text(64)),
    ("updated_at", Metadata::Text(64)),
    ("provisioning_status", Metadata::Text(16)),
    ("operating_status", Metadata::Text(16)),
];

/// A JSON object, what was asked of it, and where faults go.
///
/// A field that is `null` is as good as absent, except where that would be a guess (`admin_state_up`).
pub struct Object<'a> {
    fields: &'a Fields<'a>,
    path: Path<'a>,
    faults: &'a Faults,
    known: Known,
    /// Set when every name has been judged already.
    judged: bool,
}

/// Which fields of an object were asked for, by their places in it: a bit for each.
#[derive(Default)]
struct Known {
    first: u64,
    /// Those of more than 64, which no object has that is right.
    further: Vec<u64>,
}

impl Known {
    fn add(&mut self, at: usize) {
        let (word, bit) = (at / 64, 1 << (at % 64));
        if word == 0 {
            self.first |= bit;
        } else {
            if self.further.len() < word {
                self.further.resize(word, 0);
            }
            self.further[word - 1] |= bit;
        }
    }

    fn count(&self) -> u32 {
        self.first.count_ones() + self.further.iter().map(|word| word.count_ones()).sum::<u32>()
    }

    fn has(&self, at: usize) -> bool {
        let (word, bit) = (at / 64, 1 << (at % 64));
        let word = if word == 0 { self.first } else { self.further.get(word - 1).copied().unwrap_or(0) };
        word & bit != 0
    }
}

impl<'a> Object<'a> {
    /// Reads `value` by `read`, then notes each field that `read` did not ask for. `None`, with a fault, when `value`
    /// is not an object.
    pub fn read<T>(
        value: &Json<'_>,
        path: Path<'_>,
        faults: &Faults,
        read: impl FnOnce(&mut Object<'_>) -> Option<T>,
    ) -> Option<T> {
        let Json::Object(fields) = value else {
            faults.push(path, "must be an object");
            return None;
        };
        let mut object = Object { fields, path, faults, known: Known::default(), judged: false };
        let result = read(&mut object);
        if !object.judged {
            let names = fields.names().enumerate().filter(|(at, _)| !object.known.has(*at));
            object.fault_each(names.map(|(_, name)| name).collect(), "is not a field of this object");
        }
        result
    }

    /// Notes a fault of the field `name`.
    pub fn fault(&self, name: &str, reason: impl Into<String>) {
        self.faults.push(Path::Field(&self.path, name), reason);
    }

    /// Notes a fault of what has this path, which the object knows of by what it has read.
    pub(super) fn fault_at(&self, path: &str, reason: impl Into<String>) {
        self.faults.push(path, reason);
    }

    /// Notes a fault of each of the fields, in the order of their names.
    fn fault_each(&self, mut names: Vec<&str>, reason: &str) {
        names.sort_unstable();
        names.into_iter().for_each(|name| self.fault(name, reason));
    }

    /// The field's value, which is known from now on.
    fn ask(&mut self, name: &str) -> Option<&'a Json<'a>> {
        let (at, value) = self.fields.find(name)?;
        self.known.add(at);
        Some(value)
    }

    /// Notes a fault of the object itself.
    pub fn own_fault(&self, reason: impl Into<String>) {
        self.faults.push(self.path, reason);
    }

    /// The object's own path.
    pub fn path(&self) -> Path<'_> {
        self.path
    }

    /// The names in the object, known or not.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.fields.names()
    }

    /// Notes a fault of each field for which `reason` gives one, instead of the fault of an unknown field.
    pub(crate) fn refuse_others(&mut self, allowed: &[&'static str], reason: &str) {
        self.fault_each(self.names().filter(|name| !allowed.contains(name)).collect(), reason);
        self.judged = true;
    }

    /// The field's value, when it is there and not `null`.
    pub fn get(&mut self, name: &'static str) -> Option<&'a Json<'a>> {
        self.ask(name).filter(|value| !value.is_null())
    }

    /// The field, unless it is absent, `null` or the empty string, which Octavia answers for some ids and names that
    /// are not set.
    pub(crate) fn given(&mut self, name: &'static str) -> Option<&'a Json<'a>> {
        self.get(name).filter(|value| value.as_str() != Some(""))
    }

    /// True when the field is there and not `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// What `read` makes of the field, which must be there.
    pub fn require<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Option<T>,
    ) -> Option<T> {
        if self.given(name).is_some() { read(self, name) } else { self.missing(name) }
    }

    /// Notes that the field is missing, and stands for its value.
    pub(crate) fn missing<T>(&mut self, name: &'static str) -> Option<T> {
        self.ask(name);
        self.fault(name, "is required");
        None
    }

    /// A string of at most `max` characters.
    pub fn text(&mut self, name: &'static str, max: usize) -> Option<&'a str> {
        let value = self.get(name)?;
        check_text(value, max).map_err(|reason| self.fault(name, reason)).ok()
    }

    /// A string that `parse` understands.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let parsed = self.get(name)?.as_str().ok_or_else(|| "must be a string".to_owned()).and_then(parse);
        parsed.map_err(|reason| self.fault(name, reason)).ok()
    }

    /// `name`, or the empty string.
    pub(crate) fn name(&mut self) -> String {
        self.text("name", MAX_NAME).unwrap_or_default().to_owned()
    }

    /// A boolean, or the default. `null` is refused: Octavia takes it for false in `admin_state_up`, where an absent
    /// field means true.
    pub(crate) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        match self.ask(name) {
            None => default,
            Some(Json::Bool(value)) => *value,
            Some(_) => {
                self.fault(name, "must be true or false");
                default
            }
        }
    }

    /// A boolean.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.get(name)?.as_bool();
        if value.is_none() {
            self.fault(name, "must be true or false");
        }
        value
    }

    /// An integer within bounds.
    pub fn integer<T: TryFrom<i64> + PartialOrd + fmt::Display>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        let number = self.get(name)?.as_i64().and_then(|number| T::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.fault(name, format!("must be an integer from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// A TCP port, 1 to 65535.
    pub(crate) fn port(&mut self, name: &'static str) -> Option<u16> {
        self.integer(name, 1..=u16::MAX)
    }

    /// The object's own `id`, which it must have.
    pub(crate) fn id<T: FromStr>(&mut self) -> Option<T> {
        self.require("id", Self::reference)
    }

    /// The id of another object.
    pub(crate) fn reference<T: FromStr>(&mut self, name: &'static str) -> Option<T> {
        let value = self.given(name)?;
        let id = parse_id(value);
        if id.is_none() {
            self.fault(name, NOT_AN_ID);
        }
        id
    }

    /// An IPv4 or IPv6 address.
    pub(crate) fn address(&mut self, name: &'static str) -> Option<IpAddr> {
        let value = self.given(name)?;
        let address = value.as_str().and_then(|text| text.parse().ok());
        if address.is_none() {
            self.fault(name, "must be an IPv4 or IPv6 address");
        }
        address
    }

    /// One of the values of an enumeration.
    pub(crate) fn choice<T: Spelled>(&mut self, name: &'static str) -> Option<T> {
        self.one_of(name, T::NAMES).and_then(T::spelled)
    }

    /// One of some strings.
    pub(crate) fn one_of(
        &mut self,
        name: &'static str,
        allowed: &'static [&'static str],
    ) -> Option<&'static str> {
        let value = self.given(name)?;
        let text = value.as_str();
        let found = text.and_then(|text| allowed.iter().find(|a| **a == text));
        if found.is_none() {
            let allowed = allowed.join(", ");
            self.fault(
                name,
                match text {
                    Some(text) => format!("must be one of {allowed}; not {}", excerpt(text)),
                    None => format!("must be one of {allowed}"),
                },
            );
        }
        found.copied()
    }

    /// The object in a field.
    pub fn object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Object<'_>) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        Object::read(value, Path::Field(&self.path, name), self.faults, read)
    }

    /// The objects in a list.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Object<'_>) -> Option<T>,
    ) -> Vec<T> {
        let value = self.ask(name);
        let path = Path::Field(&self.path, name);
        let faults = self.faults;
        match value {
            None | Some(Json::Null) => Vec::new(),
            Some(Json::List(list)) => list
                .iter()
                .enumerate()
                .filter_map(|(i, value)| Object::read(value, Path::Index(&path, i), faults, &mut read))
                .collect(),
            Some(_) => {
                faults.push(path, "must be a list");
                Vec::new()
            }
        }
    }

    /// How many elements the list has; none when there is none. Without marking the field as known.
    pub(crate) fn elements(&self, name: &str) -> usize {
        self.fields.get(name).and_then(Json::as_list).map_or(0, <[_]>::len)
    }

    /// Shows each object in a list to `visit`, without noting anything and without marking the field as known.
    pub(crate) fn peek(&self, name: &str, mut visit: impl FnMut(&Object<'_>)) {
        let path = Path::Field(&self.path, name);
        for (i, value) in self.fields.get(name).and_then(Json::as_list).into_iter().flatten().enumerate() {
            if let Json::Object(fields) = value {
                let path = Path::Index(&path, i);
                visit(&Object { fields, path, faults: self.faults, known: Known::default(), judged: false });
            }
        }
    }

    /// Reads the object in a field when it is one and `when` says so, without marking the field as known.
    pub(crate) fn read_ahead<T>(
        &self,
        name: &str,
        when: impl FnOnce(&Fields<'_>) -> bool,
        read: impl FnOnce(&mut Object<'_>) -> Option<T>,
    ) {
        if let Some(value @ Json::Object(fields)) = self.fields.get(name)
            && when(fields)
        {
            Object::read(value, Path::Field(&self.path, name), self.faults, read);
        }
    }

    /// Strings in a list, each of which `read` understands.
    pub fn strings<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let value = self.ask(name);
        let path = Path::Field(&self.path, name);
        let faults = self.faults;
        let mut result = Vec::new();
        match value {
            None | Some(Json::Null) => {}
            Some(Json::List(list)) => {
                for (i, value) in list.iter().enumerate() {
                    match value.as_str().ok_or_else(|| "must be a string".to_owned()).and_then(&mut read) {
                        Ok(value) => result.push(value),
                        Err(reason) => faults.push(Path::Index(&path, i), reason),
                    }
                }
            }
            Some(_) => faults.push(path, "must be a list"),
        }
        result
    }

    /// Checks fields that are not kept.
    pub(crate) fn metadata(&mut self, fields: &[(&'static str, Metadata)]) {
        for &(name, kind) in fields {
            // Mostly none is there, and nothing but what was asked for.
            if self.known.count() as usize == self.fields.len() {
                return;
            }
            if self.fields.get(name).is_none() {
                continue;
            }
            match kind {
                Metadata::Text(max) => {
                    self.text(name, max);
                }
                Metadata::Id => {
                    self.reference::<uuid::Uuid>(name);
                }
                Metadata::Ids => {
                    self.strings(name, |text| parse_uuid(text).ok_or_else(|| NOT_AN_ID.to_owned()));
                }
                Metadata::Tags => {
                    self.strings(name, |text| within(text, MAX_NAME).map(|_| ()));
                }
                Metadata::References => {
                    self.objects(name, |o| o.id::<uuid::Uuid>());
                }
                Metadata::Flag => {
                    if self.has(name) {
                        self.flag(name, false);
                    } else {
                        self.ask(name);
                    }
                }
            }
        }
    }

    /// Checks that an object that names its parent is where it says.
    pub(crate) fn parent<T: FromStr + PartialEq>(&mut self, name: &'static str, parent: Option<T>) {
        if let (Some(given), Some(parent)) = (self.reference::<T>(name), parent)
            && given != parent
        {
            self.fault(name, "is not the id of the object that this one is in");
        }
    }
}

const NOT_AN_ID: &str = "must be a UUID such as 6a0a707c-45ef-4758-b533-e55adddba8ce";

/// The id in `value`, spelled with hyphens.
pub(crate) fn parse_id<T: FromStr>(value: &Json<'_>) -> Option<T> {
    let text = value.as_str()?;
    parse_uuid(text).and_then(|_| text.parse().ok())
}

fn parse_uuid(text: &str) -> Option<uuid::Uuid> {
    (text.len() == 36).then(|| uuid::Uuid::parse_str(text).ok()).flatten()
}

fn check_text<'a>(value: &'a Json<'_>, max: usize) -> Result<&'a str, String> {
    within(value.as_str().ok_or("must be a string")?, max)
}

fn within(text: &str, max: usize) -> Result<&str, String> {
    // Counting is only for what could be too long: a character has at least one byte.
    if text.len() > max && text.chars().count() > max {
        return Err(format!("must not be longer than {max} characters"));
    }
    Ok(text)
}
