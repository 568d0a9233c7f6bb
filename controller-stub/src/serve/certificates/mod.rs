//! The authority of `serve`, what it issues, and the tenants' certificates.
//!
//! | module | what |
//! | --- | --- |
//! | [`exchange`] | when an authority is followed by the next |
//! | `files` | where they are |
//! | [`tenants`] | tenants' certificates, and whose they are |

pub mod exchange;
mod files;
pub mod reads;
pub mod tenants;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use amphora_bundle::{Bundle, Kind};
use amphora_model::CertificateId;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use rustls::ClientConfig;
use time::OffsetDateTime;

use self::{exchange::Step, tenants::Tenants};
use crate::{
    certs::{Authority, Issued, write},
    client::{Credential, TlsOptions},
    error::{Error, Result},
};

/// The longest file of a tenant's certificate that is read, in bytes: what an amphora takes.
const MAX_FILE: u64 = 4 << 20;

/// How long is valid what is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Certificates of amphorae, and the controller's own.
    pub issued: Duration,
    /// An authority that is made here.
    pub authority: Duration,
}

/// The authority, and where certificates are.
#[derive(Debug)]
pub struct Certificates {
    authorities: RwLock<Authorities>,
    /// They are made here, and not somebody else's.
    own: bool,
    dir: PathBuf,
    tenants: Tenants,
    issued: time::Duration,
    authority: time::Duration,
}

/// Whom amphorae and the controller trust.
#[derive(Debug)]
struct Authorities {
    /// It issues.
    issuer: Authority,
    ends: OffsetDateTime,
    /// It is to follow: PEM.
    next: Option<String>,
    /// It has issued: PEM.
    previous: Option<String>,
}

