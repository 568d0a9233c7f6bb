//! `certificate`.

use super::*;

#[test]
fn certificates_are_brought_shown_listed_and_deleted() {
    let setup = Setup::new();
    let pem = setup.file("web.pem", "-----BEGIN CERTIFICATE-----\n");
    let put = setup.run(&["certificate", "put", "web", &pem]);
    assert_eq!(out(&put), format!("{}: web changed, and is served\n", setup.url()), "{}", err(&put));
    assert_eq!(
        out(&setup.run(&["certificate", "put", "web", &pem])),
        format!("{}: web is as it was\n", setup.url())
    );
    setup.apply_what_is_honoured_in_part();
    assert_eq!(
        err(&setup.run(&["certificate", "put", "web", &pem])),
        format!("{}: loadbalancer.listeners[x].tls_ciphers: leaves out DES\n", setup.url())
    );
    let kept = |id: &str| setup.agent.state.lock().unwrap().certificates.get(id).cloned();
    let text = "-----BEGIN CERTIFICATE-----\n".as_bytes().to_vec();
    assert_eq!(kept("web"), Some(("application/x-pem-file".to_owned(), None, text)));

    let p12 = setup.file("web.p12", "");
    std::fs::write(&p12, b"\x30\x80x").unwrap();
    let password = setup.file("password", "pässword 1\nnot this\n");
    let put = setup.run(&["certificate", "put", "old-2", &p12, "--password-file", &password]);
    assert_eq!(put.status.code(), Some(0), "{}", err(&put));
    let (kind, sent, _) = kept("old-2").unwrap();
    assert_eq!((kind.as_str(), sent.as_deref()), ("application/x-pkcs12", Some("pässword 1")));

    // A text may begin with the letter that DER begins with.
    let text = setup.file("text.pem", "0 s:CN=www\n-----BEGIN CERTIFICATE-----\n");
    assert_eq!(setup.run(&["certificate", "put", "text", &text]).status.code(), Some(0));
    assert_eq!(kept("text").unwrap().0, "application/x-pem-file");

    // By the reference that a document has.
    let reference = "https://barbican.example/v1/containers/web";
    let shown = out(&setup.run(&["certificate", "show", reference]));
    let head =
        format!("{}: web (identity)\n  subject     CN=www\n  issuer      CN=\\u{{1b}}ca\n", setup.url());
    assert!(shown.starts_with(&head) && shown.ends_with("\n  used by     loadbalancer.x\n"), "{shown}");
    let listed = out(&setup.run(&["certificate", "list"]));
    let line = "old-2  identity  2027-01-02T00:00:00Z     1  CN=www\n";
    assert!(listed.contains(line), "{listed}");
    assert!(out(&setup.run(&["certificate", "list", "--json"])).starts_with("{\"certificates\":[{"));

    let removed = setup.run(&["certificate", "delete", "web"]);
    assert_eq!(out(&removed), format!("{}: web removed\n", setup.url()));
    let gone = setup.run(&["certificate", "show", "web"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(err(&gone).contains("no such certificate"), "{}", err(&gone));

    let refused = setup.run(&["certificate", "put", "web", &setup.file("bad.pem", "bad")]);
    assert_eq!(refused.status.code(), Some(1));
    let told = "the document cannot be honoured\n  has a private key and no certificate\n";
    assert!(err(&refused).ends_with(told), "{}", err(&refused));
    for (arguments, message) in [
        (&["certificate", "put", "../web", &pem][..], "must be the id of a certificate"),
        (&["certificate", "put", "web", "/nothing/there"], "/nothing/there"),
        (&["certificate", "put", "web", &pem, "--password-file", &password], "is no PKCS #12"),
        (
            &["certificate", "put", "web", "-", "--password-file", "-"],
            "both the certificate and its password",
        ),
        (
            &["certificate", "put", "web", &p12, "--password-file", &setup.file("blank", " x\n")],
            "a blank at an end",
        ),
    ] {
        let output = setup.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(err(&output).contains(message), "{}", err(&output));
    }
}
