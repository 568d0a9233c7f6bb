#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

mod bounds;

fn compile(expression: &str) -> Expression {
    Expression::compile(expression, false, &mut Work::default())
        .unwrap_or_else(|reason| panic!("{expression}: {reason}"))
}

/// The same, left to PCRE2's interpreter.
fn interpret(expression: &str) -> Expression {
    let (expression, code, options) = read(expression, false).unwrap();
    Expression(interpreted(&expression, options, code))
}

fn is_match(expression: &str, subject: &[u8]) -> bool {
    compile(expression).is_match(subject, &mut Allowance::default())
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
    ("(*LIMIT_MATCH=1000)a+b", &["aab"], &["aa"]),
    ("(*LIMIT_MATCH=1)^(a|b)*c", &["abc"], &["ab"]),
    ("(*LIMIT_RECURSION=1)^(a|b)+c", &["abc"], &["ab"]),
    ("(*NOTEMPTY)a*", &["a", "b", ""], &[]),
];

/// Those that no automaton decides; each was run through HAProxy 2.6 with PCRE2 10.42, but for the last ones, which it
/// refuses because they refer to groups without a name.
const INTERPRETED: &[(&str, &[&str], &[&str])] = &[
    ("^(?!/api/)", &["/", "/apis"], &["/api/", "/api/x"]),
    ("/a(?=b)", &["/ab"], &["/a", "/ac"]),
    ("(?<=/v)[0-9]", &["/v1"], &["/w1", "1"]),
    ("(?<!/)b", &["ab"], &["/b"]),
    ("(?<=a|bc)d", &["ad", "bcd"], &["cd"]),
    (r"^(?<n>a|b)-\k<n>$", &["a-a", "b-b"], &["a-b"]),
    (r"^(?<n>a)\1$", &["aa"], &["a"]),
    (r"^(?P<n>.)(?P=n)$", &["aa", "11"], &["ab"]),
    ("^(?>a+)b", &["aab"], &["aa"]),
    ("^(?>a+)ab", &[], &["aaab"]),
    ("^a++ab", &[], &["aaab"]),
    ("^a*+$", &["", "aa"], &["ab"]),
    ("^a{2}+b", &["aab"], &["ab"]),
    (r"^\((?:[^()]|(?R))*\)$", &["()"], &["(a"]),
    (r"^(?<p>\((?:[^()]|(?&p))*\))$", &["(a(b)c)"], &["(a(b)c"]),
    ("^(?<n>a)?(?(<n>)b|c)$", &["ab", "c"], &["b", "ac"]),
    ("(?(DEFINE)(?<d>[0-9]))^(?&d)$", &["7"], &["a"]),
    ("(?C1)a(?C255)b", &["ab"], &["a"]),
    ("(*UTF)^é.$", &["éa", "éé"], &["éaa"]),
    ("(*UTF)(*UCP)^\\w$", &["é"], &["-"]),
    ("(*LIMIT_MATCH=1)(a|b)*c(?=d)", &["cd", "abcd"], &["abc"]),
    ("(*LIMIT_HEAP=0)(*NOTEMPTY)^(a|b)*(?=c)", &["c", "abc"], &["ab"]),
    ("(*UTF)(*LIMIT_DEPTH=1)(*UCP)^(\\w(b|c)d)(?=e)", &["abde", "écde"], &["abd"]),
    ("(*NOTEMPTY_ATSTART)b*(*F)|^a?", &["a", "b", ""], &[]),
    ("(*NO_AUTO_POSSESS)^a+b", &["aab"], &["aac"]),
    ("(*CRLF)^a.$", &["ab"], &["a"]),
    ("^(?:a(*COMMIT)b|ac)", &["ab"], &["ac"]),
    ("a(*SKIP)b|.", &["ab", "b"], &[""]),
    (r"^\p{Lu}$", &["A"], &["a", "1"]),
    (r"^\P{L}+$", &["12"], &["1a"]),
    (r"^\X$", &["a"], &["", "ab"]),
    (r"^a\Rb$", &["a\x0bb"], &["ab"]),
    (r"^\C\C$", &["ab", "é"], &["a"]),
    (r"\Ga", &["ab"], &["ba"]),
    (r"a\Kb", &["ab"], &["b"]),
    ("(?x) ^ a b # c", &["ab"], &["a b"]),
    ("(?i)a(?^)B", &["aB", "AB"], &["ab"]),
    (r"^[\101]$", &["A"], &["1"]),
    (r"^\o{101}$", &["A"], &["o"]),
    ("[[:<:]]a[[:>:]]", &["a", "b a"], &["ab", "ba"]),
    ("^a{,3}$", &["a{,3}"], &["", "aa"]),
    ("^a{ 2 }$", &["a{ 2 }"], &["aa"]),
    (r"^x\h{,2}$", &["x {,2}"], &["x", "x  "]),
    (r"(?=\d{,3}$)\d", &["1{,3}"], &["1", "12"]),
    (r"^(\w)\1$", &["aa"], &["ab"]),
    (r"(?=(a+))\1b", &["aab"], &["aa"]),
    ("^(a)?(?(1)b|c)$", &["ab", "c"], &["b"]),
];

