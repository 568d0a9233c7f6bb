//! HAProxy, as Octavia 19 renders it, less `daemon` and `user`, with a `maxconn` that the limit of open files allows, and
//! with one thread.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path, process::Command};

use super::{HIGH, HttpMembers, INTERVAL, Place, Setup};
use crate::Result;

/// The line that Octavia renders by default, for a project and a load balancer.
const LOG_FORMAT: &str = r#"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\ b708f6ae-8280-5d76-9ad7-2a7230bf3e03\ %f\ %ci\ %cp\ %t\ %{+Q}r\ %ST\ %B\ %U\ %[ssl_c_verify]\ %{+Q}[ssl_c_s_dn]\ %b\ %s\ %Tt\ %tsc"#;

/// What Octavia has for TLS by default, cut to suites that the other side has too.
const CIPHERS: &str = "ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256 ciphersuites \
                       TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256 no-sslv3 no-tlsv10 \
                       no-tlsv11 alpn h2,http/1.1";

pub(super) fn command(place: &Place<'_>) -> Result<Command> {
    let file = place.dir.join("haproxy.cfg");
    fs::write(&file, configuration(place)?)?;
    let mut command = Command::new(&place.programs.haproxy);
    command.args(["-db", "-f"]).arg(file);
    Ok(command)
}

fn configuration(place: &Place<'_>) -> Result<String> {
    let (_, open_files) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    // Two descriptors per session and, for splicing, a pipe for every fourth.
    let maxconn = (open_files.saturating_sub(100) * 2 / 5).min(50_000);
    let Place { members, dir, port, setup, .. } = place;
    let log = match (setup, place.syslog) {
        (Setup::Logged, Some(path)) => {
            format!("    log {0} local0\n    log {0} local1 notice\n", path.display())
        }
        _ => String::new(),
    };
    let mut text = format!(
        "global
{log}    stats socket {} mode 0666 level user
    nbthread 1
    maxconn {maxconn}
    tune.ssl.cachesize 393600

defaults
    {}
    retries 3
    option redispatch
    option splice-request
    option splice-response
    option http-keep-alive
",
        dir.join("stats.sock").display(),
        if log.is_empty() { "no log" } else { "log global" },
    );
    let format = if log.is_empty() { String::new() } else { format!("    log-format {LOG_FORMAT}\n") };
    let limit = match setup {
        Setup::Limited => format!(
            "\n    stick-table type ipv6 size 128k expire {0}s store http_req_rate({INTERVAL}s)\n    http-request track-sc0 src\n    \
             http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {HIGH} }}",
            2 * INTERVAL
        ),
        _ => String::new(),
    };
    match setup {
        Setup::Plain | Setup::Logged | Setup::Limited => {
            frontend(&mut text, maxconn, "http", &format!("bind 127.0.0.1:{port}{limit}"), &format);
            backends(&mut text, maxconn, "http", &members.plain, "");
            let (tcp, member) = (port + 1, members.tcp);
            let _ = write!(
                text,
                "
frontend tcp
    maxconn {maxconn}
    bind 127.0.0.1:{tcp}
    mode tcp
    default_backend third:tcp
    timeout client 50000

backend third:tcp
    mode tcp
    balance roundrobin
    fullconn {maxconn}
    option allbackups
    timeout connect 5000
    timeout server 50000
    server member4 {member} weight 1
"
            );
        }
        Setup::Tls => {
            for (name, port) in [("ecdsa", *port), ("rsa", port + 1)] {
                frontend(&mut text, maxconn, name, &bind_tls(dir, name, port)?, &format);
                backends(&mut text, maxconn, name, &members.plain, "");
            }
        }
        Setup::Reencrypt => {
            frontend(&mut text, maxconn, "reencrypt", &bind_tls(dir, "ecdsa", *port)?, &format);
            let authority = dir.join("authority.pem");
            let options = format!(" ssl ca-file {} verify required sni ssl_fc_sni", authority.display());
            backends(&mut text, maxconn, "reencrypt", &members.tls, &options);
        }
    }
    Ok(text)
}

fn bind_tls(dir: &Path, certificate: &str, port: u16) -> Result<String> {
    let list = dir.join(certificate).with_extension("list");
    fs::write(&list, format!("{}\n", dir.join(certificate).with_extension("pem").display()))?;
    Ok(format!(
        "redirect scheme https if !{{ ssl_fc }}\n    bind 127.0.0.1:{port} ssl crt-list {} {CIPHERS}",
        list.display()
    ))
}

fn frontend(text: &mut String, maxconn: u64, name: &str, bind: &str, format: &str) {
    let _ = write!(
        text,
        "
frontend {name}
    maxconn {maxconn}
    {bind}
    mode http
        acl rule1 path -m beg /reject
    http-request deny if rule1
        acl rule2 req.hdr(X-Pool) -m str second
    use_backend second:{name} if rule2
    default_backend first:{name}
    timeout client 50000
{format}"
    );
}

fn backends(text: &mut String, maxconn: u64, of: &str, members: &HttpMembers, options: &str) {
    let mut backend = |name: &str, members: &[SocketAddr]| {
        let _ = write!(
            text,
            "
backend {name}:{of}
    mode http
    http-reuse safe
    balance roundrobin
    option forwardfor
    fullconn {maxconn}
    option allbackups
    timeout connect 5000
    timeout server 50000
"
        );
        for member in members {
            let _ = writeln!(text, "    server member{} {member} weight 1{options}", member.port());
        }
    };
    backend("first", &members.first);
    backend("second", &[members.second]);
}
