#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn is_match(pattern: &str, subject: &[u8]) -> bool {
    compile(pattern, false).unwrap().matches(subject)
}

/// Patterns with subjects that match and subjects that do not; each was run through HAProxy 2.6 with PCRE2 10.42.
const CASES: &[(&str, &[&str], &[&str])] = &[
    ("^/api/v[12]/", &["/api/v1/", "/api/v2/x"], &["/api/v3/", "x/api/v1/"]),
    (r"\.(jpe?g|png)$", &["/a.jpg", "/a.jpeg", "/a.png"], &["/ajpg", "/a.jpgx"]),
    ("a{2}", &["aa", "xaax"], &["a"]),
    ("^a{2,}$", &["aa", "aaaa"], &["a", ""]),
    ("^a{2,3}?$", &["aa", "aaa"], &["a", "aaaa"]),
    ("a{x}", &["a{x}"], &["a", "ax"]),
    ("a{", &["a{"], &["a"]),
    ("{}", &["{}"], &[""]),
    ("a{,}", &["a{,}"], &["a"]),
    ("[]a]", &["]", "a"], &["b"]),
    ("^[^]a]$", &["b", "-"], &["]", "a"]),
    ("[[]", &["["], &["]"]),
    ("^[a&&b]$", &["a", "b", "&"], &["c"]),
    ("^[+--]$", &["+", ",", "-"], &["a", "."]),
    ("^[a~~b]$", &["~", "a"], &["c"]),
    ("^[a-c-e]$", &["b", "-", "e"], &["d"]),
    (r"^[\w.-]+$", &["a.b-c_9"], &["a b"]),
    (r"^[\d-]$", &["5", "-"], &["d"]),
    (r"^[a\]b]$", &["]"], &["\\"]),
    (r"^[[:alpha:]_]+$", &["ab_"], &["a1"]),
    (r"^[[:^digit:]]+$", &["ab"], &["a1"]),
    (r"^[a[:alpha]$", &["[", ":", "l"], &["b"]),
    (r"\<b\>", &["<b>"], &["b", " b "]),
    (r"\Qa.b*\E+c", &["a.b*c", "a.b**c"], &["axbc"]),
    (r"^[\Q^]\E-z]$", &["^", "]", "b"], &["-", "A"]),
    (r"\x41\x{42}\x", &["AB\0"], &["AB"]),
    (r"^\x4$", &["\x04"], &["\x44"]),
    (r"^\09$", &["\x009"], &["\x09"]),
    (r"\cA", &["\x01"], &["cA"]),
    (r"^\h\H$", &["\ta", " b"], &["aa", "  "]),
    (r"^a\vb$", &["a\x0bb", "a\x0cb"], &["avb", "a b"]),
    (r"^\N$", &["a"], &[""]),
    (r"^[\H]$", &["a"], &["\t"]),
    (r"\bfoo\b", &["a foo b", "foo"], &["food"]),
    (r"\Bo", &["foo"], &["o"]),
    (r"\Aab\Z", &["ab"], &["xab", "abx"]),
    (r"^[\b]$", &["\x08"], &["b"]),
    (r"\e\a\f\t", &["\x1b\x07\x0c\t"], &["eaft"]),
    ("(?i)ABC", &["abc", "aBc"], &["ab"]),
    ("a(?i)b|c", &["ab", "aB", "C"], &["AB"]),
    ("(a(?i)b)c", &["aBc"], &["aBC"]),
    ("(?i:a)b", &["Ab"], &["AB"]),
    ("(?i)a(?-i)b", &["Ab"], &["AB"]),
    ("(?i-s:a)b", &["Ab"], &["aB"]),
    ("(?U)a+?b", &["aab"], &["b"]),
    ("(?n)(a)(?J)b", &["ab"], &["a"]),
    ("(?:)", &["", "x"], &[]),
    ("()", &[""], &[]),
    ("^(|a)$", &["", "a"], &["b"]),
    ("(?|a|b)c", &["ac", "bc"], &["c"]),
    ("(?<n>a)(?'m'b)(?P<o>c)", &["abc"], &["ab"]),
    ("a(?#comment)*b", &["b", "aab"], &["a"]),
    ("a}]", &["a}]"], &["a"]),
    ("a#b c", &["a#b c"], &["ab"]),
    ("é", &["é", "caf\u{e9}"], &["e"]),
    ("^caf.{2}$", &["café"], &["cafe"]),
    ("^[é]{2}$", &["é"], &["e"]),
    (r"%[0-9A-F]{2}", &["%2F"], &["%2g"]),
    (r"^\d+$", &["12"], &["a", "", "١"]),
];