#[test]
fn reads_expressions_as_pcre2_does() {
    for (expression, matching, others) in CASES.iter().chain(INTERPRETED) {
        for regex in [compile(expression), interpret(expression)] {
            let mut allowance = Allowance::default();
            for subject in *matching {
                assert!(
                    regex.is_match(subject.as_bytes(), &mut allowance),
                    "{regex:?} of {expression}: {subject:?}"
                );
            }
            for subject in *others {
                assert!(
                    !regex.is_match(subject.as_bytes(), &mut allowance),
                    "{regex:?} of {expression}: {subject:?}"
                );
            }
            assert!(!allowance.is_exceeded());
        }
    }
}

#[test]
fn an_expression_takes_what_its_program_takes() {
    for (expression, at_least) in [
        ("^/api/", 5),
        ("^/login$", 6),
        (r"\.(?:jpe?g|png)$", 4 + 5 + 4),
        ("/admin", 6),
        ("^/v[0-9]+/", 1000),
        ("a(?=b)", 60),
    ] {
        let regex = compile(expression);
        let program = match &regex.0 {
            Program::Literals(literals) => literals.bytes(),
            Program::Dfa(dfa) => dfa.bytes(),
            Program::Steps(code) | Program::Attempts(code) => code.size(),
        };
        assert!(program >= at_least, "{expression}: {program}");
        assert_eq!(regex.bytes(), size_of::<Expression>() + program, "{expression}");
    }
    // Words are told apart from what holds them.
    let word = size_of::<Box<[u8]>>();
    for (expression, bytes) in [("^/api/", word + 5), (r"\.(?:ab|cde)$", 2 * word + 3 + 4)] {
        let Program::Literals(literals) = compile(expression).0 else { panic!("{expression}") };
        assert_eq!(literals.bytes(), bytes);
    }
}

#[test]
fn common_expressions_are_automata() {
    for (expression, ..) in CASES {
        assert!(!compile(expression).backtracks(), "{expression}");
    }
    for expression in
        ["^/v[0-9]+/(users|groups)/17$", "(Mobile|Android|iPhone)", r"^[a-z0-9-]{1,63}\.example\.com$"]
    {
        assert!(!compile(expression).backtracks(), "{expression}");
    }
    for expression in ["a.{999}Z", "(.?){1500}Z", r"(\w{50}){20}Z", "a(?=b)"] {
        assert!(compile(expression).backtracks(), "{expression}");
    }
}

