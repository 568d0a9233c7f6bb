//! A line: a [`Format`] filled in with a [`Record`], to the byte as HAProxy 2.6 writes it (`sess_build_logline`), its way to
//! be cut off where the buffer ends included.

use std::net::{IpAddr, SocketAddr};

use amphora_model::ListenerId;
use uuid::fmt::Hyphenated;

use super::{
    calendar::{Calendar, Wall},
    escape::Escape,
    field::{Field, Name, Protocol, Sample},
    format::{Flags, Format, Piece},
    record::{Record, Times},
};
use crate::tls::{ClientCertificate, PeerFacts};

/// HAProxy's `MAX_SYSLOG_LEN`: the longest line with its head, the line feed behind it not counted.
pub const MAX_LINE: usize = 1024;

/// Whose line it is.
#[derive(Clone, Copy, Debug)]
pub struct Frontend {
    /// The listener.
    pub id: ListenerId,
    /// What it speaks.
    pub protocol: Protocol,
    /// It terminates TLS.
    pub tls: bool,
}

/// The machine and the process.
#[derive(Clone, Debug)]
pub struct Host {
    /// `%H`.
    pub name: Box<str>,
    /// `%pid`.
    pub process: u32,
}

/// Appends a line without its head. `ended` is when [`Marks::ended`](super::record::Marks::ended) was.
pub fn write(
    out: &mut Vec<u8>,
    format: &Format,
    record: &Record,
    frontend: Frontend,
    host: &Host,
    ended: Wall,
    calendar: &mut Calendar,
) {
    let times = Times::from(&record.marks);
    let elapsed = record.marks.ended.saturating_duration_since(record.marks.begun);
    let accepted = Wall(ended.0.saturating_sub(elapsed.as_micros() as i64));
    let start = out.len();
    let mut line = Line { out, start, after_space: true };
    let mut writer = Writer { record, frontend, host, times, accepted, calendar };
    for piece in format.pieces() {
        let written = match piece {
            Piece::Text(text) => line.text(text),
            Piece::Space if line.after_space => continue,
            Piece::Space => line.byte(b' ').map(|()| line.after_space = true),
            Piece::Field(field, flags) => writer.field(&mut line, *field, *flags),
        };
        if written.is_err() {
            break;
        }
    }
}

/// No more fits.
struct Full;

type Written = Result<(), Full>;

/// The line so far.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    after_space: bool,
}

