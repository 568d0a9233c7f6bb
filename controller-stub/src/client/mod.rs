//! The client of the native API: one request, one connection, one deadline, one bounded answer.
//!
//! A controller speaks to an amphora seldom, so a connection per request is the simple thing that is also robust:
//! nothing is kept that a restart of the agent could invalidate.

mod endpoint;
pub(crate) mod octavia;
mod tls;

use std::{error::Error as _, io, sync::Arc, time::Duration};

use amphora_agent::vrrp_client::VrrpAction;
use amphora_ipc::proxy::{Fault, Peers};
use amphora_ipc::vrrp::Status as VrrpStatus;
use amphora_model::{CertificateId, LoadBalancerId, MemberId, PoolId};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

pub use self::{
    endpoint::{DEFAULT_PORT, Endpoint},
    tls::TlsOptions,
};
use crate::{
    error::{Error, Result},
    vrrp_document::VrrpDocument,
};

/// The longest answer that is read, in bytes. A status tree of 5,000 members stays far below.
const MAX_ANSWER: usize = 32 << 20;

/// Time for the TCP connection and the TLS handshake; a host that is gone should be noticed before the deadline.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// The kind of nearly every document.
const JSON: &str = "application/json";

/// The kind of what Octavia's API takes as it comes.
const OCTETS: &str = "application/octet-stream";

/// The password of a PKCS #12, in UTF-8.
const PASSWORD: &str = "x-certificate-password";

/// A certificate as it is brought to an amphora. It is not shown.
pub enum Credential {
    /// `application/x-pem-file`.
    Pem(Bytes),
    /// `application/x-pkcs12`.
    Pkcs12 {
        /// The file.
        der: Bytes,
        /// Its password.
        password: Option<String>,
    },
}

/// One amphora, ready to be asked.
///
/// A request may be cancelled; what the amphora has got of it comes about all the same.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    tls: Arc<ClientConfig>,
    server_name: Option<String>,
    deadline: Duration,
}

/// The error document of the native API.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
    #[serde(default)]
    faults: Vec<Fault>,
}

impl Client {
    /// `server_name` is what the certificate must carry where the endpoint does not say; `deadline` bounds each
    /// request as a whole.
    pub fn new(
        endpoint: Endpoint,
        tls: Arc<ClientConfig>,
        server_name: Option<String>,
        deadline: Duration,
    ) -> Self {
        Self { endpoint, tls, server_name, deadline }
    }

    /// Who is asked.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// `GET /2.0/info`.
    ///
    /// # Errors
    /// As every request: [`Error::Refused`] or [`Error::Unreachable`].
    pub async fn info(&self) -> Result<Value> {
        self.request(Method::GET, "/2.0/info", None).await
    }

    /// `GET /2.0/health`.
    ///
    /// # Errors
    /// As every request; refused with 503 and a fault for each part that does not work.
    pub async fn health(&self) -> Result<Value> {
        self.request(Method::GET, "/2.0/health", None).await
    }

