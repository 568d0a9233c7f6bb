//! Generated regular expressions, for PCRE2 inside HAProxy to judge.

use amphora_model::{
    CompareType, L7Action, L7Policy, L7PolicyId, L7Rule, L7RuleId, L7Subject, ListenerId, RedirectCode,
};

use crate::{
    cases::{Set, listener},
    prng::Prng,
};

/// Pieces of expressions: common ones, and those where dialects differ.
const ATOMS: &[&str] = &[
    "a",
    "b",
    "c",
    "1",
    "-",
    "_",
    " ",
    "/",
    "a",
    "b",
    "ab",
    ".",
    "\\.",
    "\\d",
    "\\D",
    "\\w",
    "\\W",
    "\\s",
    "\\S",
    "[ab]",
    "[^ab]",
    "[a-c]",
    "[]a]",
    "[^]a]",
    "[[]",
    "[a&&b]",
    "[a~~b]",
    "[+--]",
    "[a-c-e]",
    "[a\\-c]",
    "[\\w.-]",
    "[\\d-]",
    "[[:alpha:]]",
    "[[:^digit:]]",
    "[[:upper:]b]",
    "[[:punct:]]",
    "[a[:alpha]",
    "[\\]a]",
    "[\\b]",
    "\\h",
    "\\H",
    "\\v",
    "\\V",
    "\\N",
    "\\x61",
    "\\x{62}",
    "\\x",
    "\\x6",
    "\\060",
    "\\e",
    "\\t",
    "\\cI",
    "\\<",
    "\\>",
    "\\-",
    "\\_",
    "\\Qa.b\\E",
    "\\Q[\\E",
    "\\E",
    "{",
    "}",
    "]",
    "a{,",
    "{x}",
    "%",
    "#",
    "\"",
    "'",
    "&",
    "<",
    "\\p{Lu}",
    "\\P{L}",
    "\\p{Nd}",
    "\\R",
    "\\X",
    "\\C",
    "\\o{141}",
    "[\\101b]",
    "(?R)?",
    "(?&n)",
    "(?P>n)",
    "\\k<n>",
    "\\k{n}",
    "\\g{n}",
    "(?P=n)",
    "\\1",
    "(?1)",
    "\\g{-1}",
    "(?(<n>)a|b)",
    "(?(?=a)a|b)",
    "(?(DEFINE)a)",
    "(*FAIL)",
    "(*ACCEPT)",
    "(*COMMIT)",
    "(*PRUNE)",
    "(*SKIP)",
    "(*THEN)",
    "a{,2}",
    "b{ 1 }",
    "é",
    "[é]",
    "\\é",
    "~",
    "!",
    "=",
    ":",
    ",",
];

const ASSERTIONS: &[&str] = &[
    "^",
    "$",
    "\\b",
    "\\B",
    "\\A",
    "\\Z",
    "\\z",
    "\\G",
    "\\K",
    "(?=a)",
    "(?!b)",
    "(?<=a)",
    "(?<!b)",
    "(?<=ab|c)",
    "(?<!\\d)",
    "(?=.*b)",
    "(?!.*ab)",
    "[[:<:]]",
    "[[:>:]]",
    "(?C)",
    "(?C255)",
];

const GROUPS: &[&str] = &[
    "(",
    "(?:",
    "(?i:",
    "(?i-s:",
    "(?-i:",
    "(?s:",
    "(?m:",
    "(?<n>",
    "(?P<n>",
    "(?'n'",
    "(?|",
    "(?U:",
    "(?n:",
    "(?>",
    "(?=",
    "(?!",
    "(?<n>",
    "(?<=",
    "(?<!",
    "(?x:",
    "(?^:",
    "(*atomic:",
    "(*pla:",
];

const QUANTIFIERS: &[&str] = &[
    "*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{1,}", "{0}", "{1,2}?", "{0,1}", "*+", "++", "?+",
    "{1,2}+",
];

/// Pieces that are invalid, or valid only here and there.
const TROUBLE: &[&str] = &[
    "**", "++", "{,2}", "{2", "(?#c)", "\\y", "[z-a]", "[a", ")", "(?", "\\1", "(?=a)", "[[:x:]]", "(?i)",
    "(?-i)", "|*",
];