impl Line<'_> {
    /// How much of HAProxy's buffer is left, with the byte that ends its strings.
    fn room(&self) -> usize {
        MAX_LINE - (self.out.len() - self.start)
    }

    fn byte(&mut self, byte: u8) -> Written {
        if self.room() < 2 {
            return Err(Full);
        }
        self.out.push(byte);
        Ok(())
    }

    /// What is written as it is, as far as it fits.
    fn text(&mut self, text: &[u8]) -> Written {
        let length = text.len().min(self.room() - 1);
        if length == 0 && !text.is_empty() {
            return Err(Full);
        }
        self.out.extend_from_slice(&text[..length]);
        self.after_space = false;
        Ok(())
    }

    /// What is written whole or not at all: numbers and dates.
    fn whole(&mut self, text: &[u8]) -> Written {
        if text.len() >= self.room() {
            return Err(Full);
        }
        self.out.extend_from_slice(text);
        self.after_space = false;
        Ok(())
    }

    fn number(&mut self, number: i64) -> Written {
        let mut text = [0; 20];
        let mut at = text.len();
        let mut left = number.unsigned_abs();
        loop {
            at -= 1;
            text[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if number < 0 {
            at -= 1;
            text[at] = b'-';
        }
        self.whole(&text[at..])
    }

    /// At least so many digits in upper case.
    fn hexadecimal(&mut self, number: u32, digits: usize) -> Written {
        let mut text = [0; 8];
        let mut at = text.len();
        let mut left = number;
        while left > 0 || text.len() - at < digits {
            at -= 1;
            text[at] = b"0123456789ABCDEF"[(left & 15) as usize];
            left >>= 4;
        }
        self.whole(&text[at..])
    }

    /// A string by its flags: lf_text_len. One that does not fit between its quotation marks is left out.
    fn string(&mut self, text: Option<&[u8]>, flags: Flags) -> Written {
        let from = self.out.len();
        let result = self.try_string(text.unwrap_or_default(), flags);
        if result.is_err() {
            self.out.truncate(from);
        }
        self.after_space = false;
        result
    }

    fn try_string(&mut self, text: &[u8], flags: Flags) -> Written {
        if flags.quote {
            self.byte(b'"')?;
        }
        // The strings are C's.
        let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
        if self.room() < 2 {
            return Err(Full);
        }
        if text.is_empty() {
            if flags.mandatory && !flags.quote {
                self.out.push(b'-');
            }
        } else if flags.escape {
            let end = self.out.len() + self.room() - 2;
            Escape::Backslashes.write(self.out, text, end);
        } else {
            let length = text.len().min(self.room() - 1);
            self.out.extend_from_slice(&text[..length]);
        }
        if flags.quote { self.byte(b'"') } else { Ok(()) }
    }

    /// Text of a client with `#` before what a line must not have: lf_encode_chunk and lf_encode_string.
    fn encoded(&mut self, text: &[u8], flags: Flags) -> Written {
        if flags.quote {
            self.byte(b'"')?;
        }
        let end = self.start + MAX_LINE - 1;
        let escape = if flags.escape { Escape::HashesAndBackslashes } else { Escape::Hashes };
        escape.write(self.out, text, end);
        if flags.quote {
            self.byte(b'"')?;
        }
        self.after_space = false;
        Ok(())
    }

    fn address(&mut self, address: Option<SocketAddr>, flags: Flags) -> Written {
        let Some(address) = address else { return self.string(None, flags) };
        if flags.hexadecimal {
            let mut text = [0; 32];
            let octets = match address.ip() {
                IpAddr::V4(v4) => upper_hexadecimal(&mut text, &v4.octets()),
                IpAddr::V6(v6) => upper_hexadecimal(&mut text, &v6.octets()),
            };
            return self.whole(octets);
        }
        let mut text = Short::default();
        // The longest address fits.
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{}", address.ip()));
        self.string(Some(text.bytes()), flags)
    }

    fn port(&mut self, address: Option<SocketAddr>, flags: Flags) -> Written {
        match address {
            None => self.string(None, flags),
            Some(address) if flags.hexadecimal => self.hexadecimal(address.port().into(), 4),
            Some(address) => self.number(address.port().into()),
        }
    }
}

fn upper_hexadecimal<'a>(text: &'a mut [u8; 32], octets: &[u8]) -> &'a [u8] {
    for (place, octet) in text.chunks_exact_mut(2).zip(octets) {
        place[0] = b"0123456789ABCDEF"[usize::from(octet >> 4)];
        place[1] = b"0123456789ABCDEF"[usize::from(octet & 15)];
    }
    &text[..octets.len() * 2]
}

/// Room for an address.
struct Short {
    text: [u8; 46],
    length: usize,
}

impl Default for Short {
    fn default() -> Self {
        Self { text: [0; 46], length: 0 }
    }
}

