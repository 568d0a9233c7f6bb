//! The other ends of the wire: members that say who they are and what they got, and a client that notes the answer.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What a client sees of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    /// Which member answered, by the index of its backend.
    pub(crate) backend: Option<usize>,
    /// The header fields that the member received, names in lower case, sorted.
    pub(crate) received: Vec<String>,
}

/// Starts as many members as asked for and returns their ports. They serve until the process ends.
pub(crate) fn backends(count: usize) -> Vec<u16> {
    (0..count)
        .map(|number| {
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
            let port = socket.local_addr().expect("it is bound").port();
            thread::spawn(move || {
                for stream in socket.incoming().flatten() {
                    thread::spawn(move || serve(stream, number));
                }
            });
            port
        })
        .collect()
}

/// Answers each request with the head it came with.
fn serve(mut stream: TcpStream, number: usize) -> Option<()> {
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = end_of_head(&buffer) {
                break end;
            }
            fill(&mut stream, &mut buffer)?;
        };
        let head = buffer[..end].to_vec();
        let length = field(&head, "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        while buffer.len() < end + length {
            fill(&mut stream, &mut buffer)?;
        }
        buffer.drain(..end + length);
        // The answer to HEAD would be a length without a body, but nobody sends that method here.
        write!(stream, "HTTP/1.1 200 OK\r\nX-Backend: {number}\r\nContent-Length: {}\r\n\r\n", head.len())
            .ok()?;
        stream.write_all(&head).ok()?;
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 8192];
    let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
    buffer.extend_from_slice(&chunk[..n]);
    Some(())
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

fn lines(head: &[u8]) -> impl Iterator<Item = (String, String)> {
    let text: String = head.iter().copied().map(char::from).collect();
    let lines: Vec<_> = text
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
        .collect();
    lines.into_iter()
}

fn field(head: &[u8], name: &str) -> Option<String> {
    lines(head).find(|(n, _)| n == name).map(|(_, value)| value)
}

/// Sends the bytes of one request, which must ask for the connection to be closed, and reads the answer.
pub(crate) fn ask(address: SocketAddr, request: &[u8]) -> Result<Answer, String> {
    let fail = |error: std::io::Error| format!("{address}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(fail)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(fail)?;
    stream.write_all(request).map_err(fail)?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // A peer that refuses the request before reading its body resets the connection.
        Ok(_) => {}
        Err(_) if end_of_head(&bytes).is_some() => {}
        Err(error) => return Err(fail(error)),
    }
    let end = end_of_head(&bytes).ok_or_else(|| format!("{address}: no answer but {bytes:?}"))?;
    let (head, body) = bytes.split_at(end);
    let status = std::str::from_utf8(head)
        .ok()
        .and_then(|text| text.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| format!("{address}: no status in {head:?}"))?;
    let backend = field(head, "x-backend").and_then(|number| number.parse().ok());
    let mut received: Vec<String> = match backend {
        None => Vec::new(),
        Some(_) => lines(body).map(|(name, value)| format!("{name}: {value}")).collect(),
    };
    received.sort();
    Ok(Answer { status, location: field(head, "location"), backend, received })
}