    /// `GET /2.0/loadbalancers/{id}`; `None` when there is no such load balancer.
    pub async fn get(&self, id: LoadBalancerId) -> Result<Option<Value>> {
        match self.request(Method::GET, &lb_path(id, ""), None).await {
            Ok(document) => Ok(Some(document)),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// `PUT /2.0/loadbalancers/{id}`: returns once the document is live.
    pub async fn put(&self, id: LoadBalancerId, document: &Value) -> Result<Value> {
        self.request(Method::PUT, &lb_path(id, ""), Some(document)).await
    }

    /// `DELETE /2.0/loadbalancers/{id}`.
    pub async fn delete(&self, id: LoadBalancerId) -> Result<Value> {
        self.request(Method::DELETE, &lb_path(id, ""), None).await
    }

    /// `GET /2.0/loadbalancers/{id}/status`: Octavia's status tree.
    pub async fn status(&self, id: LoadBalancerId) -> Result<Value> {
        self.request(Method::GET, &lb_path(id, "/status"), None).await
    }

    /// `POST /2.0/loadbalancers/{id}/explain`.
    pub async fn explain(&self, id: LoadBalancerId, question: &Value) -> Result<Value> {
        self.request(Method::POST, &lb_path(id, "/explain"), Some(question)).await
    }

    /// `GET /2.0/loadbalancers/{id}/stats`.
    pub async fn stats(&self, id: LoadBalancerId) -> Result<Value> {
        self.request(Method::GET, &lb_path(id, "/stats"), None).await
    }

    /// `PUT /2.0/loadbalancers/{id}/pools/{pool}/members/{member}`: what is `None` stays as it is.
    pub async fn set_member(
        &self,
        id: LoadBalancerId,
        pool: PoolId,
        member: MemberId,
        weight: Option<u16>,
        admin_state_up: Option<bool>,
    ) -> Result<Value> {
        let mut fields = serde_json::Map::new();
        fields.extend(weight.map(|w| ("weight".to_owned(), json!(w))));
        fields.extend(admin_state_up.map(|up| ("admin_state_up".to_owned(), json!(up))));
        let path = lb_path(id, &format!("/pools/{pool}/members/{member}"));
        self.request(Method::PUT, &path, Some(&json!({ "member": fields }))).await
    }

    /// `PUT /2.0/vrrp`: whether something else was stored before.
    pub async fn put_vrrp(&self, document: &VrrpDocument) -> Result<bool> {
        let (content_type, body) = match document {
            VrrpDocument::Native(document) => (JSON, document.to_string()),
            VrrpDocument::Keepalived(text) => ("text/plain; charset=utf-8", text.clone()),
        };
        let answer = self.send(Method::PUT, "/2.0/vrrp", content_type, body.into(), None).await?;
        answer["changed"].as_bool().ok_or_else(|| self.unreachable("the answer has no `changed`".to_owned()))
    }

    /// `DELETE /2.0/vrrp`.
    pub async fn delete_vrrp(&self) -> Result<Value> {
        self.request(Method::DELETE, "/2.0/vrrp", None).await
    }

    /// `GET /2.0/vrrp/status`; `None` without VRRP.
    pub async fn vrrp_status(&self) -> Result<Option<VrrpStatus>> {
        match self.request(Method::GET, "/2.0/vrrp/status", None).await {
            Ok(status) => self.vrrp(status).map(Some),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// `POST /2.0/vrrp/start`, `stop`, `hand-over` or `resume`.
    pub async fn act(&self, action: VrrpAction) -> Result<VrrpStatus> {
        let path = format!("/2.0/vrrp/{}", action.as_str());
        self.vrrp(self.request(Method::POST, &path, None).await?)
    }

    /// `PUT /2.0/peers`.
    pub async fn put_peers(&self, document: &Value) -> Result<Value> {
        self.request(Method::PUT, "/2.0/peers", Some(document)).await
    }

    /// `GET /2.0/peers`; `None` when the agent does not know the request.
    pub async fn peers(&self) -> Result<Option<Peers>> {
        match self.request(Method::GET, "/2.0/peers", None).await {
            Ok(peers) => serde_json::from_value(peers)
                .map(Some)
                .map_err(|e| self.unreachable(format!("how its peer stands is not understood: {e}"))),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// `DELETE /2.0/peers`: whether there was one; `None` when the agent does not know the request.
    pub async fn delete_peers(&self) -> Result<Option<bool>> {
        match self.request(Method::DELETE, "/2.0/peers", None).await {
            Ok(answer) => Ok(Some(answer["changed"] == true)),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// `PUT /2.0/certificates/{id}`: returns once it is served, where it is named.
    ///
    /// # Errors
    /// As every request.
    pub async fn put_certificate(&self, id: &CertificateId, credential: &Credential) -> Result<Value> {
        let (content_type, body, password) = match credential {
            Credential::Pem(text) => ("application/x-pem-file", text, None),
            Credential::Pkcs12 { der, password } => ("application/x-pkcs12", der, password.as_ref()),
        };
        let password = password.map(|text| HeaderValue::from_bytes(text.as_bytes())).transpose();
        let password =
            password.map_err(|_| Error::Usage("the password has a control character".to_owned()))?;
        let path = format!("/2.0/certificates/{id}");
        self.send(Method::PUT, &path, content_type, body.clone(), password).await
    }

    /// `GET /2.0/certificates/{id}`.
    ///
    /// # Errors
    /// As every request.
    pub async fn certificate(&self, id: &CertificateId) -> Result<Value> {
        self.request(Method::GET, &format!("/2.0/certificates/{id}"), None).await
    }

    /// `GET /2.0/certificates`.
    ///
    /// # Errors
    /// As every request.
    pub async fn certificates(&self) -> Result<Value> {
        self.request(Method::GET, "/2.0/certificates", None).await
    }

    /// `DELETE /2.0/certificates/{id}`.
    ///
    /// # Errors
    /// As every request.
    pub async fn delete_certificate(&self, id: &CertificateId) -> Result<Value> {
        self.request(Method::DELETE, &format!("/2.0/certificates/{id}"), None).await
    }

    /// `PUT /2.0/interfaces/{mac}`: returns once the port is as the document says.
    ///
    /// # Errors
    /// As every request.
    pub async fn plug(&self, mac: &str, document: &Value) -> Result<Value> {
        self.request(Method::PUT, &format!("/2.0/interfaces/{mac}"), Some(document)).await
    }

    /// `DELETE /2.0/interfaces/{mac}`.
    ///
    /// # Errors
    /// As every request.
    pub async fn unplug(&self, mac: &str) -> Result<Value> {
        self.request(Method::DELETE, &format!("/2.0/interfaces/{mac}"), None).await
    }

    /// `PUT /1.0/certificate`: the agent's own key and certificate, PEM.
    ///
    /// # Errors
    /// As every request.
    pub async fn replace_certificate(&self, pem: &str) -> Result<()> {
        self.send(Method::PUT, "/1.0/certificate", OCTETS, pem.to_owned().into(), None).await.map(drop)
    }

    /// `PUT /1.0/config`: Octavia's file of the agent's configuration.
    ///
    /// # Errors
    /// As every request.
    pub async fn replace_configuration(&self, text: &str) -> Result<()> {
        self.send(Method::PUT, "/1.0/config", OCTETS, text.to_owned().into(), None).await.map(drop)
    }

    fn vrrp(&self, status: Value) -> Result<VrrpStatus> {
        serde_json::from_value(status)
            .map_err(|e| self.unreachable(format!("its VRRP status is not understood: {e}")))
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
        self.send(method, path, JSON, body, None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
        password: Option<HeaderValue>,
    ) -> Result<Value> {
        timeout(self.deadline, self.exchange(method, path, content_type, body, password))
            .await
            .map_err(|_| self.unreachable(format!("no answer within {} s", self.deadline.as_secs_f32())))?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
        password: Option<HeaderValue>,
    ) -> Result<Value> {
        let stream = timeout(CONNECT_TIME, self.connect())
            .await
            .map_err(|_| self.unreachable(format!("no connection within {} s", CONNECT_TIME.as_secs())))??;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.endpoint.authority())
            .header(header::ACCEPT, JSON)
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|e| Error::local("request", e))?;
        request.headers_mut().extend(password.map(|password| (HeaderName::from_static(PASSWORD), password)));
        let (status, answer) =
            exchange(stream, request, explain_tls).await.map_err(|reason| self.unreachable(reason))?;
        self.judge(status, &answer)
    }

    /// What an answer means.
    fn judge(&self, status: StatusCode, body: &[u8]) -> Result<Value> {
        if status.is_success() {
            if body.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(body)
                .map_err(|e| self.unreachable(format!("the answer is not JSON ({e}): is this an amphora?")));
        }
        let refusal = serde_json::from_slice(body).unwrap_or(Refusal {
            message: String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned(),
            faults: Vec::new(),
        });
        let message = if refusal.message.is_empty() {
            status.canonical_reason().unwrap_or("no reason given").to_owned()
        } else {
            refusal.message
        };
        Err(Error::Refused {
            amphora: self.endpoint.to_string(),
            status: status.as_u16(),
            message,
            faults: refusal.faults,
        })
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = self.endpoint.server_name(self.server_name.as_deref()).map_err(Error::Usage)?;
        let stream = TcpStream::connect((self.endpoint.host(), self.endpoint.port()))
            .await
            .map_err(|e| self.unreachable(e.to_string()))?;
        // Head and body of a request are two writes: the second must not wait for the first's acknowledgement.
        stream.set_nodelay(true).map_err(|e| self.unreachable(e.to_string()))?;
        TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .map_err(|e| self.unreachable(explain_tls(&e)))
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { amphora: self.endpoint.to_string(), reason }
    }
}

/// Asks on a connection that is this request's alone, and takes the whole answer, or says what went wrong.
pub(crate) async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    explain: fn(&io::Error) -> String,
) -> Result<(StatusCode, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // hyper's errors tell the cause only in their source. A client certificate that is refused comes to light
    // here: in TLS 1.3 the server judges it after the client's handshake is done.
    let broken = |error: hyper::Error| {
        let io = error.source().and_then(|e| e.downcast_ref::<io::Error>());
        io.map_or_else(|| error.to_string(), explain)
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    driver.abort();
    let answer = answer.map_err(|e| {
        if e.is::<LengthLimitError>() {
            format!("the answer is longer than {MAX_ANSWER} bytes")
        } else {
            format!("the answer broke off: {e}")
        }
    })?;
    Ok((status, answer.to_bytes()))
}

/// What a person can do about a TLS failure.
fn explain_tls(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForNameContext {
            expected,
            presented,
        })) => format!(
            "its certificate is for {}, not for {}; an amphora's certificate carries its UUID: \
             write https://UUID@host or give --server-name",
            presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", "),
            expected.to_str()
        ),
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "its certificate was not signed by the CA that --ca or --certs names".to_owned()
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("it refused this client's certificate (TLS alert {alert:?})")
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "it does not speak TLS: is this the port of an amphora's agent?".to_owned()
        }
        Some(other) => format!("TLS: {other}"),
        None => error.to_string(),
    }
}

/// rustls tells names as `DnsName("amphora")` or `IpAddress(192.0.2.5)`.
fn plain(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

fn lb_path(id: LoadBalancerId, rest: &str) -> String {
    format!("/2.0/loadbalancers/{id}{rest}")
}