#[test]
fn a_few_words_need_no_table() {
    for (expression, matching, other) in [
        ("^/api/", "/api/x", "x/api/"),
        ("^/login$", "/login", "/login/"),
        (r"^/log(?:in|out)$", "/logout", "/log"),
        (r"\.(?:jpe?g|png)$", "/a.jpg", "/a.png/"),
        ("/admin", "/x/admin/", "/adm"),
        ("(Mobile|Android|iPhone) 17", "an Android 17 phone", "Android 1"),
        ("^", "", "-"),
        ("^$", "", "a"),
        ("[ab]$", "xb", "bx"),
    ] {
        let regex = compile(expression);
        assert!(matches!(regex.0, Program::Literals(_)), "{expression}");
        for subject in [matching, other] {
            let mut allowance = Allowance::default();
            let expected = interpret(expression).is_match(subject.as_bytes(), &mut allowance);
            assert_eq!(
                regex.is_match(subject.as_bytes(), &mut allowance),
                expected,
                "{expression}: {subject}"
            );
        }
        assert!(is_match(expression, matching.as_bytes()), "{expression}");
    }
    // Anchors that are not at the ends of the expression, or not in every branch.
    for expression in ["^a|b", "a$|b", "a^b", r"\ba", "^a+$", "(?m)^a"] {
        assert!(!matches!(compile(expression).0, Program::Literals(_)), "{expression}");
    }
}

#[test]
fn words_take_what_is_kept_of_them() {
    let bytes = |expression: &str| match compile(expression).0 {
        Program::Literals(literals) => literals.bytes(),
        _ => panic!("{expression} is no literal"),
    };
    let words = |expression: &str, lengths: &[usize]| {
        let fat = size_of::<Box<[u8]>>() * lengths.len();
        assert_eq!(bytes(expression), fat + lengths.iter().sum::<usize>(), "{expression}");
    };
    words("^/login$", &[6]);
    words("^/log(?:in|out)", &[6, 7]);
    words(r"\.(?:gif|png)$", &[4, 4]);
    // What it is looked for with, and the word.
    let finder = size_of::<memchr::memmem::Finder<'_>>();
    for length in [1, 7, 90] {
        assert_eq!(bytes(&"w".repeat(length)), finder + length);
    }
}

#[test]
fn more_than_eight_bound_words_are_a_table() {
    for (before, after) in [("^", "$"), ("^", ""), ("", "$")] {
        for (number, literals) in [(8, true), (9, false)] {
            let words: Vec<String> = (0..number).map(|n| format!("w{n}x")).collect();
            let regex = compile(&format!("{before}(?:{}){after}", words.join("|")));
            assert_eq!(matches!(regex.0, Program::Literals(_)), literals, "{before}{number}{after}");
            assert!(!regex.backtracks());
        }
    }
}

