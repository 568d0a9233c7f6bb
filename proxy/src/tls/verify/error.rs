//! Why a certificate is not taken: OpenSSL's codes, and the alerts that OpenSSL sends for them.

use std::{fmt, sync::Arc};

use rustls::{CertificateError, Error, OtherError};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $alert:ident, $text:literal;)*) => {
        /// What X509_verify_cert(3) of OpenSSL 3.0 would say of a certificate, by the numbers of `X509_V_ERR_*`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum VerifyError {
            $($(#[$doc])* $name = $number,)*
        }

        impl VerifyError {
            fn alert(self) -> Alert {
                match self {
                    $(Self::$name => Alert::$alert,)*
                }
            }
        }

        impl fmt::Display for VerifyError {
            /// The text of X509_verify_cert_error_string(3).
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

/// The alerts that ssl_x509err2alert of OpenSSL chooses from.
enum Alert {
    BadCertificate,
    /// The same, told apart from what another try could change.
    OtherHost,
    Unsupported,
    Revoked,
    Expired,
    Unknown,
    UnknownCa,
    DecryptError,
}

codes! {
    /// What an authority has signed comes without that authority.
    UnableToGetIssuer = 2, UnknownCa, "unable to get issuer certificate";
    /// There is no list of a certificate's issuer.
    UnableToGetCrl = 3, UnknownCa, "unable to get certificate CRL";
    /// A signature is not that of the issuer.
    CertSignatureFailure = 7, DecryptError, "certificate signature failure";
    /// The signature of a list is not that of its issuer.
    CrlSignatureFailure = 8, DecryptError, "CRL signature failure";
    /// Its time has not come.
    NotYetValid = 9, BadCertificate, "certificate is not yet valid";
    /// Its time is over.
    Expired = 10, Expired, "certificate has expired";
    /// The time of a list has not come.
    CrlNotYetValid = 11, BadCertificate, "CRL is not yet valid";
    /// The time of a list is over.
    CrlExpired = 12, Expired, "CRL has expired";
    /// `notBefore` is no time.
    BadNotBefore = 13, BadCertificate, "format error in certificate's notBefore field";
    /// `notAfter` is no time.
    BadNotAfter = 14, BadCertificate, "format error in certificate's notAfter field";
    /// `thisUpdate` of a list is no time.
    BadLastUpdate = 15, BadCertificate, "format error in CRL's lastUpdate field";
    /// `nextUpdate` of a list is no time.
    BadNextUpdate = 16, BadCertificate, "format error in CRL's nextUpdate field";
    /// It has signed itself, and is no authority here.
    SelfSigned = 18, UnknownCa, "self-signed certificate";
    /// The chain ends in one that has signed itself and is no authority here.
    SelfSignedInChain = 19, UnknownCa, "self-signed certificate in certificate chain";
    /// No authority here has signed it.
    UnknownIssuer = 20, UnknownCa, "unable to get local issuer certificate";
    /// The chain is longer than is looked at.
    ChainTooLong = 22, UnknownCa, "certificate chain too long";
    /// Its issuer has revoked it.
    Revoked = 23, Revoked, "certificate revoked";
    /// What has signed it may not sign certificates.
    InvalidCa = 79, UnknownCa, "invalid CA certificate";
    /// There are more authorities between it and one than that one allows.
    PathLengthExceeded = 25, UnknownCa, "path length constraint exceeded";
    /// It is for something else.
    InvalidPurpose = 26, Unsupported, "unsuitable certificate purpose";
    /// An extension that must be understood is not.
    UnhandledCriticalExtension = 34, Unknown, "unhandled critical extension";
    /// The issuer of a list may not sign lists.
    NoCrlSign = 35, Unknown, "key usage does not include CRL signing";
    /// An extension of a list that must be understood is not.
    UnhandledCriticalCrlExtension = 36, Unknown, "unhandled critical CRL extension";
    /// A proxy certificate (RFC 3820).
    ProxyCertificate = 40, Unknown, "proxy certificates not allowed, please set the appropriate flag";
    /// An extension is not in its form.
    InvalidExtension = 41, Unknown, "invalid or inconsistent certificate extension";
    /// A list is for other certificates.
    DifferentCrlScope = 44, Unknown, "different CRL scope";
    /// A name that an authority may not give.
    PermittedViolation = 47, Unknown, "permitted subtree violation";
    /// A name that an authority must not give.
    ExcludedViolation = 48, Unknown, "excluded subtree violation";
    /// A constraint on names of a form that is not known.
    UnsupportedConstraint = 51, Unknown, "unsupported name constraint type";
    /// A name that is none of its kind, where there are constraints on such.
    UnsupportedNameSyntax = 53, Unknown, "unsupported or invalid name syntax";
    /// It is for another host.
    HostnameMismatch = 62, OtherHost, "hostname mismatch";
    /// Its key is too small.
    KeyTooSmall = 66, BadCertificate, "EE certificate key too weak";
    /// The key of an authority is too small.
    CaKeyTooSmall = 67, BadCertificate, "CA certificate key too weak";
    /// It is signed over a digest that is not safe.
    DigestTooWeak = 68, BadCertificate, "CA signature digest algorithm too weak";
}

impl std::error::Error for VerifyError {}

impl From<VerifyError> for Error {
    /// The error of rustls that sends the alert of OpenSSL.
    fn from(error: VerifyError) -> Self {
        Self::InvalidCertificate(match error.alert() {
            Alert::BadCertificate => CertificateError::BadEncoding,
            Alert::OtherHost => CertificateError::NotValidForName,
            Alert::Unsupported => CertificateError::InvalidPurpose,
            Alert::Revoked => CertificateError::Revoked,
            Alert::Expired => CertificateError::Expired,
            Alert::Unknown => CertificateError::Other(OtherError(Arc::new(error))),
            Alert::UnknownCa => CertificateError::UnknownIssuer,
            Alert::DecryptError => CertificateError::BadSignature,
        })
    }
}
