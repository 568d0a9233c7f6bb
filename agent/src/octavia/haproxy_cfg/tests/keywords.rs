//! Keyword by keyword: what is refused, with its line.

use super::*;

/// A text with most keywords; ids are those of the first lines.
const TEXT: &str = "\
# Configuration for loadbalancer 00000000-0000-0000-0000-0000000000b0
global
    daemon
    user nobody
    log /run/rsyslog/octavia/log local3
    log /run/rsyslog/octavia/log local1 notice
    stats socket /var/lib/octavia/00000000-0000-0000-0000-0000000000b0.sock mode 0666 level user
    maxconn 4000
    nbthread 3
    cpu-map auto:1/1-3 1-3    external-check

defaults
    log global
    retries 3
    option redispatch

peers 000000000000000000000000000000b0_peers
    peer abc 192.0.2.1:1025

frontend 00000000-0000-0000-0000-0000000000f1
    maxconn 2000
    redirect scheme https if !{ ssl_fc }
    http-response set-header Strict-Transport-Security \"max-age=60; preload;\"
    bind 192.0.2.10:443 ssl crt-list /c/00000000-0000-0000-0000-0000000000b0/00000000-0000-0000-0000-0000000000f1.pem ca-file /c/00000000-0000-0000-0000-0000000000b0/ca.pem verify optional ciphers A ciphersuites B no-sslv3 no-tlsv10 alpn h2,http/1.1
    mode http
        acl 00000000-0000-0000-0000-0000000000a1 path_end  jpg
        acl 00000000-0000-0000-0000-0000000000a2 req.hdr(X-A) -m beg a\\ b
    redirect code 301 prefix https://a.example/?a=1&amp;b#c if 00000000-0000-0000-0000-0000000000a1 !00000000-0000-0000-0000-0000000000a2
    default_backend 00000000-0000-0000-0000-0000000000c1:00000000-0000-0000-0000-0000000000f1
    timeout client 50000
    log-format %ci\\ %B

backend 00000000-0000-0000-0000-0000000000c1:00000000-0000-0000-0000-0000000000f1
    mode http
    http-reuse safe
    balance source
    stick-table type ipv6 size 10k peers 000000000000000000000000000000b0_peers
    stick on src
    timeout check 3s
    option httpchk GET /h HTTP/1.1
    http-check send hdr Host a.example
    http-check expect rstatus 204|200|201
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    fullconn 2000
    option allbackups
    timeout connect 5000
    timeout server 50000
    server 00000000-0000-0000-0000-0000000000d1 198.51.100.1:80 weight 1 check check-ssl verify none inter 5s fall 3 rise 2 port 81 ssl verify none sni ssl_fc_sni
    server 00000000-0000-0000-0000-0000000000d2 2001:db8::1:80 weight 0 check check-ssl verify none inter 5s fall 3 rise 2 backup disabled ssl verify none sni ssl_fc_sni
";

/// The first line that begins so.
fn line(with: &str) -> (usize, &'static str) {
    let found: Vec<_> =
        (1..).zip(TEXT.lines()).filter(|(_, line)| line.trim_start().starts_with(with)).collect();
    assert!(!found.is_empty(), "{with}");
    found[0]
}

/// The fault of the text with one line replaced; it has to be told there.
fn refused(old: &str, new: &str) -> String {
    let (number, _) = line(old);
    let mut lines: Vec<&str> = TEXT.lines().collect();
    lines[number - 1] = new;
    let fault = translate(lines.join("\n").as_bytes(), &NO_VIPS).unwrap_err();
    assert_eq!(fault.line, number, "{new}: {fault}");
    fault.reason
}

#[test]
fn the_whole_text_in_full() {
    let translated = translate(TEXT.as_bytes(), &NO_VIPS).unwrap();
    let golden: serde_json::Value = serde_json::from_str(include_str!("keywords.json")).unwrap();
    assert_eq!(translated.load_balancer.to_json(), golden, "{:#}", translated.load_balancer.to_json());
    assert_eq!(translated.peers, [Peer { name: "abc".into(), address: "192.0.2.1:1025".parse().unwrap() }]);
    let remarks: Vec<usize> = translated.remarks.iter().map(|remark| remark.line).collect();
    assert_eq!(remarks, [6, 8, 9, 35, 37, 45]);
}

