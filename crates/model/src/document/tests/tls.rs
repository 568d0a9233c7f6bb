//! TLS and flow logs in documents, and that they are refused as long as nothing honours them.

use super::*;

/// The base document with a listener that terminates TLS, a pool of members over TLS, and what `put` adds below
/// `loadbalancer`.
fn document(put: &[(&str, Value)]) -> Value {
    let mut document = base();
    for (pointer, value) in [
        ("/listeners/0/protocol", json!("TERMINATED_HTTPS")),
        ("/listeners/0/default_tls_container_ref", json!("https://barbican/v1/containers/default")),
        ("/pools/0/tls_enabled", json!(true)),
    ] {
        set(&mut document, pointer, value);
    }
    put.iter().for_each(|(pointer, value)| set(&mut document, pointer, value.clone()));
    document
}

#[track_caller]
fn accepted(put: &[(&str, Value)]) -> LoadBalancer {
    let document = document(put);
    let lb = LoadBalancer::from_value(&document).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(LoadBalancer::from_value(&lb.to_json()), Ok(lb.clone()), "{document:#}");
    lb
}

#[track_caller]
fn refused(put: &[(&str, Value)], path: &str, reason: &str) {
    let faults = LoadBalancer::from_value(&document(put)).unwrap_err().faults;
    let found: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let start = format!("loadbalancer.{path}: ");
    assert!(found.len() == 1 && found[0].starts_with(&start) && found[0].contains(reason), "{found:#?}");
}

fn tls(lb: &LoadBalancer) -> &ListenerTls {
    lb.listeners[0].tls.as_ref().unwrap()
}

fn certificate(name: &str) -> CertificateId {
    name.parse().unwrap()
}

#[test]
fn the_defaults_are_octavias() {
    let lb = accepted(&[]);
    assert_eq!(
        *tls(&lb),
        ListenerTls {
            certificate: certificate("default"),
            sni_certificates: Vec::new(),
            client_authentication: None,
            settings: TlsSettings {
                versions: vec![TlsVersion::Tls1_2, TlsVersion::Tls1_3],
                ciphers: None,
                alpn: vec![AlpnProtocol::H2, AlpnProtocol::Http11, AlpnProtocol::Http10],
            },
            hsts: None,
        }
    );
    let members = PoolTls {
        authorities: None,
        revocations: None,
        client_certificate: None,
        settings: TlsSettings::default(),
    };
    assert_eq!(lb.pools[0].tls.as_ref(), Some(&members));
    assert_eq!((&lb.pools[1].tls, &lb.listeners[1].tls, &lb.listeners[1].flow_log), (&None, &None, &None));
}

#[test]
fn all_of_a_listener() {
    let lb = accepted(&[
        ("/listeners/0/sni_container_refs", json!(["b", "https://barbican/v1/secrets/default", "a"])),
        ("/listeners/0/client_authentication", json!("OPTIONAL")),
        ("/listeners/0/client_ca_tls_container_ref", json!("ca")),
        ("/listeners/0/client_crl_container_ref", json!("crl")),
        ("/listeners/0/tls_versions", json!(["TLSv1.3", "TLSv1", "TLSv1.3"])),
        ("/listeners/0/tls_ciphers", json!("ECDHE+AESGCM:!aNULL:@SECLEVEL=2")),
        ("/listeners/0/alpn_protocols", json!(["http/1.1", "h2", "http/1.1"])),
        ("/listeners/0/hsts_max_age", json!(0)),
        ("/listeners/0/hsts_preload", json!(true)),
        ("/listeners/0/insert_headers", json!({"X-SSL-Client-CN": "true", "X-SSL-Client-DN": "false"})),
    ]);
    let found = tls(&lb);
    assert_eq!(found.sni_certificates, [certificate("b"), certificate("a")]);
    let authentication = found.client_authentication.as_ref().unwrap();
    assert_eq!(
        (authentication.mandatory, authentication.revocations.as_ref()),
        (false, Some(&certificate("crl")))
    );
    assert_eq!(found.settings.versions, [TlsVersion::Tls1, TlsVersion::Tls1_3]);
    assert_eq!(found.settings.alpn, [AlpnProtocol::Http11, AlpnProtocol::H2]);
    assert_eq!(found.settings.ciphers.as_deref(), Some("ECDHE+AESGCM:!aNULL:@SECLEVEL=2"));
    assert_eq!(found.hsts, Some(Hsts { max_age: 0, include_subdomains: false, preload: true }));
    let ssl = lb.listeners[0].insert_headers.ssl;
    assert_eq!(ssl, SslHeaders { client_cn: true, ..SslHeaders::default() });
}

