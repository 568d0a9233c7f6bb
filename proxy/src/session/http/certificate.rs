//! What members are told of the client's certificate: the `X-SSL-*` fields, as HAProxy's `http-request set-header` with Octavia's
//! formats writes them.

use amphora_model::SslHeaders;

use crate::{
    http::{Known, KnownSet},
    tls::{PeerFacts, write_field_value},
};

/// Writes the fields that are asked for, one a line; says which these are. Each of them is there, without a value where there is
/// none.
pub(super) fn write(out: &mut Vec<u8>, asked: &SslHeaders, client: &PeerFacts) -> KnownSet {
    let mut names = KnownSet::default();
    let mut field = |asked: bool, known: Known, name: &str, value: Value<'_>| {
        if asked {
            names.insert(known);
            out.extend_from_slice(name.as_bytes());
            value.write(out);
            out.extend_from_slice(b"\r\n");
        }
    };
    let certificate = client.certificate.as_ref();
    let verify = Value::Number(client.verify_result());
    field(asked.client_verify, Known::XSslClientVerify, "x-ssl-client-verify: ", verify);
    let has_cert = Value::Number(certificate.is_some().into());
    field(asked.client_has_cert, Known::XSslClientHasCert, "x-ssl-client-has-cert: ", has_cert);
    if !(asked.client_dn
        || asked.client_cn
        || asked.issuer
        || asked.client_sha1
        || asked.client_not_before
        || asked.client_not_after)
    {
        return names;
    }
    let subject = text(certificate.map(|it| it.subject()));
    field(asked.client_dn, Known::XSslClientDn, "x-ssl-client-dn: ", subject);
    let name = text(certificate.map(|it| it.common_name()));
    field(asked.client_cn, Known::XSslClientCn, "x-ssl-client-cn: ", name);
    let issuer = text(certificate.map(|it| it.issuer()));
    field(asked.issuer, Known::XSslIssuer, "x-ssl-issuer: ", issuer);
    let sha1 = text(certificate.map(|it| it.sha1().as_bytes()));
    field(asked.client_sha1, Known::XSslClientSha1, "x-ssl-client-sha1: ", sha1);
    let from = text(certificate.map(|it| it.not_before()));
    field(asked.client_not_before, Known::XSslClientNotBefore, "x-ssl-client-not-before: ", from);
    let until = text(certificate.map(|it| it.not_after()));
    field(asked.client_not_after, Known::XSslClientNotAfter, "x-ssl-client-not-after: ", until);
    names
}

fn text(value: Option<&[u8]>) -> Value<'_> {
    value.map_or(Value::None, Value::Text)
}

enum Value<'a> {
    None,
    Number(u16),
    /// Without quotes: HAProxy heeds `%{+Q}` in logs alone.
    Text(&'a [u8]),
}

impl Value<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            // Whoever signs a certificate with a line break in it is not to write fields of their own.
            Self::Text(value) => write_field_value(out, value),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;
    use crate::tls::ClientCertificate;

    const ALL: SslHeaders = SslHeaders {
        client_verify: true,
        client_has_cert: true,
        client_dn: true,
        client_cn: true,
        issuer: true,
        client_sha1: true,
        client_not_before: true,
        client_not_after: true,
    };

    fn facts(certificate: Option<ClientCertificate>) -> PeerFacts {
        PeerFacts { version: "TLSv1.3", cipher: "", sni: None, alpn: None, resumed: false, certificate }
    }

    fn written(asked: &SslHeaders, facts: &PeerFacts) -> String {
        let mut out = Vec::new();
        write(&mut out, asked, facts);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_client_without_a_certificate_has_fields_without_values() {
        let expected = "x-ssl-client-verify: 0\r\nx-ssl-client-has-cert: 0\r\nx-ssl-client-dn: \r\nx-ssl-client-cn: \r\n\
                        x-ssl-issuer: \r\nx-ssl-client-sha1: \r\nx-ssl-client-not-before: \r\nx-ssl-client-not-after: \r\n";
        assert_eq!(written(&ALL, &facts(None)), expected);
        assert_eq!(written(&SslHeaders::default(), &facts(None)), "");
    }

    #[test]
    fn no_certificate_writes_lines_of_its_own() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a\r\nx-admin: 1");
        params.not_before = date_time_ymd(2026, 1, 2);
        params.not_after = date_time_ymd(2027, 1, 2);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let asked = SslHeaders { client_cn: true, client_not_before: true, ..SslHeaders::default() };
        let facts = facts(Some(ClientCertificate::new(certificate.der().clone())));
        assert_eq!(
            written(&asked, &facts),
            "x-ssl-client-cn: a%0D%0Ax-admin: 1\r\nx-ssl-client-not-before: 260102000000Z\r\n"
        );
    }
}
