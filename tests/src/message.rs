//! HTTP/1.1 messages as the test's peers see them: read without tolerance, kept as they came.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A request or response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The head as it came, with the empty line.
    pub head: String,
    /// The body, decoded.
    pub body: Vec<u8>,
    /// The trailers of a chunked body, as they came, without the empty line.
    pub trailers: String,
    /// False when the stream ended before the message did.
    pub complete: bool,
}

impl Message {
    /// The first line.
    pub fn first_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        let status = self.first_line().split(' ').nth(1);
        status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {:?}", self.head))
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.first_line().split(' ').nth(1).unwrap_or_default()
    }

    /// All values of a field, in order.
    pub fn fields<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let name = name.to_owned();
        self.head.lines().skip(1).filter_map(move |line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(&name).then_some(value.trim())
        })
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).next()
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.field("content-length").map(|length| length.parse().unwrap())
    }
}

/// Reads a head into a message without body. `None` when the stream ends before it began.
///
/// # Errors
/// As the source says; `UnexpectedEof` within the head.
pub(crate) async fn read_head(
    source: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Message>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if source.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    Ok(Some(Message { head, ..Message::default() }))
}

/// Reads the body that the head announces. `until_close` says what neither length nor chunks means.
///
/// # Errors
/// As the source says. A stream that ends early is no error: the message is not `complete`.
pub(crate) async fn read_body(
    message: &mut Message,
    source: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    until_close: bool,
) -> io::Result<()> {
    if message.is_chunked() {
        return read_chunks(message, source, buffer).await;
    }
    if let Some(length) = message.length() {
        while buffer.len() < length {
            if source.read_buf(buffer).await? == 0 {
                message.body = std::mem::take(buffer);
                return Ok(());
            }
        }
        message.body = buffer.drain(..length).collect();
    } else if until_close {
        while source.read_buf(buffer).await? > 0 {}
        message.body = std::mem::take(buffer);
    }
    message.complete = true;
    Ok(())
}

/// Reads a whole message, or a request without one: `None` at the end of the stream.
///
/// # Errors
/// As the source says; `UnexpectedEof` within the head.
pub async fn read_message(
    source: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    until_close: bool,
) -> io::Result<Option<Message>> {
    let Some(mut message) = read_head(source, buffer).await? else { return Ok(None) };
    read_body(&mut message, source, buffer, until_close).await?;
    Ok(Some(message))
}

async fn read_chunks(
    message: &mut Message,
    source: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    loop {
        let Some(line) = read_line(source, buffer).await? else { return Ok(()) };
        let size = line.split(';').next().unwrap_or_default();
        let size =
            usize::from_str_radix(size, 16).map_err(|_| io::Error::other(format!("chunk {line:?}")))?;
        if size == 0 {
            break;
        }
        while buffer.len() < size + 2 {
            if source.read_buf(buffer).await? == 0 {
                message.body.append(buffer);
                return Ok(());
            }
        }
        message.body.extend(buffer.drain(..size));
        let end: Vec<u8> = buffer.drain(..2).collect();
        assert_eq!(end, b"\r\n", "end of a chunk");
    }
    loop {
        let Some(line) = read_line(source, buffer).await? else { return Ok(()) };
        if line.is_empty() {
            message.complete = true;
            return Ok(());
        }
        message.trailers.push_str(&line);
        message.trailers.push_str("\r\n");
    }
}

async fn read_line(
    source: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<String>> {
    loop {
        if let Some(at) = buffer.windows(2).position(|window| window == b"\r\n") {
            let line = String::from_utf8_lossy(&buffer[..at]).into_owned();
            buffer.drain(..at + 2);
            return Ok(Some(line));
        }
        if source.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
