//! Authentication that belongs to the connection and not to the request: NTLM and Negotiate (RFC 4559), as Microsoft's
//! servers and clients have them. Once the handshake is over, a member takes whatever comes over that connection for
//! the client's word, with or without credentials.

use super::{
    head::{RequestView, ResponseView},
    names::{Known, KnownSet},
};

/// How the names of such schemes begin, in any case. HAProxy looks for the first two; the others stand beside them in
/// WinRM (MS-WSMV).
const SCHEMES: [&[u8]; 4] = [b"nego", b"ntlm", b"kerberos", b"credssp"];

const CREDENTIALS: KnownSet = KnownSet::of(&[Known::Authorization, Known::ProxyAuthorization]);
const CHALLENGES: KnownSet = KnownSet::of(&[Known::WwwAuthenticate, Known::ProxyAuthenticate]);

impl RequestView<'_> {
    /// Whether the request carries credentials that a member may bind to its connection. They are no list, but a member
    /// that reads them as one finds such a scheme behind a comma, too.
    #[inline]
    pub fn binds_identity(&self) -> bool {
        self.head.fields.present.intersects(CREDENTIALS)
            && self.fields().any(|(_, value, known)| CREDENTIALS.contains(known) && names_scheme(value))
    }
}

impl ResponseView<'_> {
    /// Whether the member asks for, or confirms, such credentials. HAProxy looks at 401 and 407 alone; the last leg of
    /// a handshake may come with any status.
    #[inline]
    pub fn binds_identity(&self) -> bool {
        self.head.fields.present.intersects(CHALLENGES)
            && self.fields().any(|(_, value, known)| CHALLENGES.contains(known) && names_scheme(value))
    }
}

/// Whether one of these schemes stands in a list of challenges. Every comma is taken to begin a challenge, also one within
/// a quoted string: at worst a connection is kept apart that need not be. Quotes around a scheme do not hide it.
fn names_scheme(value: &[u8]) -> bool {
    value.split(|&b| b == b',').any(|challenge| {
        let quoted = |b: &u8| matches!(b, b' ' | b'\t' | b'"');
        let scheme = &challenge[challenge.iter().take_while(|b| quoted(b)).count()..];
        SCHEMES.iter().any(|s| begins(scheme, s))
    })
}

fn begins(text: &[u8], lower: &[u8]) -> bool {
    text.get(..lower.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{RequestHead, ResponseHead};

    fn request(fields: &str) -> bool {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        let mut head = RequestHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        head.view(text.as_bytes()).binds_identity()
    }

    fn response(status: u16, fields: &str) -> bool {
        let text = format!("HTTP/1.1 {status} X\r\nServer: a\r\n{fields}\r\n\r\n");
        let mut head = ResponseHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        head.view(text.as_bytes()).binds_identity()
    }

    #[test]
    fn credentials_of_a_connection_are_told_from_those_of_a_request() {
        for (fields, binds) in [
            ("Authorization: NTLM TlRMTVNTUAAB", true),
            ("authorization: ntlm", true),
            ("AUTHORIZATION: Negotiate YII=", true),
            ("Authorization: Nego2 abc", true),
            ("Authorization: Kerberos abc", true),
            ("Authorization: CredSSP abc", true),
            ("Proxy-Authorization: nTlM abc", true),
            ("Authorization: Basic a\r\nAuthorization: NTLM abc", true),
            ("Authorization: ,NTLM abc", true),
            ("Authorization: , \tNegotiate abc", true),
            ("Authorization: Basic a, ntlm abc", true),
            ("Proxy-Authorization: \"NTLM\" abc", true),
            ("Authorization: Basic TlRMTQ==", false),
            ("Authorization: Bearer NTLM", false),
            ("Authorization:", false),
            ("X-Authorization: NTLM abc", false),
            ("Cookie: NTLM abc", false),
        ] {
            assert_eq!(request(fields), binds, "{fields:?}");
        }
    }

    #[test]
    fn challenges_are_found_wherever_they_stand() {
        for (fields, binds) in [
            ("WWW-Authenticate: NTLM", true),
            ("www-authenticate: negotiate", true),
            ("WWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: NTLM TlRM", true),
            ("WWW-Authenticate: Basic realm=\"a\", NTLM", true),
            ("WWW-Authenticate: Basic realm=\"a\",\t Negotiate oYG2, Digest qop=\"auth\"", true),
            ("Proxy-Authenticate: NEGOTIATE", true),
            ("Proxy-Authenticate: Nego2", true),
            ("WWW-Authenticate: Basic realm=\"NTLM\"", false),
            ("WWW-Authenticate: Basic realm=\"a\", Digest qop=\"auth\"", false),
            ("WWW-Authenticate:", false),
            ("Authentication-Info: NTLM", false),
        ] {
            for status in [200, 401, 403, 407] {
                assert_eq!(response(status, fields), binds, "{status} {fields:?}");
            }
        }
    }
}