impl Authorities {
    fn bundle(&self) -> String {
        [Some(self.issuer.pem()), self.next.as_deref(), self.previous.as_deref()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// What distinguishes this from any other state of trust.
    fn mark(&self) -> String {
        HEXLOWER.encode(&digest(&SHA256, self.bundle().as_bytes()).as_ref()[..8])
    }
}

/// What an amphora is given.
#[derive(Debug)]
pub struct Papers {
    /// Its certificate.
    pub issued: Issued,
    /// Whom it trusts, PEM.
    pub authorities: String,
    /// [`Certificates::mark`] of that.
    pub mark: String,
    /// There is one among them that is to follow the one that has issued this.
    pub announces: bool,
}

impl Certificates {
    /// Opens `dir`; the authority is made when there is none, unless `ca` says certificate and key. Blocks.
    ///
    /// # Errors
    /// A file cannot be read or written, or what is in it cannot be used.
    pub fn open(
        dir: &Path,
        ca: Option<(&Path, &Path)>,
        validity: Validity,
        tenants: Option<Tenants>,
    ) -> Result<Self> {
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(dir).map_err(|e| Error::local(dir.display(), e))?;
        let tenants = tenants.unwrap_or_else(|| Tenants::new(&dir.join("tenants"), [], true));
        make(tenants.dir()).map_err(|e| Error::local(tenants.dir().display(), e))?;
        let longest = time::Duration::days(36_500);
        let [issued, authority] = [validity.issued, validity.authority]
            .map(|length| time::Duration::try_from(length).unwrap_or(longest).min(longest));
        let own = (dir.join("ca.pem"), dir.join("ca.key"));
        let (certificate, key) = ca.unwrap_or((&own.0, &own.1));
        if ca.is_none() {
            files::recover(dir)?;
            if !certificate.exists() {
                files::make(dir, "ca", authority)?;
            }
        }
        let authorities = files::read(dir, certificate, key, ca.is_none())?.into();
        Ok(Self { authorities, own: ca.is_none(), dir: dir.to_owned(), tenants, issued, authority })
    }

    fn authorities(&self) -> RwLockReadGuard<'_, Authorities> {
        self.authorities.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom amphorae trust, PEM.
    pub fn authority(&self) -> String {
        self.authorities().bundle()
    }

    /// What distinguishes whom they trust, and who issues, from what it was before and will be.
    pub fn mark(&self) -> String {
        self.authorities().mark()
    }

    /// How long is valid what is issued now, in milliseconds.
    pub fn validity_ms(&self) -> i64 {
        i64::try_from(self.issued.whole_milliseconds()).unwrap_or(i64::MAX)
    }

    /// How an exchange of the authority goes on; `told` is whether every amphora has the present [`mark`](Self::mark). Somebody else's
    /// authority is exchanged by him.
    pub fn exchange(&self, now: OffsetDateTime, buffer: Duration, told: bool) -> Step {
        if !self.own {
            return Step::Wait;
        }
        let authorities = self.authorities();
        let view = exchange::View {
            ends: authorities.ends,
            next: authorities.next.is_some(),
            previous: authorities.previous.is_some(),
            told,
        };
        let buffer = time::Duration::try_from(buffer).unwrap_or(time::Duration::MAX);
        exchange::next(view, now, buffer)
    }

    /// Whether there is an authority that is to follow, which all have to be told of.
    pub fn announces(&self) -> bool {
        self.authorities().next.is_some()
    }

    /// Whether an exchange is under way.
    pub fn is_exchanging(&self) -> bool {
        let authorities = self.authorities();
        authorities.next.is_some() || authorities.previous.is_some()
    }

    /// Takes a step of an exchange. Blocks.
    ///
    /// # Errors
    /// A file cannot be written. What was before goes on.
    pub fn take(&self, step: Step) -> Result<()> {
        match step {
            Step::Wait | Step::Replace => return Ok(()),
            Step::Prepare => files::make(&self.dir, "next", self.authority)?,
            Step::Promote => files::promote(&self.dir)?,
            Step::Drop => files::forget(&self.dir)?,
        }
        let read = files::read(&self.dir, &self.dir.join("ca.pem"), &self.dir.join("ca.key"), true)?;
        *self.authorities.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// How long is valid what is issued now: no longer than who issues it.
    fn left(&self, authorities: &Authorities) -> time::Duration {
        self.issued.min(authorities.ends - OffsetDateTime::now_utc()).max(time::Duration::SECOND)
    }

    /// A server certificate for an amphora, which its id names, and whom it trusts.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn issue(&self, amphora: &str) -> Result<Papers> {
        let authorities = self.authorities();
        let issued = authorities.issuer.server(amphora, [amphora], self.left(&authorities))?;
        Ok(Papers {
            issued,
            authorities: authorities.bundle(),
            mark: authorities.mark(),
            announces: authorities.next.is_some(),
        })
    }

    /// What a client of amphorae needs, with a new certificate of the controller's. Blocks.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn client(&self) -> Result<Arc<ClientConfig>> {
        let (client, bundle) = {
            let authorities = self.authorities();
            let client = authorities.issuer.client("amphora controller", self.left(&authorities))?;
            (client, authorities.bundle())
        };
        let [ca, certificate] = ["client-ca.pem", "client.pem"].map(|name| self.dir.join(name));
        write(&ca, &bundle, 0o644).map_err(|e| Error::local(ca.display(), e))?;
        write(&certificate, &client.both(), 0o600).map_err(|e| Error::local(certificate.display(), e))?;
        TlsOptions { ca: Some(ca), cert: Some(certificate), ..TlsOptions::default() }.client_config()
    }

    /// A project's certificate of a name, the last part of what a listener or a pool names, as an agent takes it for all of these kinds. Blocks.
    ///
    /// # Errors
    /// There is none, it cannot be read, or no agent would take it.
    pub fn tenant(&self, project: &str, name: &CertificateId, kinds: &[Kind]) -> Result<Credential> {
        let path = self.tenants.find(project, name);
        let path = path.ok_or_else(|| Error::NotDone(format!("there is no certificate {name}")))?;
        let failed = |e: io::Error| Error::local(path.display(), e);
        let metadata = fs::metadata(&path).map_err(failed)?;
        if metadata.len() > MAX_FILE {
            return Err(Error::local(path.display(), format!("no file of at most {MAX_FILE} bytes")));
        }
        let bytes = Bytes::from(fs::read(&path).map_err(failed)?);
        let is_pem = path.extension().is_some_and(|extension| extension == "pem");
        let judged = if is_pem { Bundle::from_pem(&bytes) } else { Bundle::from_pkcs12(&bytes, None) };
        let refused = |reason| Error::NotDone(format!("the certificate {name} is invalid: {reason}"));
        let is = judged.map_err(refused)?.kind();
        if let Some(other) = kinds.iter().find(|kind| **kind != is) {
            return Err(refused(format!("it has {}, and not {}", is.phrase(), other.phrase())));
        }
        Ok(if is_pem { Credential::Pem(bytes) } else { Credential::Pkcs12 { der: bytes, password: None } })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DAY: Validity =
        Validity { issued: Duration::from_secs(86_400), authority: Duration::from_secs(864_000) };

    #[test]
    fn the_authority_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certificates");
        let open = || Certificates::open(&dir, None, DAY, None).unwrap();
        let first = open();
        assert_eq!(open().authority(), first.authority());
        assert_eq!(fs::metadata(dir.join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
        first.client().unwrap();
        let issued = first.issue("11111111-2222-3333-4444-555555555555").unwrap();
        let left = issued.issued.not_after - OffsetDateTime::now_utc();
        assert!(left <= time::Duration::DAY && left > time::Duration::hours(23));
    }

    #[test]
    fn an_authority_follows_the_other_and_whoever_is_killed_meanwhile_finds_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certificates");
        let open = || Certificates::open(&dir, None, DAY, None).unwrap();
        let certificates = |pem: String| pem.matches("BEGIN CERTIFICATE").count();
        let first = open().authority();
        let (buffer, now) = (Duration::from_secs(86_400 * 20), OffsetDateTime::now_utc());
        assert_eq!(open().exchange(now, buffer, true), Step::Prepare);
        open().take(Step::Prepare).unwrap();
        let both = open();
        assert!(both.authority().starts_with(&first) && certificates(both.authority()) == 2);
        assert_eq!(both.exchange(now, buffer, false), Step::Wait);
        assert_eq!(both.exchange(now, buffer, true), Step::Promote);
        // Killed between the key and the certificate.
        fs::copy(dir.join("ca.pem"), dir.join("previous.pem")).unwrap();
        fs::rename(dir.join("next.key"), dir.join("ca.key")).unwrap();
        let after = open();
        assert!(after.authority().ends_with(&first) && certificates(after.authority()) == 2);
        assert_ne!(after.mark(), both.mark());
        after.client().unwrap();
        assert_eq!(after.exchange(now, Duration::ZERO, true), Step::Drop);
        after.take(Step::Drop).unwrap();
        assert_eq!(certificates(after.authority()), 1);
        assert_eq!(open().authority(), after.authority());
        // Killed before anything but a copy was made.
        after.take(Step::Prepare).unwrap();
        fs::copy(dir.join("ca.pem"), dir.join("previous.pem")).unwrap();
        assert_eq!(certificates(open().authority()), 2);
        after.take(Step::Promote).unwrap();
        assert!(after.is_exchanging());
    }

    #[test]
    fn another_authority_is_used_where_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let other = Certificates::open(&dir.path().join("other"), None, DAY, None).unwrap();
        let (pem, key) = (dir.path().join("other/ca.pem"), dir.path().join("other/ca.key"));
        let this = Certificates::open(&dir.path().join("this"), Some((&pem, &key)), DAY, None).unwrap();
        assert_eq!(this.authority(), other.authority());
        assert!(Certificates::open(&dir.path().join("this"), Some((&pem, &pem)), DAY, None).is_err());
    }

    #[test]
    fn tenants_certificates_are_files_of_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let storage = dir.path().join("storage");
        let tenants = Tenants::new(&storage, [], true);
        let this = Certificates::open(&dir.path().join("certificates"), None, DAY, Some(tenants)).unwrap();
        let tenant = |name: &str| this.tenant("p", &name.parse().unwrap(), &[Kind::Identity]);
        let key = || rcgen::KeyPair::generate().unwrap();
        let (own, other) = (key(), key());
        let certificate =
            rcgen::CertificateParams::new(["a".to_owned()]).unwrap().self_signed(&own).unwrap().pem();
        let (own, other) = (own.serialize_pem(), other.serialize_pem());
        fs::write(storage.join("a.pem"), certificate.clone() + &own).unwrap();
        fs::write(dir.path().join("c.pem"), certificate.clone() + &own).unwrap();
        assert!(
            matches!(tenant("a").unwrap(), Credential::Pem(text) if text.starts_with(certificate.as_bytes()))
        );
        assert_eq!(tenant("c").err().unwrap().to_string(), "there is no certificate c");
        // What no agent would take.
        for (text, reason) in [
            ("", "is empty"),
            ("garbage", ""),
            (&own[..own.len() / 2], ""),
            (
                &certificate,
                "it has certificates of authorities, without a key, and not a private key with its certificate",
            ),
            (&(certificate.clone() + &other), ""),
        ] {
            fs::write(storage.join("b.pem"), text).unwrap();
            let refused = tenant("b").err().unwrap().to_string();
            let expected = format!("the certificate b is invalid: {reason}");
            assert!(refused.starts_with(&expected) && refused.len() > 31, "{refused}");
            fs::write(storage.join("b.p12"), text).unwrap();
            fs::remove_file(storage.join("b.pem")).unwrap();
            assert!(tenant("b").err().unwrap().to_string().starts_with("the certificate b is invalid: "));
            fs::remove_file(storage.join("b.p12")).unwrap();
        }
    }
}
