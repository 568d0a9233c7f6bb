#![allow(clippy::unwrap_used)]

use std::process::Command;

use super::*;

fn settings(versions: &[TlsVersion], ciphers: Option<&str>) -> TlsSettings {
    TlsSettings { versions: versions.to_vec(), ciphers: ciphers.map(Into::into), ..TlsSettings::default() }
}

fn names(offer: &Offer) -> Vec<&'static str> {
    offer.suites.iter().map(|suite| openssl_name(suite.suite())).collect()
}

const BOTH: &[TlsVersion] = &[TlsVersion::Tls1_2, TlsVersion::Tls1_3];

#[test]
fn the_default_of_octavia_needs_no_remark() {
    for ciphers in [None, Some(DEFAULT)] {
        let offer = offer(&settings(BOTH, ciphers)).unwrap();
        assert_eq!(offer.remarks, []);
        assert_eq!(
            names(&offer),
            [
                "TLS_AES_128_GCM_SHA256",
                "TLS_AES_256_GCM_SHA384",
                "TLS_CHACHA20_POLY1305_SHA256",
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-RSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
                "ECDHE-RSA-CHACHA20-POLY1305",
            ]
        );
    }
}

#[test]
fn a_half_that_is_not_named_is_the_default() {
    let of = |versions, ciphers| names(&offer(&settings(versions, Some(ciphers))).unwrap());
    let below = ["ECDHE-RSA-AES128-GCM-SHA256"];
    let above = ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"];
    assert_eq!(of(BOTH, below[0]), [&above[..], &below].concat());
    assert_eq!(of(&[TlsVersion::Tls1_3], below[0]), above);
    assert_eq!(of(&[TlsVersion::Tls1_2], above[0]).len(), 6);
    assert_eq!(of(BOTH, "TLS_AES_128_GCM_SHA256").len(), 7);
    assert_eq!(of(&[TlsVersion::Tls1_3], "AES128-SHA"), above);
}

#[test]
fn what_is_left_out_is_remarked_on() {
    let remarks = |versions: &[TlsVersion], ciphers: &str| -> Vec<String> {
        let offer = offer(&settings(versions, Some(ciphers))).unwrap();
        offer.remarks.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        remarks(
            &[TlsVersion::Tls1, TlsVersion::Tls1_1, TlsVersion::Tls1_2],
            "ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA:NONSENSE:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384"
        ),
        [
            "tls_versions: TLSv1, TLSv1.1 are not offered; TLSv1.2 is offered",
            "tls_ciphers: AES128-SHA, DHE-RSA-AES256-GCM-SHA384 are not offered",
            "tls_ciphers: NONSENSE is not known",
        ]
    );
    assert_eq!(
        remarks(BOTH, "TLS_AES_128_GCM_SHA256:AES128-SHA"),
        [
            "tls_ciphers: TLSv1.2 is not offered, none of its ciphers is here",
            "tls_ciphers: AES128-SHA is not offered",
        ]
    );
    for list in ["HIGH:!aNULL:!MD5:!RC4", "HIGH:@SECLEVEL=2"] {
        assert_eq!(remarks(BOTH, list), [""; 0]);
    }
    for level in [0, 1, 3] {
        let said = format!(
            "tls_ciphers: @SECLEVEL={level} is for ciphers alone, keys and certificates are judged at 2"
        );
        let list = format!("HIGH:@SECLEVEL={level}");
        assert_eq!(remarks(BOTH, &list), [said]);
    }
}

#[test]
fn what_cannot_be_honoured_at_all_is_refused_by_name() {
    let refused = |versions, ciphers| offer(&settings(versions, Some(ciphers))).unwrap_err();
    let there = "there are ECDHE with AES-GCM or CHACHA20-POLY1305, and TLS_* with the same";
    for (ciphers, what) in [
        (
            "AES128-SHA:DHE-RSA-AES128-GCM-SHA256",
            "none of these can be honoured: AES128-SHA, DHE-RSA-AES128-GCM-SHA256",
        ),
        ("TLS_AES_128_CCM_SHA256", "none of these can be honoured: TLS_AES_128_CCM_SHA256"),
        ("NONSENSE", "none of these can be honoured: NONSENSE"),
        ("ALL:!ECDHE", "no cipher remains"),
    ] {
        assert_eq!(refused(BOTH, ciphers), ("tls_ciphers", format!("{what}; {there}")));
    }
    for ciphers in ["HIGH:!", "@STRONG", "@SECLEVEL=6", "@SECLEVEL=", "-"] {
        assert_eq!(refused(BOTH, ciphers).0, "tls_ciphers", "{ciphers}");
    }
    assert_eq!(
        refused(&[TlsVersion::Ssl3, TlsVersion::Tls1_1], "HIGH"),
        (
            "tls_versions",
            "none of these can be honoured: SSLv3, TLSv1.1; there are TLSv1.2 and TLSv1.3".to_owned()
        )
    );
}

