//! Lines as JSON: an object each, with nothing of what it says outside of a string.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::{self, Write},
    panic::PanicHookInfo,
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// `{"time":"...","level":"INFO","message":"...","fields":{...}}`, with `fields` where there are any.
pub(crate) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut values = Values::default();
        event.record(&mut values);
        write!(writer, "{{\"time\":\"{time}\",\"level\":\"{}\"", event.metadata().level())?;
        if let Some(message) = values.message {
            write!(writer, ",\"message\":{message}")?;
        }
        if !values.fields.is_empty() {
            write!(writer, ",\"fields\":{{{}}}", values.fields)?;
        }
        writeln!(writer, "}}")
    }
}

/// The line of a panic. Not made of an event: a panic may come from what events are made by.
pub(crate) fn panicked(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let reason = payload.downcast_ref::<&str>().copied();
    let reason = reason.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let mut line = String::from("{\"time\":\"");
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut line));
    line.push_str("\",\"level\":\"ERROR\",\"message\":");
    quote(&mut line, &format!("panicked: {}", reason.unwrap_or("of no text")));
    line.push_str(",\"fields\":{\"thread\":");
    quote(&mut line, std::thread::current().name().unwrap_or("unnamed"));
    if let Some(location) = info.location() {
        line.push_str(",\"at\":");
        quote(&mut line, &location.to_string());
    }
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        line.push_str(",\"backtrace\":");
        quote(&mut line, &trace.to_string());
    }
    line.push_str("}}\n");
    line
}

/// What an event says, as JSON.
#[derive(Default)]
struct Values {
    message: Option<String>,
    /// Members of an object.
    fields: String,
}

impl Values {
    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = Some(value);
            return;
        }
        if !self.fields.is_empty() {
            self.fields.push(',');
        }
        quote(&mut self.fields, field.name());
        self.fields.push(':');
        self.fields.push_str(&value);
    }
}

impl Visit for Values {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // There is no other number in JSON.
        self.put(field, if value.is_finite() { value.to_string() } else { "null".to_owned() });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.to_string());
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, value.to_string());
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.to_string());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut quoted = String::new();
        quote(&mut quoted, value);
        self.put(field, quoted);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Appends a string of JSON (RFC 8259, section 7). DEL and the line separators of Unicode are escaped as well: some readers of
/// lines end one there.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
