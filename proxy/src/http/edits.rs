//! What a proxy changes in a head: lists that the writers of each version apply.

use std::ops::Range;

use super::{
    MAX_HEAD, cookies,
    names::{Known, KnownSet},
};

/// What to change in a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestEdits<'a> {
    /// The value of an `X-Forwarded-For` line to add, as HAProxy's `option forwardfor` does; lines that the client sent
    /// stay before it.
    pub forwarded_for: Option<&'a [u8]>,
    /// The value that replaces every `X-Forwarded-Port`, as `http-request set-header` does.
    pub forwarded_port: Option<&'a [u8]>,
    /// The value that replaces every `X-Forwarded-Proto`.
    pub forwarded_proto: Option<&'a [u8]>,
    /// Fields that replace every field of their names.
    pub set: SetFields<'a>,
    /// What policies change; it has the last word about each field.
    pub fields: FieldEdits<'a>,
    /// The path in place of the target's, whose query stays.
    pub path: Option<&'a [u8]>,
    /// The host in place of the client's.
    pub host: Option<&'a [u8]>,
    /// The name of the cookie that the member must not see (`cookie NAME ... indirect`).
    pub strip_cookie: Option<&'a [u8]>,
    /// Leave an `Expect` of `100-continue` out: there is no body, so it means nothing (RFC 9110 section 10.1.1), and a
    /// member that answers it all the same would answer twice.
    pub drop_expect: bool,
}

/// Fields that are written already, as `http-request set-header` sets them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetFields<'a> {
    /// Their names.
    pub names: KnownSet,
    /// Their lines, each with its end.
    pub lines: &'a [u8],
}

/// What to change in a response, whatever the version that the client speaks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseEdits<'a> {
    /// The name of a cookie whose `Set-Cookie` lines the client must not see, because the proxy owns it.
    pub strip_cookie: Option<&'a [u8]>,
    /// Name and value of a persistence cookie to set, with `path=/`.
    pub insert_cookie: Option<(&'a [u8], &'a [u8])>,
    /// The value of `Set-Cookie` that keeps the client with its pool.
    pub pool_cookie: Option<&'a [u8]>,
    /// Add `cache-control: private` (`nocache`).
    pub private: bool,
    /// The value that replaces every `Strict-Transport-Security`.
    pub transport_security: Option<&'a [u8]>,
    /// What policies change of what the member has sent.
    pub fields: FieldEdits<'a>,
}

/// Edits of fields, in order, with values that are written already.
#[derive(Clone, Copy, Debug, Default)]
pub struct FieldEdits<'a> {
    list: &'a [FieldEdit<'a>],
    values: &'a [u8],
}

/// An edit of the fields of one name.
#[derive(Clone, Debug)]
struct FieldEdit<'a> {
    /// In lower case.
    name: &'a [u8],
    known: Known,
    /// Those that there are go.
    removes: bool,
    /// One is added.
    value: Option<Range<usize>>,
}

/// Edits that are being put together.
#[derive(Debug, Default)]
pub struct EditList<'a> {
    list: Vec<FieldEdit<'a>>,
    values: Vec<u8>,
}

/// The values of edits are more than a head may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl<'a> EditList<'a> {
    /// Fields of this name, in lower case, go.
    pub fn remove(&mut self, name: &'a [u8], known: Known) {
        self.list.push(FieldEdit { name, known, removes: true, value: None });
    }

    /// A field is added, in place of all others of its name if it `removes` them; `write` appends its value.
    ///
    /// # Errors
    /// When the values are too long together.
    pub fn add(
        &mut self,
        name: &'a [u8],
        known: Known,
        removes: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), TooLong>,
    ) -> Result<(), TooLong> {
        let start = self.values.len();
        write(&mut self.values)?;
        if self.values.len() > MAX_HEAD {
            return Err(TooLong);
        }
        self.list.push(FieldEdit { name, known, removes, value: Some(start..self.values.len()) });
        Ok(())
    }

    /// As they are applied.
    pub fn edits(&self) -> FieldEdits<'_> {
        FieldEdits { list: &self.list, values: &self.values }
    }
}

impl<'a> FieldEdits<'a> {
    /// Whether nothing is edited.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What may have to [go](Self::removes), with [`Known::Other`] for any that has no name here.
    #[inline]
    pub(crate) fn touches(&self) -> KnownSet {
        let mut names = KnownSet::default();
        self.list.iter().filter(|edit| edit.removes).for_each(|edit| names.insert(edit.known));
        names
    }

