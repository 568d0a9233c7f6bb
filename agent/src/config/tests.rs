#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use super::*;

/// What a controller of Octavia 19 renders, but for names and numbers.
const RENDERED: &str = "\
[DEFAULT]
debug = True
use_syslog = True

[haproxy_amphora]
base_cert_dir = /var/lib/octavia/certs
base_path = /var/lib/octavia
bind_host = 0.0.0.0
bind_port = 9443
haproxy_cmd = /usr/sbin/haproxy

[health_manager]
controller_ip_port_list = 172.30.0.3:5555, [fd00::3]:5555
heartbeat_interval = 3
heartbeat_key = in$$ecure

[amphora_agent]
agent_server_ca = /etc/octavia/certs/client_ca.pem
agent_server_cert = /etc/octavia/certs/server.pem
agent_request_read_timeout = 180
amphora_id = 0f66bb06-6ab9-5d2f-abb4-8f64a2a92e49
amphora_udp_driver = keepalived_lvs
agent_tls_protocol = TLSv1.2

[controller_worker]
loadbalancer_topology = ACTIVE_STANDBY
";

const LEAST: &str = "[amphora_agent]\namphora_id = a\n";

fn refused(text: &str) -> String {
    Config::parse(&format!("{LEAST}{text}")).unwrap_err().to_string()
}

#[test]
fn octavias_own_file_is_read() {
    let config = Config::parse(RENDERED).unwrap();
    assert!(config.debug);
    assert_eq!(config.bind.to_string(), "0.0.0.0:9443");
    assert_eq!(config.topology, Topology::ActiveStandby);
    assert_eq!(config.heartbeat.controllers.len(), 2);
    assert_eq!(config.heartbeat.interval, Duration::from_secs(3));
    assert_eq!(config.heartbeat.key, "in$ecure");
    assert_eq!(config.amphora_id, "0f66bb06-6ab9-5d2f-abb4-8f64a2a92e49");
    for (written, key) in
        [("a&amp;b&#39;&#34;&lt;c", "a&b'\"<c"), ("a&amp;amp;b", "a&amp;b"), ("a&b&amp;c", "a&b&amp;c")]
    {
        let text = RENDERED.replace("in$$ecure", written);
        assert_eq!(Config::parse(&text).unwrap().heartbeat.key, key);
    }
}

#[test]
fn defaults_are_octavias() {
    let config = Config::parse(LEAST).unwrap();
    assert_eq!(config.bind.to_string(), "[::]:9443");
    assert_eq!(config.base_path, Path::new("/var/lib/octavia"));
    assert_eq!(config.request_read_timeout, Duration::from_secs(180));
    assert_eq!(config.heartbeat.interval, Duration::from_secs(10));
    assert_eq!(config.tls_protocol, TlsProtocol::Tls12);
    assert_eq!(config.control_socket, Path::new("/run/amphora/proxy.sock"));
    assert_eq!(config.vrrp_control_socket, Path::new("/run/amphora/vrrp.sock"));
    assert_eq!(config.vrrp_fitness_interval, Duration::from_millis(25));
    assert_eq!((config.vrrp_cmd, config.proxy_workers, config.network_namespace), (None, None, None));
    assert_eq!((config.peers_file, config.log_socket), (None, None));
}

#[test]
fn references_reach_other_sections_and_defaults() {
    let config = Config::parse(&format!(
        "{LEAST}[DEFAULT]\nroot = /x\n[haproxy_amphora]\nbase_path = $root/lib\n\
         [amphora]\nrun_dir = ${{haproxy_amphora.base_path}}/run\n"
    ))
    .unwrap();
    assert_eq!(config.control_socket, Path::new("/x/lib/run/proxy.sock"));
}

#[test]
fn unknown_options_are_ignored_in_octavias_sections_alone() {
    assert!(
        Config::parse(&format!("{LEAST}[haproxy_amphora]\nrespawn_count = 2\n[other]\nx = $y\n")).is_ok()
    );
    assert_eq!(refused("[amphora]\nproxy_comand = /x\n"), "line 4: [amphora] proxy_comand: no such option");
}

