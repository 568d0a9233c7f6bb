//! Members of every kind behind one port: what begins with a PROXY header, with TLS or with neither is found out.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use amphora_tests::{Certificates, http2::send_all};
use rustls::{ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{
    generate::latin1,
    wire::{Message, Wire},
};

/// What a member does about a request, by its field `X-Reply`. The more ordinary ones are there several times.
pub(super) const REPLIES: [&str; 26] = [
    "length",
    "length",
    "length",
    "length",
    "length",
    "length",
    "chunked",
    "chunked",
    "none",
    "unchanged",
    "missing",
    "cookie",
    "cookie",
    "own-srv",
    "cacheable",
    "private",
    "close",
    "old",
    "hints",
    "large",
    "hsts",
    "odd-fields",
    "error",
    "redirect",
    "cut",
    "upgrade",
];

/// Those at the end of a case: proxies ask again or close, each as it thinks right, and turns are taken differently then.
pub(super) const LAST: [&str; 4] = ["until-close", "until-close", "garbage", "silent"];

/// That of one that does not answer as long as it is waited for.
pub(super) const LATE: &str = "late";

/// What members were asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Book(Arc<Mutex<Vec<Seen>>>);

/// A request as a member saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Which member: `m` and its number, in as many bytes for each.
    pub(super) member: String,
    /// The header of the PROXY protocol, without the client's port.
    pub(super) proxy: Option<String>,
    /// What the handshake told.
    pub(super) tls: Option<String>,
    pub(super) line: String,
    /// Names in lower case, sorted; fields of one name in their order.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Book {
    /// What was written down since this was asked last.
    pub(super) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The name of the member at this address.
pub(super) fn name(address: IpAddr) -> String {
    let number = match address.to_canonical() {
        IpAddr::V4(address) => address.to_bits() as u16,
        IpAddr::V6(address) => address.to_bits() as u16,
    };
    format!("m{number:04}")
}

/// Serves at this port of every address of the namespace that it is called in, for as long as the runtime lives.
pub(super) async fn serve(port: u16, certificates: &Certificates, book: Book) {
    let listener = TcpListener::bind(("::", port)).await.unwrap();
    let tls = acceptor(certificates);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (tls, book) = (tls.clone(), book.clone());
            tokio::spawn(async move { connection(stream, tls, &book).await });
        }
    });
}