#[test]
fn what_is_wrong_in_a_line_is_told_with_it() {
    for (old, new, reason) in [
        // Not known there.
        ("daemon", "    chroot /x", "is not known in section global"),
        ("daemon", "    server a 192.0.2.1:80", "is not known in section global"),
        ("option redispatch", "    option httplog", "is not known in section defaults"),
        ("maxconn 2000", "    balance source", "is not known in a section frontend"),
        ("mode http", "    option httplog", "is not known in a section frontend"),
        ("balance source", "    bind 192.0.2.1:80", "is not known in a section backend"),
        ("peer abc", "    server abc 192.0.2.1:1025", "is not known in section peers"),
        ("daemon", "listen x", "is not known in section global"),
        // Arguments.
        ("daemon", "    daemon now", "has an argument that is not known: \"now\""),
        ("user", "    user root", "has \"root\" where nobody is expected"),
        (
            "log /run/rsyslog/octavia/log local3",
            "    log 192.0.2.1:514 local3",
            "where /run/rsyslog/octavia/log is expected",
        ),
        ("log /run/rsyslog/octavia/log local3", "    log /run/rsyslog/octavia/log local8", "has no facility"),
        ("log /run/rsyslog/octavia/log local3", "    log /dev/log local3", "rsyslog/octavia/log is expected"),
        ("log /run/rsyslog/octavia/log local1", "    log stdout local1 notice", "log is expected"),
        ("stats", "    stats socket /a.sock mode 0600 level admin", "mode 0666 level user is expected"),
        ("stats", "    stats socket /a.sock mode 0666 level user", "does not have the id of a load balancer"),
        ("maxconn 4000", "    maxconn 0", "has \"0\" where a number is expected, from 1 to 2147483647"),
        ("retries", "    retries 5", "has \"5\" where 3 is expected"),
        ("maxconn 2000", "    maxconn 99999999999", "from 1 to 4294967295"),
        (
            "redirect scheme",
            "    redirect scheme http if !{ ssl_fc }",
            "has \"scheme\" where prefix is expected",
        ),
        (
            "http-response",
            "    http-response set-header X-A b",
            "set-header Strict-Transport-Security is expected",
        ),
        (
            "http-response",
            "    http-response set-header Strict-Transport-Security max-age=x;",
            "has no max-age=",
        ),
        ("bind", "    bind 192.0.2.10", "where address:port is expected"),
        ("bind", "    bind :443 ssl crt-list /a/b/c.pem", "where address:port is expected"),
        ("bind", "    bind 192.0.2.10:0", "where address:port is expected"),
        ("bind", "    bind 192.0.2.10:443 ssl", "has ssl without crt-list or crt"),
        ("bind", "    bind 192.0.2.10:443 ssl crt /c.pem", "is no <directory>/<load balancer>/<name>.pem"),
        ("bind", "    bind 192.0.2.10:443 transparent", "an argument that is not known: \"transparent\""),
        ("bind", "    bind 192.0.2.10:443 ssl crt /c/a/b.pem", "names a file of another load balancer, a"),
        (
            "bind",
            "    bind 192.0.2.10:443 ssl crt /c/00000000-0000-0000-0000-0000000000b0/b.pem alpn h3",
            "has a protocol other",
        ),
        (
            "bind",
            "    bind 192.0.2.10:443 no-sslv3 no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13",
            "leaves no version of TLS",
        ),
        ("mode http", "    mode health", "has a mode other than http and tcp"),
        (
            "acl 00000000-0000-0000-0000-0000000000a1",
            "    acl x path -m str a",
            "where the id of a rule is expected",
        ),
        (
            "acl 00000000-0000-0000-0000-0000000000a1",
            "    acl 00000000-0000-0000-0000-0000000000a1 src 10.0.0.0/8",
            "looks at what no rule does",
        ),
        (
            "acl 00000000-0000-0000-0000-0000000000a1",
            "    acl 00000000-0000-0000-0000-0000000000a1 path /a",
            "does not say how to compare",
        ),
        (
            "acl 00000000-0000-0000-0000-0000000000a1",
            "    acl 00000000-0000-0000-0000-0000000000a1 path -m str a b",
            "an argument that is not known",
        ),
        (
            "acl 00000000-0000-0000-0000-0000000000a1",
            "    acl 00000000-0000-0000-0000-0000000000a1 path -i -m str a",
            "ignores case",
        ),
        (
            "acl 00000000-0000-0000-0000-0000000000a1",
            "    acl 00000000-0000-0000-0000-0000000000a1 path_end -m end a",
            "compare_type must be one of REGEX, EQUAL_TO",
        ),
        (
            "redirect code",
            "    redirect code 300 prefix https://a.example if 00000000-0000-0000-0000-0000000000a1",
            "has a status code other",
        ),
        ("redirect code", "    redirect prefix https://a.example", "ends where if is expected"),
        ("redirect code", "    redirect prefix https://a.example if", "has no condition"),
        (
            "redirect code",
            "    redirect prefix /a if 00000000-0000-0000-0000-0000000000a1 00000000-0000-0000-0000-0000000000a2",
            "redirect_prefix must be an absolute",
        ),
        (
            "redirect code",
            "    redirect prefix https://a.example if 00000000-0000-0000-0000-0000000000a2 00000000-0000-0000-0000-0000000000a1",
            "has other conditions than the acls right above",
        ),
        ("redirect code", "    http-request deny if TRUE", "has a condition that is not the id of a rule"),
        (
            "redirect code",
            "    use_backend 00000000-0000-0000-0000-0000000000c2:00000000-0000-0000-0000-0000000000f1 if 00000000-0000-0000-0000-0000000000a2",
            "names a backend that is not there",
        ),
        (
            "redirect code",
            "    use_backend 00000000-0000-0000-0000-0000000000c1:00000000-0000-0000-0000-0000000000f2 if 00000000-0000-0000-0000-0000000000a2",
            "sends to a backend of another listener",
        ),
        ("default_backend", "    default_backend a:b", "is no <pool>:<listener>"),
        ("timeout client", "    timeout client 5s", "where milliseconds is expected, from 1 to 2147483647"),
        ("timeout client", "    timeout http-request 5", "where client is expected"),
        ("log-format", "    log-format a b", "an argument that is not known"),
        ("log-format", "    log-format a\\nb", "has a backslash in front of what needs none"),
        ("http-reuse", "    http-reuse always", "is not known in a section backend"),
        ("balance", "    balance random", "is not known in a section backend"),
        ("stick-table", "    stick-table type integer size 10k", "where string len 64 is expected"),
        ("stick-table", "    stick-table type ip size 10x", "has a size that is no number"),
        ("stick-table", "    stick-table type ip size 10k peers x", "names peers that are not there"),
        ("stick on", "    stick on dst", "has \"on\" where match is expected"),
        ("timeout check", "    timeout check 3", "where seconds is expected, from 0s to 2147483s"),
        ("option httpchk", "    option httpchk BREW / HTTP/1.1", "has a method that is not known"),
        ("option httpchk", "    option httpchk GET /h HTTP/1.1\\r\\nX:\\ y", "has a header other than Host"),
        ("http-check send", "    http-check send hdr X-A b", "where expect rstatus is expected"),
        ("http-check expect", "    http-check expect rstatus 20|200", "has what is no status code"),
        ("http-check expect", "    http-check expect ! rstatus 200", "where expect rstatus is expected"),
        (
            "http-request set-header",
            "    http-request set-header X-Forwarded-Proto ftp",
            "sets a header that is not known",
        ),
        ("http-request set-header", "    http-request del-header X", "where set-header is expected"),
        (
            "server 00000000-0000-0000-0000-0000000000d1",
            "    server a 198.51.100.1:80 weight 1",
            "where the id of a member is expected",
        ),
        (
            "server 00000000-0000-0000-0000-0000000000d1",
            "    server 00000000-0000-0000-0000-0000000000d1 a.example:80 weight 1",
            "where address:port is expected",
        ),
        (
            "server 00000000-0000-0000-0000-0000000000d1",
            "    server 00000000-0000-0000-0000-0000000000d1 198.51.100.1:80",
            "ends where weight is expected",
        ),
        (
            "server 00000000-0000-0000-0000-0000000000d1",
            "    server 00000000-0000-0000-0000-0000000000d1 198.51.100.1:80 weight 257",
            "from 0 to 256",
        ),
        (
            "server 00000000-0000-0000-0000-0000000000d1",
            "    server 00000000-0000-0000-0000-0000000000d1 198.51.100.1:80 weight 1 track x",
            "an argument that is not known: \"track\"",
        ),
        (
            "server 00000000-0000-0000-0000-0000000000d1",
            "    server 00000000-0000-0000-0000-0000000000d1 198.51.100.1:80 weight 1 ssl sni ssl_fc_sni",
            "has neither ca-file nor verify none",
        ),
        (
            "server 00000000-0000-0000-0000-0000000000d2",
            "    server 00000000-0000-0000-0000-0000000000d2 169.254.169.254:80 weight 0 check check-ssl verify none inter 5s fall 3 rise 2 ssl verify none sni ssl_fc_sni",
            "address is the reserved address",
        ),
        (
            "server 00000000-0000-0000-0000-0000000000d2",
            "    server 00000000-0000-0000-0000-0000000000d2 198.51.100.2:80 weight 0 check check-ssl verify none inter 5s fall 4 rise 2 ssl verify none sni ssl_fc_sni",
            "says something else of check",
        ),
        (
            "server 00000000-0000-0000-0000-0000000000d2",
            "    server 00000000-0000-0000-0000-0000000000d2 198.51.100.2:80 weight 0 cookie 00000000-0000-0000-0000-0000000000d2",
            "says something else of ssl",
        ),
        // Sections.
        ("peers", "peers x", "is not the peers of this load balancer"),
        ("frontend", "frontend x", "where the id of a listener is expected"),
        (
            "backend",
            "backend 00000000-0000-0000-0000-0000000000c1:00000000-0000-0000-0000-0000000000f2",
            "is for a listener that is not there",
        ),
        ("defaults", "global", "is said in line 2 already"),
        (
            "option redispatch",
            "    option redispatch # not a comment",
            "has an argument that is not known: \"#\"",
        ),
    ] {
        let found = refused(old, new);
        assert!(found.contains(reason), "{new}: {found}");
    }
}

