use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A CA with a server and a client certificate, as files of a directory.
pub(crate) struct Certificates {
    directory: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    pub(crate) fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let this = Self { directory: directory.to_owned(), ca };
        fs::write(this.ca(), this.ca.pem()).unwrap();
        fs::write(this.server(), this.issue("localhost")).unwrap();
        this
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.join("client_ca.pem")
    }

    pub(crate) fn server(&self) -> PathBuf {
        self.directory.join("server.pem")
    }

    /// Key and certificate in one PEM.
    pub(crate) fn issue(&self, name: &str) -> String {
        self.issue_for(&[name])
    }

    /// The same with several names.
    pub(crate) fn issue_for(&self, names: &[&str]) -> String {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        format!("{}{}", key.serialize_pem(), certificate.pem())
    }

    /// A client that trusts `servers`, with a certificate of this CA.
    pub(crate) fn client(&self, servers: &Self) -> Arc<ClientConfig> {
        let pem = self.issue("controller");
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let config = Self::builder(servers).with_client_auth_cert(chain, key).unwrap();
        Arc::new(config)
    }

    /// A client without a certificate.
    pub(crate) fn anonymous(servers: &Self) -> Arc<ClientConfig> {
        Arc::new(Self::builder(servers).with_no_client_auth())
    }

    fn builder(servers: &Self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(servers.ca.pem().as_bytes()).unwrap()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    }
}