#[test]
fn of_an_empty_list_no_protocol_is_offered() {
    let lb = accepted(&[
        ("/listeners/0/alpn_protocols", json!([])),
        ("/pools/0/tls_enabled", json!(true)),
        ("/pools/0/alpn_protocols", json!([])),
    ]);
    assert_eq!(tls(&lb).settings.alpn, []);
    assert_eq!(lb.pools[0].tls.as_ref().unwrap().settings.alpn, []);
}

#[test]
fn without_a_default_the_first_of_the_others_is_it() {
    let lb = accepted(&[
        ("/listeners/0/default_tls_container_ref", Value::Null),
        ("/listeners/0/sni_container_refs", json!(["b", "a"])),
    ]);
    assert_eq!(tls(&lb).certificate, certificate("b"));
    assert_eq!(tls(&lb).sni_certificates, [certificate("a")]);
}

#[test]
fn a_ca_without_authentication_asks_for_nothing() {
    let lb = accepted(&[
        ("/listeners/0/client_ca_tls_container_ref", json!("ca")),
        ("/listeners/0/client_authentication", Value::Null),
    ]);
    assert_eq!(tls(&lb).client_authentication, None);
}

#[test]
fn prometheus_with_a_certificate() {
    let prometheus = [
        ("/listeners/0/protocol", json!("PROMETHEUS")),
        ("/listeners/0/default_pool_id", Value::Null),
        ("/listeners/0/l7policies", json!([])),
    ];
    assert_eq!(tls(&accepted(&prometheus)).certificate, certificate("default"));
    let mut plain = prometheus.to_vec();
    plain.push(("/listeners/0/default_tls_container_ref", Value::Null));
    assert_eq!(accepted(&plain).listeners[0].tls, None);
    plain.push(("/listeners/0/client_ca_tls_container_ref", json!("ca")));
    refused(
        &plain,
        "listeners[0].client_ca_tls_container_ref",
        "needs a listener of protocol TERMINATED_HTTPS",
    );
}

#[test]
fn members_over_tls() {
    let fields = [
        ("/pools/0/ca_tls_container_ref", json!("ca")),
        ("/pools/0/crl_container_ref", json!("crl")),
        ("/pools/0/tls_container_ref", json!("mine")),
        ("/pools/0/tls_versions", json!(["TLSv1.2"])),
    ];
    let lb = accepted(&fields);
    let tls = lb.pools[0].tls.as_ref().unwrap();
    assert_eq!(tls.authorities, Some(certificate("ca")));
    assert_eq!(
        (&tls.revocations, &tls.client_certificate),
        (&Some(certificate("crl")), &Some(certificate("mine")))
    );
    assert_eq!(tls.settings.versions, [TlsVersion::Tls1_2]);
    // What is given and switched off means nothing.
    let mut off = fields.to_vec();
    off.push(("/pools/0/tls_enabled", json!(false)));
    assert_eq!(accepted(&off).pools[0].tls, None);
}

