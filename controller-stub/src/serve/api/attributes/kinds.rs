//! Which values a kind has. The texts are those of WSME's types and of `octavia.api.common.types`.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde_json::{Value, json};

use super::Attribute;

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub(in crate::serve::api) enum Kind {
    /// Characters, and what else is asked of them.
    Text {
        least: usize,
        most: usize,
        pattern: Option<Pattern>,
    },
    /// A number between these two.
    Integer(i64, i64),
    Boolean,
    /// `admin_state_up`: `null` is false.
    State,
    Uuid,
    Address,
    Cidr,
    Alpn,
    Url,
    UrlPath,
    OneOf(&'static [&'static str]),
    /// A word of a list. Of the words of a second one is told where they are said.
    OneOfHere(&'static [&'static str], &'static [&'static str], &'static str),
    OneOfIntegers(&'static [i64]),
    OneOfNumbers(&'static [f64]),
    List(&'static Kind),
    /// Texts by names.
    Map(&'static Kind),
    Object(&'static [Attribute]),
    /// Objects of another resource, made within this one.
    Nested(&'static [Attribute]),
    /// Milliseconds since 1970 in the database, ISO 8601 in seconds in answers.
    Time,
    /// JSON that nobody says.
    Json,
    /// An object that only the amphora's own model judges.
    Free,
}

/// The most bytes of an object that the amphora's model judges.
const FREE: usize = 128 * 1024;

/// What characters must look like: a test, and the pattern that a person is told.
#[derive(Clone, Copy, Debug)]
pub(in crate::serve::api) struct Pattern {
    pub(super) matches: fn(&str) -> bool,
    pub(super) shown: &'static str,
}

impl Pattern {
    /// What a person is told that characters must look like.
    pub(in crate::serve::api) fn shown(self) -> &'static str {
        self.shown
    }
}

/// Why a value is none of its kind.
#[derive(Debug)]
pub(super) enum Refused {
    /// It cannot be made one: WSME shows the whole body.
    Convert(String),
    /// It is not one: WSME shows the value.
    Invalid(String),
}

impl Kind {
    /// Characters, at most so many.
    pub(super) const fn text(most: usize) -> Self {
        Self::Text { least: 0, most, pattern: None }
    }

    /// Reads what is no list and no object, and not `null`.
    pub(super) fn read(self, value: &Value) -> Result<Value, Refused> {
        let invalid = |text: &str| Err(Refused::Invalid(text.to_owned()));
        match self {
            Self::Text { least, most, pattern } => {
                let Some(text) = value.as_str() else { return invalid("Value should be string") };
                let length = text.chars().count();
                if length < least {
                    return invalid(&format!("Value should have a minimum character requirement of {least}"));
                }
                if length > most {
                    return invalid(&format!("Value should have a maximum character requirement of {most}"));
                }
                match pattern {
                    Some(pattern) if !(pattern.matches)(text) => {
                        invalid(&format!("Value should match the pattern {}", pattern.shown))
                    }
                    _ if text.contains('\0') => invalid("Value should not contain a null character"),
                    _ => Ok(value.clone()),
                }
            }
            Self::Integer(least, most) => {
                let number = integer(value)?;
                if number < least {
                    return invalid(&format!("Value should be greater or equal to {least}"));
                }
                if number > most {
                    return invalid(&format!("Value should be lower or equal to {most}"));
                }
                Ok(json!(number))
            }
            Self::Boolean | Self::State => boolean(value).map(Value::from),
            Self::Uuid => match value.as_str().map(uuid::Uuid::parse_str) {
                Some(Ok(id)) => Ok(json!(id.hyphenated().to_string())),
                _ => invalid("Value should be UUID format"),
            },
            Self::Address => match value.as_str().map(str::parse::<IpAddr>) {
                Some(Ok(_)) => Ok(value.clone()),
                _ => invalid("Value should be IPv4 or IPv6 format"),
            },
            Self::Cidr => match value.as_str().and_then(cidr) {
                Some(text) => Ok(Value::from(text)),
                None => invalid("Value should be IPv4 or IPv6 CIDR format"),
            },
            Self::Alpn => match value.as_str() {
                Some("h2" | "http/1.1" | "http/1.0") => Ok(value.clone()),
                _ => invalid("Value should be a valid ALPN protocol ID"),
            },
            Self::Url => match value.as_str() {
                Some(text) if is_url(text) => Ok(value.clone()),
                _ => invalid("Value must be a valid URL string"),
            },
            Self::UrlPath => match value.as_str() {
                Some(text) if is_url_path(text) => Ok(value.clone()),
                _ => invalid("Value must be a valid URL Path string"),
            },
            Self::OneOf(values) => match value.as_str() {
                Some(text) if values.contains(&text) => Ok(value.clone()),
                _ => invalid(&format!("Value should be one of: {}", values.join(", "))),
            },
            Self::OneOfHere(values, elsewhere, place) => match value.as_str() {
                Some(text) if elsewhere.contains(&text) => {
                    let values = values.join(", ");
                    invalid(&format!(
                        "Value should be one of: {values}; {text} is said as {place}, in place of this"
                    ))
                }
                _ => Self::OneOf(values).read(value),
            },
            Self::OneOfIntegers(values) => {
                let number = integer(value)?;
                if values.contains(&number) { Ok(json!(number)) } else { invalid(&one_of(values)) }
            }
            Self::OneOfNumbers(values) => {
                let number = number(value)?;
                if values.contains(&number) { Ok(json!(number)) } else { invalid(&one_of_numbers(values)) }
            }
            Self::Free => match value {
                Value::Object(_) if value.to_string().len() <= FREE => Ok(value.clone()),
                Value::Object(_) => invalid(&format!("Value should have at most {FREE} bytes")),
                _ => invalid("Value should be an object"),
            },
            Self::List(_) | Self::Map(_) | Self::Object(_) | Self::Nested(_) | Self::Time | Self::Json => {
                Err(Refused::Convert("Value not valid".to_owned()))
            }
        }
    }
}

fn one_of(values: &[i64]) -> String {
    let values: Vec<_> = values.iter().map(i64::to_string).collect();
    format!("Value should be one of: {}", values.join(", "))
}

fn one_of_numbers(values: &[f64]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("{value:.1}")).collect();
    format!("Value should be one of: {}", values.join(", "))
}

/// Python's `int()`.
fn integer(value: &Value) -> Result<i64, Refused> {
    let read = match value {
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Number(number) => number.as_i64().or_else(|| {
            let number = number.as_f64()?;
            (number.abs() < 9e15).then_some(number as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| {
        let shown = if value.is_string() { quoted(value) } else { python(value) };
        Refused::Convert(format!("invalid literal for int() with base 10: {shown}"))
    })
}

/// Python's `float()`.
fn number(value: &Value) -> Result<f64, Refused> {
    let read = match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| Refused::Convert(format!("could not convert string to float: {}", quoted(value))))
}

/// WSME's booleans.
fn boolean(value: &Value) -> Result<bool, Refused> {
    let read = match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => number.as_i64().map(|number| number != 0),
        Value::String(text) => match text.as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    };
    read.ok_or_else(|| Refused::Convert(format!("Value not an unambiguous boolean: {}", python(value))))
}

/// A network as Python's `ip_network(.., strict=False)` writes it.
fn cidr(text: &str) -> Option<String> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
    match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => {
            let prefix = match prefix {
                None => 32,
                Some(prefix) => match prefix.parse::<u32>() {
                    Ok(bits) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => bits,
                    _ => mask(prefix.parse().ok()?)?,
                },
            };
            let kept = u32::MAX.checked_shl(32_u32.checked_sub(prefix)?).unwrap_or(0);
            Some(format!("{}/{prefix}", Ipv4Addr::from(u32::from(address) & kept)))
        }
        IpAddr::V6(address) => {
            let prefix = match prefix {
                None => 128,
                Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                    prefix.parse::<u32>().ok()?
                }
                Some(_) => return None,
            };
            let kept = u128::MAX.checked_shl(128_u32.checked_sub(prefix)?).unwrap_or(0);
            Some(format!("{}/{prefix}", Ipv6Addr::from(u128::from(address) & kept)))
        }
    }
}

/// The bits of a mask that is written as an address.
fn mask(mask: Ipv4Addr) -> Option<u32> {
    let bits = u32::from(mask);
    let prefix = bits.leading_ones();
    (bits.count_ones() == prefix).then_some(prefix)
}

/// Whether all of it are characters of a URI's path or host, or among `more`.
fn is_of_uri(text: &str, more: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, &byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)),
        _ => {
            byte.is_ascii_alphanumeric()
                || b"-._~!$&'()*+,;=".contains(&byte)
                || more.as_bytes().contains(&byte)
        }
    })
}

