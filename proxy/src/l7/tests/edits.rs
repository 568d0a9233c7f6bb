//! Policies that change requests, and that answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use amphora_model::{Answer, Edits, FieldEdit, FieldOp, PathEdit, Template};

use super::*;
use crate::{
    http::EditList,
    l7::{Facts, rewritten_path},
};

fn set(name: &str, value: &str) -> FieldEdit {
    FieldEdit { name: name.into(), op: FieldOp::Set(Template::parse(value).unwrap()) }
}

fn edit(position: u32, path: &str, edits: Edits) -> L7Policy {
    let rules = vec![rule(L7Subject::Path, CompareType::StartsWith, path)];
    L7Policy { edits: Some(Box::new(edits)), ..policy(position, L7Action::Edit, rules) }
}

fn of_path(path: PathEdit) -> Edits {
    Edits { path: Some(path), ..Edits::default() }
}

const FACTS: Facts<'_> = Facts {
    client: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 4711),
    listener_port: "8080",
    member: None,
    request_id: b"the-id",
    host: b"shop.example",
    path: b"/a/b",
};

/// What is set in a request, and its path.
fn changed(program: &L7Program, path: &str) -> (Vec<(String, String)>, Option<String>) {
    let (request, mut scratch) = (request(path, &[]), Scratch::new());
    program.evaluate(&request, &mut scratch);
    let mut edits = Vec::new();
    program.edits_over(&request, None, &mut scratch, |found| edits.push(found));
    let new = rewritten_path(path.as_bytes(), edits.iter().copied(), &mut scratch).unwrap();
    let mut list = EditList::default();
    edits.iter().for_each(|edits| edits.of_request(&FACTS, &mut list).unwrap());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let added = list.edits().added().map(|(name, value)| (text(name), text(value))).collect();
    (added, new.map(|path| text(&path)))
}

#[test]
fn all_that_apply_change_a_request_in_their_order_and_the_chosen_pools_last() {
    let one = |name: &str, value: &str| Edits { request: vec![set(name, value)], ..Edits::default() };
    let everything = || vec![rule(L7Subject::Path, CompareType::StartsWith, "/")];
    let to_pool = L7Policy {
        edits: Some(Box::new(one("X-C", "pool"))),
        ..policy(1, L7Action::RedirectToPool(pool(1)), everything())
    };
    let program = compile(vec![
        edit(5, "/a", one("X-A", "late")),
        to_pool,
        edit(2, "/a", one("X-A", "early ${client_address}")),
        edit(3, "/other", one("X-B", "no")),
        edit(4, "/a/b", one("X-B", "${client_port} ${listener_port} ${request_id} ${host}${path}")),
    ])
    .unwrap();
    assert!(program.has_edits());
    let (added, _) = changed(&program, "/a/b");
    let expected = [("x-b", "4711 8080 the-id shop.example/a/b"), ("x-a", "late"), ("x-c", "pool")];
    assert_eq!(added, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(changed(&program, "/x").0, [("x-c".to_owned(), "pool".to_owned())]);
    assert!(!compile(vec![policy(1, L7Action::Reject, everything())]).unwrap().has_edits());
}

#[test]
fn paths_are_rewritten_one_after_the_other() {
    let prefix = |prefix: &str, replacement: &str| {
        of_path(PathEdit::Prefix { prefix: prefix.into(), replacement: replacement.into() })
    };
    let regex = |regex: &str, replacement: &str| {
        of_path(PathEdit::Regex { regex: regex.into(), replacement: replacement.into() })
    };
    for (edits, path, expected) in [
        (vec![prefix("/api", "/v2")], "/api/x", Some("/v2/x")),
        (vec![prefix("/api", "")], "/api/x", Some("/x")),
        (vec![prefix("/api", "")], "/api", Some("/")),
        (vec![prefix("/api/", "")], "/api/x", Some("/x")),
        (vec![prefix("/api", "/v2")], "/ap", None),
        (vec![prefix("/api", "/v2"), prefix("/v2", "/v3")], "/api/x", Some("/v3/x")),
        (vec![regex("^/([^/]*)/([^/]*)", "/\\2/\\1")], "/a/b/c", Some("/b/a")),
        (vec![regex("^(/a)(x)?(.*)$", "\\1\\2-\\3")], "/abc", Some("/a-bc")),
        (vec![regex("b", "no slash \\0".replace(' ', "-").as_str())], "/abc", Some("/no-slash-b")),
        (vec![regex("^x", "/y")], "/abc", None),
    ] {
        let policies = (1..).zip(edits).map(|(position, edits)| edit(position, "/", edits)).collect();
        assert_eq!(changed(&compile(policies).unwrap(), path).1.as_deref(), expected, "{path}");
    }
    let faults = compile(vec![edit(1, "/", regex("(", "/"))]).unwrap_err();
    assert!(faults[0].path.ends_with(".amphora.edits.path.regex"), "{faults:?}");
}

#[test]
fn a_replacement_names_no_group_that_there_is_not() {
    let compiled = |regex: &str, replacement: &str| {
        let path = PathEdit::Regex { regex: regex.into(), replacement: replacement.into() };
        compile(vec![edit(1, "/", of_path(path))])
    };
    for (regex, replacement, reason) in [
        ("^/(a)(b)$", "/\\1\\9", "names group \\9, and the expression has 2 groups"),
        ("^/(a)$", "/\\2", "names group \\2, and the expression has one group"),
        ("^/(?:a)[(]$", "/\\1", "names group \\1, and the expression has no groups"),
        ("(?n)^/(a)$", "/\\1", "names group \\1, and the expression has no groups"),
    ] {
        let faults = compiled(regex, replacement).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].path.ends_with(".amphora.edits.path.replacement"), "{faults:?}");
        assert_eq!(faults[0].reason, reason, "{regex}");
    }
    for (regex, replacement) in [("^/a$", "/\\0"), ("(x)|(b)", "/\\2"), ("(?<name>a)", "/\\1")] {
        assert!(compiled(regex, replacement).is_ok(), "{regex} {replacement}");
    }
}

