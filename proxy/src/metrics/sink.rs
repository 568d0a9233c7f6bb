//! How a sample is written.

use std::fmt::{Display, Write};

use super::families::Family;

/// Where a family's samples go.
pub(super) struct Sink<'a> {
    family: &'static Family,
    headed: &'a mut bool,
    labels: &'a str,
    out: &'a mut String,
}

impl<'a> Sink<'a> {
    pub(super) fn new(family: &'static Family, headed: &'a mut bool, out: &'a mut String) -> Self {
        Self { family, headed, labels: "", out }
    }

    /// Puts these labels on what follows.
    pub(super) fn labelled(&mut self, labels: &'a str) -> &mut Self {
        self.labels = labels;
        self
    }

    /// A sample.
    pub(super) fn put(&mut self, value: u64) {
        self.sample("", value);
    }

    /// A sample of what may not be known.
    pub(super) fn put_known(&mut self, value: Option<u64>) {
        if let Some(value) = value {
            self.put(value);
        }
    }

    /// A sample that is not whole.
    pub(super) fn put_float(&mut self, value: f64) {
        self.sample("", value);
    }

    /// A sample in seconds, from microseconds.
    pub(super) fn put_micros(&mut self, micros: u64) {
        self.sample("", format_args!("{}.{:06}", micros / 1_000_000, micros % 1_000_000));
    }

    /// A sample in seconds, from milliseconds.
    pub(super) fn put_millis(&mut self, millis: u64) {
        self.sample("", format_args!("{}.{:03}", millis / 1000, millis % 1000));
    }

    /// A sample of a labelled object with one label more.
    pub(super) fn put_with(&mut self, label: &str, text: &str, value: u64) {
        self.sample(format_args!(",{label}=\"{text}\""), value);
    }

    /// The same of a time, in seconds since 1970.
    pub(super) fn put_time_with(&mut self, label: &str, text: &str, seconds: i64) {
        self.sample(format_args!(",{label}=\"{text}\""), seconds);
    }

    /// A sample of an object without labels with labels of its own.
    pub(super) fn put_labelled(&mut self, labels: &str, value: u64) {
        self.sample(format_args!("{{{labels}}}"), value);
    }

    fn sample(&mut self, more: impl Display, value: impl Display) {
        let Family { name, help, kind, .. } = self.family;
        if !*self.headed {
            *self.headed = true;
            write!(self.out, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str()).expect(NO_ERROR);
        }
        match self.labels {
            "" => writeln!(self.out, "{name}{more} {value}"),
            labels => writeln!(self.out, "{name}{{{labels}{more}}} {value}"),
        }
        .expect(NO_ERROR);
    }
}

const NO_ERROR: &str = "writing to a String cannot fail";

/// A label's value, escaped as the text format demands.
pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
