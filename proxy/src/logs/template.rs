//! What of a listener's lines is the same in each of them, put together once.

use super::{
    field::{Field, Sample},
    format::{Flags, Format, Piece},
    line::Frontend,
};

/// A [`Format`] as a listener's lines are written by it: what is the same in each of them is text.
#[derive(Debug)]
pub struct Template {
    pub(super) steps: Box<[Step]>,
    /// Behind the last of them.
    pub(super) rest: Box<[u8]>,
    frontend: Frontend,
}

/// A field, and the text in front of it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) text: Box<[u8]>,
    pub(super) field: Field,
    pub(super) flags: Flags,
}

impl Template {
    /// Of this format, for this listener.
    pub fn new(format: &Format, frontend: Frontend) -> Self {
        let (mut steps, mut text) = (Vec::new(), Vec::new());
        // Nothing but spaces was written since the last space, or since the beginning.
        let mut after_space = true;
        for piece in format.pieces() {
            match piece {
                Piece::Space if after_space => continue,
                Piece::Space => text.push(b' '),
                Piece::Text(literal) => text.extend_from_slice(literal),
                // Without a `capture` they are nothing, not even a field that ends a row of spaces.
                Piece::Field(
                    Field::RequestHeaders
                    | Field::RequestHeadersList
                    | Field::ResponseHeaders
                    | Field::ResponseHeadersList,
                    _,
                ) => continue,
                Piece::Field(field, flags) => {
                    if !frontend.write_constant(&mut text, *field, *flags) {
                        let text = std::mem::take(&mut text).into();
                        steps.push(Step { text, field: *field, flags: *flags });
                    }
                }
            }
            after_space = matches!(piece, Piece::Space);
        }
        Self { steps: steps.into(), rest: text.into(), frontend }
    }

    /// Whose lines they are.
    pub fn frontend(&self) -> Frontend {
        self.frontend
    }
}

impl Frontend {
    /// Appends what is the same in all lines, if it is: false where it is not, or where it is cut off in another way than text.
    fn write_constant(&self, out: &mut Vec<u8>, field: Field, flags: Flags) -> bool {
        let nothing: &[u8] = if flags.mandatory { b"-" } else { b"" };
        let text: &[u8] = match field {
            _ if flags.quote => return false,
            Field::Frontend | Field::Sample(Sample::FrontendName) if !flags.escape => &self.name,
            Field::FrontendTransport => {
                out.extend_from_slice(&self.name);
                if self.tls { b"~" } else { b"" }
            }
            Field::BackendQueue | Field::ServerQueue => b"0",
            Field::RequestCookie | Field::ResponseCookie => nothing,
            Field::Sample(Sample::Tls | Sample::TlsResumed) if !self.tls => b"0",
            Field::Sample(sample) if sample.is_of_tls() && !self.tls => nothing,
            Field::TlsCipher | Field::TlsVersion if !self.tls => nothing,
            _ => return false,
        };
        out.extend_from_slice(text);
        true
    }
}