impl Short {
    fn bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl std::fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.text.get_mut(self.length..self.length + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// What is known.
struct Writer<'a> {
    record: &'a Record,
    frontend: Frontend,
    host: &'a Host,
    times: Times,
    accepted: Wall,
    calendar: &'a mut Calendar,
}

impl Writer<'_> {
    fn field(&mut self, line: &mut Line<'_>, field: Field, flags: Flags) -> Written {
        let (record, times) = (self.record, self.times);
        let span = |to: Option<i64>, from: Option<i64>| match (to, from) {
            (Some(to), from) => to - from.unwrap_or(-1),
            (None, _) => -1,
        };
        match field {
            Field::BytesToClient => line.number(record.bytes_out as i64),
            Field::BytesFromClient => line.number(record.bytes_in as i64),
            Field::RequestCookie | Field::ResponseCookie | Field::UniqueId => line.string(None, flags),
            // Without a `capture` they are nothing, not even a field that ends a row of spaces.
            Field::RequestHeaders
            | Field::RequestHeadersList
            | Field::ResponseHeaders
            | Field::ResponseHeadersList => Ok(()),
            Field::Hostname => line.string(Some(self.host.name.as_bytes()), flags),
            Field::Request => line.encoded(record.request().unwrap_or(BAD_REQUEST), flags),
            Field::Method => line.encoded(self.request_line().method, flags),
            Field::Path => {
                let uri = self.request_line().uri;
                line.encoded(&uri[..memchr::memchr(b'?', uri).unwrap_or(uri.len())], flags)
            }
            Field::PathOnly => line.encoded(path_only(self.request_line().uri), flags),
            Field::Query => {
                let RequestLine { uri, is_bad, .. } = self.request_line();
                let query = memchr::memchr(b'?', uri).map_or(&uri[uri.len()..], |at| &uri[at..]);
                line.encoded(if is_bad { BAD_REQUEST } else { query }, flags)
            }
            Field::Uri => line.encoded(self.request_line().uri, flags),
            Field::Version => line.encoded(self.request_line().version, flags),
            Field::Status => line.number(record.status.into()),
            Field::AcceptedGmt => line.whole(&Calendar::gmt(self.accepted)),
            Field::Accepted => line.whole(&self.calendar.local_ms(self.accepted)),
            Field::AcceptedLocal => line.whole(&self.calendar.local_zone(self.accepted)),
            Field::Requested => line.whole(&self.calendar.local_ms(self.requested())),
            Field::RequestedGmt => line.whole(&Calendar::gmt(self.requested())),
            Field::RequestedLocal => line.whole(&self.calendar.local_zone(self.requested())),
            Field::Timestamp if flags.hexadecimal => line.hexadecimal(self.accepted.seconds() as u32, 4),
            Field::Timestamp => line.number(self.accepted.seconds()),
            Field::AcceptedMilliseconds if flags.hexadecimal => {
                line.hexadecimal(self.accepted.milliseconds(), 2)
            }
            Field::AcceptedMilliseconds => {
                let ms = self.accepted.milliseconds();
                line.whole(&[ms / 100, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8))
            }
            Field::HandshakeTime => line.number(times.handshake),
            Field::IdleTime => line.number(times.idle),
            Field::RequestTime => {
                line.number(times.request.map_or(-1, |request| request - times.idle - times.handshake))
            }
            Field::TotalRequestTime => line.number(times.request.unwrap_or(-1)),
            Field::QueueTime => line.number(span(times.queue, times.request)),
            Field::ConnectTime => line.number(span(times.connect, times.queue)),
            Field::ResponseTime => line.number(span(times.data, times.connect)),
            Field::DataTime => {
                let of_http = self.frontend.protocol == Protocol::Http;
                let from = if of_http { times.data } else { times.connect };
                line.number(from.map_or(-1, |from| times.close - from))
            }
            Field::ActiveTime => line.number(times.close - times.idle - times.handshake),
            Field::TotalTime => line.number(times.close),
            Field::UserTime => line.number(times.close - times.idle),
            Field::ProcessConnections => line.number(record.counts.process as i64),
            Field::FrontendConnections => line.number(record.counts.frontend as i64),
            Field::BackendConnections => line.number(record.counts.backend as i64),
            Field::ServerConnections => line.number(record.counts.server as i64),
            Field::Backend => self.backend(line, flags),
            Field::Frontend => line.string(Some(self.frontend_name(&mut [0; 36])), flags),
            Field::FrontendTransport => {
                if flags.quote {
                    line.byte(b'"')?;
                }
                line.text(self.frontend_name(&mut [0; 36]))?;
                if self.frontend.tls {
                    line.byte(b'~')?;
                }
                if flags.quote { line.byte(b'"') } else { Ok(()) }
            }
            Field::Server => match record.member {
                Some(member) => line.string(
                    Some(Hyphenated::from_uuid(member.0).encode_lower(&mut [0; 36]).as_bytes()),
                    flags,
                ),
                None => line.string(Some(b"<NOSRV>"), flags),
            },
            Field::ClientAddress => line.address(Some(record.client), flags),
            Field::ClientPort => line.port(Some(record.client), flags),
            Field::FrontendAddress => line.address(record.listener, flags),
            Field::FrontendPort => line.port(record.listener, flags),
            Field::BackendAddress => line.address(record.source, flags),
            Field::BackendPort => line.port(record.source, flags),
            Field::ServerAddress => line.address(record.member_address, flags),
            Field::ServerPort => line.port(record.member_address, flags),
            Field::BackendQueue | Field::ServerQueue => line.number(0),
            Field::Retries => {
                if record.redispatched {
                    line.byte(b'+')?;
                }
                line.number(record.retries.into())
            }
            Field::Process if flags.hexadecimal => line.hexadecimal(self.host.process, 4),
            Field::Process => line.number(self.host.process.into()),
            Field::LogCounter if flags.hexadecimal => line.hexadecimal(record.line_number, 4),
            Field::LogCounter => line.number(record.line_number.into()),
            Field::RequestCounter if flags.hexadecimal => line.hexadecimal(record.number, 4),
            Field::RequestCounter => line.number(record.number.into()),
            Field::Termination => self.letters(line, 2),
            Field::TerminationCookie => self.letters(line, 4),
            Field::TlsCipher => line.string(self.tls().map(|tls| tls.cipher.as_bytes()), flags),
            Field::TlsVersion => line.string(self.tls().map(|tls| tls.version.as_bytes()), flags),
            Field::Sample(sample) => self.sample(line, sample, flags),
        }
    }

