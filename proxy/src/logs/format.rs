//! HAProxy's `log-format` (configuration manual 2.6, section 8.2.6), parsed into a program.
//!
//! What HAProxy accepts is accepted and means the same, but for what could only be ignored: a flag that there is not, a sample
//! fetch that is not among [`Sample`]. That is refused, with where it stands.

use std::fmt;

use amphora_model::FlowLog;

use super::field::{Field, Protocol, SAMPLES, Sample};

/// A format is no longer than this, in bytes.
pub const MAX_FORMAT: usize = FlowLog::MAX_FORMAT;

/// HAProxy's `option httplog`, as its manual gives it (8.2.3).
pub const HTTPLOG: &str = "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc \
                           %sq/%bq %hr %hs %{+Q}r";
/// HAProxy's `option httplog clf` (8.2.3).
pub const HTTPLOG_CLF: &str = "%{+Q}o %{-Q}ci - - [%trg] %r %ST %B \"\" \"\" %cp %ms %ft %b %s %TR %Tw %Tc %Tr %Ta \
                               %tsc %ac %fc %bc %sc %rc %sq %bq %CC %CS %hrl %hsl";
/// HAProxy's `option tcplog` (8.2.2).
pub const TCPLOG: &str = "%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq";

/// How a variable is written: `%{+Q,-X}name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// `Q`: between quotation marks.
    pub quote: bool,
    /// `X`: addresses, ports and some numbers in hexadecimal.
    pub hexadecimal: bool,
    /// `E`: `"`, `\` and `]` behind a backslash.
    pub escape: bool,
    /// `M`: what is not there is `-`. Set from the start, and in no table of the manual.
    pub mandatory: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self { quote: false, hexadecimal: false, escape: false, mandatory: true }
    }
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(Box<[u8]>),
    /// A space, unless the line ends in one already or is empty.
    Space,
    /// What is known of the session.
    Field(Field, Flags),
}

/// A format that can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    pieces: Box<[Piece]>,
    needs: Needs,
}

/// What a format wants to know that costs something to find out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// How many connections there are (`%ac`, `%fc`, `%bc`, `%sc`).
    pub counts: bool,
    /// Where the client has connected to (`%fi`, `%fp`).
    pub listener_address: bool,
    /// Where the member's connection comes from (`%bi`, `%bp`).
    pub source_address: bool,
    /// The request line.
    pub request_line: bool,
    /// How large messages are (`%B`, `%U`).
    pub sizes: bool,
    /// The number of the line or the session (`%lc`, `%rt`).
    pub numbers: bool,
    /// What TLS has agreed upon.
    pub tls: bool,
}

/// Why a format is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// The byte of the format that it is about, from 0.
    pub position: usize,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.position, self.reason)
    }
}

impl std::error::Error for FormatError {}

impl Format {
    /// Reads a format for a listener of this kind, as it stands behind `log-format`, without what haproxy.cfg escapes.
    ///
    /// On a TCP listener what only HTTP has is `-`, as Octavia renders it there (`_format_log_string`); HAProxy refuses that
    /// by itself.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn parse(text: &str, protocol: Protocol) -> Result<Self, FormatError> {
        if text.len() > MAX_FORMAT {
            let reason = format!("a format has at most {MAX_FORMAT} bytes");
            return Err(FormatError { position: MAX_FORMAT, reason });
        }
        let mut parser = Parser { text: text.as_bytes(), at: 0, pieces: Vec::new(), flags: Flags::default() };
        parser.run(protocol)?;
        let mut needs = Needs::default();
        for piece in &parser.pieces {
            if let Piece::Field(field, _) = piece {
                needs.add(*field);
            }
        }
        Ok(Self { pieces: parser.pieces.into(), needs })
    }

    /// What a line is made of, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What has to be found out for it.
    #[inline]
    pub fn needs(&self) -> Needs {
        self.needs
    }
}

