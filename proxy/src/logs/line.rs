//! A line: a [`Format`](super::Format) filled in with a [`Record`], to the byte as HAProxy 2.6 writes it (`sess_build_logline`), its way to
//! be cut off where the buffer ends included.

use std::net::SocketAddr;

use amphora_model::ListenerId;

use super::{
    calendar::{Calendar, Wall},
    field::{Field, Name, Protocol, Sample},
    format::Flags,
    record::{Record, Times, milliseconds},
    template::{Step, Template},
    text::{Line, ROOM, Written, id_text},
};
use crate::{
    conn::AddressText,
    http::Ids,
    tls::{ClientCertificate, PeerFacts},
};

/// HAProxy's `MAX_SYSLOG_LEN`: the longest line with its head, the line feed behind it not counted.
pub const MAX_LINE: usize = 1024;

/// Whose line it is.
#[derive(Clone, Copy, Debug)]
pub struct Frontend {
    /// The listener's id.
    pub(super) name: [u8; 36],
    /// What it speaks.
    pub protocol: Protocol,
    /// It terminates TLS.
    pub tls: bool,
}

impl Frontend {
    /// That of the listener of this id.
    pub fn new(id: ListenerId, protocol: Protocol, tls: bool) -> Self {
        Self { name: id_text(id.0.as_bytes()), protocol, tls }
    }
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
    template: &Template,
    record: &Record,
    host: &Host,
    ended: Wall,
    calendar: &mut Calendar,
) {
    let elapsed = record.marks.ended.saturating_duration_since(record.marks.begun);
    let accepted = ended.before(elapsed);
    let total = milliseconds(elapsed);
    let frontend = template.frontend();
    let mut writer = Writer { record, frontend, host, times: None, total, accepted, calendar };
    append(out, |line| {
        for Step { text, field, flags } in &template.steps {
            line.text(text)?;
            writer.field(line, *field, *flags)?;
        }
        line.text(&template.rest)
    });
}

/// Appends what is written, as far as it fits.
fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Line<'_>) -> Written) {
    let start = out.len();
    out.resize(start + ROOM, 0);
    let Some(room) = out[start..].first_chunk_mut() else { return };
    let mut line = Line::new(room);
    // What does not fit is left out.
    let _ = write(&mut line);
    let length = line.len();
    out.truncate(start + length);
}

/// Appends the line of a connection without a session, without its head: session_prepare_log_prefix, and `why`.
pub(super) fn write_error(
    out: &mut Vec<u8>,
    client: SocketAddr,
    accepted: Wall,
    frontend: Frontend,
    why: &str,
    calendar: &mut Calendar,
) {
    append(out, |line| {
        line.text(AddressText::new(client.ip()).bytes())?;
        line.byte(b':')?;
        line.number(client.port().into())?;
        line.text(b" [")?;
        line.whole(&calendar.local_ms(accepted))?;
        line.text(b"] ")?;
        line.text(&frontend.name)?;
        line.text(b"/1: ")?;
        line.text(why.as_bytes())
    });
}

/// What is known.
struct Writer<'a> {
    record: &'a Record,
    frontend: Frontend,
    host: &'a Host,
    /// Once a field has asked for one of them.
    times: Option<Times>,
    /// Milliseconds from the beginning to the end: `%Tt`, which Octavia's default has alone of all times.
    total: i64,
    accepted: Wall,
    calendar: &'a mut Calendar,
}

