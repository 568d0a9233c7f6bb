//! Where an amphora is: `https://[name@]host[:port]`.

use std::{fmt, str::FromStr};

use hyper::http::Uri;
use rustls_pki_types::ServerName;

/// The port of an amphora agent (Octavia `[haproxy_amphora] bind_port`).
pub const DEFAULT_PORT: u16 = 9443;

/// An agent's address, and the name that its certificate has to carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    name: Option<String>,
}

impl Endpoint {
    /// Host name, or IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name that the certificate must carry: the one before `@`, else `fallback`, else the host.
    ///
    /// # Errors
    /// The name is neither a DNS name nor an IP address.
    pub fn server_name(&self, fallback: Option<&str>) -> Result<ServerName<'static>, String> {
        let name = self.name.as_deref().or(fallback).unwrap_or(&self.host);
        ServerName::try_from(name.to_owned()).map_err(|_| format!("`{name}` cannot be a server's name"))
    }

    /// `host:port`, IPv6 in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "https://{name}@{}", self.authority()),
            None => write!(f, "https://{}", self.authority()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "expected https://[name@]host[:port]";
        let uri: Uri = text.parse().map_err(|e| format!("{e}; {FORM}"))?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("an amphora speaks https only; {FORM}"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("a path does not belong here; {FORM}"));
        }
        let authority = uri.authority().ok_or(FORM)?;
        let name = match authority.as_str().rsplit_once('@') {
            Some(("", _)) => return Err(format!("the name before @ is empty; {FORM}")),
            Some((name, _)) => Some(name.to_owned()),
            None => None,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(format!("no host; {FORM}"));
        }
        // `http` accepts any digits after the colon and reports those that are no port as none.
        let port = match (authority.port_u16(), authority.as_str().rsplit_once(':')) {
            (Some(0), _) => return Err("port 0 cannot be connected to".to_owned()),
            (Some(port), _) => port,
            (None, Some((_, digits))) if !digits.ends_with(']') => {
                return Err(format!("`{digits}` is no port"));
            }
            (None, _) => DEFAULT_PORT,
        };
        let endpoint = Self { host: host.to_owned(), port, name };
        endpoint.server_name(None)?;
        Ok(endpoint)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reads_every_form() {
        let cases = [
            ("https://10.0.0.5", "https://10.0.0.5:9443"),
            ("https://10.0.0.5:8443/", "https://10.0.0.5:8443"),
            ("https://[fd00::5]:1", "https://[fd00::5]:1"),
            ("https://[fd00::5]", "https://[fd00::5]:9443"),
            ("https://amp-1.example", "https://amp-1.example:9443"),
            (
                "https://6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11@10.0.0.5:1",
                "https://6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11@10.0.0.5:1",
            ),
        ];
        for (text, shown) in cases {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown, "{text}");
            assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        for text in [
            "",
            "10.0.0.5",
            "http://a",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://@a",
            "https://a:99999",
            "https://a:0",
            "https://a:",
            "https://a b",
            "https://-_!@a",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_certificate_names_the_amphora() {
        let name = |text: &str, fallback| {
            text.parse::<Endpoint>().unwrap().server_name(fallback).unwrap().to_str().into_owned()
        };
        assert_eq!(name("https://id@host", Some("other")), "id");
        assert_eq!(name("https://host", Some("other")), "other");
        assert_eq!(name("https://[fd00::5]", None), "fd00::5");
    }
}
