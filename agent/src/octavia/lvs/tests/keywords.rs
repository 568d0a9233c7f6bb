//! Each statement that is not one that Octavia writes, or not where it writes it.

use proptest::prelude::*;

use super::{
    super::{fuzz, translate},
    SAMPLES,
};

/// The first sample with the first `from` replaced.
fn with(from: &str, to: &str) -> String {
    let text = SAMPLES[0].1;
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

fn refused(text: &str) -> String {
    translate(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn what_is_not_known_is_refused_with_its_line() {
    for (from, to, fault) in [
        ("lb_algo wrr", "lb_algo rr", "line 12: lb_algo rr: has \"rr\" where wrr, lc or sh is expected"),
        ("lb_kind NAT", "lb_kind DR", "line 13: lb_kind DR: has \"DR\" where NAT is expected"),
        ("protocol UDP", "protocol TCP", "line 14: protocol TCP: has \"TCP\" where UDP or SCTP is expected"),
        (
            "delay_before_retry 2",
            "delay_before_retry 3",
            "line 16: delay_before_retry 3: is not the delay_loop above it",
        ),
        (
            "net_namespace amphora-haproxy",
            "net_namespace other",
            "line 4: net_namespace other: has \"other\" where amphora-haproxy is expected",
        ),
        ("    retry 2\n", "    quorum 1\n", "line 17: quorum 1: \"quorum\" is not known"),
        (
            "10.79.0.100 53",
            "10.79.0.100 54",
            "line 8: 10.79.0.100 54: has another port than the address above it",
        ),
        (
            "10.79.0.100 53",
            "10.77.0.100 53",
            "line 8: 10.77.0.100 53: is an address of the other family, or there already",
        ),
        (
            "weight 1",
            "weight 257",
            "line 24: weight 257: has \"257\" where a weight, from 0 to 256, is expected",
        ),
        (
            "uthreshold 2000",
            "uthreshold 0",
            "line 25: uthreshold 0: has \"0\" where a number of connections, from 1 to 4294967295, is expected",
        ),
        (
            "uthreshold 2000",
            "uthreshold 2001",
            "line 32: # Configuration for Member 242b1b52-15f9-5922-87e9-bd7b6abc3ef7: says something else of uthreshold than the member above",
        ),
        (
            "udp_check.sh 10.78.0.11 53\"",
            "udp_check.sh 10.78.0.11 53",
            "line 27: misc_path \"/var/lib/octavia/lvs/check/udp_check.sh 10.78.0.11 53: has \"53\" where a port and a quote are expected",
        ),
        (
            "/var/lib/octavia/lvs/check/udp_check.sh",
            "/bin/sh",
            "line 27: misc_path \"/bin/sh 10.78.0.11 53\": runs a program that is not known",
        ),
        (
            "misc_timeout 1",
            "misc_timeout 1 user root",
            "line 28: misc_timeout 1 user root: has an argument that is not known: \"user\"",
        ),
        ("        weight 1\n", "", "line 24: uthreshold 2000: stands where weight is expected"),
        (
            "is disabled",
            "is",
            "line 42: # Member ae450079-dd7c-5d9e-8cfe-d00c7367a120 is: has \"is\" where is disabled is expected",
        ),
    ] {
        assert_eq!(refused(&with(from, to)), fault);
    }
    let program = SAMPLES[3].1.replacen("misc_timeout 2", "misc_timeout 3", 1);
    assert_eq!(refused(&program), "line 30: misc_timeout 3: is not one second more than the program's");
    let other = SAMPLES[3].1.replacen("health-checker sctp -t 1", "health-checker tcp -t 1", 1);
    assert!(refused(&other).starts_with("line 29: "), "{}", refused(&other));
    assert_eq!(refused(""), "is empty");
    assert_eq!(refused("\n\n"), "is empty");
    let cut = SAMPLES[0].1.trim_end().trim_end_matches('}');
    assert!(refused(cut).contains("is the end, where a member or } is expected"), "{}", refused(cut));
    assert!(refused(&format!("{}\nweight 1\n", SAMPLES[0].1)).contains("virtual_server_group or the end"));
}

#[test]
fn families_say_the_same() {
    let (first, second) = SAMPLES[0].1.split_once("virtual_server_group ipv6").unwrap();
    for (from, to) in [
        ("lb_algo wrr", "lb_algo sh"),
        ("fd77::100 53", "fd77::100 54"),
        ("delay_loop 2\n    delay_before_retry 2", "delay_loop 3\n    delay_before_retry 3"),
        ("Pool 1e7b71de", "Pool 1e7b71df"),
    ] {
        assert!(second.contains(from), "{from}");
        let text = format!("{first}virtual_server_group ipv6{}", second.replacen(from, to, 1));
        assert!(refused(&text).contains("says something else than the virtual_server above it"), "{from}");
    }
    let twice = format!("{first}virtual_server_group ipv6{second}virtual_server_group ipv6{second}");
    assert!(refused(&twice).contains("does not come behind what is above it"));
}

/// A path with line feeds in it becomes no statement that its author has not had otherwise.
#[test]
fn a_value_ends_with_its_line() {
    let path = |path: &str| SAMPLES[2].1.replacen("path /health", &format!("path {path}"), 1);
    for hostile in [
        "/x\n status_code 404",
        "/x\n }\n }\n misc_path \"/bin/sh 1.2.3.4 5\"",
        "/x y",
        "/x\t",
        "/\n# Configuration for Member 2251d086-600c-5f82-b764-0f497bcaaa63",
        "/&lt;",
        "/&",
    ] {
        assert!(translate(path(hostile).as_bytes()).is_err(), "{hostile:?}");
    }
    assert!(translate(path("/health?a=1&amp;b=2").as_bytes()).is_err(), "only one of two members");
    let both = SAMPLES[2].1.replace("path /health", "path /health?a=1&amp;b=2");
    let served = translate(both.as_bytes()).unwrap().served.unwrap();
    assert_eq!(served.to_json()["loadbalancer"]["pools"][0]["healthmonitor"]["url_path"], "/health?a=1&b=2");
}

/// A line of a sample, or one that is made up.
fn line() -> impl Strategy<Value = String> {
    let lines: Vec<String> = SAMPLES.iter().flat_map(|(_, text)| text.lines()).map(str::to_owned).collect();
    prop_oneof![9 => proptest::sample::select(lines), 1 => "[ -~]{0,40}"]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(lines in proptest::collection::vec(line(), 0..80), data in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz(lines.join("\n").as_bytes());
        fuzz(&data);
    }

    #[test]
    fn a_sample_with_a_line_changed_is_read_or_refused(sample in 0_usize..4, at in 0_usize..80, to in line()) {
        let mut lines: Vec<&str> = SAMPLES[sample].1.lines().collect();
        let at = at % lines.len();
        lines[at] = &to;
        fuzz(lines.join("\n").as_bytes());
    }
}
