//! Methods and versions.

/// A request method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `DELETE`.
    Delete,
    /// `CONNECT`.
    Connect,
    /// `OPTIONS`.
    Options,
    /// `TRACE`.
    Trace,
    /// `PATCH`.
    Patch,
    /// Any other token; the head has its spelling.
    #[default]
    Other,
}

impl Method {
    /// Classifies a method, which is case-sensitive (RFC 9110 section 9.1).
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Whether a body has a meaning with this method, so that every member reads it. One that does not know the body of
    /// a GET takes it for the next request (RFC 9110 section 9.3.1); of a method that the proxy does not know it cannot
    /// be told.
    pub fn defines_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }

    /// Whether the request asks for nothing to be changed (RFC 9110 section 9.2.1).
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether sending the request twice has the effect of sending it once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

/// A version of HTTP that the engine speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(Method::of(b"GET"), Method::Get);
        assert_eq!(Method::of(b"get"), Method::Other);
        assert!(!Method::Post.is_idempotent());
        assert!(Method::Put.is_idempotent());
        for (name, defines) in
            [("POST", true), ("PUT", true), ("PATCH", true), ("GET", false), ("HEAD", false)]
                .into_iter()
                .chain(
                    ["DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "post"].map(|name| (name, false)),
                )
        {
            assert_eq!(Method::of(name.as_bytes()).defines_body(), defines, "{name}");
        }
    }
}