/// Whether it is a path, perhaps with a query, as `validate.url_path` wants it.
pub(in crate::serve::api) fn is_url_path(text: &str) -> bool {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    path.starts_with('/')
        && !path.starts_with("//")
        && is_of_uri(path, ":@/")
        && !text.contains(char::is_whitespace)
}

/// Whether it is a URL of HTTP with a host, as `validate.url` wants it.
pub(in crate::serve::api) fn is_url(text: &str) -> bool {
    if text.chars().any(|c| c <= ' ' || ('\u{7f}'..='\u{9f}').contains(&c)) {
        return false;
    }
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return false;
    }
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.strip_prefix('[') {
        Some(literal) => {
            let Some((address, port)) = literal.split_once(']') else { return false };
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            ("literal", port)
        }
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    !host.is_empty()
        && is_of_uri(host, "")
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && is_of_uri(path, ":@/")
}

/// A value as Python's `str()` shows it.
pub(in crate::serve::api) fn python(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        _ => quoted(value),
    }
}

/// A value as Python's `repr()` shows it.
fn quoted(value: &Value) -> String {
    let mut text = String::new();
    write_python(value, &mut text);
    text
}

fn write_python(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("None"),
        Value::Bool(true) => text.push_str("True"),
        Value::Bool(false) => text.push_str("False"),
        Value::Number(number) => {
            let _ = write!(text, "{number}");
        }
        Value::String(string) => {
            let _ = write!(text, "'{}'", string.replace('\\', "\\\\").replace('\'', "\\'"));
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                write_python(item, text);
            }
            text.push(']');
        }
        Value::Object(map) => {
            text.push('{');
            for (at, (name, item)) in map.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                let _ = write!(text, "'{name}': ");
                write_python(item, text);
            }
            text.push('}');
        }
    }
}
