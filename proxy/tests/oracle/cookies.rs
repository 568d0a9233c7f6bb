//! Cookies, from clients and members.

use amphora_proxy::{
    http::{
        RequestEdits, RequestHead, ResponseEdits, ResponseHead, cookie_values, sampled_cookies,
        sampled_set_cookie_values,
    },
    http1::{Connection, ResponseHop, write_request, write_response},
    persist::app_cookie,
};

/// The proxy's own cookie, and one of an application.
const NAMES: [&[u8]; 2] = [b"SRV", b"b"];

/// The value of a `Cookie` or `Set-Cookie` field: what is read is part of it; what is stripped is gone for who reads it
/// as the proxy does, and every other cookie is still there.
pub(crate) fn cookies(value: &[u8]) {
    let part = |found: &[u8]| assert!(value.as_ptr_range().contains(&found.as_ptr()) || found.is_empty());
    for cookie in sampled_cookies(value) {
        assert!(cookie.name.end <= cookie.value.start && cookie.value.end <= value.len());
    }
    for name in NAMES {
        cookie_values(value, name).for_each(part);
        sampled_set_cookie_values(value, name).for_each(part);
        app_cookie::of_request([value], name).into_iter().for_each(part);
        app_cookie::of_response([value], name).into_iter().for_each(part);
    }
    let [own, other] = NAMES;
    request(value, own, other);
    response(value, own);
}

fn request(value: &[u8], own: &[u8], other: &[u8]) {
    let text = [b"GET / HTTP/1.1\r\nHost: a\r\nCookie: ", value, b"\r\n\r\n"].concat();
    let mut head = RequestHead::new();
    if head.parse(&text) != Ok(Some(text.len())) {
        return;
    }
    let mut out = Vec::new();
    let view = head.view(&text);
    let edits = RequestEdits { strip_cookie: Some(own), ..RequestEdits::default() };
    write_request(&mut out, &view, Connection::Persistent, &edits);
    let mut after = RequestHead::new();
    assert_eq!(after.parse(&out), Ok(Some(out.len())));
    let after = after.view(&out);
    let left = after.values(b"cookie").flat_map(|field| cookie_values(field, own)).count();
    assert_eq!(left, 0, "{}", out.escape_ascii());
    // An empty cookie is found only where something follows it.
    let kept = |view: &mut dyn Iterator<Item = &[u8]>| -> Vec<Vec<u8>> {
        view.flat_map(|field| cookie_values(field, other))
            .filter(|v| !v.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    };
    assert_eq!(kept(&mut after.values(b"cookie")), kept(&mut view.values(b"cookie")));
}

fn response(value: &[u8], own: &[u8]) {
    let text = [b"HTTP/1.1 200 OK\r\nSet-Cookie: ", value, b"\r\nContent-Length: 0\r\n\r\n"].concat();
    let mut head = ResponseHead::new();
    if head.parse(&text) != Ok(Some(text.len())) {
        return;
    }
    let mut out = Vec::new();
    let view = head.view(&text);
    let edits = ResponseEdits { strip_cookie: Some(own), ..ResponseEdits::default() };
    write_response(&mut out, &view, ResponseHop::default(), &edits);
    let mut after = ResponseHead::new();
    assert_eq!(after.parse(&out), Ok(Some(out.len())));
    let after = after.view(&out);
    // Each field stays whole, or goes whole: what is left of them is a part of the sequence. (A value with line breaks
    // makes more than one.)
    let mut fields = view.values(b"set-cookie");
    assert!(after.values(b"set-cookie").all(|left| fields.any(|field| field == left)));
}