    fn sample(&mut self, line: &mut Line<'_>, sample: Sample, flags: Flags) -> Written {
        let tls = self.tls();
        let boolean = |known: bool| Some(if known { b"1".as_slice() } else { b"0" });
        let certificate = tls.and_then(|tls| tls.certificate.as_ref());
        let record = self.record;
        let mut short = Short::default();
        let mut display = |value: &dyn std::fmt::Display| {
            // An address, a port, a small number: they fit.
            let _ = std::fmt::Write::write_fmt(&mut short, format_args!("{value}"));
        };
        let text: Option<&[u8]> = match sample {
            Sample::ClientVerify => match tls {
                Some(tls) => {
                    display(&tls.verify_result());
                    Some(short.bytes())
                }
                None => None,
            },
            Sample::ClientUsed => tls.and_then(|tls| boolean(tls.certificate.is_some())),
            Sample::ClientSubject(name) => certificate.and_then(|facts| attribute(facts, name)),
            Sample::ClientIssuer => certificate.map(ClientCertificate::issuer),
            Sample::ClientSha1 => certificate.map(|facts| facts.sha1().as_bytes()),
            Sample::ClientNotBefore => certificate.map(ClientCertificate::not_before),
            Sample::ClientNotAfter => certificate.map(ClientCertificate::not_after),
            Sample::Tls => boolean(tls.is_some()),
            Sample::TlsVersion => tls.map(|tls| tls.version.as_bytes()),
            Sample::TlsCipher => tls.map(|tls| tls.cipher.as_bytes()),
            Sample::TlsServerName => tls.and_then(|tls| tls.sni.as_deref()).map(str::as_bytes),
            Sample::TlsAlpn => tls.and_then(|tls| tls.alpn.as_deref()),
            Sample::TlsResumed => boolean(tls.is_some_and(|tls| tls.resumed)),
            Sample::Source => {
                display(&record.client.ip());
                Some(short.bytes())
            }
            Sample::SourcePort => {
                display(&record.client.port());
                Some(short.bytes())
            }
            Sample::Destination => match record.listener {
                Some(listener) => {
                    display(&listener.ip());
                    Some(short.bytes())
                }
                None => None,
            },
            Sample::DestinationPort => match record.listener {
                Some(listener) => {
                    display(&listener.port());
                    Some(short.bytes())
                }
                None => None,
            },
            Sample::FrontendName => return line.string(Some(self.frontend_name(&mut [0; 36])), flags),
            Sample::BackendName => return self.backend(line, flags),
            Sample::RequestMethod => record.request().map(|_| self.request_line().method),
            Sample::RequestUri => record.request().map(|_| self.request_line().uri),
            Sample::RequestVersion => record.request().map(|_| self.request_line().version),
        };
        line.string(text, flags)
    }

