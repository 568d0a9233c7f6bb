//! What a client says first, in TLS.

use std::{collections::HashMap, sync::Arc};

use amphora_model::{CertificateId, ListenerTls, TlsSettings};
use amphora_proxy::tls::{Material, MaterialError, Pem, ServerContext, TicketKeys};
use rcgen::{CertificateParams, KeyPair};
use rustls::server::Acceptor;

struct Files(HashMap<CertificateId, Pem>);

impl Material for Files {
    fn pem(&self, id: &CertificateId) -> Result<Pem, MaterialError> {
        self.0.get(id).cloned().ok_or_else(|| MaterialError::Missing(id.clone()))
    }
}

thread_local! {
    /// A listener with a certificate for a host, and one for all of a domain.
    static LISTENER: ServerContext = {
        let issue = |host: &str| {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
            Arc::new((certificate.pem() + &key.serialize_pem()).into_bytes().into())
        };
        let id = |name: &str| name.parse::<CertificateId>().unwrap();
        let files = Files([(id("a"), issue("a.example")), (id("b"), issue("*.b.example"))].into());
        let tls = ListenerTls {
            certificate: id("a"),
            sni_certificates: vec![id("b")],
            client_authentication: None,
            settings: TlsSettings::default(),
            hsts: None,
        };
        let listener = "6a0a707c-45ef-4758-b533-e55adddba8ce".parse().unwrap();
        ServerContext::compile(listener, &tls, &files, &TicketKeys::new()).unwrap()
    };
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// More is wanted.
    Part,
    /// It is none that anybody can answer.
    Refused(String),
    /// It asks for this host, and was answered, or refused when it was.
    Hello(Option<String>, Result<(), String>),
}

/// Bytes as a client sends them, or, with the highest bit of the first, a ClientHello without the head of its record and its
/// message. In whatever cuts: it comes to the same, what is said to the client has a bound, and what is agreed on was offered.
pub(crate) fn tls_hello(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let rest = &rest[..rest.len().min(16_000)];
    let bytes = if first & 0x80 == 0 {
        rest.to_vec()
    } else {
        let [_, a, b, c] = (rest.len() as u32).to_be_bytes();
        let [high, low] = (rest.len() as u16 + 4).to_be_bytes();
        [&[22, 3, 1, high, low, 1, a, b, c], rest].concat()
    };
    let whole = hear(&bytes, bytes.len().max(1));
    let step = usize::from(first & 0x7f) + 1;
    assert_eq!(hear(&bytes, step), whole, "in steps of {step}");
}

fn hear(bytes: &[u8], step: usize) -> Heard {
    let mut acceptor = Acceptor::default();
    let mut chunks = bytes.chunks(step);
    while let Some(mut chunk) = chunks.next() {
        while !chunk.is_empty() {
            if let Err(error) = acceptor.read_tls(&mut chunk) {
                return Heard::Refused(error.to_string());
            }
            let accepted = match acceptor.accept() {
                Ok(None) => continue,
                Ok(Some(accepted)) => accepted,
                Err((error, mut alert)) => {
                    let mut said = Vec::new();
                    alert.write_all(&mut said).unwrap();
                    assert!(said.len() <= 7, "{said:?}");
                    return Heard::Refused(format!("{error:?}"));
                }
            };
            let hello = accepted.client_hello();
            let host = hello.server_name().map(str::to_owned);
            let offered: Vec<Vec<u8>> = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
            let config = LISTENER.with(|listener| listener.config_for(&accepted));
            let mut session = match accepted.into_connection(config) {
                Ok(session) => session,
                Err((error, _)) => return Heard::Hello(host, Err(format!("{error:?}"))),
            };
            let _ = session.process_new_packets();
            for mut chunk in std::iter::once(chunk).chain(chunks) {
                if session.read_tls(&mut chunk).is_err() || session.process_new_packets().is_err() {
                    break;
                }
            }
            let mut said = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut said).unwrap();
            }
            assert!(said.len() < 16 * 1024, "{} bytes are said to it", said.len());
            if let Some(agreed) = session.alpn_protocol() {
                assert!(offered.iter().any(|one| one == agreed), "{agreed:?} of {offered:?}");
            }
            assert!(session.is_handshaking(), "without keys it cannot be done");
            return Heard::Hello(host, Ok(()));
        }
    }
    Heard::Part
}