#[test]
fn what_is_ignored_or_odd_is_remarked_upon() {
    let remarks = |text: &str| Config::parse(text).unwrap().remarks;
    assert!(remarks(RENDERED).is_empty(), "{:?}", remarks(RENDERED));
    assert!(remarks(include_str!("../../../docs/amphora-agent.conf")).is_empty());
    assert_eq!(
        remarks(
            "[DEFAULT]\nroot = /x\n[haproxy_amphora]\nbase_path = $root/lib\nbind_prot = 1\n\
             [amphora_agent]\namphora_id = a\n[api_settings]\nbind_port = 1\n"
        ),
        [
            "line 5: [haproxy_amphora] bind_prot: no such option here; it is ignored",
            "[amphora_agent] amphora_id: \"a\" is not a UUID, as Octavia's ids are",
        ]
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    assert_eq!(Config::parse("").unwrap_err().to_string(), "[amphora_agent] amphora_id: must be set");
    for (text, reason) in [
        ("[haproxy_amphora]\nbind_port = 70000", "[haproxy_amphora] bind_port: "),
        ("[haproxy_amphora]\nbase_path = lib", "[haproxy_amphora] base_path: not an absolute path"),
        ("[haproxy_amphora]\nbase_path = $nope/x", "[haproxy_amphora] base_path: $nope is not set"),
        ("[health_manager]\nheartbeat_interval = 0", "[health_manager] heartbeat_interval: must be from 1"),
        (
            "[health_manager]\ncontroller_ip_port_list = localhost:5555",
            "[health_manager] controller_ip_port_list",
        ),
        (
            "[health_manager]\ncontroller_ip_port_list = 127.0.0.1:5555",
            "[health_manager] heartbeat_key: must",
        ),
        ("[amphora_agent]\nagent_tls_protocol = TLSv2", "[amphora_agent] agent_tls_protocol: not one of"),
        ("[controller_worker]\nloadbalancer_topology = TRIO", "[controller_worker] loadbalancer_topology"),
        ("[amphora]\nnetwork_namespace = ../x", "[amphora] network_namespace: not the name"),
        ("[amphora]\nvrrp_fitness_interval = 5", "[amphora] vrrp_fitness_interval: must be from 10 to 60000"),
        ("[amphora]\nvrrp_cmd = vrrp", "[amphora] vrrp_cmd: not an absolute path"),
        ("[amphora]\npeers_file = peers.json", "[amphora] peers_file: not an absolute path"),
        ("[amphora]\nlog_socket = log", "[amphora] log_socket: not an absolute path"),
        ("[amphora]\nproxy_workers = 257", "[amphora] proxy_workers: must be from 0 to 256"),
        ("[DEFAULT]\ndebug = maybe", "[DEFAULT] debug: not a boolean"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(&format!("line 4: {reason}")), "{error}");
    }
}

#[test]
fn controllers_are_split_at_the_last_colon() {
    for (text, expected) in [
        ("127.0.0.1:5555", "127.0.0.1:5555"),
        ("[::1]:5555", "[::1]:5555"),
        ("fd00::3:5555", "[fd00::3]:5555"),
        ("[fe80::1%7]:5555", "[fe80::1%7]:5555"),
    ] {
        assert_eq!(controller(text).unwrap().to_string(), expected);
    }
    for text in ["", "127.0.0.1", "127.0.0.1:0", "[::1", "::1%nosuchinterface:5555"] {
        assert!(controller(text).is_err(), "{text}");
    }
    assert_eq!(controllers(" 127.0.0.1:1 ,127.0.0.1:2,, ").map(|c| c.len()), Ok(2));
}

#[test]
fn the_manual_has_every_option_and_its_default() {
    let manual = include_str!("../../../docs/agent.md");
    for name in OWN_OPTIONS {
        assert!(manual.contains(&format!("| `[{OWN}] {name}` |")), "{name}");
    }
    for (section, name, default) in DEFAULTS.iter().filter(|(_, _, default)| !default.is_empty()) {
        assert!(
            manual.contains(&format!("| `[{section}] {name}` | `{default}` |")),
            "{section} {name} {default}"
        );
    }
}

#[test]
fn the_example_is_usable_and_shows_the_defaults() {
    let example = include_str!("../../../docs/amphora-agent.conf");
    assert!(Config::parse(example).is_ok());
    for (_, name, default) in
        DEFAULTS.iter().filter(|(_, name, default)| !default.is_empty() && *name != "bind_host")
    {
        assert!(example.contains(&format!("# {name} = {default}\n")), "{name} {default}");
    }
}

#[test]
fn the_key_is_not_printed() {
    let config = Config::parse(RENDERED).unwrap();
    assert!(!format!("{config:?}").contains("ecure"));
}

fn load(sources: &[Source]) -> Result<Config, String> {
    Config::load(&Sources::new(sources.to_vec())).map_err(|e| e.to_string())
}

#[test]
fn of_several_files_the_later_counts_option_by_option() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let write = |name: &str, text: &str| {
        fs::write(path(name), text).unwrap();
        Source::File(path(name))
    };
    fs::create_dir(path("conf.d")).unwrap();
    let octavias = write("octavia.conf", RENDERED);
    let image = write("image.conf", "[haproxy_amphora]\nbind_port = 1\n[amphora]\nrun_dir = /run/$name\n");
    write("conf.d/20-b.conf", "[haproxy_amphora]\nbind_port = 3\n[DEFAULT]\nname = b\n");
    write("conf.d/10-a.conf", "[haproxy_amphora]\nbind_port = 2\nbase_path = /a\n[DEFAULT]\nname = a\n");
    for other in ["conf.d/30-c.conf~", "conf.d/.40-d.conf", "conf.d/conf", "conf.d/50-e.conf.bak"] {
        write(other, "[amphora]\nno = such option\n");
    }
    let in_directory = Source::Directory(path("conf.d"));

    let config = load(&[octavias.clone(), image.clone(), in_directory.clone()]).unwrap();
    assert_eq!(config.bind.to_string(), "0.0.0.0:3");
    assert_eq!(
        (config.base_path.as_path(), config.run_dir.as_path()),
        (Path::new("/a"), Path::new("/run/b"))
    );
    assert_eq!((config.heartbeat.key.as_str(), config.topology), ("in$ecure", Topology::ActiveStandby));
    let config = load(&[in_directory.clone(), octavias.clone(), image.clone()]).unwrap();
    assert_eq!(config.bind.to_string(), "0.0.0.0:1");
    assert_eq!(
        (config.base_path.as_path(), config.run_dir.as_path()),
        (Path::new("/var/lib/octavia"), Path::new("/run/b"))
    );

    // Each file stands for itself: neither a section nor a value goes on in the next.
    for (text, reason) in [
        ("bind_port = 4\n", "line 1: assignment before the first section"),
        ("  4\n", "line 1: unexpected continuation line"),
        ("[amphora]\n\nworkers = 1\n", "line 3: [amphora] workers: no such option"),
        (
            "[haproxy_amphora]\nbind_port = x\n",
            "line 2: [haproxy_amphora] bind_port: \"x\": invalid digit found in string",
        ),
        (
            "[health_manager]\nheartbeat_interval = 0\n",
            "line 2: [health_manager] heartbeat_interval: must be from 1 to 86400: 0",
        ),
    ] {
        let last = write("last.conf", text);
        let expected = format!("{}: {reason}", path("last.conf").display());
        assert_eq!(load(&[octavias.clone(), last.clone()]).unwrap_err(), expected);
        if !text.contains("workers") && text.starts_with('[') {
            assert!(load(&[last, octavias.clone()]).is_ok(), "what is said again later is not read");
        }
    }
    let remarks =
        load(&[write("odd.conf", "[haproxy_amphora]\nbind_prot = 1\n"), octavias.clone()]).unwrap().remarks;
    assert_eq!(
        remarks,
        [format!(
            "{}: line 2: [haproxy_amphora] bind_prot: no such option here; it is ignored",
            path("odd.conf").display()
        )]
    );
    // As for oslo, what is named has to be there, and a directory may be empty.
    for missing in [Source::File(path("missing")), Source::Directory(path("missing"))] {
        let error = load(&[octavias.clone(), missing]).unwrap_err();
        assert!(
            error.starts_with(&format!("cannot read {}: No such file", path("missing").display())),
            "{error}"
        );
    }
    fs::create_dir(path("empty.d")).unwrap();
    assert_eq!(
        load(&[octavias, Source::Directory(path("empty.d"))]).unwrap(),
        Config::parse(RENDERED).unwrap()
    );
}

