//! The chunked coding (RFC 9112 section 7.1), followed while it passes, whatever the cuts between reads.
//!
//! Validated bytes may be relayed as they are ([`ChunkedDecoder::decode`]) or the data taken out of them
//! ([`ChunkedDecoder::decode_data`]). There is one way to write a chunk line that is accepted: no white space, no bare CR
//! or LF, extensions in full grammar, and bounds on all that is not data.

use std::ops::Range;

use crate::http::{MAX_FIELDS, Reject, is_forbidden_trailer, scan};

/// The most bytes of chunk extensions in one body, and the most bytes of trailers.
const MAX_OVERHEAD: usize = 16 * 1024;

/// The longest name among those that may not be trailers, rounded up.
const NAME_MAX: usize = 24;

/// Where in the grammar the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the size, behind so many digits.
    Size(u8),
    /// Behind `;`.
    ExtNameFirst,
    ExtName,
    /// Behind `=`.
    ExtValueFirst,
    ExtToken,
    ExtQuoted,
    ExtEscaped,
    /// Behind the closing quote.
    ExtQuotedEnd,
    /// Behind the CR of a size line.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line of the trailers.
    TrailerFirst,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// Behind the CR of the last, empty line.
    EndLf,
    Done,
}

/// What a call to [`ChunkedDecoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the input belong to the body: all of them unless it ended.
    pub consumed: usize,
    /// The body ended with these bytes.
    pub done: bool,
}

/// What a call to [`ChunkedDecoder::decode_data`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes of the input were looked at, the data included.
    pub consumed: usize,
    /// Where in the input the data is; empty when there is none in the consumed bytes.
    pub data: Range<usize>,
    /// The body ended with these bytes.
    pub done: bool,
}

/// What a call to [`ChunkedDecoder::decode_run_of`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many bytes of the input were looked at.
    pub consumed: usize,
    /// Where in the input data is; empty when there is none in the consumed bytes.
    pub data: Range<usize>,
    /// Where in the input bytes of the trailers are, field lines with their ends; empty when there are none.
    pub trailers: Range<usize>,
    /// The body ended with these bytes.
    pub done: bool,
}

