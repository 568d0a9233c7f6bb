//! Client certificates, revocation lists and files as OpenSSL and editors make them.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use amphora_tests::Judge;
use tokio::{io::AsyncWriteExt, process::Command};

use super::*;
use crate::testing::TestAgent;

/// An authority of OpenSSL's.
struct Openssl {
    directory: tempfile::TempDir,
}

impl Openssl {
    /// `None`, loudly, where there is no openssl.
    async fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().await.is_err() {
            eprintln!("SKIPPED: there is no openssl program");
            return None;
        }
        let this = Self { directory: tempfile::tempdir().unwrap() };
        fs::write(
            this.path("conf"),
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=30\n\
             [req]\ndistinguished_name=n\n[n]\n[ca_x]\nbasicConstraints=critical,CA:TRUE\n\
             keyUsage=keyCertSign,cRLSign\n[leaf]\nbasicConstraints=CA:FALSE\n[own]\nbasicConstraints=CA:TRUE\n",
        )
        .unwrap();
        fs::write(this.path("index"), "").unwrap();
        fs::write(this.path("number"), "01\n").unwrap();
        for name in ["ca", "other"] {
            this.run(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem \
                 -subj /CN={name} -days 30 -config conf -extensions ca_x"
            ))
            .await;
        }
        Some(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn run(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A certificate of the authority, with what else OpenSSL is told about its key and about signing it.
    async fn issue(&self, name: &str, key: &str, sign: &str) {
        self.run(&format!(
            "req -new -nodes {key} -keyout {name}.key -out {name}.csr -subj /CN={name} -config conf"
        ))
        .await;
        self.run(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out {name}.pem {sign}"
        ))
        .await;
    }

    async fn revoke(&self, name: &str) {
        self.run(&format!("ca -config conf -keyfile ca.key -cert ca.pem -revoke {name}.pem")).await;
    }

    async fn list(&self, authority: &str, out: &str, times: &str) {
        self.run(&format!(
            "ca -config conf -gencrl -keyfile {authority}.key -cert {authority}.pem -out {out} {times}"
        ))
        .await;
    }

    async fn agent(&self, crl: Option<&str>) -> TestAgent {
        let (ca, crl) = (self.path("ca.pem"), crl.map(|crl| self.path(crl)));
        TestAgent::with(move |config| (config.agent_server_ca, config.agent_client_crl) = (ca, crl)).await
    }

    /// Whether OpenSSL gets an answer with this certificate.
    async fn gets_in(&self, agent: &TestAgent, name: &str) -> bool {
        let mut client = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-connect",
                &agent.address.to_string(),
                "-cert",
                &format!("{name}.pem"),
            ])
            .args(["-key", &format!("{name}.key")])
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        let _ = input.write_all(b"GET /2.0 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let answer = client.wait_with_output().await.unwrap();
        drop(input);
        answer.stdout.starts_with(b"HTTP/1.1 200")
    }
}

const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
const LEAF: &str = "-extfile conf -extensions leaf";

#[tokio::test]
async fn a_revoked_client_does_not_get_in() {
    let Some(openssl) = Openssl::new().await else { return };
    openssl.issue("good", EC, LEAF).await;
    openssl.issue("bad", EC, LEAF).await;
    openssl.list("ca", "crl.pem", "").await;
    let agent = openssl.agent(Some("crl.pem")).await;
    assert!(openssl.gets_in(&agent, "good").await && openssl.gets_in(&agent, "bad").await);
    openssl.revoke("bad").await;
    openssl.list("ca", "crl.pem", "").await;
    assert!(openssl.gets_in(&agent, "good").await, "the new list is read without a word");
    assert!(!openssl.gets_in(&agent, "bad").await);
    // What is not usable changes nothing.
    fs::write(openssl.path("crl.pem"), "").unwrap();
    assert!(openssl.gets_in(&agent, "good").await && !openssl.gets_in(&agent, "bad").await);
}