#[test]
fn what_is_wrong_is_refused() {
    let (l, p) = ("listeners[0]", "pools[0]");
    for (put, field, reason) in [
        (
            &[("/listeners/0/default_tls_container_ref", Value::Null)][..],
            "default_tls_container_ref",
            "is required",
        ),
        (
            &[("/listeners/0/default_tls_container_ref", json!("a/b"))],
            "default_tls_container_ref",
            "must be the id",
        ),
        (
            &[("/listeners/0/default_tls_container_ref", json!("a".repeat(256)))],
            "default_tls_container_ref",
            "255",
        ),
        (
            &[("/listeners/0/default_tls_container_ref", json!(1))],
            "default_tls_container_ref",
            "must be a string",
        ),
        (&[("/listeners/0/default_tls_container_id", json!("a"))], "default_tls_container_id", "no longer"),
        (
            &[("/listeners/0/sni_container_refs", json!(["a", ".."]))],
            "sni_container_refs[1]",
            "must be the id",
        ),
        (
            &[("/listeners/0/sni_container_refs", json!(["a", "http://b/a"]))],
            "sni_container_refs[1]",
            "already",
        ),
        (&[("/listeners/0/sni_container_refs", json!("a"))], "sni_container_refs", "must be a list"),
        (
            &[("/listeners/0/client_authentication", json!("MANDATORY"))],
            "client_authentication",
            "needs client_ca",
        ),
        (
            &[("/listeners/0/client_authentication", json!("mandatory"))],
            "client_authentication",
            "must be one of",
        ),
        (
            &[("/listeners/0/client_crl_container_ref", json!("a"))],
            "client_crl_container_ref",
            "needs client_ca",
        ),
        (&[("/listeners/0/tls_versions", json!([]))], "tls_versions", "must not be empty"),
        (
            &[("/listeners/0/tls_versions", json!(["TLSv1.2", "TLSv1.4"]))],
            "tls_versions[1]",
            "must be one of SSLv3",
        ),
        (
            &[("/listeners/0/alpn_protocols", json!(["h3"]))],
            "alpn_protocols[0]",
            "h2, http/1.1, http/1.0; not \"h3\"",
        ),
        (&[("/listeners/0/tls_ciphers", json!("A B"))], "tls_ciphers", "OpenSSL cipher string"),
        (&[("/listeners/0/tls_ciphers", json!("A\n"))], "tls_ciphers", "OpenSSL cipher string"),
        (&[("/listeners/0/tls_ciphers", json!("A".repeat(2049)))], "tls_ciphers", "2048"),
        (&[("/listeners/0/hsts_max_age", json!(-1))], "hsts_max_age", "from 0 to 2147483647"),
        (&[("/listeners/0/hsts_max_age", json!(1_u64 << 31))], "hsts_max_age", "from 0 to 2147483647"),
        (&[("/listeners/0/hsts_preload", json!(true))], "hsts_preload", "needs hsts_max_age"),
        (
            &[("/listeners/0/insert_headers", json!({"X-SSL-Client-CN": 1}))],
            "insert_headers.X-SSL-Client-CN",
            "true",
        ),
        (&[("/listeners/0/default_pool_id", json!(id(21)))], "default_pool_id", "of protocol TCP"),
    ] {
        refused(put, &format!("{l}.{field}"), reason);
    }
    for (put, field, reason) in [
        (
            &[("/pools/0/crl_container_ref", json!("a"))][..],
            "crl_container_ref",
            "needs ca_tls_container_ref",
        ),
        (&[("/pools/0/tls_container_ref", json!("-"))], "tls_container_ref", "must be the id"),
        (&[("/pools/0/tls_versions", json!([]))], "tls_versions", "must not be empty"),
        (&[("/pools/0/tls_enabled", json!("yes"))], "tls_enabled", "true or false"),
    ] {
        refused(put, &format!("{p}.{field}"), reason);
    }
}

