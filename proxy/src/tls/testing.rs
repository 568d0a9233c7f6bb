//! Certificates and handshakes for the tests of this room.

#![allow(clippy::unwrap_used, clippy::result_large_err)]

use std::{collections::HashMap, io::Read, sync::Arc};

use amphora_model::{CertificateId, ClientAuthentication, ListenerTls, PoolTls, TlsSettings, TlsVersion};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::{ClientConnection, Connection, ServerConnection};

use super::{Material, MaterialError, Pem};

/// Material in memory.
#[derive(Debug, Default)]
pub(super) struct Files(HashMap<CertificateId, Pem>);

impl Material for Files {
    fn pem(&self, id: &CertificateId) -> Result<Pem, MaterialError> {
        self.0.get(id).cloned().ok_or_else(|| MaterialError::Missing(id.clone()))
    }
}

pub(super) fn id(name: &str) -> CertificateId {
    name.parse().unwrap()
}

impl Files {
    pub(super) fn put(&mut self, name: &str, content: impl AsRef<[u8]>) -> CertificateId {
        self.0.insert(id(name), Arc::new(content.as_ref().to_vec().into()));
        id(name)
    }
}

/// An authority.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: Certificate,
}

impl Authority {
    pub(super) fn root(name: &str) -> Self {
        Self::with(authority_params(name), None)
    }

    pub(super) fn below(&self, name: &str) -> Self {
        Self::with(authority_params(name), Some(self))
    }

    pub(super) fn with(params: CertificateParams, above: Option<&Self>) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            None => params.self_signed(&key).unwrap(),
            Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
        };
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(super) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Certificate and key in PEM.
    pub(super) fn issue(&self, params: &CertificateParams) -> String {
        self.issue_with(params, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(super) fn issue_with(
        &self,
        params: &CertificateParams,
        algorithm: &'static SignatureAlgorithm,
    ) -> String {
        let key = KeyPair::generate_for(algorithm).unwrap();
        params.signed_by(&key, &self.issuer).unwrap().pem() + &key.serialize_pem()
    }

    /// A list of these serial numbers, good from one year to another.
    pub(super) fn list(&self, revoked: &[u64], from: i32, until: i32) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(from, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

pub(super) fn authority_params(name: &str) -> CertificateParams {
    let mut params = leaf_params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages.clear();
    params
}

pub(super) fn leaf_params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}

pub(super) fn listener_tls(certificate: &CertificateId) -> ListenerTls {
    ListenerTls {
        certificate: certificate.clone(),
        sni_certificates: Vec::new(),
        client_authentication: None,
        settings: TlsSettings::default(),
        hsts: None,
    }
}

pub(super) fn asking(
    certificate: &CertificateId,
    mandatory: bool,
    authorities: &CertificateId,
    revocations: Option<&CertificateId>,
) -> ListenerTls {
    let (authorities, revocations) = (authorities.clone(), revocations.cloned());
    let client_authentication = Some(ClientAuthentication { mandatory, authorities, revocations });
    ListenerTls { client_authentication, ..listener_tls(certificate) }
}

pub(super) fn pool_tls() -> PoolTls {
    PoolTls {
        authorities: None,
        revocations: None,
        client_certificate: None,
        settings: TlsSettings::default(),
    }
}

pub(super) fn only(version: TlsVersion) -> TlsSettings {
    TlsSettings { versions: vec![version], ..TlsSettings::default() }
}

/// What became of a handshake: both sides, or what each has to object.
pub(super) type Handshake = Result<(Connection, Connection), (Option<rustls::Error>, Option<rustls::Error>)>;

/// Passes bytes until both are done, or one objects; then each has said a word.
pub(super) fn handshake(client: ClientConnection, server: ServerConnection) -> Handshake {
    let (mut client, mut server) = (Connection::from(client), Connection::from(server));
    let mut errors = (None, None);
    for _ in 0..20 {
        errors.1 = errors.1.or(pass(&mut client, &mut server).err());
        errors.0 = errors.0.or(pass(&mut server, &mut client).err());
        if errors != (None, None) && !client.wants_write() && !server.wants_write() {
            return Err(errors);
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut wire = &wire[..];
    while !wire.is_empty() {
        to.read_tls(&mut wire as &mut dyn Read).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}