impl Needs {
    fn add(&mut self, field: Field) {
        match field {
            Field::ProcessConnections
            | Field::FrontendConnections
            | Field::BackendConnections
            | Field::ServerConnections => self.counts = true,
            Field::FrontendAddress
            | Field::FrontendPort
            | Field::Sample(Sample::Destination | Sample::DestinationPort) => self.listener_address = true,
            Field::BackendAddress | Field::BackendPort => self.source_address = true,
            Field::Request
            | Field::Method
            | Field::Path
            | Field::PathOnly
            | Field::Query
            | Field::Uri
            | Field::Version
            | Field::Sample(Sample::RequestMethod | Sample::RequestUri | Sample::RequestVersion) => {
                self.request_line = true;
            }
            Field::BytesToClient | Field::BytesFromClient => self.sizes = true,
            Field::LogCounter | Field::RequestCounter => self.numbers = true,
            Field::TlsCipher | Field::TlsVersion => self.tls = true,
            Field::Sample(sample) => self.tls |= sample.is_of_tls(),
            _ => {}
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    pieces: Vec<Piece>,
    /// What `%o` has set.
    flags: Flags,
}

impl Parser<'_> {
    fn run(&mut self, protocol: Protocol) -> Result<(), FormatError> {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'%' => self.variable(protocol)?,
                b' ' => {
                    self.pieces.push(Piece::Space);
                    self.at += 1;
                }
                byte if byte.is_ascii_control() => {
                    // It would end the datagram's text for some readers, or the line for others.
                    return Err(self.error(self.at, format!("{byte:#04x} is no text")));
                }
                _ => {
                    let rest = &self.text[self.at..];
                    let special = |byte: &u8| *byte == b'%' || *byte == b' ' || byte.is_ascii_control();
                    let length = rest.iter().position(special).unwrap_or(rest.len());
                    self.literal(self.at, length);
                    self.at += length;
                }
            }
        }
        Ok(())
    }

    /// Text; what was text before it is the same piece.
    fn literal(&mut self, from: usize, length: usize) {
        let text = &self.text[from..from + length];
        if let Some(Piece::Text(before)) = self.pieces.last_mut() {
            *before = [&before[..], text].concat().into();
        } else {
            self.pieces.push(Piece::Text(text.into()));
        }
    }

    /// What begins with `%`.
    fn variable(&mut self, protocol: Protocol) -> Result<(), FormatError> {
        let start = self.at;
        self.at += 1;
        let mut flags = self.flags;
        let has_flags = self.text.get(self.at) == Some(&b'{');
        if has_flags {
            self.read_flags(start, &mut flags)?;
        }
        match self.text.get(self.at) {
            Some(b'[') => {
                let sample = self.sample(start)?;
                self.field(Field::Sample(sample), flags, protocol);
            }
            Some(byte) if byte.is_ascii_alphabetic() => {
                let rest = &self.text[self.at..];
                let length = rest.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
                let name = &rest[..length];
                self.at += length;
                match Field::named(name) {
                    Some(field) => self.field(field, flags, protocol),
                    None if name == b"o" => self.flags = flags,
                    None => {
                        let name = String::from_utf8_lossy(name);
                        let reason = format!("there is no variable %{name}; %% is a percent sign");
                        return Err(self.error(start, reason));
                    }
                }
            }
            None if !has_flags => return Err(self.error(start, "the format ends behind %".to_owned())),
            _ if has_flags => {
                return Err(self.error(self.at, "flags are followed by a variable's name or by [".to_owned()));
            }
            Some(b'%') => {
                self.literal(self.at, 1);
                self.at += 1;
            }
            Some(byte) if byte.is_ascii_digit() || *byte == b' ' || byte.is_ascii_control() => {
                return Err(
                    self.error(start, "% is followed by no variable; %% is a percent sign".to_owned())
                );
            }
            // HAProxy leaves the percent sign out.
            _ => {}
        }
        Ok(())
    }

    fn field(&mut self, field: Field, flags: Flags, protocol: Protocol) {
        if protocol == Protocol::Tcp && field.is_of_http() {
            self.pieces.push(Piece::Text(b"-".as_slice().into()));
        } else {
            self.pieces.push(Piece::Field(field, flags));
        }
    }

    /// `{+Q,-X}`, from the brace on.
    fn read_flags(&mut self, start: usize, flags: &mut Flags) -> Result<(), FormatError> {
        let from = self.at + 1;
        let Some(length) = self.text[from..].iter().position(|byte| *byte == b'}') else {
            return Err(self.error(start, "{ without }".to_owned()));
        };
        let mut at = from;
        for item in self.text[from..from + length].split(|byte| *byte == b',') {
            let word = item.trim_ascii();
            let set = match word.first() {
                None if length == 0 => break,
                Some(b'+') => true,
                Some(b'-') => false,
                _ => return Err(self.error(at, "a flag is + or - and one of Q, X, E, M".to_owned())),
            };
            let flag = match &word[1..] {
                b"Q" => &mut flags.quote,
                b"X" => &mut flags.hexadecimal,
                b"E" => &mut flags.escape,
                b"M" => &mut flags.mandatory,
                other => {
                    let other = String::from_utf8_lossy(other);
                    let joined = other.contains(['+', '-']);
                    let hint = if joined { "; several have commas in between" } else { "" };
                    return Err(self.error(at, format!("there is no flag {other}, but Q, X, E, M{hint}")));
                }
            };
            *flag = set;
            at += item.len() + 1;
        }
        self.at = from + length + 1;
        Ok(())
    }

    /// `[ssl_c_s_dn]`, from the bracket on.
    fn sample(&mut self, start: usize) -> Result<Sample, FormatError> {
        let from = self.at + 1;
        let Some(length) = self.text[from..].iter().position(|byte| *byte == b']') else {
            return Err(self.error(start, "[ without ]".to_owned()));
        };
        let expression = &self.text[from..from + length];
        self.at = from + length + 1;
        Sample::named(expression).ok_or_else(|| {
            let expression = String::from_utf8_lossy(expression);
            let known = SAMPLES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            self.error(from, format!("there is no sample {expression}, but {known}"))
        })
    }

    fn error(&self, position: usize, reason: String) -> FormatError {
        FormatError { position, reason }
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