#[test]
fn reads_patterns_as_pcre2_does() {
    for (pattern, matching, others) in CASES {
        for subject in *matching {
            assert!(is_match(pattern, subject.as_bytes()), "{pattern} should match {subject:?}");
        }
        for subject in *others {
            assert!(!is_match(pattern, subject.as_bytes()), "{pattern} should not match {subject:?}");
        }
    }
}

#[test]
fn refuses_by_name_what_it_cannot_do() {
    for (pattern, reason) in [
        ("a(?=b)", "look-ahead"),
        ("a(?!b)", "negative look-ahead"),
        ("(?<=a)b", "look-behind"),
        ("(?<!a)b", "negative look-behind"),
        ("(?>a)b", "atomic group"),
        (r"(a)\1", "back-reference"),
        (r"(?<n>a)\k<n>", "back-reference"),
        (r"\g{1}", "back-reference"),
        ("(?P<n>a)(?P=n)", "back-reference"),
        ("a++", "possessive"),
        ("a*+", "possessive"),
        ("a{2}+", "possessive"),
        ("(a)(?1)", "recursion"),
        ("(?R)", "recursion"),
        ("(?&n)", "recursion"),
        ("(?(1)a|b)", "conditional"),
        ("(*UTF)a", "verb"),
        ("(?C1)a", "callout"),
        (r"\p{Lu}", "Unicode property"),
        (r"\X", r"\X"),
        (r"\R", r"\R"),
        (r"\K", r"\K"),
        (r"\G", r"\G"),
        (r"\u0041", r"\u"),
        (r"\y", r"\y"),
        ("(?x)a b", "extended mode"),
        ("(?^)a", "(?^)"),
        ("(?u)a", "option"),
        ("[[:<:]]a", "[:<:]"),
        ("[[.a.]]", "collating"),
        ("[:alpha:]", "outside of brackets"),
        (r"[\d-z]", "range"),
        ("[z-a]", "out of order"),
        (r"[\1]", "octal"),
        (r"\x{100}", "one byte"),
        ("a{,3}", "versions of PCRE2"),
        ("a{ 2 }", "versions of PCRE2"),
        ("a{3,2}", "out of order"),
        ("a{65536}", "too large"),
        ("a**", "nothing that it can repeat"),
        ("*a", "nothing that it can repeat"),
        ("^*", "nothing that it can repeat"),
        ("a|*", "nothing that it can repeat"),
        (r"\b+", "nothing that it can repeat"),
        ("(?i)*", "nothing that it can repeat"),
        ("(", "not closed"),
        (")", "no opening"),
        ("[a", "not closed"),
        ("[]", "not closed"),
        ("(?#", "not closed"),
        ("(?i", "not closed"),
        ("a\\", "backslash"),
        ("(?<1>a)", "name"),
        ("((a{999}){999}){999}", "larger than"),
    ] {
        let refused = compile(pattern, false).expect_err(pattern);
        assert!(refused.contains(reason), "{pattern}: {refused}");
    }
}

#[test]
fn case_is_folded_for_ascii_alone() {
    let host = compile("^[a-f]É$", true).unwrap();
    assert!(host.matches("BÉ".as_bytes()));
    assert!(!host.matches("Bé".as_bytes()));
    assert!(compile("[[:upper:]]", true).unwrap().matches(b"a"));
    assert!(!compile("[[:^upper:]]", true).unwrap().matches(b"a"));
}

#[test]
fn bytes_that_are_no_text_are_matched_as_bytes() {
    assert!(is_match("^.$", b"\xff"));
    assert!(is_match("[^a]", b"\xff"));
    assert!(is_match(r"\xff", b"\xff"));
}

proptest! {
    #[test]
    fn never_panics_and_never_leaves_the_common_subset(pattern in r"[ab(){}\[\]\\^$|?*+.,:=<>!#&~0-9xQEdwWhpPi-]{0,16}") {
        if let Ok(translated) = translate(&pattern) {
            // What the translator lets through fails only for its size or nesting.
            let built = Regex::builder().syntax(syntax::Config::new().unicode(false).utf8(false)).build(&translated);
            prop_assert!(!matches!(built, Err(error) if error.syntax_error().is_some()), "{} -> {}", pattern, translated);
        }
    }

    #[test]
    fn escaped_text_matches_itself_alone(text in "\\PC{1,12}", other in "\\PC{1,12}") {
        let mut pattern = String::from("^");
        for c in text.chars() {
            if c.is_ascii_punctuation() {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('$');
        prop_assert!(is_match(&pattern, text.as_bytes()));
        prop_assert_eq!(is_match(&pattern, other.as_bytes()), text == other);
    }
}