    fn backend(&self, line: &mut Line<'_>, flags: Flags) -> Written {
        match self.record.pool {
            Some(pool) => {
                let mut name = [b':'; 73];
                Hyphenated::from_uuid(pool.0).encode_lower(&mut name[..36]);
                Hyphenated::from_uuid(self.frontend.id.0).encode_lower(&mut name[37..]);
                line.string(Some(&name), flags)
            }
            None => line.string(Some(self.frontend_name(&mut [0; 36])), flags),
        }
    }

    fn frontend_name<'b>(&self, room: &'b mut [u8; 36]) -> &'b [u8] {
        Hyphenated::from_uuid(self.frontend.id.0).encode_lower(room).as_bytes()
    }

    fn letters(&self, line: &mut Line<'_>, count: usize) -> Written {
        for letter in &self.record.termination.letters()[..count] {
            line.byte(*letter)?;
        }
        line.after_space = false;
        Ok(())
    }

    fn tls(&self) -> Option<&PeerFacts> {
        self.record.tls.as_deref()
    }

    /// When the first byte of the request was there.
    fn requested(&self) -> Wall {
        self.accepted.plus_ms(self.times.idle + self.times.handshake)
    }

    fn request_line(&self) -> RequestLine<'_> {
        let bad = RequestLine { method: BAD_REQUEST, uri: BAD_REQUEST, version: BAD_REQUEST, is_bad: true };
        let Some(request) = self.record.request() else { return bad };
        let mut parts = request.splitn(3, |byte| *byte == b' ');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(method), Some(uri), version) => {
                // A version that was cut off is HTTP/0.9 to HAProxy.
                let version = version.filter(|version| !version.is_empty()).unwrap_or(b"HTTP/0.9");
                RequestLine { method, uri, version, is_bad: false }
            }
            _ => bad,
        }
    }
}

const BAD_REQUEST: &[u8] = b"<BADREQ>";

struct RequestLine<'a> {
    method: &'a [u8],
    uri: &'a [u8],
    version: &'a [u8],
    is_bad: bool,
}

fn attribute(certificate: &ClientCertificate, which: Name) -> Option<&[u8]> {
    match which {
        Name::Whole => Some(certificate.subject()),
        Name::CommonName => certificate.subject_field("CN"),
        Name::Organization => certificate.subject_field("O"),
        Name::OrganizationalUnit => certificate.subject_field("OU"),
    }
}

/// The path of a target without its query: http_parse_path.
fn path_only(uri: &[u8]) -> &[u8] {
    if uri == BAD_REQUEST {
        return uri;
    }
    let path = match uri.first() {
        Some(b'/') => uri,
        Some(byte) if byte.is_ascii_alphabetic() => match memchr::memmem::find(uri, b"://") {
            Some(scheme) => {
                let authority = &uri[scheme + 3..];
                memchr::memchr(b'/', authority).map_or(&[][..], |at| &authority[at..])
            }
            None => &[],
        },
        _ => &[],
    };
    &path[..memchr::memchr(b'?', path).unwrap_or(path.len())]
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