#[tokio::test]
async fn a_list_that_cannot_be_used_is_refused_with_the_reason() {
    let Some(openssl) = Openssl::new().await else { return };
    openssl.list("ca", "good.pem", "").await;
    openssl.list("other", "other.pem", "").await;
    openssl.run("crl -in good.pem -outform DER -out good.der").await;
    // Without a number OpenSSL makes lists of version 1.
    let conf = fs::read_to_string(openssl.path("conf")).unwrap();
    fs::write(openssl.path("conf"), conf.replace("crlnumber=number\n", "")).unwrap();
    openssl.list("ca", "v1.pem", "").await;
    let directory = tempfile::tempdir().unwrap();
    let own = crate::testing::Certificates::new(directory.path());
    let load = |crl: &str| {
        let files = Files { ca: openssl.path("ca.pem"), cert: own.server(), crl: Some(openssl.path(crl)) };
        ServerTls::load(files, TlsProtocol::Tls12).map(|_| ()).map_err(|error| error.to_string())
    };
    load("good.pem").unwrap();
    load("good.der").unwrap();
    for (crl, reason) in [
        ("other.pem", "none of the authorities in agent_server_ca has issued"),
        ("v1.pem", "not of version 2"),
        ("ca.pem", "no certificate revocation list in it"),
        ("nothing.pem", "No such file"),
    ] {
        let error = load(crl).unwrap_err();
        assert!(error.contains(reason) && error.contains(crl), "{crl}: {error}");
    }
}

/// What metrics tell is what is in use, and follows the files.
#[tokio::test]
async fn expiry_is_that_of_what_is_in_use() {
    let Some(openssl) = Openssl::new().await else { return };
    let at = |seconds| Some(OffsetDateTime::from_unix_timestamp(seconds).unwrap());
    openssl.list("ca", "crl.pem", "-crl_lastupdate 20200101000000Z -crl_nextupdate 20480101000000Z").await;
    let own = crate::testing::Certificates::new(&openssl.path("own"));
    let (ca, cert) = (openssl.path("ca.pem"), own.server());
    let files = Files { ca, cert: cert.clone(), crl: Some(openssl.path("crl.pem")) };
    let tls = ServerTls::load(files.clone(), TlsProtocol::Tls12).unwrap();
    let first = tls.expiry();
    assert_eq!(first.lists, at(2_461_449_600));
    let days = (first.authorities.unwrap() - OffsetDateTime::now_utc()).whole_days();
    assert!((29..=30).contains(&days), "{days}");

    // A chain ends with the first of it, and a bundle is as old as its oldest.
    let chain = [fs::read(&cert).unwrap(), fs::read(openssl.path("ca.pem")).unwrap()].concat();
    fs::write(&cert, chain).unwrap();
    assert_eq!(tls.expiry().server, first.authorities);
    assert!(first.server > first.authorities);
    let others = own.ca();
    fs::write(&others, [fs::read(&others).unwrap(), fs::read(openssl.path("ca.pem")).unwrap()].concat())
        .unwrap();
    let bundle = ServerTls::load(Files { ca: others, crl: None, ..files }, TlsProtocol::Tls12).unwrap();
    assert_eq!(
        bundle.expiry(),
        Expiry { server: first.authorities, authorities: first.authorities, lists: None }
    );

    // What is not usable is not in use.
    fs::write(&cert, "").unwrap();
    assert_eq!(tls.expiry().server, first.authorities);
}

const PAST: &str = "-crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z";

/// An amphora that boots with an expired list carries traffic all the same: its agent is there and lets nobody in.
#[tokio::test]
async fn an_expired_list_keeps_everybody_out_from_the_start_and_replaces_no_good_one() {
    let Some(openssl) = Openssl::new().await else { return };
    openssl.issue("good", EC, LEAF).await;
    openssl.list("ca", "crl.pem", PAST).await;
    let agent = openssl.agent(Some("crl.pem")).await;
    assert!(!openssl.gets_in(&agent, "good").await);
    openssl.list("ca", "crl.pem", "").await;
    assert!(openssl.gets_in(&agent, "good").await);
    openssl.list("ca", "crl.pem", PAST).await;
    assert!(openssl.gets_in(&agent, "good").await, "the one before stays");
}

