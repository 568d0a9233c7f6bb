//! REGEX rules: PCRE2's dialect, in which HAProxy reads them, rewritten for the `regex` crate.
//!
//! The two dialects agree on most of what people write, and differ quietly on the rest (`a++`, `[a&&b]`, `\v`, `\<`).
//! So a pattern is read here as PCRE2 10.42 reads it, byte by byte and without UTF, and written out in the common
//! subset; what has no equal there (look-around, back-references, atomic groups) is refused by name and offset.
//! Only "is there a match" is ever asked, so captures and laziness are dropped. Matching takes time linear in the
//! subject, where PCRE2 backtracks.

use std::fmt::Write as _;

use regex_automata::{
    Input,
    meta::{BuildError, Config, Regex},
    util::syntax,
};

/// Bytes that one compiled expression may take.
pub(super) const PROGRAM_SIZE: usize = 256 * 1024;

/// Bytes of lazily built automaton that one expression may keep per thread.
pub(super) const CACHE_SIZE: usize = 128 * 1024;

/// The largest count in `{n,m}`, as in PCRE2.
const MAX_COUNT: u32 = 65_535;

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    regex: Regex,
}

impl Expression {
    /// Whether the subject contains a match.
    #[inline]
    pub(super) fn matches(&self, subject: &[u8]) -> bool {
        self.regex.is_match(Input::new(subject))
    }

    /// Bytes that it takes, apart from what workers build lazily.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.regex.memory_usage()
    }
}

/// The expression, or why it cannot be honoured.
pub(super) fn compile(pattern: &str, ignore_case: bool) -> Result<Expression, String> {
    let translated = translate(pattern)?;
    Regex::builder()
        .configure(
            Config::new()
                .utf8_empty(false)
                .nfa_size_limit(Some(PROGRAM_SIZE))
                .hybrid_cache_capacity(CACHE_SIZE),
        )
        .syntax(syntax::Config::new().unicode(false).utf8(false).case_insensitive(ignore_case))
        .build(&translated)
        .map(|regex| Expression { regex })
        .map_err(|error| explain(&error))
}

fn explain(error: &BuildError) -> String {
    match (error.size_limit(), error.syntax_error()) {
        (Some(limit), _) => format!("the compiled regular expression would be larger than {limit} bytes"),
        (None, syntax) => {
            let text = syntax.map_or_else(|| error.to_string(), ToString::to_string);
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("not a valid regular expression: {reason}")
        }
    }
}

/// A byte of the pattern; `quoted` ones stood between `\Q` and `\E` and mean themselves.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Token {
    byte: u8,
    quoted: bool,
    offset: usize,
}

/// Resolves `\Q...\E`.
fn tokens(pattern: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut quoted = false;
    let mut at = 0;
    while at < pattern.len() {
        let rest = &pattern[at..];
        if rest.starts_with(br"\E") {
            quoted = false;
            at += 2;
        } else if !quoted && rest.starts_with(br"\Q") {
            quoted = true;
            at += 2;
        } else {
            let length = if !quoted && rest[0] == b'\\' { rest.len().min(2) } else { 1 };
            tokens.extend((at..at + length).map(|offset| Token { byte: pattern[offset], quoted, offset }));
            at += length;
        }
    }
    tokens
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator {
        tokens: tokens(pattern.as_bytes()),
        at: 0,
        out: String::with_capacity(pattern.len() * 2),
        depth: 0,
        repeatable: false,
    };
    while translator.at < translator.tokens.len() {
        translator.item()?;
    }
    if translator.depth > 0 {
        return Err("a group is not closed".to_owned());
    }
    Ok(translator.out)
}