#[test]
fn what_is_missing_is_told_at_its_section() {
    for (without, section, reason) in [
        ("stats", "global", "has no stats socket"),
        ("bind", "frontend", "has no bind"),
        ("mode http", "frontend", "has no mode"),
        ("timeout client", "frontend", "has no timeout client"),
        ("redirect scheme", "http-response", "is for listeners that redirect to https"),
        ("log /run/rsyslog/octavia/log local3", "log global", "is said without a log in section global"),
        ("balance", "backend", "has no balance"),
        ("option allbackups", "backend", "has no option allbackups"),
        ("timeout server", "backend", "has no timeout server"),
        ("timeout check", "backend", "has a part of a health monitor"),
        ("stick on", "backend", "of session persistence that do not belong together"),
        ("http-check expect", "backend", "has option httpchk and http-check expect not together"),
    ] {
        let mut lines: Vec<&str> = TEXT.lines().collect();
        lines.remove(line(without).0 - 1);
        let fault = translate(lines.join("\n").as_bytes(), &NO_VIPS).unwrap_err();
        assert!(fault.reason.contains(reason), "{without}: {fault}");
        assert!(fault.text.starts_with(section), "{without}: {fault}");
    }
}

#[test]
fn what_comes_twice_is_refused() {
    let lines: Vec<&str> = TEXT.lines().collect();
    let mut seen = 0;
    for at in (1..lines.len()).filter(|at| !lines[*at].is_empty()) {
        let mut twice = lines.clone();
        twice.insert(at, lines[at]);
        let fault = translate(twice.join("\n").as_bytes(), &NO_VIPS).unwrap_err();
        assert!(fault.line > at, "{fault}");
        seen += 1;
    }
    assert!(seen > 40);
}