impl Writer<'_> {
    fn field(&mut self, line: &mut Line<'_>, field: Field, flags: Flags) -> Written {
        let record = self.record;
        let span = |to: Option<i64>, from: Option<i64>| match (to, from) {
            (Some(to), from) => to - from.unwrap_or(-1),
            (None, _) => -1,
        };
        match field {
            Field::BytesToClient => line.number(record.bytes_out as i64),
            Field::BytesFromClient => line.number(record.bytes_in as i64),
            Field::RequestCookie | Field::ResponseCookie => line.string(None, flags),
            Field::UniqueId => line.string(self.id(|ids| &ids.request), flags),
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
            Field::Requested => {
                let requested = self.requested();
                line.whole(&self.calendar.local_ms(requested))
            }
            Field::RequestedGmt => line.whole(&Calendar::gmt(self.requested())),
            Field::RequestedLocal => {
                let requested = self.requested();
                line.whole(&self.calendar.local_zone(requested))
            }
            Field::Timestamp if flags.hexadecimal => line.hexadecimal(self.accepted.seconds() as u32, 4),
            Field::Timestamp => line.number(self.accepted.seconds()),
            Field::AcceptedMilliseconds if flags.hexadecimal => {
                line.hexadecimal(self.accepted.milliseconds(), 2)
            }
            Field::AcceptedMilliseconds => {
                let ms = self.accepted.milliseconds();
                line.whole(&[ms / 100, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8))
            }
            Field::HandshakeTime => line.number(self.times().handshake),
            Field::IdleTime => line.number(self.times().idle),
            Field::RequestTime => {
                let times = self.times();
                line.number(times.request.map_or(-1, |request| request - times.idle - times.handshake))
            }
            Field::TotalRequestTime => line.number(self.times().request.unwrap_or(-1)),
            Field::QueueTime => {
                let times = self.times();
                line.number(span(times.queue, times.request))
            }
            Field::ConnectTime => {
                let times = self.times();
                line.number(span(times.connect, times.queue))
            }
            Field::ResponseTime => {
                let times = self.times();
                line.number(span(times.data, times.connect))
            }
            Field::DataTime => {
                let of_http = self.frontend.protocol == Protocol::Http;
                let times = self.times();
                let from = if of_http { times.data } else { times.connect };
                line.number(from.map_or(-1, |from| times.close - from))
            }
            Field::ActiveTime => {
                let times = self.times();
                line.number(times.close - times.idle - times.handshake)
            }
            Field::TotalTime => line.number(self.total),
            Field::UserTime => {
                let times = self.times();
                line.number(times.close - times.idle)
            }
            Field::ProcessConnections => line.number(record.counts.process as i64),
            Field::FrontendConnections => line.number(record.counts.frontend as i64),
            Field::BackendConnections => line.number(record.counts.backend as i64),
            Field::ServerConnections => line.number(record.counts.server as i64),
            Field::Backend => self.backend(line, flags),
            Field::Frontend => self.frontend(line, flags),
            Field::FrontendTransport => {
                if flags.quote {
                    line.byte(b'"')?;
                }
                line.text(&self.frontend.name)?;
                if self.frontend.tls {
                    line.byte(b'~')?;
                }
                if flags.quote { line.byte(b'"') } else { Ok(()) }
            }
            Field::Server => match record.member {
                Some(member) => line.id(&id_text(member.0.as_bytes()), flags),
                None => line.name(b"<NOSRV>", flags),
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
        let mut short = AddressText::default();
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
            Sample::FrontendName => return self.frontend(line, flags),
            // HAProxy has none for what was no request.
            Sample::BackendName if record.pool.is_none() && record.marks.requested.is_none() => None,
            Sample::BackendName => return self.backend(line, flags),
            Sample::RequestMethod => record.request().map(|_| self.request_line().method),
            Sample::RequestUri => record.request().and_then(|_| path_and_query(self.request_line().uri)),
            // HAProxy has none of an exchange that its client has broken off.
            Sample::RequestVersion if record.termination.is_broken_off() => None,
            Sample::RequestVersion => record.request().map(|_| record.old_or_new_version()),
            Sample::Traceparent => self.id(|ids| &ids.traceparent),
        };
        line.string(text, flags)
    }

    /// One of those that the request is known by.
    fn id(&self, which: impl Fn(&Ids) -> &[u8]) -> Option<&[u8]> {
        self.record.ids.as_deref().map(which).filter(|id| !id.is_empty())
    }

    fn backend(&self, line: &mut Line<'_>, flags: Flags) -> Written {
        match self.record.pool {
            Some(pool) => {
                let mut name = [b':'; 73];
                name[..36].copy_from_slice(&id_text(pool.0.as_bytes()));
                name[37..].copy_from_slice(&self.frontend.name);
                line.id(&name, flags)
            }
            None => self.frontend(line, flags),
        }
    }

    fn frontend(&self, line: &mut Line<'_>, flags: Flags) -> Written {
        line.id(&self.frontend.name, flags)
    }

    fn letters(&self, line: &mut Line<'_>, count: usize) -> Written {
        for letter in &self.record.termination.letters()[..count] {
            line.byte(*letter)?;
        }
        Ok(())
    }

    fn tls(&self) -> Option<&PeerFacts> {
        self.record.tls.as_deref()
    }

    /// When the first byte of the request was there.
    fn requested(&mut self) -> Wall {
        let times = self.times();
        self.accepted.plus_ms(times.idle + times.handshake)
    }

    fn times(&mut self) -> Times {
        *self.times.get_or_insert_with(|| Times::from(&self.record.marks))
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

/// The path of a target without its query.
fn path_only(uri: &[u8]) -> &[u8] {
    if uri == BAD_REQUEST {
        return uri;
    }
    let path = path_and_query(uri).unwrap_or_default();
    &path[..memchr::memchr(b'?', path).unwrap_or(path.len())]
}

/// The path of a target with its query: http_parse_path. `*`, an authority alone and an absolute target without a path have none.
fn path_and_query(uri: &[u8]) -> Option<&[u8]> {
    match uri.first() {
        Some(b'/') => Some(uri),
        Some(byte) if byte.is_ascii_alphabetic() => {
            let authority = &uri[memchr::memmem::find(uri, b"://")? + 3..];
            memchr::memchr(b'/', authority).map(|at| &authority[at..])
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