#[test]
fn only_where_tls_ends() {
    let plain =
        [("/listeners/0/protocol", json!("HTTP")), ("/listeners/0/default_tls_container_ref", Value::Null)];
    // Octavia answers these for any listener whose update has set them to null.
    let mut meaningless = plain.to_vec();
    meaningless.extend([
        ("/listeners/0/tls_versions", json!(["TLSv1.2", "TLSv1.3"])),
        ("/listeners/0/tls_ciphers", json!("HIGH")),
        ("/listeners/0/alpn_protocols", json!(["h2"])),
        ("/listeners/0/hsts_include_subdomains", json!(false)),
    ]);
    assert_eq!(accepted(&meaningless).listeners[0].tls, None);
    for (pointer, value) in [
        ("default_tls_container_ref", json!("a")),
        ("sni_container_refs", json!(["a"])),
        ("client_ca_tls_container_ref", json!("a")),
        ("hsts_max_age", json!(1)),
    ] {
        let mut put = plain.to_vec();
        let pointer_ = format!("/listeners/0/{pointer}");
        put.push((&pointer_, value));
        refused(
            &put,
            &format!("listeners[0].{pointer}"),
            "needs a listener of protocol TERMINATED_HTTPS; this one is HTTP",
        );
    }
    let mut headers = plain.to_vec();
    headers.push(("/listeners/0/insert_headers", json!({"X-SSL-Issuer": "true"})));
    refused(
        &headers,
        "listeners[0].insert_headers.X-SSL-Issuer",
        "needs a listener of protocol TERMINATED_HTTPS",
    );
}

#[test]
fn rules_about_the_clients_certificate() {
    let rule = |kind: &str, compare: &str, key: Value, value: &str| {
        let rule = json!({"id": id(40), "type": kind, "compare_type": compare, "key": key, "value": value});
        ("/listeners/0/l7policies/0/rules", json!([rule]))
    };
    let none = || Value::Null;
    for (put, subject) in [
        (rule("SSL_CONN_HAS_CERT", "EQUAL_TO", none(), "true"), L7Subject::SslConnHasCert),
        (rule("SSL_VERIFY_RESULT", "EQUAL_TO", json!(""), "0010"), L7Subject::SslVerifyResult),
        (rule("SSL_DN_FIELD", "CONTAINS", json!("O"), "Ex, Ünl Ltd."), L7Subject::SslDnField("O".into())),
        (rule("SSL_DN_FIELD", "REGEX", json!("CN"), "^a b$"), L7Subject::SslDnField("CN".into())),
    ] {
        assert_eq!(accepted(&[put]).listeners[0].l7policies[0].rules[0].subject, subject);
    }
    for (put, field, reason) in [
        (rule("SSL_CONN_HAS_CERT", "EQUAL_TO", none(), "false"), "value", "must be \"True\""),
        (rule("SSL_CONN_HAS_CERT", "REGEX", none(), "True"), "compare_type", "must be EQUAL_TO"),
        (rule("SSL_CONN_HAS_CERT", "EQUAL_TO", json!("CN"), "True"), "key", "is only for types"),
        (rule("SSL_VERIFY_RESULT", "EQUAL_TO", none(), "-1"), "value", "decimal number"),
        (rule("SSL_VERIFY_RESULT", "EQUAL_TO", none(), "9223372036854775808"), "value", "decimal number"),
        (rule("SSL_VERIFY_RESULT", "STARTS_WITH", none(), "1"), "compare_type", "must be EQUAL_TO"),
        (rule("SSL_DN_FIELD", "EQUAL_TO", none(), "a"), "key", "is required"),
        (rule("SSL_DN_FIELD", "EQUAL_TO", json!("1a"), "a"), "key", "a letter, then"),
        (rule("SSL_DN_FIELD", "EQUAL_TO", json!("CN"), "a\tb"), "value", "control characters"),
        (rule("SSL_DN_FIELD", "REGEX", json!("CN"), "a\nb"), "value", "line breaks"),
    ] {
        refused(&[put], &format!("listeners[0].l7policies[0].rules[0].{field}"), reason);
    }
}