/// The suites of a list that are here, in the order of OpenSSL; `None` when it finds none at all, or objects.
fn by_openssl(list: &str) -> Option<Vec<String>> {
    // What begins like an option is none behind an element that is empty.
    let guarded = format!(":{list}");
    let output = Command::new("openssl")
        .args(["ciphers", "-s", if list.starts_with('-') { &guarded } else { list }])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let here = |name: &&str| KNOWN.iter().any(|known| known.name == *name);
    output.status.success().then(|| text.trim().split(':').filter(here).map(str::to_owned).collect())
}

#[test]
fn lists_are_read_as_openssl_reads_them() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED: there is no openssl");
        return;
    }
    let mut lists: Vec<String> = [
        "ALL",
        "DEFAULT",
        "HIGH",
        "MEDIUM:HIGH",
        "FIPS",
        "AES",
        "AESGCM",
        "CHACHA20",
        "ECDHE",
        "kECDHE:!aRSA",
        "EECDH+AESGCM",
        "ECDHE+AESGCM:ECDHE+CHACHA20",
        "ECDHE+CHACHA20:ECDHE+AESGCM",
        "ECDHE+aRSA+AES256:ECDHE+aECDSA",
        "ALL:+AES128:-CHACHA20",
        "ALL:-CHACHA20:CHACHA20",
        "ALL:-AES:AES128:AES256",
        "AES128:AES256:@STRENGTH",
        "ALL:@SECLEVEL=4",
        "ALL:@SECLEVEL=3",
        "ALL:@SECLEVEL=5",
        "!AES128:ALL",
        "-AES128:ALL",
        "+AES128:ALL",
        "DEFAULT:!AES128",
        "DEFAULT:-AES256:+ECDSA",
        "SUITEB128",
        "SUITEB192",
        "SUITEB128ONLY",
        "HIGH:!aNULL:!MD5:!3DES",
        "NONSENSE:ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE+NONSENSE:AES256",
        "TLSv1.2",
        "TLSv1.2:+aRSA",
        "SHA256:SHA384:AES128",
        "ECDSA",
        "aECDSA:aRSA",
        "ECDH+AES128,AES256;CHACHA20 aRSA",
        ":AES128::",
        "ALL:!DEFAULT",
        "ECDHE-RSA-AES128-GCM-SHA256+AES",
        "CBC:AES128",
        "ALL:!CHACHA20:!AES256:+ECDHE+aECDSA:AES256",
        "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384",
        "COMPLEMENTOFDEFAULT:AES256",
    ]
    .map(str::to_owned)
    .to_vec();
    // And some hundred that nobody would write.
    let parts = [
        "ALL", "AES128", "AES256", "CHACHA20", "aRSA", "ECDSA", "HIGH", "ECDHE", "AESGCM", "FIPS", "SHA384",
        "kRSA",
    ];
    let mut state = 7u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % below
    };
    for _ in 0..200 {
        let mut list = vec!["ALL".to_owned(); random(2)];
        for _ in 0..=random(5) {
            let operation = ["", "", "-", "+", "!"][random(5)];
            let second = ["".to_owned(), format!("+{}", parts[random(parts.len())])];
            list.push(format!("{operation}{}{}", parts[random(parts.len())], second[random(2)]));
        }
        lists.push(list.join(":"));
    }
    let level =
        |list: &str| if list.contains("SECLEVEL") { list.to_owned() } else { format!("{list}:@SECLEVEL=1") };
    for list in lists {
        let ours =
            List::read(&list).ok().map(|list| list.tls12.iter().map(|known| known.name.to_owned()).collect());
        let theirs = by_openssl(&level(&list));
        // OpenSSL objects to a list of nothing, which has other suites here as well.
        let theirs = theirs.or_else(|| ours.as_ref().filter(|ours: &&Vec<String>| ours.is_empty()).cloned());
        assert_eq!(ours, theirs, "{list}");
    }
}
