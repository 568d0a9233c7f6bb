//! TLS in front of the API.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{identity::HASH, *};
use crate::serve::api::{
    server::Server,
    tls::{Files, Tls, has_ended},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Writes a certificate with its key, and returns it.
fn certificate(path: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["lb.example".to_owned()]).unwrap();
    // Whole at once, as who replaces it does.
    let new = path.with_extension("new");
    fs::write(&new, made.cert.pem() + &made.signing_key.serialize_pem()).unwrap();
    fs::rename(new, path).unwrap();
    CertificateDer::from_pem_file(path).unwrap()
}

struct Served {
    address: std::net::SocketAddr,
    dir: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

impl Served {
    async fn new(settings: &str) -> (Self, CertificateDer<'static>) {
        let own = tempfile::tempdir().unwrap();
        let path = own.path().join("api.pem");
        let first = certificate(&path);
        let settings = format!("[api_settings]\ncert_file = {}\n{settings}", path.display());
        let Stage { api, dir, .. } = Stage::new(&settings);
        let files = api.shared.config.api.tls.clone().unwrap();
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), Arc::new(api)).await.unwrap();
        let server = server.with_tls(Some(Tls::open(files).unwrap()));
        let address = server.address().unwrap();
        let (stop, stopped) = watch::channel(false);
        // The database's directory lives for as long as it is served.
        tokio::spawn(async move {
            server.run(stopped, Duration::ZERO).await;
            drop(dir);
        });
        (Self { address, dir: own, _stop: stop }, first)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("api.pem")
    }

    /// Asks over TLS, and tells the answer and the protocol that was agreed on.
    async fn ask(
        &self,
        trusted: &CertificateDer<'static>,
        request: &str,
    ) -> Result<(String, Vec<u8>), String> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let mut config =
            ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("lb.example").unwrap();
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let mut stream = connected.map_err(|error| error.to_string())?;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
        Ok((String::from_utf8(answer).unwrap(), protocol))
    }
}

const VERSIONS: &str = "GET / HTTP/1.1\r\nHost: lb.example:9876\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn what_it_is_called_is_https_and_certificates_may_be_replaced() {
    let (served, first) = Served::new("").await;
    let (answer, protocol) = served.ask(&first, VERSIONS).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"href\":\"https://lb.example:9876/v2\""), "{answer}");
    assert_eq!(protocol, b"http/1.1");

    let second = certificate(&served.path());
    assert!(served.ask(&first, VERSIONS).await.is_err(), "another is shown");
    served.ask(&second, VERSIONS).await.unwrap();
    fs::write(served.path(), "no certificate").unwrap();
    served.ask(&second, VERSIONS).await.expect("the one before");
    fs::remove_file(served.path()).unwrap();
    served.ask(&second, VERSIONS).await.expect("the one before");
    let third = certificate(&served.path());
    served.ask(&third, VERSIONS).await.unwrap();
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_so_and_who_says_nothing_is_cut() {
    let (served, _) = Served::new("").await;
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain.write_all(VERSIONS.as_bytes()).await.unwrap();
    plain.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, plain.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains("use https://"),
        "{answer}"
    );

    let mut silent = TcpStream::connect(served.address).await.unwrap();
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    let read = timeout(PATIENCE, silent.read(&mut [0; 16])).await.unwrap();
    assert!(read.is_err() || read.is_ok_and(|read| read == 0));
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn the_catalog_names_what_clients_shall_use() {
    let users = format!("[users]\nalice = shop member {HASH}\n");
    let (served, first) = Served::new(&format!("auth_strategy = keystone\n{users}")).await;
    let body = r#"{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "alice", "password": "secret"}}}}}"#;
    let request = format!(
        "POST /v3/auth/tokens HTTP/1.1\r\nHost: lb.example:9876\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (answer, _) = served.ask(&first, &request).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 201 ") && answer.contains("\"url\":\"https://lb.example:9876/v3\""),
        "{answer}"
    );

    // Behind a proxy it is called as that says.
    let stage = Stage::new(&format!(
        "[api_settings]\nauth_strategy = keystone\napi_base_uri = https://api.example.com/lb/\n{users}"
    ));
    let answer = stage.must(POST, "/v3/auth/tokens", serde_json::from_str(body).unwrap()).await;
    assert_eq!(answer["token"]["catalog"][0]["endpoints"][0]["url"], "https://api.example.com/lb");
    assert_eq!(stage.get("/").await["versions"][0]["links"][0]["href"], "https://api.example.com/lb/v2");
}

#[test]
fn a_certificate_ends_with_its_last_second() {
    let now = std::time::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let ended = [Some(1_899_999_999), Some(1_900_000_000), None].map(|ends| has_ended(ends, now));
    assert_eq!(ended, [true, false, false]);
}

#[test]
fn what_cannot_be_used_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one.pem"), dir.path().join("other.pem"));
    certificate(&one);
    certificate(&other);
    let open = |certificate: &Path, key: Option<&Path>| {
        Tls::open(Files { certificate: certificate.to_owned(), key: key.map(Path::to_owned) })
            .map_err(|error| error.to_string())
    };
    open(&one, Some(&one)).unwrap();
    let told = format!("{}: its key is not the one in {}", one.display(), other.display());
    assert_eq!(open(&one, Some(&other)).unwrap_err(), told);
    assert!(open(&dir.path().join("none.pem"), None).unwrap_err().contains("none.pem"));
    fs::write(&other, "").unwrap();
    assert!(open(&other, None).unwrap_err().contains("no certificate in it"));
    assert!(open(&one, Some(&other)).unwrap_err().contains("no private key"));
    for (text, reason) in [
        ("key_file = /key.pem", "[api_settings] key_file: is of no use without cert_file"),
        ("api_base_uri = lb.example.com", "[api_settings] api_base_uri: not an address"),
        ("api_base_uri = ftp://lb.example.com", "not an address"),
        ("api_base_uri = https://lb.example.com/?a=b", "not an address"),
    ] {
        let told = Config::parse(&format!("[api_settings]\n{text}\n")).unwrap_err().to_string();
        assert!(told.contains(reason), "{text}: {told}");
    }
}
