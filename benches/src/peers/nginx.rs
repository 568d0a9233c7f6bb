//! nginx with its stream module.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use super::{HttpMembers, Place, Setup};
use crate::Result;

/// The stream module, where Debian's package libnginx-mod-stream has it; `None` when it is not installed.
pub(super) fn stream_module() -> Option<&'static Path> {
    Some(Path::new("/usr/lib/nginx/modules/ngx_stream_module.so")).filter(|p| p.exists())
}

pub(super) fn command(place: &Place<'_>) -> Result<Command> {
    let file = place.dir.join("nginx.conf");
    fs::write(&file, configuration(place))?;
    let mut command = Command::new(&place.programs.nginx);
    command.arg("-c").arg(file);
    Ok(command)
}

fn configuration(place: &Place<'_>) -> String {
    let Place { members, port, setup, .. } = place;
    let dir = place.dir.display();
    let module = stream_module().filter(|_| matches!(setup, Setup::Plain | Setup::Logged | Setup::Limited));
    let load = module.map(|p| format!("load_module {};\n", p.display())).unwrap_or_default();
    let user = if nix::unistd::Uid::effective().is_root() { "user root;\n" } else { "" };
    let log = match (setup, place.syslog) {
        (Setup::Logged, Some(path)) => format!(
            "log_format flow '$remote_addr $remote_port [$time_local] \"$request\" $status $bytes_sent $request_length \
             $upstream_addr $request_time';
    access_log syslog:server=unix:{},facility=local0,nohostname flow;",
            path.display()
        ),
        _ => "access_log off;".to_owned(),
    };
    let mut text = format!(
        "{load}{user}daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    {log}
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 50s;
    map $http_x_pool $pool {{ default first; second second; }}
    map $http_x_pool $tls_pool {{ default tls_first; second tls_second; }}
"
    );
    upstreams(&mut text, "", &members.plain);
    if *setup == Setup::Reencrypt {
        upstreams(&mut text, "tls_", &members.tls);
    }
    match setup {
        Setup::Plain | Setup::Logged | Setup::Limited => {
            let (status, h2c) = (port + 2, port + 3);
            server(&mut text, &format!("listen 127.0.0.1:{port} backlog=4096;"), "http://$pool");
            server(&mut text, &format!("listen 127.0.0.1:{h2c} http2 backlog=4096;"), "http://$pool");
            let _ = writeln!(
                text,
                "    server {{\n        listen 127.0.0.1:{status};\n        location / {{ stub_status; }}\n    }}"
            );
        }
        Setup::Tls => {
            for (port, certificate) in [(*port, "ecdsa"), (port + 1, "rsa")] {
                server(&mut text, &listen_tls(place.dir, certificate, port), "http://$pool");
            }
        }
        Setup::Reencrypt => {
            let listen = format!(
                "{}
        proxy_ssl_protocols TLSv1.2 TLSv1.3;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate {dir}/authority.pem;
        proxy_ssl_server_name on;
        proxy_ssl_name $ssl_server_name;",
                listen_tls(place.dir, "ecdsa", *port)
            );
            server(&mut text, &listen, "https://$tls_pool");
        }
    }
    text += "}\n";
    if module.is_some() {
        let (tcp, member) = (port + 1, members.tcp);
        let _ = write!(
            text,
            "stream {{
    server {{
        listen 127.0.0.1:{tcp} backlog=4096;
        proxy_connect_timeout 5s;
        proxy_timeout 50s;
        proxy_half_close on;
        proxy_pass {member};
    }}
}}
"
        );
    }
    text
}

fn listen_tls(dir: &Path, certificate: &str, port: u16) -> String {
    let dir = dir.display();
    format!(
        "listen 127.0.0.1:{port} ssl http2 backlog=4096;
        ssl_certificate {dir}/{certificate}.pem;
        ssl_certificate_key {dir}/{certificate}.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;
        ssl_session_cache shared:tls:10m;"
    )
}

fn upstreams(text: &mut String, prefix: &str, members: &HttpMembers) {
    let mut upstream = |name: &str, members: &[std::net::SocketAddr]| {
        let _ = writeln!(text, "    upstream {prefix}{name} {{");
        for member in members {
            let _ = writeln!(text, "        server {member};");
        }
        *text += "        keepalive 1024;\n        keepalive_requests 1000000000;\n        keepalive_timeout 50s;\n    }\n";
    };
    upstream("first", &members.first);
    upstream("second", &[members.second]);
}

fn server(text: &mut String, listen: &str, upstream: &str) {
    let _ = write!(
        text,
        "    server {{
        {listen}
        location /reject {{ return 403; }}
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_connect_timeout 5s;
            proxy_read_timeout 50s;
            proxy_pass {upstream};
        }}
    }}
"
    );
}