fn acceptor(certificates: &Certificates) -> TlsAcceptor {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(certificates.roots().into(), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let (chain, key) = certificates.read("member");
    let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn connection(mut stream: TcpStream, tls: TlsAcceptor, book: &Book) -> io::Result<()> {
    let address = stream.local_addr()?;
    let member = name(address.ip());
    stream.set_nodelay(true)?;
    let proxy = proxy_header(&mut stream).await?;
    let mut first = [0];
    stream.peek(&mut first).await?;
    let seen = |tls| Seen {
        member: member.clone(),
        proxy: proxy.clone(),
        tls,
        line: String::new(),
        fields: Vec::new(),
        body: Vec::new(),
    };
    if first[0] != 22 {
        return requests(stream, &seen(None), book).await;
    }
    let stream = tls.accept(stream).await?;
    let session = stream.get_ref().1;
    let told = format!(
        "name {:?}, certificate {:?}, alpn {:?}",
        session.server_name(),
        session.peer_certificates().map(|chain| chain.iter().map(|c| c.len()).collect::<Vec<_>>()),
        session.alpn_protocol().map(latin1),
    );
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => streams(stream, &seen(Some(told)), book).await,
        _ => requests(stream, &seen(Some(told)), book).await,
    }
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Seen, book: &Book) -> io::Result<()> {
    let mut wire = Wire::new(stream);
    while let Some(mut request) = wire.head().await? {
        if request.field("expect").is_some() {
            wire.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        wire.body(&mut request, false).await?;
        let reply = request.field("x-reply").unwrap_or("length").to_owned();
        if request.field("x-reply").is_some() {
            let (line, fields, body) = (request.line.clone(), request.sorted(), request.body.clone());
            book.0.lock().unwrap().push(Seen { line, fields, body, ..seen.clone() });
        }
        let is_last = answer(&mut wire, &request, &reply, &seen.member).await?;
        if is_last || request.wants_close() {
            break;
        }
    }
    wire.stream.shutdown().await
}

/// A response: the status with its reason, the fields, the body.
struct Reply {
    status: &'static str,
    fields: Vec<(&'static str, String)>,
    body: String,
}

impl Reply {
    /// What `name` says, to the request of this line.
    fn named(name: &str, line: &str, member: &str) -> Self {
        let body = match name {
            "none" | "unchanged" => String::new(),
            "large" => "x".repeat(150_000),
            _ => format!("{line} of a member"),
        };
        let status = match name {
            "none" => "204 No Content",
            "unchanged" => "304 Not Modified",
            "missing" => "404 Not Found",
            "error" => "503 Service Unavailable",
            "redirect" => "302 Found",
            "odd-fields" => "200 Fine, thanks",
            "upgrade" => "426 Upgrade Required",
            _ => "200 OK",
        };
        let fields: &[(&'static str, &str)] = match name {
            "until-close" => &[("Content-Type", "text/plain")],
            "unchanged" => &[("ETag", "\"1\"")],
            "cookie" => &[("Set-Cookie", "a=1"), ("Set-Cookie", "JSESSIONID=s1; Path=/; HttpOnly")],
            "own-srv" => &[("Set-Cookie", "SRV=mine; Path=/"), ("Set-Cookie", "b=2")],
            "cacheable" => &[("Cache-Control", "public, max-age=60"), ("Expires", "0")],
            "private" => &[("cache-control", "private"), ("Pragma", "no-cache")],
            "hsts" => &[("Strict-Transport-Security", "max-age=1")],
            "odd-fields" => {
                &[("X-Empty", ""), ("X-Two", " a ,b\t"), ("x-two", "c"), ("Keep-Alive", "timeout=5")]
            }
            _ => &[],
        };
        let mut fields: Vec<_> = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        if name == "redirect" {
            fields.push(("Location", format!("http://{member}/there")));
        }
        fields.push(("X-Member", member.to_owned()));
        Self { status, fields, body }
    }
}

/// Answers; true when the connection is to be closed.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    request: &Message,
    reply: &str,
    member: &str,
) -> io::Result<bool> {
    let Reply { status, mut fields, mut body } = Reply::named(reply, &request.line, member);
    let set = request.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-set"));
    fields.extend(set.map(|(_, value)| ("Set-Cookie", value.clone())));
    let length = format!("Content-Length: {}\r\n", body.len());
    let framing = match reply {
        "silent" => return Ok(true),
        LATE => {
            let _ = wire.stream.read_to_end(&mut Vec::new()).await;
            return Ok(true);
        }
        "garbage" => {
            wire.stream.write_all(b"this is no response\r\n\r\n").await?;
            return Ok(true);
        }
        "hints" => {
            wire.stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").await?;
            length
        }
        "chunked" => {
            body = format!("{:x};a=b\r\n{body}\r\n0\r\n\r\n", body.len());
            "Transfer-Encoding: chunked\r\n".into()
        }
        "until-close" | "none" | "unchanged" => String::new(),
        "close" => length + "Connection: close\r\n",
        "upgrade" => length + "Upgrade: foo/1\r\nConnection: upgrade\r\n",
        "cut" => "Content-Length: 1000\r\n".into(),
        _ => length,
    };
    let version = if reply == "old" { "1.0" } else { "1.1" };
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    if request.line.starts_with("HEAD ") {
        body.clear();
    }
    let text = format!("HTTP/{version} {status}\r\n{fields}{framing}\r\n{body}");
    wire.stream.write_all(text.as_bytes()).await?;
    wire.stream.flush().await?;
    Ok(matches!(reply, "until-close" | "close" | "old" | "cut"))
}

/// Serves what is spoken to in HTTP/2.
async fn streams(stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Seen, book: &Book) -> io::Result<()> {
    let mut connection = h2::server::handshake(stream).await.map_err(io::Error::other)?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted.map_err(io::Error::other)?;
        let (seen, book) = (seen.clone(), book.clone());
        tokio::spawn(async move { stream_of(request, respond, seen, &book).await });
    }
    Ok(())
}

async fn stream_of(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<bytes::Bytes>,
    mut seen: Seen,
    book: &Book,
) -> Result<(), h2::Error> {
    let (parts, mut incoming) = request.into_parts();
    while let Some(data) = incoming.data().await {
        let data = data?;
        incoming.flow_control().release_capacity(data.len())?;
        seen.body.extend_from_slice(&data);
    }
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    seen.line = format!("{} {target} HTTP/2", parts.method);
    seen.fields =
        parts.headers.iter().map(|(name, value)| (name.to_string(), latin1(value.as_bytes()))).collect();
    if let Some(authority) = parts.uri.authority() {
        seen.fields.push(("host".into(), authority.to_string()));
    }
    seen.fields.sort_by(|a, b| a.0.cmp(&b.0));
    let reply = parts.headers.get("x-reply").map_or("length", |value| value.to_str().unwrap_or_default());
    let member = seen.member.clone();
    let line = seen.line.clone();
    if parts.headers.contains_key("x-reply") {
        book.0.lock().unwrap().push(seen);
    }
    let Reply { status, fields, body } = Reply::named(reply, &line, &member);
    if reply == LATE {
        let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        return Ok(());
    }
    if matches!(reply, "silent" | "garbage") {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    }
    if reply == "hints" {
        let hints = http::Response::builder().status(103).header("link", "</a.css>").body(()).unwrap();
        respond.send_informational(hints)?;
    }
    let mut response = http::Response::builder().status(&status[..3]);
    for (name, value) in fields {
        if name != "Keep-Alive" {
            response = response.header(name, value.trim());
        }
    }
    if !matches!(reply, "chunked" | "until-close" | "none" | "unchanged") {
        response = response.header("content-length", body.len());
    }
    let is_empty = parts.method == "HEAD" || body.is_empty();
    let mut stream = respond.send_response(response.body(()).unwrap(), is_empty)?;
    if !is_empty {
        send_all(&mut stream, body.as_bytes(), true).await;
    }
    Ok(())
}

/// The header of the PROXY protocol that a connection may begin with, in words, without ports that the kernel gives out.
async fn proxy_header(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut first = [0; 12];
    let n = stream.peek(&mut first).await?;
    if first[..n].starts_with(b"PROXY") {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await?);
        }
        let line = latin1(&line);
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if words.len() == 6 {
            words.remove(4);
        }
        return Ok(Some(words.join(" ")));
    }
    if first[..n] != *b"\r\n\r\n\0\r\nQUIT\n" {
        return Ok(None);
    }
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed).await?;
    let mut rest = vec![0; u16::from_be_bytes([fixed[14], fixed[15]]).into()];
    stream.read_exact(&mut rest).await?;
    let (family, addresses) = match fixed[13] >> 4 {
        1 => ("IPv4", 8),
        2 => ("IPv6", 32),
        _ => ("none", 0),
    };
    if addresses > 0 {
        rest.drain(addresses..addresses + 2);
    }
    let hex: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(format!("v2 {:#x} {family} {hex}", fixed[12])))
}
