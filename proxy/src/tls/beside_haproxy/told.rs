//! What is told of clients: fields of HAProxy's, and L7 rules about certificates.

use std::collections::BTreeMap;

use amphora_model::{CompareType, L7Subject};

use crate::tls::PeerFacts;

pub(super) const FIELDS: &[(&str, &str)] = &[
    ("x-verify", "%[ssl_c_verify]"),
    ("x-used", "%[ssl_c_used]"),
    ("x-dn", "%{+Q}[ssl_c_s_dn]"),
    ("x-cn", "%{+Q}[ssl_c_s_dn(cn)]"),
    ("x-o", "%{+Q}[ssl_c_s_dn(O)]"),
    ("x-ou", "%{+Q}[ssl_c_s_dn(ou)]"),
    ("x-odd", "%{+Q}[ssl_c_s_dn(1.2.3.4)]"),
    ("x-issuer", "%{+Q}[ssl_c_i_dn]"),
    ("x-sha1", "%{+Q}[ssl_c_sha1,hex]"),
    ("x-not-before", "%{+Q}[ssl_c_notbefore]"),
    ("x-not-after", "%{+Q}[ssl_c_notafter]"),
    ("x-version", "%[ssl_fc_protocol]"),
    ("x-cipher", "%[ssl_fc_cipher]"),
    ("x-sni", "%{+Q}[ssl_fc_sni]"),
];

/// L7 rules about certificates: HAProxy's ACL as Octavia renders it, and what it is rendered from.
pub(super) const RULES: &[(&str, Asks, CompareType, &str)] = &[
    ("ssl_c_used", Asks::HasCert, CompareType::EqualTo, "True"),
    ("ssl_c_verify eq 0", Asks::VerifyResult, CompareType::EqualTo, "0"),
    ("ssl_c_verify eq 007", Asks::VerifyResult, CompareType::EqualTo, "007"),
    ("ssl_c_s_dn(CN) -m str plain", Asks::Field("CN"), CompareType::EqualTo, "plain"),
    ("ssl_c_s_dn(cn) -m beg pla", Asks::Field("cn"), CompareType::StartsWith, "pla"),
    ("ssl_c_s_dn(CN) -m end one", Asks::Field("CN"), CompareType::EndsWith, "one"),
    ("ssl_c_s_dn(O) -m sub /CN", Asks::Field("O"), CompareType::Contains, "/CN"),
    ("ssl_c_s_dn(OU) -m reg ^[a-z]+$", Asks::Field("OU"), CompareType::Regex, "^[a-z]+$"),
    ("ssl_c_s_dn(CN) -m reg ^$", Asks::Field("CN"), CompareType::Regex, "^$"),
    ("ssl_c_s_dn(DC) -m str dc", Asks::Field("DC"), CompareType::EqualTo, "dc"),
    ("ssl_c_s_dn(emailAddress) -m sub @", Asks::Field("emailAddress"), CompareType::Contains, "@"),
    ("ssl_c_s_dn(serialNumber) -m str serial", Asks::Field("serialNumber"), CompareType::EqualTo, "serial"),
];

pub(super) enum Asks {
    HasCert,
    VerifyResult,
    Field(&'static str),
}

/// Whether a rule holds for a client.
fn holds((_, asks, compare, value): &(&str, Asks, CompareType, &str), facts: &PeerFacts) -> bool {
    let subject = match asks {
        Asks::HasCert => L7Subject::SslConnHasCert,
        Asks::VerifyResult => L7Subject::SslVerifyResult,
        Asks::Field(name) => L7Subject::SslDnField((*name).to_owned()),
    };
    crate::l7::holds_over_tls(subject, *compare, value, facts)
}

/// What HAProxy would tell, told of [`PeerFacts`].
pub(super) fn told(facts: &PeerFacts) -> BTreeMap<String, String> {
    let certificate = facts.certificate.as_ref();
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let field = |name: &str| text(certificate.and_then(|it| it.subject_field(name)));
    let values = [
        facts.verify_result().to_string(),
        u8::from(certificate.is_some()).to_string(),
        text(certificate.map(|it| it.subject())),
        field("CN"),
        field("O"),
        field("OU"),
        field("1.2.3.4"),
        text(certificate.map(|it| it.issuer())),
        text(certificate.map(|it| it.sha1().as_bytes())),
        text(certificate.map(|it| it.not_before())),
        text(certificate.map(|it| it.not_after())),
        facts.version.to_owned(),
        facts.cipher.to_owned(),
        text(facts.sni.as_deref().map(str::as_bytes)),
    ];
    let rules = RULES.iter().enumerate().filter(|(_, rule)| holds(rule, facts));
    let rules = rules.map(|(at, _)| (format!("x-rule-{at}"), "1".to_owned()));
    FIELDS.iter().map(|(name, _)| (*name).to_owned()).zip(values).chain(rules).collect()
}
