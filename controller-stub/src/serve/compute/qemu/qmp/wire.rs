//! QMP as it stands on the wire: a JSON object a line. No I/O.

use serde::Deserialize;
use serde_json::{Value, json};

/// The longest line that is taken, in bytes. What is asked here is answered by some hundred.
pub const MAX_LINE: usize = 1 << 20;

/// What QEMU says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The first thing that it says to who connects.
    Greeting,
    /// It has done what was asked under a number.
    Return(u64, Value),
    /// It has not, and why.
    Refused(u64, String),
    /// Something happened. Nobody has asked.
    Event(String),
}

/// Why a stream is no QMP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A line is longer than [`MAX_LINE`].
    #[error("a line of more than {MAX_LINE} bytes")]
    TooLong,
    /// A line is no message.
    #[error("not a message of QMP: {0}")]
    NoMessage(String),
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(default, rename = "return", deserialize_with = "present")]
    value: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

/// `null` is a value that is there.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// Makes messages of what has been read.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// Takes what was read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, when all of it has been read.
    ///
    /// # Errors
    /// What was read is no QMP; nothing more is to be had of this stream.
    pub fn message(&mut self) -> Result<Option<Message>, Broken> {
        loop {
            let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
                return if self.buffer.len() > MAX_LINE { Err(Broken::TooLong) } else { Ok(None) };
            };
            if end > MAX_LINE {
                return Err(Broken::TooLong);
            }
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = line.trim_ascii();
            if !line.is_empty() {
                return parse(line).map(Some);
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Message, Broken> {
    let shown = || String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
    let parsed: Line =
        serde_json::from_slice(line).map_err(|e| Broken::NoMessage(format!("{e}: {}", shown())))?;
    match (parsed.greeting, parsed.event, parsed.error, parsed.value) {
        (Some(_), ..) => Ok(Message::Greeting),
        (_, Some(event), ..) => Ok(Message::Event(event)),
        // What could not be read is refused without a number.
        (_, _, Some(refusal), _) => Ok(Message::Refused(parsed.id.unwrap_or(0), refusal.desc)),
        (.., Some(value)) => Ok(Message::Return(parsed.id.unwrap_or(0), value)),
        _ => Err(Broken::NoMessage(shown())),
    }
}

/// A command under a number, as a line.
pub fn command(id: u64, name: &str, arguments: &Value) -> String {
    let mut command = json!({"execute": name, "id": id});
    if let Some(object) = command.as_object_mut().filter(|_| !arguments.is_null()) {
        object.insert("arguments".to_owned(), arguments.clone());
    }
    format!("{command}\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// As QEMU 7.2 says it.
    const SAID: &str = concat!(
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n",
        "{\"return\": {}, \"id\": 1}\r\n",
        "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"RESUME\"}\r\n",
        "\r\n",
        "{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"Bus 'x' not found\"}}\r\n",
        "{\"return\": null, \"id\": 3}\r\n",
    );

    fn expected() -> Vec<Message> {
        vec![
            Message::Greeting,
            Message::Return(1, json!({})),
            Message::Event("RESUME".to_owned()),
            Message::Refused(2, "Bus 'x' not found".to_owned()),
            Message::Return(3, Value::Null),
        ]
    }

    fn all(reader: &mut Reader) -> Result<Vec<Message>, Broken> {
        std::iter::from_fn(|| reader.message().transpose()).collect()
    }

    proptest! {
        #[test]
        fn messages_come_whole_however_they_are_cut(cuts in prop::collection::vec(0..SAID.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, SAID.len()]);
            cuts.sort_unstable();
            let mut reader = Reader::default();
            let mut messages = Vec::new();
            for pair in cuts.windows(2) {
                reader.feed(&SAID.as_bytes()[pair[0]..pair[1]]);
                messages.extend(all(&mut reader).unwrap());
            }
            prop_assert_eq!(messages, expected());
            prop_assert!(reader.buffer.is_empty());
        }

        #[test]
        fn nothing_that_is_read_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::default();
            reader.feed(&bytes);
            let _ = all(&mut reader);
        }
    }

    #[test]
    fn what_is_no_message_breaks_the_stream() {
        for text in ["[]\n", "{}\n", "x\n", "{\"event\": 1}\n"] {
            let mut reader = Reader::default();
            reader.feed(text.as_bytes());
            assert!(matches!(reader.message(), Err(Broken::NoMessage(_))), "{text}");
        }
        for end in ["", "\n"] {
            let mut reader = Reader::default();
            reader.feed(&vec![b' '; MAX_LINE + 1]);
            reader.feed(end.as_bytes());
            assert_eq!(reader.message(), Err(Broken::TooLong));
        }
    }

    #[test]
    fn a_command_is_a_line() {
        assert_eq!(command(7, "quit", &Value::Null), "{\"execute\":\"quit\",\"id\":7}\n");
        let with = command(8, "netdev_del", &json!({"id": "a\nb"}));
        assert_eq!(with, "{\"arguments\":{\"id\":\"a\\nb\"},\"execute\":\"netdev_del\",\"id\":8}\n");
    }
}