#[test]
fn what_grows_too_long_is_told() {
    let long = "${path}".repeat(100);
    let policies = vec![edit(1, "/", Edits { request: vec![set("x-a", &long)], ..Edits::default() })];
    let program = compile(policies).unwrap();
    let path = format!("/{}", "a".repeat(4000));
    let facts = Facts { path: path.as_bytes(), ..FACTS };
    let (request, mut scratch) = (request(&path, &[]), Scratch::new());
    program.evaluate(&request, &mut scratch);
    let mut list = EditList::default();
    let mut written = Ok(());
    program.edits_over(&request, None, &mut scratch, |edits| written = edits.of_request(&facts, &mut list));
    assert!(written.is_err());
    let doubled = PathEdit::Regex { regex: "^(.*)$".into(), replacement: "\\1\\1".into() };
    let policies = (1..=4).map(|position| edit(position, "/", of_path(doubled.clone()))).collect();
    let program = compile(policies).unwrap();
    program.evaluate(&request, &mut scratch);
    let mut edits = Vec::new();
    program.edits_over(&request, None, &mut scratch, |found| edits.push(found));
    assert!(rewritten_path(path.as_bytes(), edits.iter().copied(), &mut scratch).is_err());
    let many = |edits: usize| {
        let request = (0..edits).map(|_| set("x-a", "b")).collect();
        compile(vec![edit(1, "/", Edits { request, ..Edits::default() })])
    };
    assert!(many(256).is_ok());
    assert!(many(257).unwrap_err()[0].reason.contains("more than 256 edits"));
}

#[test]
fn answers_stand_with_rejections() {
    let everything = || vec![rule(L7Subject::Path, CompareType::StartsWith, "/")];
    let answer = |status| {
        L7Action::Answer(Box::new(Answer {
            status,
            content_type: Some("text/plain".into()),
            body: "no".into(),
            fields: vec![("Location".into(), Template::parse("https://${host}${path}").unwrap())],
        }))
    };
    let outcome = |policies| {
        let program = compile(policies).unwrap();
        match program.evaluate(&request("/a", &[]), &mut Scratch::new()) {
            Outcome::Answer(answer) => Some(answer.status),
            _ => None,
        }
    };
    assert_eq!(
        outcome(vec![policy(2, answer(418), everything()), policy(1, redirect("http://a"), everything())]),
        Some(418)
    );
    assert_eq!(
        outcome(vec![policy(2, answer(418), everything()), policy(1, L7Action::Reject, everything())]),
        None
    );
    assert_eq!(
        outcome(vec![policy(1, answer(418), everything()), policy(2, L7Action::Reject, everything())]),
        Some(418)
    );
    let program = compile(vec![policy(1, answer(301), everything())]).unwrap();
    let Outcome::Answer(answer) = program.evaluate(&request("/a", &[]), &mut Scratch::new()) else {
        panic!("an answer")
    };
    let mut head = Vec::new();
    answer.write_head(&mut head, &FACTS).unwrap();
    assert_eq!(
        String::from_utf8(head).unwrap(),
        "HTTP/1.1 301 Moved Permanently\r\ncontent-length: 2\r\ncontent-type: text/plain\r\n\
         location: https://shop.example/a/b\r\n"
    );
}
