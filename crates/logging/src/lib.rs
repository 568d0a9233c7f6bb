//! A program's log on standard error, in which lines that repeat leave room for others: a few of them are told, the rest is
//! counted, and how many there were is told once they have stopped.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`repeats`] | which lines are told, without a clock and without I/O |
//! | `levels` | of which level lines have to be |
//! | `json` | lines as JSON |
//!
//! A program makes its log with [`to_stderr`], and awaits [`tell_of_repeats`] beside all else that it does.

#![expect(
    clippy::disallowed_types,
    reason = "whoever logs counts its line; held for no longer, and never while something is awaited"
)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may block"))]

mod json;
mod levels;
pub mod repeats;

use std::{
    fmt::{self, Write},
    future::pending,
    hash::Hash,
    io::Write as _,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::{sync::Notify, time::Instant};
use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{Context, Filter, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

pub use self::levels::Levels;
use self::{
    json::Json,
    repeats::{LeftOut, Repeats},
};

/// The target of lines that tell of objects of the configuration, or of what a controller has changed. Nobody else decides how
/// many of them there are, and each that is not equal to another is told.
pub const EACH: &str = "each";

/// What lines are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// To be read.
    #[default]
    Text,
    /// To be parsed: a JSON object each.
    Json,
}

impl LogFormat {
    /// The variable of the environment that programs take it from, when their command line does not say it.
    pub const VARIABLE: &str = "AMPHORA_LOG_FORMAT";

    /// What the command line has said, or the environment, or text.
    pub fn chosen(option: Option<Self>) -> Self {
        let said = || std::env::var(Self::VARIABLE).ok().filter(|text| !text.is_empty());
        option.unwrap_or_else(|| {
            said().map_or(Self::Text, |text| {
                text.parse().unwrap_or_else(|reason| {
                    eprintln!("{} is {text:?}, but {reason}: lines are text", Self::VARIABLE);
                    Self::Text
                })
            })
        })
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("it is text or json".to_owned()),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What a line of the log has before its text. JSON has a time and no colours in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// What lines are.
    pub format: LogFormat,
    /// Colours.
    pub ansi: bool,
    /// No time, because who reads the lines adds it.
    pub without_time: bool,
}

/// The log of this process.
static LOG: OnceLock<Arc<Shared>> = OnceLock::new();

/// Of which level its lines have to be.
static LEVELS: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Makes standard error the log of this process, for lines of these levels and above. To be kept until the process ends: what
/// was left out is told then, too.
///
/// # Panics
/// When the process has a log already.
#[must_use]
pub fn to_stderr(levels: impl Into<Levels>, style: Style) -> Log {
    let shared = Arc::clone(LOG.get_or_init(Arc::default));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(style.ansi)
        .with_target(false);
    let lines = match style {
        Style { format: LogFormat::Json, .. } => {
            std::panic::set_hook(Box::new(|info| {
                // There is nobody else to tell.
                let _ = std::io::stderr().lock().write_all(json::panicked(info).as_bytes());
            }));
            lines.event_format(Json).boxed()
        }
        Style { without_time: true, .. } => lines.without_time().boxed(),
        _ => lines.boxed(),
    };
    let limited = lines.with_filter(Limited(Arc::clone(&shared)));
    let (filter, handle) = reload::Layer::new(levels.into().filter());
    let _ = LEVELS.set(handle);
    Registry::default().with(filter).with(limited).init();
    Log(shared)
}

/// Lines of these levels and above are told from now on. Nothing happens in a process whose log is not [ours](to_stderr).
pub fn set_levels(levels: impl Into<Levels>) {
    if let Some(handle) = LEVELS.get()
        && let Err(error) = handle.reload(levels.into().filter())
    {
        tracing::error!(%error, "the levels of the log stay as they are");
    }
}

/// The log of a program. What was left out is told when it is dropped.
#[derive(Debug)]
pub struct Log(Arc<Shared>);

impl Drop for Log {
    fn drop(&mut self) {
        let left_out = self.0.lock().end();
        left_out.iter().for_each(tell);
    }
}

/// Tells how many lines were left out, whenever some have stopped to come. Never ends; may be cancelled. To be awaited once in
/// a program.
pub async fn tell_of_repeats() {
    match LOG.get() {
        Some(shared) => shared.tell_of_repeats().await,
        None => pending().await,
    }
}

/// Where a line comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    callsite: Identifier,
    level: Level,
}

#[derive(Debug, Default)]
struct Shared {
    /// Of all threads that log; held for a look at a table.
    repeats: Mutex<Repeats<Kind>>,
    /// Told when a line was left out.
    left_out: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Repeats<Kind>> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell_of_repeats(&self) {
        loop {
            let at = self.lock().poll_timeout();
            match at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => self.left_out.notified().await,
            }
            let left_out = self.lock().handle_timeout(Instant::now().into_std());
            left_out.iter().for_each(tell);
        }
    }
}

