//! `APP_COOKIE`: which cookie of a message HAProxy's `stick match req.cook(NAME)` and
//! `stick store-response res.cook(NAME)` make a key of.
//!
//! It is the last one of the name, over all fields of the message. When that one is empty, the empty value is the key, which all
//! clients with a cookie that was emptied have in common; but for one at the very end of its field, which is none.

use crate::http::{sampled_cookies, sampled_set_cookie_values};

/// The value that a request with these `Cookie` fields is looked up by.
pub fn of_request<'a>(fields: impl IntoIterator<Item = &'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    let values = fields.into_iter().flat_map(|field| {
        let named = sampled_cookies(field).filter(|cookie| &field[cookie.name.clone()] == name);
        named.map(|cookie| &field[cookie.value])
    });
    values.last()
}

/// The value that a response with these `Set-Cookie` fields is stored by.
pub fn of_response<'a>(fields: impl IntoIterator<Item = &'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    let values = fields.into_iter().flat_map(|field| sampled_set_cookie_values(field, name));
    values.last()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[&'static str], name: &str) -> Option<&'static str> {
        let fields = fields.iter().map(|field| field.as_bytes());
        of_request(fields, name.as_bytes()).map(|v| std::str::from_utf8(v).expect("of a str"))
    }

    fn response(fields: &[&'static str], name: &str) -> Option<&'static str> {
        let fields = fields.iter().map(|field| field.as_bytes());
        of_response(fields, name.as_bytes()).map(|v| std::str::from_utf8(v).expect("of a str"))
    }

    // Each case was asked of HAProxy 2.6 first.
    #[test]
    fn the_last_request_cookie_counts() {
        assert_eq!(request(&["JS=one"], "JS"), Some("one"));
        assert_eq!(request(&["JS=one; JS=two"], "JS"), Some("two"));
        assert_eq!(request(&["JS=two,x=1"], "JS"), Some("two"));
        assert_eq!(request(&["x=1; JS=\"two\""], "JS"), Some("\"two\""));
        assert_eq!(request(&["q=1", "JS=b"], "JS"), Some("b"));
        assert_eq!(request(&["js=abc", "JSX=1", "XJS=1"], "JS"), None);
        assert_eq!(request(&["JS="], "JS"), None);
        assert_eq!(request(&["JS"], "JS"), None);
        assert_eq!(request(&["JS=;"], "JS"), Some(""));
        assert_eq!(request(&["a=\"x; JS=no\"; JS = yes ;"], "JS"), Some("yes"));
        assert_eq!(request(&["JS=one; JS=;x"], "JS"), Some(""));
        assert_eq!(request(&["JS=one", "JS=;x"], "JS"), Some(""));
        assert_eq!(request(&["JS=one", "JS="], "JS"), Some("one"));
    }

    #[test]
    fn the_last_cookie_that_is_set_counts() {
        assert_eq!(response(&["JS=abc; path=/"], "JS"), Some("abc"));
        assert_eq!(response(&["JS=one", "JS=two"], "JS"), Some("two"));
        assert_eq!(response(&["JS=one, JS=two"], "JS"), Some("two"));
        assert_eq!(response(&["JS=\"q v\"; Path"], "JS"), Some("\"q v\""));
        assert_eq!(response(&[" JS = sp ;"], "JS"), Some("sp"));
        assert_eq!(response(&["z=abc; JS=attr"], "JS"), None);
        assert_eq!(response(&["JS=; Max-Age=0"], "JS"), Some(""));
        assert_eq!(response(&["js=abc", "JS="], "JS"), None);
        assert_eq!(response(&["a=1; Expires=Thu, 01-Jan-1970 00:00:01 GMT; JS=attr"], "JS"), Some("attr"));
        assert_eq!(response(&["JS=one, JS=;x"], "JS"), Some(""));
        assert_eq!(response(&["JS=one", "JS=;x"], "JS"), Some(""));
        assert_eq!(response(&["JS=one", "JS="], "JS"), Some("one"));
        assert_eq!(response(&["JS=one", "a=b; JS=two"], "JS"), Some("one"));
    }
}