/// Of an authority's lists in one file the newest counts, wherever it stands.
#[tokio::test]
async fn the_newest_list_counts_and_one_that_is_to_be_good_counts_already() {
    let Some(openssl) = Openssl::new().await else { return };
    openssl.issue("good", EC, LEAF).await;
    openssl.issue("bad", EC, LEAF).await;
    openssl.list("ca", "past.pem", PAST).await;
    openssl.list("ca", "old.pem", "-crl_lastupdate 20200101000000Z -crl_nextupdate 20480101000000Z").await;
    openssl.revoke("bad").await;
    openssl.list("ca", "new.pem", "").await;
    openssl.list("ca", "coming.pem", "-crl_lastupdate 20480101000000Z -crl_nextupdate 20480201000000Z").await;
    let put = |names: &[&str]| {
        let text: String = names.iter().map(|name| fs::read_to_string(openssl.path(name)).unwrap()).collect();
        fs::write(openssl.path("crl.pem"), text).unwrap();
    };
    put(&["old.pem"]);
    let agent = openssl.agent(Some("crl.pem")).await;
    assert!(openssl.gets_in(&agent, "bad").await);
    for names in
        [&["old.pem", "new.pem"][..], &["new.pem", "old.pem"], &["past.pem", "new.pem"], &["coming.pem"]]
    {
        put(&["old.pem"]);
        assert!(openssl.gets_in(&agent, "bad").await);
        put(names);
        assert!(!openssl.gets_in(&agent, "bad").await && openssl.gets_in(&agent, "good").await, "{names:?}");
    }
}

/// What OpenSSL accepts, and which of it is accepted here: the rest is in `docs/agent.md`.
#[tokio::test]
async fn client_certificates_of_openssl() {
    let Some(openssl) = Openssl::new().await else { return };
    const RSA: &str = "-newkey rsa:2048";
    openssl.issue("ec", EC, LEAF).await;
    openssl.issue("rsa", RSA, LEAF).await;
    openssl.issue("v1", EC, "").await;
    // Later releases add extensions unasked, and with them it is of version 3.
    let makes_v1 = Judge::OpenSsl.judges("a client certificate of version 1");
    openssl.issue("authority", EC, "-extfile conf -extensions own").await;
    openssl.issue("pss-key", "-newkey rsa-pss -pkeyopt rsa_keygen_bits:2048", LEAF).await;
    let agent = openssl.agent(None).await;
    let rows = [("ec", true), ("rsa", true), ("v1", false), ("authority", false), ("pss-key", false)];
    for (name, expected) in rows.into_iter().filter(|(name, _)| *name != "v1" || makes_v1) {
        assert_eq!(openssl.gets_in(&agent, name).await, expected, "{name}");
    }
    // A signature with RSA-PSS by an ordinary RSA key is accepted.
    openssl
        .run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 30 -config conf -extensions ca_x")
        .await;
    for (digest, length) in [("sha256", 32), ("sha384", 48), ("sha512", 64)] {
        let sign = format!("{LEAF} -{digest} -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:{length}");
        openssl.issue(digest, RSA, &sign).await;
        assert!(openssl.gets_in(&agent, digest).await, "{digest}");
    }
}

#[tokio::test]
async fn files_with_a_byte_order_mark_are_read() {
    let Some(openssl) = Openssl::new().await else { return };
    openssl.issue("good", EC, LEAF).await;
    openssl.list("ca", "crl.pem", "").await;
    let agent = openssl.agent(Some("crl.pem")).await;
    let mark = |path: &Path| {
        let text = fs::read_to_string(path).unwrap().replace("-----BEGIN", "\u{feff}-----BEGIN");
        fs::write(path, text).unwrap();
    };
    for path in [openssl.path("ca.pem"), openssl.path("crl.pem"), agent.certificates.server()] {
        mark(&path);
    }
    let files = Files {
        ca: openssl.path("ca.pem"),
        cert: agent.certificates.server(),
        crl: Some(openssl.path("crl.pem")),
    };
    ServerTls::load(files, TlsProtocol::Tls12).unwrap();
    assert!(openssl.gets_in(&agent, "good").await);
}
