//! What is known of a peer when its handshake is done.

use std::cell::OnceCell;

use amphora_x509::{Certificate, Time};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::HEXUPPER;
use rustls::{CommonState, Connection, HandshakeKind, ProtocolVersion};
use rustls_pki_types::CertificateDer;

use super::{ciphers::openssl_name, dn};

/// A finished handshake with a client, as HAProxy's `ssl_fc_*` and `ssl_c_*` tell of it.
#[derive(Debug)]
pub struct PeerFacts {
    /// `ssl_fc_protocol`: `TLSv1.3`, `TLSv1.2`.
    pub version: &'static str,
    /// `ssl_fc_cipher`, in OpenSSL's names.
    pub cipher: &'static str,
    /// `ssl_fc_sni`: the name that the client has asked for, in lower case.
    pub sni: Option<Box<str>>,
    /// `ssl_fc_alpn`.
    pub alpn: Option<Box<[u8]>>,
    /// `ssl_fc_is_resumed`.
    pub resumed: bool,
    /// The client's certificate, which a resumed session remembers.
    pub certificate: Option<ClientCertificate>,
}

impl PeerFacts {
    /// Of a connection whose handshake is done.
    pub fn new(connection: &Connection) -> Self {
        let sni = match connection {
            Connection::Server(server) => server.server_name().map(Into::into),
            Connection::Client(_) => None,
        };
        let common: &CommonState = connection;
        Self {
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "",
            },
            cipher: common.negotiated_cipher_suite().map_or("(NONE)", |suite| openssl_name(suite.suite())),
            sni,
            alpn: common.alpn_protocol().map(Into::into),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            certificate: common
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map(|leaf| ClientCertificate::new(leaf.clone().into_owned())),
        }
    }

    /// Of a client that would show this certificate, as far as rules ask.
    pub fn supposed(certificate: Option<CertificateDer<'static>>) -> Self {
        Self {
            version: "TLSv1.3",
            cipher: "(NONE)",
            sni: None,
            alpn: None,
            resumed: false,
            certificate: certificate.map(ClientCertificate::new),
        }
    }

    /// `ssl_c_verify`: 0 (`X509_V_OK`), for a handshake that finds anything else is not finished.
    pub fn verify_result(&self) -> u16 {
        0
    }
}

/// A client's certificate, with the texts that are asked of it made once.
#[derive(Debug)]
pub struct ClientCertificate {
    der: CertificateDer<'static>,
    texts: OnceCell<Texts>,
}

#[derive(Debug, Default)]
struct Texts {
    subject: Vec<u8>,
    /// The attributes of the subject, in order.
    fields: Vec<(String, Option<Vec<u8>>)>,
    issuer: Vec<u8>,
    sha1: String,
    not_before: Vec<u8>,
    not_after: Vec<u8>,
}

impl ClientCertificate {
    /// What there is to know of this certificate.
    pub fn new(der: CertificateDer<'static>) -> Self {
        Self { der, texts: OnceCell::new() }
    }

    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| {
            let sha1 = HEXUPPER.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.der).as_ref());
            let Some(certificate) = Certificate::read(&self.der) else {
                return Texts { sha1, ..Texts::default() };
            };
            Texts {
                subject: dn::oneline(&certificate.subject),
                fields: dn::fields(&certificate.subject),
                issuer: dn::oneline(&certificate.issuer),
                sha1,
                not_before: date(certificate.not_before),
                not_after: date(certificate.not_after),
            }
        })
    }

    /// `ssl_c_s_dn`: the subject. Values are as they are in the certificate: any bytes.
    pub fn subject(&self) -> &[u8] {
        &self.texts().subject
    }

    /// `ssl_c_s_dn(cn)`: the first common name of the subject, empty without.
    pub fn common_name(&self) -> &[u8] {
        self.subject_field("CN").unwrap_or_default()
    }

    /// `ssl_c_s_dn(FIELD)`: the first value of an attribute of the subject, by its name in any case.
    pub fn subject_field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.texts().fields.iter();
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name))?.1.as_deref()
    }

    /// `ssl_c_i_dn`: the issuer.
    pub fn issuer(&self) -> &[u8] {
        &self.texts().issuer
    }

    /// `ssl_c_sha1,hex`: the digest of the certificate, in upper case.
    pub fn sha1(&self) -> &str {
        &self.texts().sha1
    }

    /// `ssl_c_notbefore`: `YYMMDDHHMMSSZ`.
    pub fn not_before(&self) -> &[u8] {
        &self.texts().not_before
    }

    /// `ssl_c_notafter`.
    pub fn not_after(&self) -> &[u8] {
        &self.texts().not_after
    }
}

/// `ssl_sock_get_time` of HAProxy: times of this century, without it.
fn date(time: Time<'_>) -> Vec<u8> {
    match (time.generalized, time.text) {
        (true, [b'2', b'0', rest @ ..]) if rest.len() >= 10 => rest.to_vec(),
        (false, [b'0'..b'5', ..]) if time.text.len() >= 10 => time.text.to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
