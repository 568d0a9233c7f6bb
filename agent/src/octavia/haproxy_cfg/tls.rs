//! What `bind` and `server` say of TLS in the same words.

use amphora_model::{AlpnProtocol, TlsSettings, TlsVersion};

use super::{Fault, args::Args};

/// Versions, ciphers and protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `ciphers`: those up to TLS 1.2, and up to Octavia 18 all.
    ciphers: Option<String>,
    /// `ciphersuites`: those of TLS 1.3.
    ciphersuites: Option<String>,
    /// `no-sslv3` and so on.
    without: Vec<TlsVersion>,
    /// `alpn`.
    pub(super) alpn: Vec<AlpnProtocol>,
}

impl Settings {
    /// Reads them, which are last on their line.
    pub(super) fn read(args: &mut Args<'_, '_>) -> Result<Self, Fault> {
        const WITHOUT: [(&str, TlsVersion); 5] = [
            ("no-sslv3", TlsVersion::Ssl3),
            ("no-tlsv10", TlsVersion::Tls1),
            ("no-tlsv11", TlsVersion::Tls1_1),
            ("no-tlsv12", TlsVersion::Tls1_2),
            ("no-tlsv13", TlsVersion::Tls1_3),
        ];
        let mut this = Self::default();
        if args.take("ciphers") {
            this.ciphers = Some(args.plain("a list of ciphers")?.into_owned());
        }
        if args.take("ciphersuites") {
            this.ciphersuites = Some(args.plain("a list of ciphers")?.into_owned());
        }
        for (word, version) in WITHOUT {
            if args.take(word) {
                this.without.push(version);
            }
        }
        if this.without.len() == WITHOUT.len() {
            return Err(args.fault("leaves no version of TLS"));
        }
        if args.take("alpn") {
            this.alpn = protocols(args)?;
        }
        Ok(this)
    }

    /// As a document has them.
    pub(super) fn model(&self) -> TlsSettings {
        let with = |version: &TlsVersion| !self.without.contains(version);
        let versions = match self.without.is_empty() {
            // What HAProxy has without further notice, from 2.2 on.
            true => TlsSettings::default().versions,
            false => TlsVersion::ALL.iter().copied().filter(with).collect(),
        };
        // Octavia takes a document's list apart by these names; those of TLS 1.3 are preferred in any case.
        let ciphers: Vec<&str> =
            [&self.ciphersuites, &self.ciphers].into_iter().flatten().map(String::as_str).collect();
        TlsSettings {
            versions,
            ciphers: (!ciphers.is_empty()).then(|| ciphers.join(":").into()),
            alpn: self.alpn.clone(),
        }
    }
}

/// The next word: protocols of ALPN.
pub(super) fn protocols(args: &mut Args<'_, '_>) -> Result<Vec<AlpnProtocol>, Fault> {
    let text = args.plain("a list of protocols")?;
    let mut list = Vec::new();
    for name in text.split(',') {
        let protocol = AlpnProtocol::parse(name);
        let protocol =
            protocol.ok_or_else(|| args.fault("has a protocol other than h2, http/1.1, http/1.0"))?;
        if list.contains(&protocol) {
            return Err(args.fault(format!("has the protocol {protocol} twice")));
        }
        list.push(protocol);
    }
    Ok(list)
}

/// `verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// `none`.
    None,
    /// `optional`: of listeners alone.
    Optional,
    /// `required`.
    Required,
}

impl Verify {
    /// Reads what is behind `verify`.
    pub(super) fn read(args: &mut Args<'_, '_>) -> Result<Self, Fault> {
        match args.plain("none, optional or required")?.as_ref() {
            "none" => Ok(Self::None),
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err(args.fault("verifies in a way that is not known")),
        }
    }
}

/// A file of certificates, keys or revocation lists: the last two segments of its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// The directory's name: the load balancer's id.
    pub(super) directory: String,
    /// The file's name without `.pem`.
    pub(super) stem: String,
}

impl File {
    /// What a path names; none when it is no such.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let (rest, name) = path.rsplit_once('/')?;
        let (base, directory) = rest.rsplit_once('/')?;
        let stem = name.strip_suffix(".pem")?;
        (base.starts_with('/') || base.is_empty()).then_some(())?;
        Some(Self { directory: directory.to_owned(), stem: stem.to_owned() })
    }

    /// The next word.
    pub(super) fn read(args: &mut Args<'_, '_>) -> Result<Self, Fault> {
        let path = args.plain("a path")?;
        Self::parse(&path)
            .ok_or_else(|| args.fault("has a path that is no <directory>/<load balancer>/<name>.pem"))
    }
}
