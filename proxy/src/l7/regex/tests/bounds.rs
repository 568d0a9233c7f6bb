//! What expressions may cost, to be made and to be run.

use super::*;

/// Expressions that ask for more than any allowance, and some that only look so.
const EVIL: &[&str] = &[
    "a.{999}Z",
    "(.?){1500}Z",
    r"(\w{50}){20}Z",
    "(a+)+$",
    r"/.{1,255}/.{1,255}\.phpx?y|Q",
    r"(?=(a+))\1b",
    "(x+x+)+y",
    "(?<=(?<=a)a)a+(?<!a)b",
    "(?:a(?R)?)+b",
    r"(?<p>a|(?&p)?a)+b",
    "(a*)*b(?!c)",
    r"(.*)(.*)(.*)(.*)\1\2\3x",
    "((a{1,60}){1,60}){1,10}(?=b)",
    r"(*UTF)(?:\X?){99}(?=Z)",
];

/// However slow each is to make, and however many they are: what was not made into a table means the same.
#[test]
fn work_for_tables_is_bounded_and_what_comes_after_is_interpreted() {
    let mut work = Work::of(1 << 22);
    for n in 0..200 {
        let text = format!("^/{n}(?:[a-z]{{1,40}}(?:x|y)){{1,9}}$");
        let before = work.left();
        let regex = Expression::compile(&text, false, &mut work).unwrap();
        // An expression spends what one may, and nothing when nothing is left.
        assert!(before - work.left() <= (1 << 20) + (1 << 17), "{}", before - work.left());
        let mut allowance = Allowance::default();
        assert!(regex.is_match(format!("/{n}abcx").as_bytes(), &mut allowance));
        assert!(!regex.is_match(format!("/{n}abc").as_bytes(), &mut allowance));
    }
    assert_eq!(work.left(), 0);
    let plain = Expression::compile("^/api/v[0-9]+/", false, &mut work).unwrap();
    assert!(plain.backtracks());
    assert!(plain.is_match(b"/api/v2/", &mut Allowance::default()));
    assert!(Expression::compile("(", false, &mut work).is_err(), "what is refused still is");
}

#[test]
fn a_thousand_ordinary_expressions_leave_most_of_the_work() {
    let mut work = Work::default();
    let whole = work.left();
    for n in 0..1000 {
        let text = format!("^/v[0-9]+/(users|groups)/{n}$");
        assert!(!Expression::compile(&text, false, &mut work).unwrap().backtracks());
    }
    assert!(work.left() > whole * 9 / 10);
}

/// Values of 15 KB.
fn values() -> Vec<Vec<u8>> {
    let mut mixed = b"/ax/".repeat(3840);
    mixed[15_000] = b'Z';
    vec![b"a".repeat(15_360), b"x".repeat(15_360), mixed, [b"a".repeat(15_359), b"Z".to_vec()].concat()]
}

#[test]
fn work_is_bounded_whatever_the_expressions_and_the_value() {
    thread_local!(static READINGS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
    // A slice takes what it should.
    fn clock() -> std::time::Duration {
        READINGS.set(READINGS.get() + 1);
        std::time::Duration::from_micros(25) * READINGS.get()
    }
    let regexes: Vec<Expression> = EVIL.iter().map(|expression| interpret(expression)).collect();
    for value in values() {
        READINGS.set(0);
        let mut allowance = Allowance::with_clock(clock);
        // As many as 200 rules, several times for a field that is repeated.
        for _ in 0..100 {
            for regex in &regexes {
                regex.is_match(&value, &mut allowance);
            }
        }
        assert!(allowance.is_exceeded());
        // 3 ms of 25 µs each, and none of what came after; the plain ones still match.
        assert!((119..=122).contains(&READINGS.get()), "{}", READINGS.get());
        assert!(compile("^[a/x]+Z?").is_match(&value, &mut allowance));
    }
}

#[test]
fn plain_expressions_are_bounded_together() {
    thread_local!(static READINGS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
    fn clock() -> std::time::Duration {
        READINGS.set(READINGS.get() + 1);
        std::time::Duration::from_micros(25) * READINGS.get()
    }
    let regex = compile("[ab]c");
    let mut value = b"ab".repeat(7_680);
    value.extend(b"c");
    let mut allowance = Allowance::with_clock(clock);
    let matched = (0..1000).filter(|_| regex.is_match(&value, &mut allowance)).count();
    assert!((100..400).contains(&matched), "{matched}");
    assert!(allowance.is_exceeded());
    allowance.renew();
    assert!(regex.is_match(&value, &mut allowance) && !allowance.is_exceeded());
}

/// PCRE2 compiles to 64 KiB at most; the callouts of these do not fit as well.
#[test]
fn what_is_too_large_for_callouts_runs_without() {
    let large = interpret("(?:[0-9a-f]{2}:){1250}(?<=:)$");
    assert!(matches!(large.0, Program::Attempts(_)));
    let mut allowance = Allowance::with_clock(|| std::time::Duration::ZERO);
    assert!(large.is_match(&b"0f:".repeat(1250), &mut allowance));
    assert!(!large.is_match(&b"0f:".repeat(1249), &mut allowance));
    assert!(!allowance.is_exceeded());
    let mut allowance = Allowance::default();
    let evil = interpret("(?:[0-9a-f]+[^z]{2}){1250}(?<=q)$");
    assert!(matches!(evil.0, Program::Attempts(_)));
    assert!(!evil.is_match(&b"a".repeat(15_360), &mut allowance));
    assert!(allowance.is_exceeded());
}

/// It would be repeated and go on as far again.
#[test]
fn an_attempt_is_the_last_when_it_took_more_than_a_fourth_of_what_is_left() {
    use std::{cell::Cell, time::Duration};
    thread_local!(static READINGS: Cell<u64> = const { Cell::new(0) });
    thread_local!(static MICROS: Cell<u64> = const { Cell::new(0) });
    fn clock() -> Duration {
        READINGS.set(READINGS.get() + 1);
        Duration::from_micros(MICROS.get() * READINGS.get())
    }
    let evil = interpret("(?:[0-9a-f]+[^z]{2}){1250}(?<=q)$");
    assert!(matches!(evil.0, Program::Attempts(_)));
    // Of 3,000 µs the first is taken for 25; behind a second of 595 µs there are four times as many left.
    for (micros, attempts) in [(595, 3), (596, 2)] {
        MICROS.set(micros);
        READINGS.set(0);
        let mut allowance = Allowance::with_clock(clock);
        assert!(!evil.is_match(&b"a".repeat(100), &mut allowance));
        assert_eq!((READINGS.get(), allowance.is_exceeded()), (attempts, true), "{micros}");
    }
}