pub(crate) fn expression(rng: &mut Prng) -> String {
    let mut text = String::new();
    // Names must differ within one expression.
    let mut named = false;
    alternatives(rng, &mut text, 2, &mut named);
    if rng.chance(12) {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        if !places.is_empty() {
            text.insert_str(rng.pick(&places), rng.pick(TROUBLE));
        }
    }
    text
}

/// Whether PCRE2 10.43 and later may read it in another way: they refuse `\x` without digits, and take `{,2}` and `{ 1 }`
/// for quantifiers.
pub(crate) fn of_old_pcre2(expression: &str) -> bool {
    let mut after_x = expression.split("\\x").skip(1);
    let has_no_digits = |rest: &str| !rest.starts_with(|c: char| c == '{' || c.is_ascii_hexdigit());
    after_x.any(has_no_digits) || expression.contains("{,") || expression.contains("{ ")
}

fn alternatives(rng: &mut Prng, text: &mut String, depth: usize, named: &mut bool) {
    for alternative in 0..1 + usize::from(rng.chance(25)) {
        if alternative > 0 {
            text.push('|');
        }
        for _ in 0..1 + rng.below(3) {
            if rng.chance(20) {
                text.push_str(rng.pick(ASSERTIONS));
                continue;
            }
            if depth > 0 && rng.chance(25) {
                let mut open = rng.pick(GROUPS);
                if open.contains('n') && open != "(?n:" {
                    open = if *named { "(" } else { open };
                    *named = true;
                }
                text.push_str(open);
                alternatives(rng, text, depth - 1, named);
                text.push(')');
            } else {
                text.push_str(rng.pick(ATOMS));
            }
            if rng.chance(30) {
                text.push_str(rng.pick(QUANTIFIERS));
            }
        }
    }
}

fn subject(rng: &mut Prng) -> Vec<u8> {
    const PIECES: &[&[u8]] = &[
        b"a",
        b"b",
        b"ab",
        b"A",
        b"B",
        b"1",
        b"-",
        b"_",
        b" ",
        b"/",
        b".",
        b"aa",
        b"bb",
        b"c",
        b"[",
        b"]",
        b"{",
        b"}",
        b"&",
        b"~",
        b"\t",
        b"<",
        b">",
        b"%",
        b"#",
        b"'",
        b"\\",
        b"^",
        b"\xc3\xa9",
        b"\xe9",
        b"\xa0",
        b"a.b",
        b"E",
        b"=",
        b":",
        b"!",
        b"0",
        b"6",
        b"x",
        b"\x85",
    ];
    let mut text = b"s".to_vec();
    for _ in 0..rng.below(5) {
        text.extend_from_slice(rng.pick(PIECES));
    }
    // The field's white space would be trimmed.
    text.remove(0);
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    if text.first().is_some_and(blank) || text.last().is_some_and(blank) { b"a b".to_vec() } else { text }
}

/// A listener with a policy for each expression, and requests that ask each of them about some subjects.
pub(crate) fn set(expressions: &[String], port: u16, seed: u64) -> Set {
    let mut rng = Prng::new(seed);
    let rng = &mut rng;
    let rule = |rng: &mut Prng, key: &str, compare, value: &str| L7Rule {
        id: L7RuleId(rng.uuid()),
        admin_state_up: true,
        invert: false,
        subject: L7Subject::Header(key.to_owned()),
        compare,
        value: value.to_owned(),
    };
    let l7policies = (1..)
        .zip(expressions)
        .map(|(position, expression)| L7Policy {
            id: L7PolicyId(rng.uuid()),
            name: String::new(),
            admin_state_up: true,
            position,
            action: L7Action::RedirectToUrl { url: format!("http://{position}/"), code: RedirectCode::Found },
            edits: None,
            rules: vec![
                rule(rng, "X-Case", CompareType::EqualTo, &position.to_string()),
                rule(rng, "X-Subject", CompareType::Regex, expression),
            ],
        })
        .collect();
    let mut requests = Vec::new();
    for number in 1..=expressions.len() {
        for _ in 0..6 {
            let mut request =
                format!("GET / HTTP/1.1\r\nHost: h\r\nX-Case: {number}\r\nX-Subject: ").into_bytes();
            request.extend(subject(rng));
            request.extend_from_slice(b"\r\nConnection: close\r\n\r\n");
            requests.push(request);
        }
    }
    Set {
        seed,
        listener: listener(ListenerId(rng.uuid()), port, None, l7policies),
        pools: Vec::new(),
        requests,
    }
}
