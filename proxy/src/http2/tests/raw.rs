//! A client of raw frames.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::http2::guard::PREFACE;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// `GET / http`, of the static table.
pub(super) const GET: &[u8] = &[0x82, 0x86, 0x84];
/// `POST / http`.
pub(super) const POST: &[u8] = &[0x83, 0x86, 0x84];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A literal field with a new name, `index` or not.
pub(super) fn literal(index: bool, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![if index { 0x40 } else { 0 }];
    for text in [name, value] {
        integer(&mut bytes, text.len());
        bytes.extend(text);
    }
    bytes
}

/// With a prefix of 7 bits.
fn integer(bytes: &mut Vec<u8>, value: usize) {
    if value < 0x7f {
        bytes.push(value as u8);
        return;
    }
    bytes.push(0x7f);
    let mut rest = value - 0x7f;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// A request: HEADERS that end their block.
pub(super) fn request(stream: u32, flags: u8, block: &[&[u8]]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block.concat())
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

pub(super) struct Raw {
    pub(super) stream: TcpStream,
    pub(super) sent: usize,
}

impl Raw {
    /// Connects and sends the preface and these settings.
    pub(super) fn connect(address: SocketAddr, settings: &[u8]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut raw = Self { stream, sent: 0 };
        assert!(raw.send(&[&PREFACE[..], &frame(SETTINGS, 0, 0, settings)].concat()));
        raw
    }

    /// Takes a connection, whose preface has come, and sends empty settings.
    pub(super) fn accept(listener: &TcpListener) -> Self {
        let mut stream = listener.accept().unwrap().0;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        let mut raw = Self { stream, sent: 0 };
        assert!(raw.send(&frame(SETTINGS, 0, 0, &[])));
        raw
    }

    /// Whether it was sent.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = self.stream.write_all(bytes).is_ok();
        if sent {
            self.sent += bytes.len();
        }
        sent
    }

    /// The next frame; `None` at the end.
    pub(super) fn receive(&mut self) -> Option<Frame> {
        receive(&mut self.stream)
    }

    /// Frames until there is one of this kind.
    pub(super) fn receive_kind(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.receive()).find(|frame| frame.kind == kind)
    }

    /// Reads until the end, on a thread of its own.
    pub(super) fn reader(&self) -> JoinHandle<Vec<Frame>> {
        let mut stream = self.stream.try_clone().unwrap();
        thread::spawn(move || std::iter::from_fn(|| receive(&mut stream)).collect())
    }
}

fn receive(stream: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
}

/// Error codes of the GOAWAY frames.
pub(super) fn farewells(frames: &[Frame]) -> Vec<u32> {
    frames
        .iter()
        .filter(|frame| frame.kind == GOAWAY)
        .map(|frame| u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()))
        .collect()
}
