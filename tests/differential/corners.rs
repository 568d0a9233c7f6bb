//! Corner cases written by hand: one rule and one request each.

use amphora_model::{
    CompareType::{self, Contains, EndsWith, EqualTo, Regex, StartsWith},
    L7Action, L7Policy, L7PolicyId, L7Rule, L7RuleId, L7Subject, ListenerId, RedirectCode,
};

use crate::{
    cases::{Set, listener},
    prng::Prng,
};

#[derive(Clone, Copy)]
enum On {
    Host,
    Path,
    File,
    Header(&'static str),
    Cookie(&'static str),
}

use On::{Cookie, File, Header, Host, Path};

/// The rule, then the request line's beginning and the fields that differ from the usual.
type Corner = (On, CompareType, &'static str, &'static str, &'static str);

const HOST: &str = "Host: h\r\n";

const CORNERS: &[Corner] = &[
    // Hosts: with the port, commas, no host at all.
    (Host, EqualTo, "h", "GET /", "Host: h:80\r\n"),
    (Host, EqualTo, "h:80", "GET /", "Host: H:80\r\n"),
    (Host, StartsWith, "h", "GET /", "Host: H:80\r\n"),
    (Host, Regex, "^H$", "GET /", "Host: h\r\n"),
    (Host, Regex, ".*", "GET /", "Host:\r\n"),
    (Host, Regex, "^$", "GET /", "Host: \t \r\n"),
    (Host, Regex, "É", "GET /", "Host: \u{c9}\r\n"),
    // Absolute and other forms of the target.
    (Host, EqualTo, "h:8080", "GET http://h:8080/x", "Host: h:8080\r\n"),
    (Host, EqualTo, "h", "GET http://H/x", "Host: h\r\n"),
    (Host, EqualTo, "h:80", "GET http://h:80/x", "Host: h:80\r\n"),
    (Host, EqualTo, "h", "GET http://h:80/x", "Host: h:80\r\n"),
    (Host, EqualTo, "h:80", "GET http://h:80", "Host: h:80\r\n"),
    (Host, EqualTo, "h:443", "GET http://h:443/x", "Host: h:443\r\n"),
    (Path, EqualTo, "/x", "GET http://h:80/x?y", "Host: h:80\r\n"),
    (Path, EqualTo, "/x", "GET http://h/x", HOST),
    (Path, EqualTo, "/", "GET http://h", HOST),
    (Path, Regex, ".*", "GET http://h", HOST),
    (Path, Regex, "^$", "GET http://h?q", HOST),
    (Path, Regex, ".*", "OPTIONS *", HOST),
    (Path, Contains, "*", "OPTIONS *", HOST),
    (Path, EqualTo, "/x", "GET https://h/x", HOST),
    (Path, EqualTo, "/x", "GET ftp://h/x", HOST),
    (Path, EqualTo, "//h/x", "GET //h/x", HOST),
    (Path, EqualTo, "/h://x/y", "GET /h://x/y", HOST),
    (Path, EqualTo, "/", "GET /?", HOST),
    (Path, EndsWith, "?a", "GET /?a", HOST),
    (Path, Contains, "%2F", "GET /a%2Fb", HOST),
    (Path, Contains, "%2f", "GET /a%2Fb", HOST),
    (Path, EqualTo, "/a/../b", "GET /a/../b", HOST),
    (Path, EqualTo, "/a;p=1", "GET /a;p=1?q", HOST),
    (File, EqualTo, "jpg", "GET /jpg", HOST),
    (File, EqualTo, "jpg", "GET /a.jpg?b.png", HOST),
    (File, EqualTo, "jpg", "GET /a.JPG", HOST),
    (File, EqualTo, "/a.jpg", "GET /a.jpg", HOST),
    (File, EqualTo, "x/a.jpg", "GET /a.jpg", HOST),
    (File, Regex, "^jpg$", "GET /a.jpg", HOST),
    (File, Regex, "^/a[.]jpg$", "GET /a.jpg", HOST),
    // Header fields: white space, commas, quotes, repetition, absence.
    (Header("x"), EqualTo, "a", "GET /", "X:a\r\n"),
    (Header("X"), EqualTo, "a", "GET /", "x: \t a \t \r\n"),
    (Header("x"), EqualTo, "a", "GET /", "X: b\r\nX: a\r\n"),
    (Header("x"), EqualTo, "b", "GET /", "X: a,b\r\n"),
    (Header("x"), EqualTo, "b", "GET /", "X: a ,\t b ,c\r\n"),
    (Header("x"), EqualTo, "a,b", "GET /", "X: a,b\r\n"),
    (Header("x"), EqualTo, "\"a,b\"", "GET /", "X: \"a,b\"\r\n"),
    (Header("x"), EqualTo, "b\"", "GET /", "X: \"a,b\"\r\n"),
    (Header("x"), EqualTo, "c", "GET /", "X: \"a,b\",c\r\n"),
    (Header("x"), EqualTo, "c", "GET /", "X: a\"b,c\r\n"),
    (Header("x"), EqualTo, "c", "GET /", "X: \"a\\\",b\",c\r\n"),
    (Header("x"), EqualTo, "b", "GET /", "X: a\\,b\r\n"),
    (Header("x"), EqualTo, "b", "GET /", "X: \"\\\\\",b\r\n"),
    (Header("x"), Regex, "^$", "GET /", "X:\r\n"),
    (Header("x"), Regex, "^$", "GET /", "X: a,\r\n"),
    (Header("x"), Regex, "^$", "GET /", "X: ,a\r\n"),
    (Header("x"), Regex, "^$", "GET /", "X: a,,b\r\n"),
    (Header("x"), Regex, "^$", "GET /", "X: a\r\n"),
    (Header("x"), Regex, "^$", "GET /", ""),
    (Header("x"), Regex, "^a b$", "GET /", "X: a b\r\n"),
    (Header("x"), Contains, "a\\b", "GET /", "X: a\\b\r\n"),
    (Header("x"), Contains, "a\\\\b", "GET /", "X: a\\b\r\n"),
    (Header("x"), EqualTo, "A", "GET /", "X: a\r\n"),
    (Header("x"), StartsWith, "abc", "GET /", "X: ab\r\n"),
    (Header("x"), Regex, "^\\xe9$", "GET /", "X: \u{e9}\r\n"),
    (Header("x"), Regex, "^\\v$", "GET /", "X: \u{85}\r\n"),
    (Header("x"), Regex, "^a\\hb$", "GET /", "X: a\u{a0}b\r\n"),
    (Header("x"), Regex, "^\\s|\\w|\\d$", "GET /", "X: \u{a0}\u{aa}\u{b2}\r\n"),
    (Header("x"), Regex, "(?i)\\xe9", "GET /", "X: \u{c9}\r\n"),
    (Header("x"), Regex, "^é$", "GET /", "X: é\r\n"),
    (Header("cookie"), Regex, "^a=1; b=2$", "GET /", "Cookie: a=1; b=2\r\n"),
    (Header("cookie"), Contains, "b=2", "GET /", "Cookie: a=1; b=2\r\n"),
    (Header("host"), EqualTo, "H", "GET /", "Host: H\r\n"),
    (Header("host"), EqualTo, "h", "GET /", "Host: H\r\n"),
    (Header("connection"), EqualTo, "close", "GET /", ""),
    (Header("connection"), EqualTo, "foo", "GET /", "Connection: close, foo\r\n"),
    (Header("connection"), Contains, "keep-alive", "GET /", "Connection: Keep-Alive\r\n"),
    (Header("connection"), Regex, "^$", "GET /", "Connection: foo,,close\r\n"),
    (Header("connection"), Regex, "^$", "GET /", "Connection:\r\n"),
    (Header("connection"), Regex, "^$", "GET /", "Connection: close\r\n"),
    (Header("keep-alive"), EqualTo, "timeout=5", "GET /", "Keep-Alive: timeout=5\r\n"),
    (Header("upgrade"), EqualTo, "x", "GET /", "Upgrade: x\r\n"),
    (Header("te"), EqualTo, "trailers", "GET /", "TE: trailers\r\n"),
    (Header("content-length"), EqualTo, "0", "POST /", "Content-Length: 0\r\n"),
    (Header("content-length"), EqualTo, "00", "POST /", "Content-Length: 00\r\n"),
    (Header("expect"), EqualTo, "100-continue", "POST /", "Content-Length: 0\r\nExpect: 100-continue\r\n"),
    // Cookies.
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: a=1\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: A=1\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: b=2; a=1\r\n"),
    (Cookie("a"), EqualTo, "2", "GET /", "Cookie: a=1; a=2\r\n"),
    (Cookie("a"), EqualTo, "2", "GET /", "Cookie: a=1\r\nCookie: a=2\r\n"),
    (Cookie("a"), EqualTo, "2", "GET /", "Cookie: a=1, a=2\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: a = 1 ; b\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: ba=1\r\n"),
    (Cookie("a"), Regex, "^\"1\"$", "GET /", "Cookie: a=\"1\"\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: a=\"1\"\r\n"),
    (Cookie("a"), Contains, "2", "GET /", "Cookie: a=\"1;2\"\r\n"),
    (Cookie("a"), Contains, "2", "GET /", "Cookie: a=\"1,2\"\r\n"),
    (Cookie("b"), EqualTo, "2", "GET /", "Cookie: a=\"1; b=2\r\n"),
    (Cookie("b"), EqualTo, "2", "GET /", "Cookie: a=x\"1; b=2\r\n"),
    (Cookie("b"), EqualTo, "2", "GET /", "Cookie: a=\"1\\\"; b=2\r\n"),
    (Cookie("a"), EqualTo, "1=2", "GET /", "Cookie: a=1=2\r\n"),
    (Cookie("a"), Regex, "^$", "GET /", "Cookie: a=\r\n"),
    (Cookie("a"), Regex, "^$", "GET /", "Cookie: a=; b=1\r\n"),
    (Cookie("a"), Regex, "^$", "GET /", "Cookie: b=1;a=\r\n"),
    (Cookie("a"), Regex, "^$", "GET /", "Cookie: b=1; a=\r\n"),
    (Cookie("a"), Regex, "^$", "GET /", "Cookie: a\r\n"),
    (Cookie("a"), Regex, ".*", "GET /", "Cookie: \r\n"),
    (Cookie("a"), Regex, ".*", "GET /", ""),
    (Cookie("$a"), EqualTo, "1", "GET /", "Cookie: $a=1; b=2\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: $v=0; a=1\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: ;;; a=1\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: \"x\"; a=1\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: x\"y=z; a=1\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: x\"y=z, a=1\r\n"),
    (Cookie("a"), EqualTo, "1", "GET /", "Cookie: \"x,y\"=z; a=1\r\n"),
];

/// A listener on which each corner has a pair of policies, one of them inverted, told apart by a header field.
pub(crate) fn set(port: u16) -> Set {
    let mut rng = Prng::new(u64::from(u32::MAX) + 1);
    let mut l7policies = Vec::new();
    let mut requests = Vec::new();
    for (number, (on, compare, value, line, fields)) in CORNERS.iter().enumerate() {
        for invert in [false, true] {
            let position = (number * 2 + usize::from(invert) + 1) as u32;
            let mut rule = |subject, compare, value: &str, invert| L7Rule {
                id: L7RuleId(rng.uuid()),
                admin_state_up: true,
                invert,
                subject,
                compare,
                value: value.to_owned(),
            };
            let subject = match *on {
                Host => L7Subject::HostName,
                Path => L7Subject::Path,
                File => L7Subject::FileType,
                Header(name) => L7Subject::Header(name.to_owned()),
                Cookie(name) => L7Subject::Cookie(name.to_owned()),
            };
            let rules = vec![
                rule(L7Subject::Header("X-Case".to_owned()), EqualTo, &position.to_string(), false),
                rule(subject, *compare, value, invert),
            ];
            let action = if invert {
                L7Action::RedirectPrefix {
                    prefix: format!("http://{position}"),
                    code: RedirectCode::Permanent,
                }
            } else {
                L7Action::RedirectToUrl { url: format!("http://{position}/"), code: RedirectCode::Found }
            };
            l7policies.push(L7Policy {
                id: L7PolicyId(rng.uuid()),
                name: String::new(),
                admin_state_up: true,
                position,
                action,
                edits: None,
                rules,
            });
            let host = if fields.contains("Host:") { "" } else { HOST };
            let text =
                format!("{line} HTTP/1.1\r\n{host}{fields}X-Case: {position}\r\nConnection: close\r\n\r\n");
            // With an escape in the value, U+0080 to U+00FF stand for single bytes.
            requests.push(if value.contains('\\') {
                text.chars().map(|c| c as u8).collect()
            } else {
                text.into_bytes()
            });
        }
    }
    Set {
        seed: 0,
        listener: listener(ListenerId(rng.uuid()), port, None, l7policies),
        pools: Vec::new(),
        requests,
    }
}
