#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::logs::field::FIELDS;

fn parse(text: &str) -> Result<Format, FormatError> {
    Format::parse(text, Protocol::Http)
}

fn refused(text: &str) -> (usize, String) {
    let error = parse(text).unwrap_err();
    (error.position, error.reason)
}

#[test]
fn every_variable_of_the_manual_is_known() {
    // The table of 8.2.6.
    let names = "B CC CS H HM HP HPO HQ HU HV ID ST T Ta Tc Td Tl Th Ti Tq TR Tr Ts Tt Tu Tw U ac b bc bi bp bq ci cp f \
                 fc fi fp ft lc hr hrl hs hsl ms pid r rc rt s sc si sp sq sslc sslv t tr trg trl ts tsc";
    let mut listed: Vec<_> = names.split_whitespace().collect();
    let mut known: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}

#[test]
fn text_spaces_and_variables_are_told_apart() {
    let format = parse("a%%b  %{+Q,-M}s%{+X}o%ci%-%").unwrap_err();
    assert_eq!(format.position, 26);
    let format = parse("a%%b  %{+Q,-M}s%{+X}o%ci%{-X,+E}[src]%-.").unwrap();
    let flags = Flags::default();
    let expected = [
        Piece::Text(b"a%b".as_slice().into()),
        Piece::Space,
        Piece::Space,
        Piece::Field(Field::Server, Flags { quote: true, mandatory: false, ..flags }),
        Piece::Field(Field::ClientAddress, Flags { hexadecimal: true, ..flags }),
        Piece::Field(Field::Sample(Sample::Source), Flags { escape: true, ..flags }),
        Piece::Text(b"-.".as_slice().into()),
    ];
    assert_eq!(format.pieces(), expected);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, position, reason) in [
        ("%ci %foo", 4, "there is no variable %foo"),
        ("100% done", 3, "% is followed by no variable"),
        ("%5", 0, "% is followed by no variable"),
        ("abc %", 4, "the format ends behind %"),
        ("%{+Q", 0, "{ without }"),
        ("%{+Q} r", 5, "flags are followed by"),
        ("%{+Q}", 5, "flags are followed by"),
        ("%{+Q,Z}r", 5, "a flag is + or -"),
        ("%{+Q,+Z}r", 5, "there is no flag Z, but Q, X, E, M"),
        ("%{+Q+X}o", 2, "there is no flag Q+X, but Q, X, E, M; several have commas in between"),
        ("x %[ssl_c_verify", 2, "[ without ]"),
        ("x %[foo(1)]", 4, "there is no sample foo(1)"),
        ("x %[ssl_c_sha1]", 4, "there is no sample ssl_c_sha1,"),
        ("a\nb", 1, "0x0a is no text"),
    ] {
        let (at, why) = refused(text);
        assert_eq!(at, position, "{text}: {why}");
        assert!(why.starts_with(reason), "{text}: {why}");
    }
    let (at, why) = refused(&"x".repeat(MAX_FORMAT + 1));
    assert_eq!((at, why.as_str()), (MAX_FORMAT, "a format has at most 4096 bytes"));
    parse(&"x".repeat(MAX_FORMAT)).unwrap();
    assert_eq!(parse("%[nope]").unwrap_err().to_string().split(':').next(), Some("at byte 2"));
}

#[test]
fn a_format_knows_what_it_needs() {
    let needs = |text| parse(text).unwrap().needs();
    assert_eq!(needs("%ci %cp %t %ST %b %s %Tt %tsc"), Needs::default());
    assert!(needs("%B").sizes && needs("%U").sizes);
    assert!(needs("%bc").counts && needs("%[dst]").listener_address && needs("%bi").source_address);
    assert!(needs("%HV").request_line && needs("%rt").numbers && needs("%[ssl_fc_sni]").tls);
    let httplog = needs(HTTPLOG);
    assert!(httplog.counts && httplog.request_line && !httplog.tls && !httplog.source_address);
    assert!(!Format::parse(HTTPLOG, Protocol::Tcp).unwrap().needs().request_line);
}

proptest! {
    /// No text makes it panic, and an error is somewhere in the text.
    #[test]
    fn any_text_is_read_or_refused(text in "[%{}\\[\\]+,a-zA-Z \"\\\\-]{0,40}|\\PC{0,40}") {
        for protocol in [Protocol::Http, Protocol::Tcp] {
            if let Err(error) = Format::parse(&text, protocol) {
                prop_assert!(error.position <= text.len());
            }
        }
    }

    /// What was put together from known pieces comes apart into them.
    #[test]
    fn pieces_come_back(choices in proptest::collection::vec((0..FIELDS.len(), any::<bool>(), "[a-z:/.]{1,5}"), 0..20)) {
        let (mut text, mut expected) = (String::new(), Vec::new());
        for (which, quote, literal) in &choices {
            let (name, field) = FIELDS[*which];
            text += &if *quote { format!("%{{+Q}}{name}/") } else { format!("%{name}/") };
            text += literal;
            expected.push(Piece::Field(field, Flags { quote: *quote, ..Flags::default() }));
            expected.push(Piece::Text(format!("/{literal}").into_bytes().into()));
        }
        let parsed = parse(&text).unwrap();
        prop_assert_eq!(parsed.pieces(), expected);
    }
}