/// What an escape inside or outside of a class stands for.
enum Escape {
    Byte(u8),
    /// The inside of a class in the `regex` crate's syntax, and whether it is negated.
    Set(&'static str, bool),
}

const HORIZONTAL_SPACE: &str = r"\t\x20\xA0";
const VERTICAL_SPACE: &str = r"\n\x0B\x0C\r\x85";

struct Translator {
    tokens: Vec<Token>,
    at: usize,
    out: String,
    depth: usize,
    /// Whether a quantifier may follow.
    repeatable: bool,
}

impl Translator {
    /// The next byte, if it is not a quoted one.
    fn peek(&self) -> Option<u8> {
        self.tokens.get(self.at).filter(|t| !t.quoted).map(|t| t.byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// Whether the coming unquoted bytes begin with `text`.
    fn ahead(&self, text: &[u8]) -> bool {
        text.iter().enumerate().all(|(i, byte)| {
            self.tokens.get(self.at + i).is_some_and(|token| !token.quoted && token.byte == *byte)
        })
    }

    /// An error at the token before the present one.
    fn refuse<T>(&self, what: &str) -> Result<T, String> {
        let offset = self.tokens.get(self.at.saturating_sub(1)).map_or(0, |t| t.offset);
        Err(format!("{what} (offset {offset})"))
    }

    fn literal(&mut self, byte: u8) {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_') {
            self.out.push(char::from(byte));
        } else {
            let _ = write!(self.out, r"\x{byte:02X}");
        }
    }

    fn item(&mut self) -> Result<(), String> {
        let token = self.tokens[self.at];
        self.at += 1;
        if token.quoted {
            self.literal(token.byte);
            self.repeatable = true;
            return Ok(());
        }
        match token.byte {
            b'\\' => self.escape(),
            b'[' => self.class(),
            b'(' => self.group(),
            b')' => {
                if self.depth == 0 {
                    return self.refuse("a closing parenthesis has no opening one");
                }
                self.depth -= 1;
                self.out.push(')');
                self.repeatable = true;
                Ok(())
            }
            byte @ (b'*' | b'+' | b'?') => {
                self.check_repeatable()?;
                self.out.push(char::from(byte));
                self.after_quantifier()
            }
            b'{' => self.brace(),
            byte @ (b'^' | b'$' | b'|') => {
                self.out.push(char::from(byte));
                self.repeatable = false;
                Ok(())
            }
            b'.' => {
                self.out.push('.');
                self.repeatable = true;
                Ok(())
            }
            byte => {
                self.literal(byte);
                self.repeatable = true;
                Ok(())
            }
        }
    }

    fn check_repeatable(&self) -> Result<(), String> {
        if self.repeatable { Ok(()) } else { self.refuse("a quantifier follows nothing that it can repeat") }
    }

    fn after_quantifier(&mut self) -> Result<(), String> {
        if self.take(b'+') {
            return self.refuse("a possessive quantifier is not supported");
        }
        self.take(b'?');
        self.repeatable = false;
        Ok(())
    }

    /// `{n}`, `{n,}`, `{n,m}`; any other `{` means itself.
    fn brace(&mut self) -> Result<(), String> {
        let rest = &self.tokens[self.at..];
        let inside: Vec<u8> =
            rest.iter().take_while(|t| !t.quoted && t.byte != b'}').map(|t| t.byte).collect();
        let closed = rest.get(inside.len()).is_some_and(|t| !t.quoted);
        let counts = std::str::from_utf8(&inside).unwrap_or_default();
        let (low, high) = counts.split_once(',').unwrap_or((counts, counts));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !closed || low.is_empty() || !digits(low) || !digits(high) {
            let numeric = counts.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b' '));
            if closed && numeric && counts.bytes().any(|b| b.is_ascii_digit()) {
                return self.refuse("a repetition in braces that versions of PCRE2 read differently");
            }
            self.literal(b'{');
            self.repeatable = true;
            return Ok(());
        }
        self.check_repeatable()?;
        let count = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= MAX_COUNT);
        match (count(low), count(high)) {
            (Some(_), None) if high.is_empty() => {}
            (Some(low), Some(high)) if low <= high => {}
            (Some(_), Some(_)) => return self.refuse("the counts of a repetition are out of order"),
            _ => return self.refuse("the count of a repetition is too large"),
        }
        self.at += inside.len() + 1;
        let _ = write!(self.out, "{{{counts}}}");
        self.after_quantifier()
    }

    fn group(&mut self) -> Result<(), String> {
        let before = std::mem::take(&mut self.repeatable);
        if self.peek() == Some(b'*') {
            return self.refuse("a verb (*...) is not supported");
        }
        if !self.take(b'?') {
            self.open();
            return Ok(());
        }
        match self.peek() {
            Some(b'#') => {
                // A quantifier after a comment repeats what stands before it.
                self.repeatable = before;
                return self.comment();
            }
            Some(b':' | b'|') => self.at += 1,
            Some(b'=') => return self.refuse("a look-ahead (?=...) is not supported"),
            Some(b'!') => return self.refuse("a negative look-ahead (?!...) is not supported"),
            Some(b'>') => return self.refuse("an atomic group (?>...) is not supported"),
            Some(b'<') if self.ahead(b"<=") => return self.refuse("a look-behind (?<=...) is not supported"),
            Some(b'<') if self.ahead(b"<!") => {
                return self.refuse("a negative look-behind (?<!...) is not supported");
            }
            Some(b'<') => self.name(1, b'>')?,
            Some(b'\'') => self.name(1, b'\'')?,
            Some(b'P') if self.ahead(b"P<") => self.name(2, b'>')?,
            Some(b'P') if self.ahead(b"P=") => {
                return self.refuse("a back-reference (?P=...) is not supported");
            }
            Some(b'P' | b'&' | b'R' | b'+' | b'0'..=b'9') => {
                return self.refuse("a recursion or subroutine call is not supported");
            }
            Some(b'-') if self.tokens.get(self.at + 1).is_some_and(|t| t.byte.is_ascii_digit()) => {
                return self.refuse("a recursion or subroutine call is not supported");
            }
            Some(b'(') => return self.refuse("a conditional group (?(...)...) is not supported"),
            Some(b'C') => return self.refuse("a callout (?C) is not supported"),
            _ => return self.flags(),
        }
        self.open();
        Ok(())
    }

    fn open(&mut self) {
        self.out.push_str("(?:");
        self.depth += 1;
    }

    /// `(?#...)`.
    fn comment(&mut self) -> Result<(), String> {
        match self.tokens[self.at..].iter().position(|t| t.byte == b')') {
            Some(length) => {
                self.at += length + 1;
                Ok(())
            }
            None => self.refuse("a comment (?#...) is not closed"),
        }
    }

    /// A group's name, `skip` bytes ahead; names are of no use without captures.
    fn name(&mut self, skip: usize, close: u8) -> Result<(), String> {
        self.at += skip;
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
            self.at += 1;
        }
        let digit = self.tokens.get(start).is_some_and(|t| t.byte.is_ascii_digit());
        if self.at == start || digit || !self.take(close) {
            return self.refuse("a group's name is not valid");
        }
        Ok(())
    }

    /// `(?i-s)` and `(?i-s:...)`.
    fn flags(&mut self) -> Result<(), String> {
        let mut set = [None; 3];
        let mut on = true;
        loop {
            let Some(byte) = self.peek() else {
                return self.refuse("a group is not closed");
            };
            self.at += 1;
            match byte {
                b'i' => set[0] = Some(on),
                b'm' => set[1] = Some(on),
                b's' => set[2] = Some(on),
                // Numbering, duplicate names and greed do not change whether there is a match.
                b'n' | b'J' | b'U' => {}
                b'x' => return self.refuse("the extended mode (?x) is not supported"),
                b'^' => return self.refuse("a reset of options (?^) is not supported"),
                b'-' if on => on = false,
                b')' | b':' => {
                    let letters = |state| {
                        "ims"
                            .chars()
                            .zip(set)
                            .filter(move |(_, s)| *s == Some(state))
                            .map(|(letter, _)| letter)
                    };
                    let off: String = letters(false).collect();
                    let text: String =
                        letters(true).chain((!off.is_empty()).then_some('-')).chain(off.chars()).collect();
                    if byte == b':' {
                        let _ = write!(self.out, "(?{text}:");
                        self.depth += 1;
                    } else if !text.is_empty() {
                        let _ = write!(self.out, "(?{text})");
                    }
                    return Ok(());
                }
                _ => return self.refuse("an unknown option after (?"),
            }
        }
    }

    /// What follows a backslash outside of a class.
    fn escape(&mut self) -> Result<(), String> {
        let Some(byte) = self.peek() else {
            return self.refuse("the expression ends with a backslash");
        };
        self.repeatable = false;
        self.at += 1;
        match byte {
            b'b' | b'B' | b'A' | b'z' => {
                let _ = write!(self.out, r"\{}", char::from(byte));
                return Ok(());
            }
            // No subject has a line break at its end, where alone \Z differs.
            b'Z' => {
                self.out.push_str(r"\z");
                return Ok(());
            }
            b'N' if self.peek() != Some(b'{') => self.out.push_str(r"[^\n]"),
            b'1'..=b'9' | b'g' | b'k' => return self.refuse("a back-reference is not supported"),
            b'G' | b'K' | b'R' | b'X' | b'C' => {
                return self.refuse(&format!(r"\{} is not supported", char::from(byte)));
            }
            _ => match self.common_escape(byte)? {
                Escape::Byte(byte) => self.literal(byte),
                Escape::Set(set, negated) => {
                    let _ = write!(self.out, "[{}{set}]", if negated { "^" } else { "" });
                }
            },
        }
        self.repeatable = true;
        Ok(())
    }

    /// The escapes that mean the same inside and outside of a class; `byte` is the one after the backslash.
    fn common_escape(&mut self, byte: u8) -> Result<Escape, String> {
        Ok(match byte {
            b'd' => Escape::Set(r"\d", false),
            b'D' => Escape::Set(r"\d", true),
            b's' => Escape::Set(r"\s", false),
            b'S' => Escape::Set(r"\s", true),
            b'w' => Escape::Set(r"\w", false),
            b'W' => Escape::Set(r"\w", true),
            b'h' => Escape::Set(HORIZONTAL_SPACE, false),
            b'H' => Escape::Set(HORIZONTAL_SPACE, true),
            b'v' => Escape::Set(VERTICAL_SPACE, false),
            b'V' => Escape::Set(VERTICAL_SPACE, true),
            b'a' => Escape::Byte(0x07),
            b'e' => Escape::Byte(0x1B),
            b'f' => Escape::Byte(0x0C),
            b'n' => Escape::Byte(b'\n'),
            b'r' => Escape::Byte(b'\r'),
            b't' => Escape::Byte(b'\t'),
            b'0' => Escape::Byte(self.number(8, 2)),
            b'x' if self.take(b'{') => {
                let start = self.at;
                let mut value = 0u32;
                while let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(16)) {
                    value = value.saturating_mul(16).saturating_add(digit);
                    self.at += 1;
                }
                match u8::try_from(value) {
                    Ok(value) if self.at > start && self.take(b'}') => Escape::Byte(value),
                    _ => return self.refuse(r"\x{...} is not one byte"),
                }
            }
            b'x' => Escape::Byte(self.number(16, 2)),
            b'c' => match self.peek() {
                Some(letter @ b' '..=b'~') => {
                    self.at += 1;
                    Escape::Byte(letter.to_ascii_uppercase() ^ 0x40)
                }
                _ => return self.refuse(r"\c is not followed by a printable character"),
            },
            b'p' | b'P' => return self.refuse("a Unicode property is not supported"),
            b'o' => return self.refuse(r"\o{...} is not supported"),
            byte if byte.is_ascii_alphanumeric() => {
                return self.refuse(&format!(r"the escape \{} is unknown", char::from(byte)));
            }
            byte => Escape::Byte(byte),
        })
    }

    /// At most `digits` digits; none is 0.
    fn number(&mut self, radix: u32, digits: usize) -> u8 {
        let mut value = 0u32;
        for _ in 0..digits {
            let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(radix)) else { break };
            value = value * radix + digit;
            self.at += 1;
        }
        u8::try_from(value).expect("two hexadecimal digits make a byte")
    }

    /// `[...]`, from after the bracket.
    fn class(&mut self) -> Result<(), String> {
        if self.named_class()?.is_some() {
            return self.refuse("a POSIX class stands outside of brackets");
        }
        self.out.push('[');
        if self.take(b'^') {
            self.out.push('^');
        }
        let mut members = 0;
        let mut before = Before::Nothing;
        loop {
            if members > 0 && self.take(b']') {
                break;
            }
            members += 1;
            let starts_range = before != Before::Nothing
                && self.ahead(b"-")
                && self.tokens.get(self.at + 1).is_some()
                && !self.ahead(b"-]");
            if starts_range {
                self.at += 1;
                let (Before::Byte(low), ClassItem::Byte(high)) = (before, self.class_item()?) else {
                    return self.refuse("a range in a class has no single character at its ends");
                };
                if low > high {
                    return self.refuse("a range in a class is out of order");
                }
                let _ = write!(self.out, r"-\x{high:02X}");
                before = Before::Nothing;
                continue;
            }
            before = match self.class_item()? {
                ClassItem::Byte(byte) => {
                    let _ = write!(self.out, r"\x{byte:02X}");
                    Before::Byte(byte)
                }
                ClassItem::Set => Before::Set,
            };
        }
        self.out.push(']');
        self.repeatable = true;
        Ok(())
    }

    /// One byte or set of a class; a set is written out, a byte is not.
    fn class_item(&mut self) -> Result<ClassItem, String> {
        let Some(token) = self.tokens.get(self.at).copied() else {
            return self.refuse("a class is not closed");
        };
        self.at += 1;
        if token.quoted {
            return Ok(ClassItem::Byte(token.byte));
        }
        match token.byte {
            b'[' => match self.named_class()? {
                Some(name) => {
                    let _ = write!(self.out, "[:{name}:]");
                    Ok(ClassItem::Set)
                }
                None => Ok(ClassItem::Byte(b'[')),
            },
            b'\\' => {
                let Some(byte) = self.peek() else {
                    return self.refuse("the expression ends with a backslash");
                };
                self.at += 1;
                match byte {
                    b'b' => Ok(ClassItem::Byte(0x08)),
                    b'1'..=b'9' => self.refuse("an octal escape without a leading 0 is not supported"),
                    _ => match self.common_escape(byte)? {
                        Escape::Byte(byte) => Ok(ClassItem::Byte(byte)),
                        Escape::Set(set, negated) => {
                            let _ = write!(self.out, "[{}{set}]", if negated { "^" } else { "" });
                            Ok(ClassItem::Set)
                        }
                    },
                }
            }
            byte => Ok(ClassItem::Byte(byte)),
        }
    }

    /// The name in `[:name:]`, from after its bracket, with `^` when it is negated; `None` when this is no such thing.
    fn named_class(&mut self) -> Result<Option<String>, String> {
        let Some(mark @ (b':' | b'.' | b'=')) = self.peek() else { return Ok(None) };
        let mut name = String::new();
        let mut at = self.at + 1;
        loop {
            let (Some(token), Some(next)) = (self.tokens.get(at), self.tokens.get(at + 1)) else {
                return Ok(None);
            };
            if token.byte == mark && next.byte == b']' {
                break;
            }
            if token.byte == b']' || (token.byte == b'[' && next.byte == mark) {
                return Ok(None);
            }
            name.push(char::from(token.byte));
            at += 1;
        }
        self.at = at + 2;
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
            "space", "upper", "word", "xdigit",
        ];
        if mark != b':' {
            return self.refuse("a POSIX collating element is not supported");
        }
        if !NAMES.contains(&name.strip_prefix('^').unwrap_or(&name)) {
            return self.refuse(&format!("the POSIX class [:{name}:] is not supported"));
        }
        Ok(Some(name))
    }
}

/// What stood in a class before a hyphen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Byte(u8),
    Set,
}

enum ClassItem {
    Byte(u8),
    Set,
}

#[cfg(test)]
#[path = "pcre_tests.rs"]
mod tests;