fn tell(left_out: &LeftOut<Kind>) {
    match left_out.kind.level {
        Level::ERROR => tracing::error!("{left_out}"),
        Level::WARN => tracing::warn!("{left_out}"),
        Level::INFO => tracing::info!("{left_out}"),
        Level::DEBUG => tracing::debug!("{left_out}"),
        Level::TRACE => tracing::trace!("{left_out}"),
    }
}

/// Lets a line pass or leaves it out.
struct Limited(Arc<Shared>);

impl Limited {
    /// Who asks for the levels below wants to see everything; what is told of lines that were left out is no such line.
    fn concerns(metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target() != module_path!()
    }
}

impl<S: Subscriber> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Told by the event, which takes another question than whether the place may log.
        if Self::concerns(metadata) { Interest::sometimes() } else { Interest::always() }
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if !Self::concerns(metadata) {
            return true;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let kind = Kind { callsite: metadata.callsite(), level: *metadata.level() };
        let now = Instant::now().into_std();
        let told = if metadata.target() == EACH {
            self.0.lock().admit_each(now, kind, &line.0)
        } else {
            self.0.lock().admit(now, kind, &line.0)
        };
        if !told {
            self.0.left_out.notify_one();
        }
        told
    }
}

/// The text of a line, as it is shown.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{space}{value:?}"),
            name => write!(self.0, "{space}{name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{io, time::Duration};

    use tracing::level_filters::LevelFilter;

    use super::*;

    /// What has been logged.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| line.trim().to_owned()).collect()
        }
    }

    fn log() -> (Arc<Shared>, Written, tracing::subscriber::DefaultGuard) {
        log_of(LevelFilter::DEBUG.into())
    }

    fn log_of(levels: Levels) -> (Arc<Shared>, Written, tracing::subscriber::DefaultGuard) {
        let (shared, written) = (Arc::new(Shared::default()), Written::default());
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .with_filter(Limited(Arc::clone(&shared)));
        let subscriber = Registry::default().with(levels.filter()).with(lines);
        let guard = tracing::subscriber::set_default(subscriber);
        (shared, written, guard)
    }

    #[tokio::test(start_paused = true)]
    async fn of_833_equal_lines_a_handful_is_told_and_how_many_there_were() {
        let (shared, written, _guard) = log();
        for number in 0..833 {
            tracing::warn!(error = "no descriptors", "accepting pauses");
            if number == 400 {
                tracing::warn!(error = "another", "accepting pauses");
                tracing::error!("something else");
            }
        }
        let pause = "WARN accepting pauses error=\"no descriptors\"";
        let mut expected = vec![pause; 5];
        expected.extend(["WARN accepting pauses error=\"another\"", "ERROR something else"]);
        assert_eq!(written.lines(), expected);
        // Nothing else is logged, and all the same it is told.
        let telling = tokio::time::timeout(Duration::from_secs(60), shared.tell_of_repeats());
        assert!(telling.await.is_err(), "it never ends");
        let told = "WARN 828 more like this left out: accepting pauses error=\"no descriptors\"";
        assert_eq!(written.lines().last().unwrap(), told);
        assert_eq!(written.lines().len(), 8);
    }

    #[test]
    fn of_as_many_objects_as_there_are_each_is_told() {
        let (_shared, written, _guard) = log();
        (0..1000).for_each(|member| tracing::info!(target: EACH, member, "health changed"));
        (0..10).for_each(|_| tracing::info!(target: EACH, member = 1000, "health changed"));
        assert_eq!(written.lines().len(), 1005);
    }

    /// What the library of HTTP/2 warns of is what a client does, who would write the log.
    #[test]
    fn warnings_of_http2_are_told_to_who_asks_for_them() {
        for (levels, told) in [
            ("error", "ERROR of ours, ERROR of h2"),
            ("warn", "ERROR of ours, ERROR of h2, WARN of ours"),
            ("info", "ERROR of ours, ERROR of h2, WARN of ours, INFO of ours"),
            ("info,h2=warn", "ERROR of ours, ERROR of h2, WARN of ours, WARN of h2, INFO of ours"),
            ("h2=info,error", "ERROR of ours, ERROR of h2, WARN of h2, INFO of h2"),
            ("h2=off", "ERROR of ours, WARN of ours, INFO of ours"),
            ("debug,h2=error", "ERROR of ours, ERROR of h2, WARN of ours, INFO of ours"),
            ("debug", "ERROR of ours, ERROR of h2, WARN of ours, WARN of h2, INFO of ours, INFO of h2"),
        ] {
            let (_, written, _guard) = log_of(levels.parse().unwrap());
            tracing::error!("of ours");
            tracing::error!(target: "h2::proto::ping_pong", "of h2");
            tracing::warn!("of ours");
            tracing::warn!(target: "h2::proto::ping_pong", "of h2");
            tracing::info!("of ours");
            tracing::info!(target: "h2::proto::ping_pong", "of h2");
            assert_eq!(written.lines().join(", "), told, "{levels}");
        }
    }

    fn json_log() -> (Arc<Shared>, Written, tracing::subscriber::DefaultGuard) {
        let (shared, written) = (Arc::new(Shared::default()), Written::default());
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(true)
            .event_format(Json)
            .with_filter(Limited(Arc::clone(&shared)));
        let guard =
            tracing::subscriber::set_default(Registry::default().with(LevelFilter::DEBUG).with(lines));
        (shared, written, guard)
    }

    fn parsed(line: &str) -> serde_json::Value {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        let time = value.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
        value
    }

    #[test]
    fn json_lines_say_what_lines_of_text_say() {
        let (shared, written, _guard) = json_log();
        let odd = "a \"b\" \\ \n\r\t\u{1b}[31m \u{2028} \u{e9} \u{1f600} \0";
        tracing::warn!(count = 7, rate = 0.5, huge = f64::NAN, yes = true, text = odd, shown = %odd, ids = ?[1, 2], "odd: {odd}");
        tracing::error!("nothing else");
        tracing::info!(message = 5);
        (0..7).for_each(|_| tracing::info!(error = %"again and again", "repeats"));
        drop(Log(shared));
        let lines = written.lines();
        assert_eq!(lines.len(), 3 + 5 + 1);
        assert_eq!(
            parsed(&lines[0]),
            serde_json::json!({"level": "WARN", "message": format!("odd: {odd}"), "fields": {
                "count": 7, "rate": 0.5, "huge": null, "yes": true, "text": odd, "shown": odd, "ids": "[1, 2]",
            }})
        );
        assert_eq!(parsed(&lines[1]), serde_json::json!({"level": "ERROR", "message": "nothing else"}));
        assert_eq!(parsed(&lines[2]), serde_json::json!({"level": "INFO", "message": 5}));
        let told = "2 more like this left out: repeats error=again and again";
        assert_eq!(parsed(lines.last().unwrap())["message"], told);
        assert!(lines.iter().all(|line| !line.chars().any(char::is_control)));
    }

    #[test]
    fn a_panic_is_a_line_of_json() {
        static LINE: Mutex<String> = Mutex::new(String::new());
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(|info| LINE.lock().unwrap().push_str(&json::panicked(info))));
        let thread = std::thread::Builder::new().name("odd \"name\"".into());
        let ended = thread.spawn(|| panic!("no \"such\"\nline {}", 7)).unwrap().join();
        std::panic::set_hook(usual);
        assert!(ended.is_err());
        let line = LINE.lock().unwrap();
        let Some(line) = line.strip_suffix('\n') else { panic!("{line}") };
        let told = parsed(line);
        assert!(!line.chars().any(char::is_control));
        assert_eq!(
            (&told["level"], &told["message"]),
            (&"ERROR".into(), &"panicked: no \"such\"\nline 7".into())
        );
        assert_eq!(told["fields"]["thread"], "odd \"name\"");
        assert!(told["fields"]["at"].as_str().unwrap().contains("lib.rs:"));
    }

    proptest::proptest! {
        /// Any text comes back from its line, and no text makes two of it.
        #[test]
        fn any_text_is_one_line(text in ".*", name in "\\PC*") {
            let (_shared, written, _guard) = json_log();
            tracing::info!(text, shown = %name, "{name}");
            let line = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            proptest::prop_assert_eq!(line.matches(['\n', '\r', '\u{2028}', '\u{85}']).count(), 1);
            let value = parsed(line.trim_end());
            proptest::prop_assert_eq!(value["fields"]["text"].as_str(), Some(text.as_str()));
            proptest::prop_assert_eq!(value["message"].as_str(), Some(name.as_str()));
        }
    }

    #[test]
    fn who_asks_for_details_gets_all_of_them() {
        let (_, written, _guard) = log();
        (0..100).for_each(|_| tracing::debug!("a detail"));
        assert_eq!(written.lines().len(), 100);
    }

    #[test]
    fn what_was_left_out_is_told_at_the_end() {
        let (shared, written, _guard) = log();
        (0..7).for_each(|_| tracing::info!(n = 1, "again"));
        drop(Log(shared));
        assert_eq!(written.lines().last().unwrap(), "INFO 2 more like this left out: again n=1");
    }
}
