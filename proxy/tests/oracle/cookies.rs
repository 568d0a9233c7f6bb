//! Cookies, from clients and members.

use amphora_proxy::{
    http1::{self, RequestEdits, RequestHead, ResponseEdits, ResponseHead, write_request, write_response},
    persist::cookie,
};

/// The proxy's own cookie, and one of an application.
const NAMES: [&[u8]; 2] = [b"SRV", b"b"];

/// The value of a `Cookie` or `Set-Cookie` field: what is read is part of it; what is stripped is gone for every reader,
/// and every other cookie is still there.
pub(crate) fn cookies(value: &[u8]) {
    let part = |found: &[u8]| assert!(value.as_ptr_range().contains(&found.as_ptr()) || found.is_empty());
    for name in NAMES {
        http1::cookies(value, name).for_each(part);
        cookie::values(value, name).for_each(part);
        cookie::request_cookie([value], name).into_iter().for_each(part);
        cookie::response_cookie([value], name).into_iter().for_each(part);
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
    write_request(&mut out, &view, &RequestEdits { strip_cookie: Some(own), ..RequestEdits::default() });
    let mut after = RequestHead::new();
    assert_eq!(after.parse(&out), Ok(Some(out.len())));
    let after = after.view(&out);
    let named = |name| after.values(b"cookie").flat_map(move |field| cookie::values(field, name));
    assert_eq!(after.cookies(own).count() + named(own).count(), 0, "{:?}", out.escape_ascii().to_string());
    // An empty cookie is found only where something follows it.
    let kept = |cookies: &mut dyn Iterator<Item = &[u8]>| -> Vec<Vec<u8>> {
        cookies.filter(|value| !value.is_empty()).map(<[u8]>::to_vec).collect()
    };
    assert_eq!(kept(&mut after.cookies(other)), kept(&mut view.cookies(other)));
}

fn response(value: &[u8], own: &[u8]) {
    let text = [b"HTTP/1.1 200 OK\r\nSet-Cookie: ", value, b"\r\nContent-Length: 0\r\n\r\n"].concat();
    let mut head = ResponseHead::new();
    if head.parse(&text) != Ok(Some(text.len())) {
        return;
    }
    let mut out = Vec::new();
    let view = head.view(&text);
    write_response(&mut out, &view, &ResponseEdits { strip_cookie: Some(own), ..ResponseEdits::default() });
    let mut after = ResponseHead::new();
    assert_eq!(after.parse(&out), Ok(Some(out.len())));
    assert_eq!(after.view(&out).set_cookie(own), None);
}