#[test]
fn quoted_and_escaped_backslashes_are_told_apart() {
    for (expression, matching, other) in [
        (r"^\\Qa$", r"\Qa", "a"),
        (r"^\Qa\\E$", r"a\", "aE"),
        (r"^\Q\d\E$", r"\d", "1"),
        (r"^\Q{,3}\x\E$", r"{,3}\x", r"\{,3}\x00"),
        (r"^\E{,3}$", "{,3}", ""),
        ("^[a-a]$", "a", "b"),
    ] {
        let regex = compile(expression);
        assert!(!regex.backtracks(), "{expression}");
        for regex in [regex, interpret(expression)] {
            assert!(regex.is_match(matching.as_bytes(), &mut Allowance::default()), "{expression}");
            assert!(!regex.is_match(other.as_bytes(), &mut Allowance::default()), "{expression}");
        }
    }
}

#[test]
fn what_newer_versions_read_in_another_way_is_spelt_out_unless_it_is_quoted() {
    for (expression, before) in [
        ("a{,3}", r"a\{,3}"),
        ("a{ 2 }{1,2}", r"a\{ 2 }{1,2}"),
        (r"\x\xF\x{41}", r"\x00\xF\x{41}"),
        (r"\Q{,3}\x\E", r"\Q{,3}\x\E"),
        (r"\Q{,3}\E{,3}", r"\Q{,3}\E\{,3}"),
        (r"\Qa\E\Q{,3}", r"\Qa\E\Q{,3}"),
        (r"\E{,3}\Q{,3}\\E{,3}", r"\E\{,3}\Q{,3}\\E\{,3}"),
        (r"\\Q{,3}", r"\\Q\{,3}"),
        (r"a{1,3}{,}{a,3}", "a{1,3}{,}{a,3}"),
        (r"\h{,3}\d{ 2 }\R{,1}", r"\h\{,3}\d\{ 2 }\R\{,1}"),
        (r"\c{,3}\c\{,3}", r"\c{,3}\c\\{,3}"),
        (r"\g{1}\k{n}\o{61}\p{L}\P{L}", r"\g{1}\k{n}\o{61}\p{L}\P{L}"),
    ] {
        assert_eq!(versions::as_before(expression), before, "{expression}");
    }
}

#[test]
fn refuses_what_pcre2_refuses_and_says_why_and_where() {
    for (expression, reason) in [
        (r"\y", "unrecognized character follows \\ (offset 1)"),
        (r"(a)\2", "non-existent"),
        ("(?&n)", "non-existent"),
        ("(?u)a", "unrecognized character after (?"),
        ("[:alpha:]", "within a class"),
        (r"[\d-z]", "range"),
        ("[z-a]", "out of order"),
        (r"\x{100}", "too large"),
        ("a{3,2}", "out of order"),
        ("a{65536}", "too big"),
        ("a**", "repeatable"),
        ("*a", "repeatable"),
        ("(", "parenthesis"),
        (")", "parenthesis"),
        ("[a", "missing"),
        ("(?#", "missing"),
        ("a\\", "end of pattern"),
        ("(?<1>a)", "name"),
        ("(?<=a+)b", "lookbehind"),
        ("((a{999}){999}){999}", "too large"),
    ] {
        let refused = Expression::compile(expression, false, &mut Work::default()).expect_err(expression);
        assert!(refused.contains(reason), "{expression}: {refused}");
    }
}

#[test]
fn case_is_folded_for_ascii_alone() {
    for ends in ["", "(?!x)"] {
        let is_match = |expression: &str, subject: &[u8]| {
            let expression = format!("{expression}{ends}");
            let regex = Expression::compile(&expression, true, &mut Work::default()).unwrap();
            regex.is_match(subject, &mut Allowance::default())
        };
        assert!(is_match("^[a-f]É$", "BÉ".as_bytes()));
        assert!(!is_match("^[a-f]É$", "Bé".as_bytes()));
        assert!(is_match("[[:upper:]]", b"a"));
        assert!(!is_match("[[:^upper:]]", b"a"));
    }
}

#[test]
fn bytes_that_are_no_text_are_matched_as_bytes() {
    assert!(is_match("^.$", b"\xff"));
    assert!(is_match("[^a]", b"\xff"));
    assert!(is_match(r"\xff", b"\xff"));
}

proptest! {
    #[test]
    fn automata_and_pcre2_agree(
        expression in r"(\PC|[ab]|\.|\[[ab^-]{1,3}\]|\(\?:|\(|\)|\||\*|\+|\?|\{[0-3],?[0-3]?\}|\^|\$|\\[wdsbBhvNQE]){0,12}",
        subjects in prop::collection::vec("[ab1 \\-_é]{0,12}", 8),
    ) {
        if let Ok(regex) = Expression::compile(&expression, false, &mut Work::default()) {
            let interpreted = interpret(&expression);
            let mut allowance = Allowance::default();
            for subject in &subjects {
                let subject = subject.as_bytes();
                prop_assert_eq!(
                    regex.is_match(subject, &mut allowance),
                    interpreted.is_match(subject, &mut allowance),
                    "{} on {:?}", expression, subject
                );
            }
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
