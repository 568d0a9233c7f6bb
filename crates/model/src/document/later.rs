//! What a document may say that this version does not do yet: refused by name, in full and at once.

/// Something of a document that is read already, and that nothing honours yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Later {
    /// Listeners of protocol TERMINATED_HTTPS.
    TerminatedHttps,
    /// Listeners of protocol PROMETHEUS with a certificate.
    PrometheusTls,
    /// What asks for or about clients' certificates: `client_authentication`, the X-SSL headers, the SSL rules.
    ClientCertificates,
    /// Pools with `tls_enabled`.
    PoolTls,
}

/// What is not there yet: the one place that refuses it. Whoever makes the proxy do a thing takes it from here.
pub(super) const LATER: &[Later] = &[Later::PrometheusTls];

/// What is said of it.
pub(super) const NOT_YET: &str = "is not supported yet by this version";