#[test]
fn a_pool_of_two_listeners_is_one_when_both_say_the_same() {
    let start = TEXT.find("frontend").unwrap();
    let second = TEXT[start..].replace("0000f1", "0000f2").replace(":443", ":444").replace("0000a", "0001a");
    let text = format!("{TEXT}\n{second}");
    let translated = translate(text.as_bytes(), &NO_VIPS).unwrap();
    let counts = (translated.load_balancer.listeners.len(), translated.load_balancer.pools.len());
    assert_eq!(counts, (2, 1));
    for (old, new, reason) in [
        ("weight 0", "weight 2", "is the pool of line 33 with another list of members"),
        ("balance source", "balance roundrobin", "is the pool of line 33 with another algorithm"),
        ("bind 192.0.2.10", "bind 192.0.2.11", "binds other addresses than the listener in line 20"),
    ] {
        let text = format!("{TEXT}\n{}", second.replace(old, new));
        assert_eq!(translate(text.as_bytes(), &NO_VIPS).unwrap_err().reason, reason);
    }
}

#[test]
fn a_text_without_a_listener_has_the_addresses_that_are_known() {
    let text = &TEXT[..TEXT.find("frontend").unwrap()];
    let fault = translate(text.as_bytes(), &NO_VIPS).unwrap_err();
    assert_eq!(fault.to_string(), "has no listener, and the addresses of the load balancer are not known");
    let vips = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let translated = translate(text.as_bytes(), &Context { vips: &vips, ..NO_VIPS }).unwrap();
    assert_eq!(translated.load_balancer.vips.len(), 2);
}