/// Files and directories in any order, read by the real oslo.config and by us.
#[test]
fn oslo_takes_the_same_of_several_files() {
    const SCRIPT: &str = r#"
import itertools, json, os, sys
from oslo_config import cfg
given, root = json.load(sys.stdin)
out = []
for arguments in given:
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.StrOpt(name) for name in ("x", "y", "z")], group="s")
    conf.register_opts([cfg.StrOpt("w")])
    conf(arguments, project="amphora", default_config_files=[root + "/1.conf"], default_config_dirs=[])
    out.append([conf.s.x, conf.s.y, conf.s.z, conf.w])
json.dump(out, sys.stdout)
"#;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap();
    for (name, text) in [
        ("1.conf", "[DEFAULT]\nw = d1\n[s]\nx = 1\ny = $x\n"),
        ("2.conf", "[DEFAULT]\nw = d2\n[S]\nx = 2\nz = ${s.x}/$w\n[s]\nx = two\n"),
        ("d/b.conf", "[s]\ny = b\n"),
        ("d/B.conf", "[s]\ny = B\nz=\n[DEFAULT]\nw = dB\n"),
        ("d/10.conf", "[s]\ny = 10\nx = $y$y\n"),
        ("d/9.conf", "[s]\ny = 9\nx = $y$$y\n"),
        ("d/.hidden.conf", "[s]\ny = hidden\n"),
        ("d/a.config", "[s]\ny = config\n"),
        ("e/only.conf", "[DEFAULT]\nw = e\n[s]\nx = e\n"),
    ] {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let all = ["--config-file=1.conf", "--config-file=2.conf", "--config-dir=d", "--config-dir=e"];
    let mut given: Vec<Vec<&str>> = vec![Vec::new()];
    for _ in 0..3 {
        let longer = given.iter().flat_map(|some| all.iter().map(|one| [some.as_slice(), &[*one]].concat()));
        given = longer.chain(given.clone()).collect();
    }
    given.sort();
    given.dedup();
    let arguments: Vec<Vec<String>> = given
        .iter()
        .map(|some| some.iter().map(|one| one.replacen('=', &format!("={root}/"), 1)).collect())
        .collect();
    let Some(theirs) = crate::testing::octavia::ask::<Vec<[Option<String>; 4]>>(SCRIPT, &(&arguments, root))
    else {
        return;
    };
    for (arguments, theirs) in arguments.iter().zip(theirs) {
        let mut sources: Vec<Source> = Vec::new();
        if !arguments.iter().any(|argument| argument.starts_with("--config-file")) {
            sources.push(Source::File(directory.path().join("1.conf")));
        }
        sources.extend(arguments.iter().map(|argument| match argument.split_once('=').unwrap() {
            ("--config-file", path) => Source::File(path.into()),
            (_, path) => Source::Directory(path.into()),
        }));
        let ini = Sources::new(sources).read().unwrap();
        let read = Reader { ini: &ini, defaults: &[] };
        let text = |text: &str| Ok(text.to_owned());
        let ours = [("s", "x"), ("s", "y"), ("s", "z"), ("DEFAULT", "w")].map(|(section, name)| {
            ini.get(section, name).and_then(|_| read.required(section, name, text).ok())
        });
        assert_eq!(ours, theirs, "{arguments:?}");
    }
    println!("{} command lines", arguments.len());
}

