//! What `HTTPS` monitors can do is judged by what `openssl s_server` asks for.

use std::{
    net::TcpListener as StdListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::*;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(args: &[&str], dir: &Path) -> bool {
    let mut command = Command::new("openssl");
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A key and a certificate of its own, made as `openssl req -newkey` is told.
fn certificate(dir: &Path, name: &str, newkey: &[&str], more: &[&str]) -> bool {
    let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
    let request = ["req", "-x509", "-nodes", "-subj", "/CN=member", "-keyout", &key, "-out", &cert];
    openssl(&[&request, newkey, more].concat(), dir)
}

/// Serves with these options and says what a monitor finds.
async fn found(dir: &Path, name: &str, options: &[&str]) -> Outcome {
    let port = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let child = Command::new("openssl")
        .args(["s_server", "-accept", &address.to_string(), "-www", "-quiet"])
        .args(["-key", &format!("{name}.key"), "-cert", &format!("{name}.pem")])
        .args(options)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(child);
    let mut target = target(address, HealthCheck::Https(http_check()));
    target.timeout = Duration::from_secs(10);
    for _ in 0..1000 {
        if TcpStream::connect(address).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    run(&target).await
}

#[tokio::test]
async fn https_does_what_openssl_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    if !openssl(&["version"], dir) {
        eprintln!("SKIPPED: openssl is not installed");
        return;
    }
    for (name, newkey, more) in [
        ("rsa", &["-newkey", "rsa:2048"][..], &[][..]),
        ("pss", &["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"], &[]),
        ("pss-signed", &["-newkey", "rsa:2048"], &["-sigopt", "rsa_padding_mode:pss"]),
        ("p256", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], &[]),
        ("p521", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"], &[]),
        ("ed25519", &["-newkey", "ed25519"], &[]),
        ("ed448", &["-newkey", "ed448"], &[]),
        ("p224", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp224r1"], &[]),
        ("40-kib", &["-newkey", "rsa:2048"], &["-addext", &format!("nsComment={}", "x".repeat(40 << 10))]),
        ("70-kib", &["-newkey", "rsa:2048"], &["-addext", &format!("nsComment={}", "x".repeat(70 << 10))]),
    ] {
        assert!(certificate(dir, name, newkey, more), "{name}");
    }
    let mut wrong = Vec::new();
    for (name, options, passes) in [
        ("rsa", &["-tls1_2"][..], true),
        ("rsa", &["-tls1_3"], true),
        ("pss", &["-tls1_3"], true),
        ("pss-signed", &["-tls1_2"], true),
        ("pss-signed", &["-tls1_3"], true),
        ("p256", &["-tls1_2"], true),
        ("p521", &["-tls1_2"], true),
        ("p521", &["-tls1_3"], true),
        ("ed25519", &["-tls1_2"], true),
        ("ed25519", &["-tls1_3"], true),
        ("ed448", &["-tls1_2"], true),
        ("ed448", &["-tls1_3"], true),
        ("rsa", &["-tls1_2", "-groups", "P-521"], true),
        ("rsa", &["-tls1_3", "-groups", "P-521"], true),
        ("rsa", &["-tls1_3", "-groups", "P-384"], true),
        ("rsa", &["-tls1_2", "-serverpref", "-sigalgs", "RSA+SHA1", "-cipher", "DEFAULT@SECLEVEL=0"], true),
        ("rsa", &["-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"], true),
        ("40-kib", &[], true),
        ("rsa", &["-verify", "1"], true),
        ("rsa", &["-servername", "a", "-cert2", "rsa.pem", "-key2", "rsa.key", "-servername_fatal"], true),
        ("rsa", &["-alpn", "h2"], true),
        ("rsa", &["-max_send_frag", "512", "-num_tickets", "20"], true),
        // As docs/health.md has them.
        ("70-kib", &["-tls1_2"], false),
        ("70-kib", &["-tls1_3"], false),
        ("p224", &[], false),
        ("rsa", &["-tls1_2", "-sigalgs", "RSA+SHA224"], false),
        ("rsa", &["-tls1_2", "-Verify", "1", "-verify_return_error"], false),
        ("pss", &["-tls1_2"], false),
        ("rsa", &["-tls1_3", "-groups", "X448"], false),
        ("rsa", &["-tls1_3", "-groups", "ffdhe2048"], false),
        ("rsa", &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"], false),
        ("rsa", &["-tls1_2", "-cipher", "AES128-GCM-SHA256"], false),
        ("rsa", &["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"], false),
        ("rsa", &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"], false),
        ("rsa", &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], false),
    ] {
        let outcome = found(dir, name, options).await;
        eprintln!("{name} {options:?}: {outcome}");
        let expected = if passes { CheckStatus::L7Ok } else { CheckStatus::L6Response };
        if outcome.status != expected {
            wrong.push(format!("{name} {options:?}: {outcome}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
