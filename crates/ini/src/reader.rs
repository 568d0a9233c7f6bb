//! Typed reading of options, with defaults and substitution.

use std::{fmt::Display, path::PathBuf, str::FromStr, time::Duration};

use crate::{
    ConfigError,
    dialect::{Ini, Place},
    substitute::substitute,
};

/// What the files say and the defaults behind it, as `(section, name, value)`.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The files.
    pub ini: &'a Ini,
    /// What counts where they say nothing, and what a `$name` may refer to.
    pub defaults: &'a [(&'a str, &'a str, &'a str)],
}

impl Reader<'_> {
    /// An option that has a default or must be set.
    ///
    /// # Errors
    /// It has neither, refers to what is not there, or is not what `convert` takes.
    pub fn required<T>(
        &self,
        section: &str,
        name: &str,
        convert: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.read(section, name, convert)?.ok_or_else(|| error(section, name, None, "must be set".to_owned()))
    }

    /// An option that may be absent; an empty one counts as absent.
    ///
    /// # Errors
    /// It refers to what is not there, or is not what `convert` takes.
    pub fn optional<T>(
        &self,
        section: &str,
        name: &str,
        convert: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.read(section, name, |text| if text.is_empty() { Ok(None) } else { convert(text).map(Some) })
            .map(Option::flatten)
    }

    fn read<T>(
        &self,
        section: &str,
        name: &str,
        convert: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(raw) = self.raw(section, name) else { return Ok(None) };
        substitute(&raw, &|reference| self.look_up(section, reference))
            .and_then(|text| convert(&text))
            .map(Some)
            .map_err(|reason| error(section, name, self.place(section, name), reason))
    }

    /// Where an option is set, if it is.
    pub fn place(&self, section: &str, name: &str) -> Option<Place> {
        self.ini.get(section, name).map(|a| a.place.clone())
    }

    /// The value before substitution.
    fn raw(&self, section: &str, name: &str) -> Option<String> {
        let default = || self.defaults.iter().find(|(s, n, _)| (*s, *n) == (section, name));
        self.ini
            .get(section, name)
            .map(|a| a.value.clone())
            .or_else(|| default().map(|(_, _, value)| (*value).to_owned()))
    }

    /// What `$reference` means in a section: `section.name`, else the same section's, else `[DEFAULT]`'s.
    fn look_up(&self, section: &str, reference: &str) -> Option<String> {
        let qualified = reference.split_once('.').and_then(|(section, name)| self.raw(section, name));
        qualified.or_else(|| self.raw(section, reference)).or_else(|| self.raw("DEFAULT", reference))
    }
}

/// The error of an option, as the files name it.
pub fn error(section: &str, name: &str, place: Option<Place>, reason: String) -> ConfigError {
    ConfigError::Option { option: format!("[{section}] {name}"), place, reason }
}

/// Whatever [`FromStr`] takes.
///
/// # Errors
/// What it says.
pub fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e| format!("{text:?}: {e}"))
}

/// A number within bounds, both included.
pub fn bounded<T>(least: T, most: T) -> impl Fn(&str) -> Result<T, String>
where
    T: FromStr<Err: Display> + PartialOrd + Display,
{
    move |text| {
        let number = parse(text)?;
        if number < least || number > most {
            return Err(format!("must be from {least} to {most}: {number}"));
        }
        Ok(number)
    }
}

/// oslo's booleans.
///
/// # Errors
/// It is none.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Ok(true),
        "false" | "0" | "off" | "no" => Ok(false),
        _ => Err(format!("not a boolean: {text:?}")),
    }
}

/// A whole number of seconds, `least` at least and a day at most.
pub fn seconds(least: u64) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| bounded(least, 86_400)(text).map(Duration::from_secs)
}

/// An absolute path.
///
/// # Errors
/// It is relative.
pub fn path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("not an absolute path: {text:?}")) }
}