    /// Whether fields of this name, in any case, go.
    #[inline]
    pub(crate) fn removes(&self, name: &[u8], known: Known) -> bool {
        self.list.iter().any(|edit| edit.removes && edit.is_of(name, known))
    }

    /// The fields that are added, in order: their names in lower case, and their values.
    #[inline]
    pub(crate) fn added(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let Self { list, values } = *self;
        list.iter().enumerate().filter_map(move |(at, edit)| {
            let value = edit.value.clone()?;
            // A later edit may have done away with it.
            let gone = list[at + 1..].iter().any(|later| later.removes && later.is_of(edit.name, edit.known));
            (!gone).then(|| (edit.name, &values[value]))
        })
    }
}

impl FieldEdit<'_> {
    fn is_of(&self, name: &[u8], known: Known) -> bool {
        self.known == known && (known != Known::Other || self.name.eq_ignore_ascii_case(name))
    }
}

/// A field that an edit adds: its name in lower case, and its value in pieces.
pub(crate) type Added<'a> = (&'a [u8], [&'a [u8]; 4]);

impl<'a> ResponseEdits<'a> {
    /// The fields among which some may have to [go](Self::removes).
    #[inline]
    pub(crate) fn touches(&self) -> KnownSet {
        let mut names = KnownSet::default();
        if self.strip_cookie.is_some() {
            names.insert(Known::SetCookie);
        }
        if self.transport_security.is_some() {
            names.insert(Known::StrictTransportSecurity);
        }
        names.insert_all(self.fields.touches());
        names
    }

    /// Whether a field is left out.
    #[inline]
    pub(crate) fn removes(&self, name: &[u8], known: Known, value: &[u8]) -> bool {
        self.fields.removes(name, known)
            || match known {
                Known::SetCookie => self.strip_cookie.is_some_and(|name| cookies::sets_cookie(value, name)),
                Known::StrictTransportSecurity => self.transport_security.is_some(),
                _ => false,
            }
    }

    /// The fields that are added, in order.
    #[inline]
    pub(crate) fn added(&self) -> impl Iterator<Item = Added<'a>> + use<'a> {
        let cookie =
            self.insert_cookie.map(|(name, value)| (&b"set-cookie"[..], [name, b"=", value, b"; path=/"]));
        let of_one = |name: &'static [u8], value: &'a [u8]| (name, [value, b"", b"", b""]);
        let pool = self.pool_cookie.map(|cookie| of_one(b"set-cookie", cookie));
        let private = self.private.then_some(of_one(b"cache-control", b"private"));
        let security = self.transport_security.map(|value| of_one(b"strict-transport-security", value));
        let security =
            security.filter(|(name, _)| !self.fields.removes(name, Known::StrictTransportSecurity));
        let edited = self.fields.added().map(|(name, value)| (name, [value, &b""[..], b"", b""]));
        [security, cookie, pool, private].into_iter().flatten().chain(edited)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn later_edits_go_before_earlier_ones() {
        let mut list = EditList::default();
        let mut add = |name: &'static [u8], removes, value: &'static [u8]| {
            let write = |values: &mut Vec<u8>| {
                values.extend_from_slice(value);
                Ok(())
            };
            list.add(name, Known::of(name), removes, write).unwrap();
        };
        add(b"x-a", false, b"1");
        add(b"x-b", true, b"2");
        add(b"server", true, b"3");
        add(b"x-a", false, b"4");
        add(b"x-b", true, b"5");
        list.remove(b"server", Known::Server);
        let edits = list.edits();
        let added: Vec<_> = edits.added().collect();
        assert_eq!(added, [(&b"x-a"[..], &b"1"[..]), (b"x-a", b"4"), (b"x-b", b"5")]);
        assert!(edits.removes(b"X-B", Known::Other) && edits.removes(b"Server", Known::Server));
        assert!(!edits.removes(b"x-a", Known::Other) && !edits.removes(b"x-c", Known::Other));
        assert!(edits.touches().contains(Known::Other) && edits.touches().contains(Known::Server));
    }

    #[test]
    fn values_are_bounded_together() {
        let mut list = EditList::default();
        let mut add = |length: usize| {
            list.add(b"x-a", Known::Other, true, |values| {
                values.resize(values.len() + length, b'x');
                Ok(())
            })
        };
        assert_eq!(add(MAX_HEAD), Ok(()));
        assert_eq!(add(1), Err(TooLong));
    }
}