/// Follows one chunked body.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Of the size line: the size. Of a chunk: the bytes of data still to come.
    remaining: u64,
    data: u64,
    extensions: usize,
    trailers: usize,
    fields: usize,
    name: [u8; NAME_MAX],
    name_len: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// Before the first chunk.
    pub fn new() -> Self {
        Self {
            state: State::Size(0),
            remaining: 0,
            data: 0,
            extensions: 0,
            trailers: 0,
            fields: 0,
            name: [0; NAME_MAX],
            name_len: 0,
        }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data so far.
    pub fn data(&self) -> u64 {
        self.data
    }

    /// Bytes of names and values of trailers so far, but for white space.
    pub fn trailers(&self) -> u64 {
        self.trailers.saturating_sub(2 * self.fields) as u64
    }

    /// Whether a trailer has begun.
    pub fn has_trailers(&self) -> bool {
        self.fields > 0
    }

    /// Validates `input`, the bytes of the body that follow those of the last call.
    ///
    /// # Errors
    /// 400 for what is not the chunked coding, for a trailer that frames, routes or authenticates, and for bounds
    /// exceeded. The decoder is of no use afterwards.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Reject> {
        let mut consumed = 0;
        loop {
            let piece = self.decode_data(&input[consumed..])?;
            consumed += piece.consumed;
            if piece.done || consumed == input.len() {
                return Ok(Step { consumed, done: piece.done });
            }
        }
    }

    /// Whether the next byte of the body is data.
    pub fn is_in_data(&self) -> bool {
        self.state == State::Data
    }

    /// Whether `byte`, the next one of the body, belongs to its trailers, of which the empty line behind them is no part.
    fn is_trailer(&self, byte: u8) -> bool {
        use State::*;
        match self.state {
            TrailerFirst => byte != b'\r',
            TrailerName | TrailerValue | TrailerLf => true,
            _ => false,
        }
    }

    /// Finds the next run of data in `input`; call again behind `consumed` until it is all of the input.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_data(&mut self, input: &[u8]) -> Result<Piece, Reject> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let available = (input.len() - at) as u64;
                let run = self.remaining.min(available) as usize;
                self.remaining -= run as u64;
                self.data += run as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Piece { consumed: at + run, data: at..at + run, done: false });
            }
            self.byte(input[at])?;
            at += 1;
        }
        Ok(Piece { consumed: at, data: at..at, done: self.state == State::Done })
    }

    /// Finds the next run of data or of trailers in `input`; call again behind it until it is all of the input.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_run_of(&mut self, input: &[u8]) -> Result<Run, Reject> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let piece = self.decode_data(&input[at..])?;
                return Ok(Run {
                    consumed: at + piece.consumed,
                    data: at..at + piece.consumed,
                    trailers: 0..0,
                    done: false,
                });
            }
            if self.is_trailer(input[at]) {
                let start = at;
                while at < input.len() && self.is_trailer(input[at]) {
                    self.byte(input[at])?;
                    at += 1;
                }
                return Ok(Run { consumed: at, data: 0..0, trailers: start..at, done: false });
            }
            self.byte(input[at])?;
            at += 1;
        }
        Ok(Run { consumed: at, data: 0..0, trailers: 0..0, done: self.state == State::Done })
    }

    fn byte(&mut self, byte: u8) -> Result<(), Reject> {
        use State::*;
        self.state = match (self.state, byte) {
            (Size(digits), _) if byte.is_ascii_hexdigit() => {
                if digits == 16 || self.remaining >> 59 != 0 {
                    return Err(Reject::BadRequest("chunk size too large"));
                }
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                self.remaining = self.remaining << 4 | digit;
                Size(digits + 1)
            }
            (Size(0), _) => return Err(Reject::BadRequest("chunk size is not a number")),
            (Size(_) | ExtName | ExtToken | ExtQuotedEnd, b'\r') => SizeLf,
            (Size(_) | ExtName | ExtToken | ExtQuotedEnd, b';') => self.extension(ExtNameFirst)?,
            (ExtNameFirst | ExtName, _) if scan::is_token_byte(byte) => self.extension(ExtName)?,
            (ExtName, b'=') => self.extension(ExtValueFirst)?,
            (ExtValueFirst | ExtToken, _) if scan::is_token_byte(byte) => self.extension(ExtToken)?,
            (ExtValueFirst, b'"') => self.extension(ExtQuoted)?,
            (ExtQuoted, b'"') => self.extension(ExtQuotedEnd)?,
            (ExtQuoted, b'\\') => self.extension(ExtEscaped)?,
            (ExtQuoted | ExtEscaped, _) if scan::is_value_byte(byte) => self.extension(ExtQuoted)?,
            (Size(_), _) => return Err(Reject::BadRequest("chunk size is not a number")),
            (
                ExtNameFirst | ExtName | ExtValueFirst | ExtToken | ExtQuoted | ExtEscaped | ExtQuotedEnd,
                _,
            ) => {
                return Err(Reject::BadRequest("malformed chunk extension"));
            }
            (SizeLf, b'\n') if self.remaining == 0 => TrailerFirst,
            (SizeLf, b'\n') => Data,
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Size(0),
            (DataCr | DataLf, _) => return Err(Reject::BadRequest("chunk data not followed by CRLF")),
            (TrailerFirst, b'\r') => EndLf,
            (TrailerFirst | TrailerName, _) => self.trailer_name(byte)?,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if scan::is_value_byte(byte) => {
                self.trailer_byte()?;
                TrailerValue
            }
            (TrailerValue, _) => return Err(Reject::BadRequest("control byte in a trailer")),
            (TrailerLf, b'\n') => TrailerFirst,
            (EndLf, b'\n') => Done,
            (SizeLf | TrailerLf | EndLf, _) => return Err(Reject::BadRequest("bare CR")),
            (Data | Done, _) => unreachable!("decode_data takes data and ends without looking at bytes"),
        };
        Ok(())
    }

    fn extension(&mut self, next: State) -> Result<State, Reject> {
        self.extensions += 1;
        if self.extensions > MAX_OVERHEAD {
            return Err(Reject::BadRequest("too many chunk extensions"));
        }
        Ok(next)
    }

    fn trailer_byte(&mut self) -> Result<(), Reject> {
        self.trailers += 1;
        if self.trailers > MAX_OVERHEAD {
            return Err(Reject::BadRequest("trailers too large"));
        }
        Ok(())
    }

    fn trailer_name(&mut self, byte: u8) -> Result<State, Reject> {
        self.trailer_byte()?;
        if self.state == State::TrailerFirst {
            self.name_len = 0;
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                return Err(Reject::BadRequest("too many trailers"));
            }
        }
        if scan::is_token_byte(byte) {
            if self.name_len < NAME_MAX {
                self.name[self.name_len] = byte;
            }
            self.name_len += 1;
            return Ok(State::TrailerName);
        }
        if byte != b':' || self.name_len == 0 {
            return Err(Reject::BadRequest("malformed trailer"));
        }
        let known = self.name.get(..self.name_len);
        if known.is_some_and(is_forbidden_trailer) {
            return Err(Reject::BadRequest("field that may not be a trailer"));
        }
        Ok(State::TrailerValue)
    }
}

/// Writes the line before a chunk of `len` bytes; CRLF follows the data. A chunk of 0 bytes is the end: write the line,
/// then CRLF.
pub fn write_chunk_header(out: &mut Vec<u8>, len: u64) {
    let digits = (16 - len.leading_zeros() / 4).max(1);
    for place in (0..digits).rev() {
        let nibble = (len >> (4 * place) & 0xf) as u8;
        out.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
