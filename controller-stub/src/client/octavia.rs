//! A client of Octavia's API, which reads.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Full;
use hyper::{
    Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue},
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{CONNECT_TIME, JSON, exchange, tls};
use crate::error::{Error, Result};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// Where a host has the authorities that it trusts, of Debian and of others.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Where an API is: `http[s]://[NAME:PASSWORD@]HOST[:PORT][/PATH]`, without the version.
#[derive(Clone)]
pub(crate) struct Address {
    host: String,
    port: u16,
    path: String,
    is_tls: bool,
    /// As `Authorization` has it.
    basic: Option<HeaderValue>,
}

impl fmt::Display for Address {
    /// Without name and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, .. } = self;
        write!(f, "{}://{}{path}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|e| format!("not a URL: {e}"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("not http:// or https://".to_owned()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("has no host")?;
        if uri.query().is_some() {
            return Err("has a query".to_owned());
        }
        let said = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@'));
        let basic = said.map(|(said, _)| format!("Basic {}", BASE64.encode(said.as_bytes())).parse());
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/v2.0").or_else(|| path.strip_suffix("/v2")).unwrap_or(path);
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            path: path.to_owned(),
            is_tls,
            basic: basic.transpose().map_err(|_| "has a name or a password that cannot be sent")?,
        })
    }
}

impl Address {
    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// An API that is asked.
pub(crate) struct Octavia {
    address: Address,
    token: Option<HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Octavia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Octavia").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Octavia {
    /// `ca` has the authorities of its certificate; without it those of this host have.
    ///
    /// # Errors
    /// The token is none; there are no authorities.
    pub(crate) fn new(address: Address, token: Option<&str>, ca: Option<&Path>) -> Result<Self> {
        let token = token.map(|token| {
            let mut token = HeaderValue::from_str(token)
                .map_err(|_| Error::Usage("the token has characters that none has".to_owned()))?;
            token.set_sensitive(true);
            Ok::<_, Error>(token)
        });
        let of_this_host = || AUTHORITIES.map(Path::new).into_iter().find(|path| path.exists());
        let tls = address.is_tls.then(|| {
            let ca = ca.or_else(of_this_host);
            tls::trusting(
                ca.ok_or_else(|| Error::Usage("give the authorities of the API by --ca".to_owned()))?,
            )
        });
        Ok(Self { address, token: token.transpose()?, tls: tls.transpose()? })
    }

    /// What a path below `/v2` has; nothing where there is nothing, or who asks may not see it.
    ///
    /// # Errors
    /// No answer, or another refusal.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.must(path).await {
            Err(Error::Refused { status: 403 | 404, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// What a path below `/v2` has.
    ///
    /// # Errors
    /// No answer, or a refusal: that there is no such thing, too.
    async fn must(&self, path: &str) -> Result<Value> {
        let (status, body) = timeout(ANSWER, self.ask(path))
            .await
            .map_err(|_| self.unreachable(format!("no answer within {} s", ANSWER.as_secs())))??;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() && answer.is_object() {
            return Ok(answer);
        }
        let said = [&answer["faultstring"], &answer["error"]["message"]];
        let said = said.iter().find_map(|text| text.as_str());
        let message =
            if status.is_success() { Some("the answer is no JSON: is this Octavia's API?") } else { said };
        let message = message.or_else(|| status.canonical_reason()).unwrap_or("no reason given").to_owned();
        Err(Error::Refused {
            amphora: self.address.to_string(),
            status: status.as_u16(),
            message,
            faults: Vec::new(),
        })
    }

    /// All of a list, which may come in pages. `links` is what its links are called.
    ///
    /// # Errors
    /// As [`Self::must`].
    pub(crate) async fn list(&self, path: &str, many: &str, links: &str) -> Result<Vec<Value>> {
        let (mut all, mut query) = (Vec::new(), None::<String>);
        loop {
            let asked = query.as_ref().map_or_else(
                || path.to_owned(),
                |query| format!("{}?{query}", path.split('?').next().unwrap_or_default()),
            );
            let mut answer = self.must(&asked).await?;
            let Value::Array(page) = answer[many].take() else { return Ok(all) };
            let next = answer[links].as_array().into_iter().flatten().find(|link| link["rel"] == "next");
            let next = next
                .and_then(|link| link["href"].as_str()?.split_once('?'))
                .map(|(_, query)| query.to_owned());
            let is_last = page.is_empty() || next.is_none() || next == query;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
            query = next;
        }
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, Bytes)> {
        let mut request = Request::get(format!("{}/v2{path}", self.address.path))
            .header(HOST, self.address.authority())
            .header(ACCEPT, JSON)
            .body(Full::default())
            .map_err(|e| Error::local("request", e))?;
        let headers = request.headers_mut();
        headers.extend(self.address.basic.clone().map(|basic| (AUTHORIZATION, basic)));
        if let Some(token) = &self.token {
            headers.insert("x-auth-token", token.clone());
        }
        let Address { host, port, .. } = &self.address;
        let connect = timeout(CONNECT_TIME, TcpStream::connect((host.as_str(), *port))).await;
        let stream = connect
            .map_err(|_| self.unreachable(format!("no connection within {} s", CONNECT_TIME.as_secs())))?
            .map_err(|e| self.unreachable(e.to_string()))?;
        let explain = |error: &io::Error| error.to_string();
        let answer = match &self.tls {
            None => exchange(stream, request, explain).await,
            Some(tls) => {
                let name =
                    ServerName::try_from(host.clone()).map_err(|e| Error::Usage(format!("{host}: {e}")))?;
                let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
                exchange(stream.map_err(|e| self.unreachable(e.to_string()))?, request, explain).await
            }
        };
        answer.map_err(|reason| self.unreachable(reason))
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { amphora: self.address.to_string(), reason }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_may_have_the_version_and_a_password_that_is_not_told() {
        for (text, expected) in [
            ("http://lb.example:9876", "http://lb.example:9876"),
            ("https://lb.example/load-balancer/v2.0/", "https://lb.example:443/load-balancer"),
            ("http://[::1]:9876/v2", "http://[::1]:9876"),
            ("http://alice:se@cret@lb.example", "http://lb.example:80"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                (address.to_string(), address.basic.is_some()),
                (expected.to_owned(), text.contains('@'))
            );
            assert!(!format!("{address:?}").contains("cret"));
        }
        for text in ["lb.example", "ftp://lb.example", "http://", "http://lb.example/v2?x=1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