/// Texts that come near the dialect's edges, read by the real oslo.config and by us.
#[test]
fn oslo_reads_every_text_the_same_way() {
    use proptest::{
        strategy::{Strategy, ValueTree},
        test_runner::TestRunner,
    };

    const SCRIPT: &str = r#"
import json, os, sys, tempfile
from oslo_config import cfg, iniparser
out = []
with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, "f")
    for text in json.load(sys.stdin):
        with open(path, "w", newline="", encoding="utf-8") as f:
            f.write(text)
        sections, normalized = {}, {}
        parser = cfg.ConfigParser(path, sections)
        parser._add_normalized(normalized)
        try:
            parser.parse()
        except iniparser.ParseError:
            out.append(None)
            continue
        out.append([[s, k, vs[-1]] for s, o in normalized.items() for k, vs in o.items()])
json.dump(out, sys.stdout)
"#;
    let line = proptest::string::string_regex(
        "\\[[a-zA-Z ]{0,4}\\]?|[ \t]{0,2}[a-z]{0,2} ?[=:]{0,2} ?[a-z'\"#;=:$ ]{0,6}|[#;] ?[a-z]{0,2}|[ \t\x1c]{0,3}|[ ]{0,1}.{0,4}",
    )
    .unwrap();
    let newline = proptest::sample::select(vec!["\n", "\n", "\n", "\r\n", "\r"]);
    let text = proptest::collection::vec((line, newline), 0..8);
    let text = text.prop_map(|lines| {
        let body: String = lines.into_iter().flat_map(|(line, end)| [line, end.to_owned()]).collect();
        format!("[s]\n{body}")
    });
    let mut runner = TestRunner::deterministic();
    let texts: Vec<String> = (0..2000).map(|_| text.new_tree(&mut runner).unwrap().current()).collect();
    type Read = Option<Vec<(String, String, String)>>;
    let Some(theirs) = crate::testing::octavia::ask::<Vec<Read>>(SCRIPT, &texts) else { return };
    let mut refused = 0;
    for (text, theirs) in texts.iter().zip(theirs) {
        let ours = Ini::parse(text);
        assert_eq!(ours.is_ok(), theirs.is_some(), "{text:?}: {ours:?} {theirs:?}");
        let Some(theirs) = theirs else {
            refused += 1;
            continue;
        };
        let ours = ours.unwrap();
        for (section, name, value) in theirs {
            assert_eq!(ours.get(&section, &name).map(|a| &a.value), Some(&value), "{text:?}");
        }
    }
    println!("{} texts, {refused} of them refused by both", texts.len());
}
