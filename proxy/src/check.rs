//! `--check`: a document is judged, and nothing served.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use amphora_model::{LoadBalancer, MAX_DOCUMENT_BYTES, Refusal};
use amphora_proxy::{
    engine::CertificateDirectory,
    snapshot::{self, TlsSource},
    state::Registry,
    tls::TicketKeys,
};

/// Judges what is in the file, or on standard input when it is `-`, and writes to `out` what the control socket would
/// answer if it refused that.
pub(crate) fn check(file: &Path, certificates: Option<&Path>, out: impl Write) -> ExitCode {
    let document = match read(file) {
        Ok(document) => document,
        Err(error) => {
            tracing::error!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    };
    let Err(refusal) = judge(&document, certificates) else { return ExitCode::SUCCESS };
    if let Err(error) = write(out, &refusal) {
        tracing::error!("standard output: {error}");
    }
    ExitCode::FAILURE
}

/// One byte beyond the bound is for the parser to complain about.
#[expect(clippy::disallowed_methods, reason = "there is no runtime")]
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let from: Box<dyn Read> =
        if file == Path::new("-") { Box::new(io::stdin().lock()) } else { Box::new(File::open(file)?) };
    let mut document = Vec::new();
    from.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut document)?;
    Ok(document)
}

/// Parses and compiles, as for a load balancer that is new here. What depends on this host is left aside: addresses in
/// use, monitors that it does not permit.
fn judge(document: &[u8], certificates: Option<&Path>) -> Result<(), Refusal> {
    let model = LoadBalancer::from_json(document)?;
    let material = Arc::new(CertificateDirectory(certificates.map(Path::to_path_buf)));
    let source = TlsSource { material, keys: TicketKeys::new() };
    let Err(mut refusal) = snapshot::compile(Arc::new(model), 1, &Registry::new(1), &source) else {
        return Ok(());
    };
    if certificates.is_none() {
        // What these contain is for who has them.
        refusal.faults.retain(|fault| {
            !fault.path.ends_with("container_ref") && !fault.path.ends_with("container_refs")
        });
    }
    if refusal.faults.is_empty() { Ok(()) } else { Err(refusal) }
}

fn write(mut out: impl Write, refusal: &Refusal) -> io::Result<()> {
    serde_json::to_writer(&mut out, refusal)?;
    writeln!(out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    #![allow(clippy::disallowed_methods, reason = "tests may block")]
    use std::{fs, path::PathBuf};

    use super::*;

    const ID: &str = "6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11";

    /// A document with one rule.
    fn document(rule: &str) -> String {
        format!(
            r#"{{"loadbalancer": {{"id": "{ID}", "vip_address": "192.0.2.1", "listeners": [{{"id": "{ID}",
            "protocol": "HTTP", "protocol_port": 80, "l7policies": [{{"id": "{ID}", "action": "REJECT",
            "rules": [{{"id": "{ID}", "type": "PATH", "compare_type": "REGEX", {rule}}}]}}]}}]}}}}"#
        )
    }

    /// Whether it was taken, and what was written.
    fn checked(file: &Path) -> (bool, String) {
        let mut out = Vec::new();
        let code = check(file, None, &mut out);
        (code == ExitCode::SUCCESS, String::from_utf8(out).unwrap())
    }

    fn file(dir: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = dir.path().join("lb.json");
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn nothing_is_said_of_a_document_that_can_be_honoured() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(checked(&file(&dir, &document(r#""value": "^/a(?!b)""#))), (true, String::new()));
    }

    #[test]
    fn faults_of_parsing_and_of_compiling_come_as_from_the_control_socket() {
        let dir = tempfile::tempdir().unwrap();
        let policy = format!("loadbalancer.listeners[{ID}].l7policies[{ID}]");
        for (text, path) in [
            (
                document(r#""valu": "^/a""#),
                "loadbalancer.listeners[0].l7policies[0].rules[0].valu".to_owned(),
            ),
            (document(r#""value": "(""#), format!("{policy}.rules[{ID}].value")),
            ("{".to_owned(), String::new()),
            (" ".repeat(MAX_DOCUMENT_BYTES + 1), String::new()),
        ] {
            let (taken, out) = checked(&file(&dir, &text));
            assert!(!taken && out.ends_with("]}\n") && out.lines().count() == 1, "{out}");
            let refusal: Refusal = serde_json::from_str(&out).unwrap();
            assert!(refusal.faults.iter().any(|fault| fault.path == path), "{path}: {out}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_document() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(checked(&dir.path().join("nothing")), (false, String::new()));
        assert_eq!(checked(dir.path()), (false, String::new()));
    }
}
