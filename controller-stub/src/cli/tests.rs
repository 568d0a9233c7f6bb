#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_says_what_fits_and_no_line_is_wider_than_the_terminal() {
    for (path, words) in [
        (&["apply"][..], &["--dry-run", "ports in use", "--certs"][..]),
        (&["member"], &["<--weight <WEIGHT>|--admin-state <ADMIN_STATE>>", "--amphora"]),
        (&["certs", "init"], &["Examples", "--amphora-id"]),
        (&["heartbeats"], &["heartbeat_key"]),
        (&["demo"], &["--once"]),
    ] {
        let args = [&["amphora-controller"], path, &["--help"]].concat();
        let help = Cli::command().term_width(80).try_get_matches_from(args).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(help.contains(word), "{word}: {help}"));
        assert_eq!(help.contains("--server-name"), ["apply", "member"].contains(&path[0]), "{help}");
        // A line that is not full is the last of its paragraph.
        let (_, after) = help.split_once("-V, --version").unwrap();
        for pair in after.lines().skip(2).collect::<Vec<_>>().windows(2) {
            assert!(pair[0].len() <= 80, "{help}");
            let room = 80usize.saturating_sub(pair[0].len() + 1);
            let next = pair[1].split(' ').next().unwrap_or_default();
            let prose = |line: &str| line.starts_with(|c: char| c.is_alphabetic()) && !line.contains(':');
            assert!(!prose(pair[0]) || !prose(pair[1]) || next.len() > room, "{help}");
        }
    }
}

#[test]
fn the_document_in_the_help_is_one() {
    let (_, yaml) = APPLY.split_once("In YAML:").unwrap();
    let document = crate::document::Document::parse(yaml).unwrap();
    let lb = amphora_model::LoadBalancer::from_value(&document.body).unwrap();
    assert_eq!(lb.pools[0].members.len(), 1);
}

#[test]
fn what_stands_behind_the_command_wins() {
    let target = |args: &str| {
        let matches = Cli::command().try_get_matches_from(args.split_whitespace()).unwrap();
        let target = parse(&matches).unwrap().target().cloned().unwrap();
        let TlsOptions { certs, key, .. } = target.tls;
        (target.amphorae[0].to_string(), target.timeout.as_secs(), [certs, key].map(Option::unwrap))
    };
    let expected = |host: &str, timeout, files: [&str; 2]| {
        (format!("https://{host}:9443"), timeout, files.map(PathBuf::from))
    };
    assert_eq!(
        target("c --amphora https://a --certs d --timeout 3 --key k status"),
        expected("a", 3, ["d", "k"])
    );
    assert_eq!(
        target("c --amphora https://a --certs d --key k status --amphora https://b --key l"),
        expected("b", 30, ["d", "l"])
    );
}

#[test]
fn who_says_no_number_is_told_which_there_are() {
    for (args, told) in [
        ("member p m --weight eighty", "'eighty' for '--weight <WEIGHT>': expected a whole number, 0 to 256"),
        ("member p m --weight 257", "expected a whole number, 0 to 256"),
        ("member p m --weight 1 --timeout x", "expected seconds, 0.1 to 86400"),
        ("certs init d --days many", "expected a whole number, 1 to "),
        ("heartbeats --key k --count all", "expected a whole number, 0 to 18446744073709551615"),
        ("vrrp pair f --peer-port vrrp", "expected a whole number, 1 to 65535"),
        ("demo --clients few", "expected a whole number, 6 to 1000"),
        ("demo --rate 1e3", "expected a whole number, 50 to 1000000"),
        ("demo --changes 0", "expected a whole number, 1 to 100000"),
    ] {
        let args = format!("amphora-controller {args}");
        let error = Cli::try_parse_from(args.split_whitespace()).unwrap_err().to_string();
        assert!(error.contains(told), "{args}: {error}");
    }
}

#[test]
fn what_is_missing_or_out_of_range_is_a_usage_error() {
    let parse = |args: &str| Cli::try_parse_from(args.split_whitespace()).map(|_| ());
    for bad in [
        "amphora-controller",
        "amphora-controller apply --amphora https://a",
        "amphora-controller apply f --proxy p --amphora https://a",
        "amphora-controller certs init",
        "amphora-controller apply f --amphora http://a",
        "amphora-controller member 6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11 6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11 --amphora https://a",
        "amphora-controller member web --weight 1 --amphora https://a",
        "amphora-controller member 6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11 6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11 --weight 257 --amphora https://a",
        "amphora-controller stats --amphora https://a --watch --interval 0",
        "amphora-controller certs init d --days 0",
        "amphora-controller vrrp apply --amphora https://a",
        "amphora-controller vrrp failover --within 0 --amphora https://a --amphora https://b",
    ] {
        assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
    }
    for good in [
        "amphora-controller apply - --amphora https://a --amphora https://b:1 --certs d",
        "amphora-controller apply f --dry-run --proxy p --amphora https://a",
        "amphora-controller status --amphora https://a,https://b --json",
        "amphora-controller stats -w --interval 0.5 --amphora https://a",
        "amphora-controller member web web-1 --weight 1 --amphora https://a",
        "amphora-controller --amphora https://a --certs d --timeout 3 status",
        "amphora-controller demo --once",
        "amphora-controller vrrp pair f --amphora https://a --amphora https://b",
        "amphora-controller heartbeats --key k",
        "amphora-controller heartbeats --key k --amphora https://a --certs d",
    ] {
        parse(good).unwrap();
    }
}