#[test]
fn a_listener_without_a_format_is_not_logged() {
    let mut lines: Vec<&str> = TEXT.lines().collect();
    lines.remove(line("log-format").0 - 1);
    let translated = translate(lines.join("\n").as_bytes(), &NO_VIPS).unwrap();
    assert_eq!(translated.load_balancer.listeners[0].flow_log, None);
    assert!(translated.remarks.iter().any(|remark| remark.line == 20));
}

/// One certificate, and a crt-list of the test's.
struct Uploaded(&'static str);

impl Certificates for Uploaded {
    fn has(&self, id: &CertificateId) -> bool {
        id.as_str() == "ca"
    }

    fn crt_list(&self, _: ListenerId) -> Option<Cow<'_, [u8]>> {
        (!self.0.is_empty()).then_some(Cow::Borrowed(self.0.as_bytes()))
    }
}

#[test]
fn files_that_are_named_have_to_be_there() {
    for (list, reason) in [
        ("", "names 00000000-0000-0000-0000-0000000000f1.pem, which is not there"),
        (
            "/c/l/ca.pem [alpn h2]\n",
            "names a crt-list whose line 1 has options or filters, which are not supported",
        ),
        ("/c/l/ca.pem\n/c/l/other.pem\n", "names a crt-list that names other.pem, which is not there"),
        ("/c/l/-.pem\n", "names a crt-list that names -.pem, which is no certificate's name"),
    ] {
        let context = Context { certificates: &Uploaded(list), vips: &[] };
        let fault = translate(TEXT.as_bytes(), &context).unwrap_err();
        assert_eq!((fault.line, fault.reason.as_str()), (24, reason));
    }
    let context = Context { certificates: &Uploaded("/c/l/ca.pem\n/c/l/ca.pem\n"), vips: &[] };
    assert!(translate(TEXT.as_bytes(), &context).is_ok());
}

#[test]
fn much_of_one_keyword_is_refused_at_once() {
    const LENGTH: usize = 10_000_000;
    let (head, _) = TEXT.split_at(TEXT.find("    daemon").unwrap());
    for line in [
        "    daemon\n",
        "    log x\n",
        "global\n",
        "\"\n",
        "\\ ",
        "a ",
        "a\n",
        " ",
        "'",
        "    peer\n",
        "&amp;",
    ] {
        let text = format!("{head}{}", line.repeat(LENGTH / line.len()));
        let fault = translate(text.as_bytes(), &NO_VIPS).unwrap_err();
        assert!(fault.line <= 4, "{fault}");
        assert!(fault.to_string().len() < 1000);
    }
    let empty = "\n".repeat(LENGTH);
    assert_eq!(translate(empty.as_bytes(), &NO_VIPS).unwrap_err().reason, "has no section global");
    let long = vec![b'\n'; MAX_TEXT + 1];
    assert!(translate(&long, &NO_VIPS).unwrap_err().reason.contains("is longer than"));
}

#[test]
fn any_text_is_refused_or_comes_back() {
    let mut g = amphora_model::arbitrary::Generator::new(3);
    let pieces: Vec<&str> = TEXT.split_inclusive(['\n', ' ']).collect();
    for _ in 0..3000 {
        let mut text: Vec<&str> = pieces.clone();
        for _ in 0..g.within(1..=3) {
            let (at, other) = (g.within(0..=text.len() - 1), g.pick(&pieces));
            match g.within(0..=2) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, other),
                _ => text[at] = other,
            }
        }
        super::super::fuzz(text.concat().as_bytes());
    }
}
