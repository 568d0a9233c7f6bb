//! An authority, and what it issues.

use amphora_x509::{Certificate, oid, tag};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::san;
use crate::error::{Error, Result};

/// A CA: its certificate, and the key that signs.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS #8.
    pub key: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Issued {
    /// Both in one file, as an agent reads them.
    pub fn both(&self) -> String {
        format!("{}{}", self.key, self.certificate)
    }
}

impl Authority {
    /// A new one, of a name that no other has: two CAs of one name would make a wrong one look like a forged signature.
    ///
    /// # Errors
    /// [`Error::Local`]: there is no randomness.
    pub fn make(validity: Duration) -> Result<Self> {
        let name = format!("amphora controller CA {}", &Uuid::new_v4().simple().to_string()[..8]);
        let mut params = params(&name, validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = key()?;
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// One that is there already.
    ///
    /// # Errors
    /// The reason, when the two do not belong together, or are not what they should be.
    pub fn read(certificate: &str, key: &str) -> Result<Self, String> {
        let key =
            KeyPair::from_pem(key).map_err(|e| format!("not a key in PKCS #8 without a passphrase: {e}"))?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|e| format!("no certificate: {e}"))?;
        let ca = Certificate::read(&der).ok_or("not an X.509 certificate")?;
        if ca.public_key.der != key.subject_public_key_info() {
            return Err("certificate and key do not belong together".to_owned());
        }
        if !ca
            .extensions
            .basic_constraints()
            .is_ok_and(|found| found.is_some_and(|constraints| constraints.authority))
        {
            return Err("the certificate is not one of an authority (CA:TRUE)".to_owned());
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&ca)?;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        if let Ok(Some(id)) = ca.extensions.subject_key_identifier() {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id.to_vec());
        }
        let this = Self { pem: certificate.to_owned(), issuer: Issuer::new(params, key) };
        // What it signs must lead to it: the names are compared byte by byte by who verifies.
        let probe = this.client("probe", Duration::MINUTE).map_err(|e| e.to_string())?;
        let probe =
            CertificateDer::from_pem_slice(probe.certificate.as_bytes()).map_err(|e| e.to_string())?;
        let leads = Certificate::read(&probe).is_some_and(|probe| probe.issuer.der() == ca.subject.der());
        if leads {
            Ok(this)
        } else {
            Err("its name cannot be written as it is in the certificate".to_owned())
        }
    }

    /// The certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The private key, PEM.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for a server of these names and addresses.
    ///
    /// # Errors
    /// [`Error::Usage`]: one of them can be in none.
    pub fn server<'a>(
        &self,
        common_name: &str,
        hosts: impl IntoIterator<Item = &'a str>,
        validity: Duration,
    ) -> Result<Issued> {
        let mut params = params(common_name, validity);
        params.subject_alt_names = hosts.into_iter().map(san).collect::<Result<_>>()?;
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client.
    ///
    /// # Errors
    /// [`Error::Local`]: there is no randomness.
    pub fn client(&self, common_name: &str, validity: Duration) -> Result<Issued> {
        self.issue(params(common_name, validity), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, mut params: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> Result<Issued> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let key = key()?;
        let not_after = params.not_after;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem(), not_after })
    }
}

fn failed(error: rcgen::Error) -> Error {
    Error::local("certificates", error)
}

fn key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)
}

/// Since when all of it is valid, in days after 1970: the year 2000. Clocks differ and are set back, by years where one was wrong at the first start.
const SINCE: i64 = 10_957;

fn params(common_name: &str, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = OffsetDateTime::UNIX_EPOCH + Duration::days(SINCE);
    params.not_after = now + validity;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    params
}

/// The subject's name.
fn name(certificate: &Certificate<'_>) -> Result<DistinguishedName, String> {
    let mut name = DistinguishedName::new();
    for attribute in certificate.subject.attributes() {
        let numbers: Result<Vec<u64>, _> = oid::dotted(attribute.oid).split('.').map(str::parse).collect();
        let kind = DnType::from_oid(&numbers.map_err(|e| e.to_string())?);
        let text = String::from_utf8(attribute.value.to_vec()).map_err(|e| e.to_string())?;
        let value = match attribute.tag {
            tag::UTF8_STRING => DnValue::Utf8String(text),
            tag::PRINTABLE_STRING => {
                DnValue::PrintableString(text.try_into().map_err(|e: rcgen::Error| e.to_string())?)
            }
            tag::IA5_STRING => DnValue::Ia5String(text.try_into().map_err(|e: rcgen::Error| e.to_string())?),
            other => return Err(format!("its name has text of a kind that is not known (tag {other})")),
        };
        name.push(kind, value);
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_authority_that_is_read_signs_as_the_one_that_was_made() {
        let made = Authority::make(Duration::days(1)).unwrap();
        let read = Authority::read(made.pem(), &made.key()).unwrap();
        let identifier = |authority: &Authority| {
            let issued = authority.server("a", ["a", "192.0.2.1"], Duration::days(1)).unwrap();
            let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
            let certificate = Certificate::read(&der).unwrap();
            let key = certificate.extensions.authority_key_identifier().unwrap().unwrap();
            (certificate.issuer.der().to_vec(), key.key.map(<[u8]>::to_vec))
        };
        assert_eq!(identifier(&made), identifier(&read));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let [one, other] = [(); 2].map(|()| Authority::make(Duration::days(1)).unwrap());
        assert!(Authority::read(one.pem(), &other.key()).unwrap_err().contains("belong together"));
        let leaf = one.client("a", Duration::days(1)).unwrap();
        assert!(Authority::read(&leaf.certificate, &leaf.key).unwrap_err().contains("CA:TRUE"));
        assert!(Authority::read("", &one.key()).unwrap_err().contains("no certificate"));
        assert!(Authority::read(one.pem(), "").unwrap_err().contains("PKCS #8"));
    }
}