#[test]
fn flow_logs() {
    let log = |put: &[(&str, Value)], listener: usize| accepted(put).listeners[listener].flow_log.clone();
    let format = |log: Option<FlowLog>| log.unwrap().format.into_string();
    let on = ("/amphora", json!({"connection_logging": true}));
    let project = ("/project_id", json!("e3cd678b11784734bc366148aa37580e"));
    let lb = id(1);
    assert_eq!(
        format(log(&[on.clone(), project], 0)),
        format!(
            "e3cd678b11784734bc366148aa37580e {lb} %f %ci %cp %t %{{+Q}}r %ST %B %U %[ssl_c_verify] %{{+Q}}[ssl_c_s_dn] \
             %b %s %Tt %tsc"
        )
    );
    assert!(format(log(&[on.clone(), ("/project_id", json!("a {{ lb_id }}"))], 0)).starts_with("- "));
    // The listener's own word goes before, in each part of it.
    let all = ("/amphora", json!({"user_log_format": "a b", "user_log_facility": 3}));
    let own = |value: Value| ("/listeners/0/amphora", value);
    let facility = |log: Option<FlowLog>| log.unwrap().facility;
    assert_eq!(format(log(std::slice::from_ref(&all), 0)), "a b");
    assert_eq!(facility(log(&[all.clone(), own(json!({"user_log_format": "c"}))], 0)), 3);
    assert_eq!(format(log(&[all.clone(), own(json!({"user_log_facility": 7}))], 0)), "a b");
    assert_eq!(log(&[all.clone(), own(json!({"connection_logging": false}))], 0), None);
    assert_eq!(log(&[all, ("/amphora", json!({}))], 0), None);
    let off = ("/amphora", json!({"connection_logging": false, "user_log_format": "x"}));
    assert_eq!(
        (log(std::slice::from_ref(&off), 0), format(log(&[off, own(json!({"user_log_format": "c"}))], 0))),
        (None, "c".into())
    );
    for (value, field, reason) in [
        (json!({"user_log_format": "a\nb"}), "amphora.user_log_format", "control characters"),
        (json!({"user_log_format": "a".repeat(4097)}), "amphora.user_log_format", "4096"),
        (json!({"user_log_format": "é".repeat(3000)}), "amphora.user_log_format", "4096 bytes"),
        (json!({"user_log_facility": 8}), "amphora.user_log_facility", "from 0 to 7"),
        (json!({"connection_logging": "yes"}), "amphora.connection_logging", "true or false"),
        (json!({"colour": 1}), "amphora.colour", "not a field"),
        (json!([]), "amphora", "must be an object"),
    ] {
        refused(&[own(value)], &format!("listeners[0].{field}"), reason);
    }
}

#[test]
fn every_certificate_that_is_named_is_told_with_its_place() {
    let lb = accepted(&[
        ("/listeners/0/sni_container_refs", json!(["b"])),
        ("/listeners/0/client_authentication", json!("MANDATORY")),
        ("/listeners/0/client_ca_tls_container_ref", json!("ca")),
        ("/listeners/0/client_crl_container_ref", json!("crl")),
        ("/pools/0/ca_tls_container_ref", json!("ca")),
        ("/pools/0/crl_container_ref", json!("crl")),
        ("/pools/0/tls_container_ref", json!("mine")),
    ]);
    let told: Vec<_> =
        lb.certificates().map(|used| format!("{} {:?} {}", used.path(), used.role, used.id)).collect();
    let (listener, pool) = (id(10), id(20));
    assert_eq!(
        told,
        [
            format!("loadbalancer.listeners[{listener}].default_tls_container_ref Identity default"),
            format!("loadbalancer.listeners[{listener}].sni_container_refs Identity b"),
            format!("loadbalancer.listeners[{listener}].client_ca_tls_container_ref Authorities ca"),
            format!("loadbalancer.listeners[{listener}].client_crl_container_ref Revocations crl"),
            format!("loadbalancer.pools[{pool}].ca_tls_container_ref Authorities ca"),
            format!("loadbalancer.pools[{pool}].crl_container_ref Revocations crl"),
            format!("loadbalancer.pools[{pool}].tls_container_ref Identity mine"),
        ]
    );
}
