//! HTTP/1.1 as it is on the wire, bytes as characters.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::generate::latin1;

/// A request or a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) line: String,
    /// As they came, white space around values aside.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: String,
    /// False when the stream ended before the message did.
    pub(super) is_complete: bool,
}

impl Message {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let named = |(found, _): &&(String, String)| found.eq_ignore_ascii_case(name);
        self.fields.iter().find(named).map(|(_, value)| value.as_str())
    }

    pub(super) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub(super) fn wants_close(&self) -> bool {
        self.field("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }

    /// Names in lower case, sorted; fields of one name in their order.
    pub(super) fn sorted(&self) -> Vec<(String, String)> {
        let mut fields: Vec<_> =
            self.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        fields
    }
}

/// A connection that messages come over.
pub(super) struct Wire<S> {
    pub(super) stream: S,
    pub(super) buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// A line without its end; `None` when the stream ends.
    async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = latin1(&self.buffer[..at]);
                self.buffer.drain(..at + 2);
                return Ok(Some(line));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// What comes before the body of a request; `None` at the end of the stream.
    pub(super) async fn head(&mut self) -> io::Result<Option<Message>> {
        let Some(line) = self.line().await? else { return Ok(None) };
        let mut message = Message { line, ..Message::default() };
        loop {
            match self.line().await? {
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(line) if line.is_empty() => return Ok(Some(message)),
                Some(line) => {
                    let (name, value) = line.split_once(':').unwrap_or((&line, ""));
                    message.fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
                }
            }
        }
    }

    /// A response, or one that only announces another; `None` at the end of the stream.
    pub(super) async fn response(&mut self, to_head: bool) -> io::Result<Option<Message>> {
        let Some(mut message) = self.head().await? else { return Ok(None) };
        let status = message.status();
        if to_head || status < 200 || status == 204 || status == 304 {
            message.is_complete = true;
        } else {
            self.body(&mut message, true).await?;
        }
        Ok(Some(message))
    }

    /// The body behind it.
    pub(super) async fn body(&mut self, message: &mut Message, until_close: bool) -> io::Result<()> {
        if message.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.chunks(message).await;
        }
        let length = message.field("content-length").and_then(|length| length.parse().ok());
        match length {
            None if until_close => {
                while self.fill().await? {}
                message.body = std::mem::take(&mut self.buffer);
            }
            None => {}
            Some(length) => {
                while self.buffer.len() < length {
                    if !self.fill().await? {
                        message.body = std::mem::take(&mut self.buffer);
                        return Ok(());
                    }
                }
                message.body = self.buffer.drain(..length).collect();
            }
        }
        message.is_complete = true;
        Ok(())
    }

    async fn chunks(&mut self, message: &mut Message) -> io::Result<()> {
        loop {
            let Some(line) = self.line().await? else { return Ok(()) };
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| io::Error::other(format!("chunk {line:?}")))?;
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                if !self.fill().await? {
                    message.body.append(&mut self.buffer);
                    return Ok(());
                }
            }
            message.body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
        }
        loop {
            match self.line().await? {
                None => return Ok(()),
                Some(line) if line.is_empty() => break,
                Some(line) => message.trailers.push_str(&(line + "\n")),
            }
        }
        message.is_complete = true;
        Ok(())
    }
}
