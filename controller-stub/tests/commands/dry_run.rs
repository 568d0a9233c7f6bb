//! `apply --dry-run`: what is judged without an amphora, and by whom.

use super::*;

#[test]
fn a_dry_run_finds_faults_without_an_amphora() {
    let setup = Setup::new();
    let faulty = setup.file("bad.yaml", &yaml(80, 1).replace("protocol_port: 80\n", "protocol_prot: 80\n"));
    let dry = setup.run(&["apply", &faulty, "--dry-run"]);
    assert_eq!(dry.status.code(), Some(1), "{}", err(&dry));
    assert!(err(&dry).starts_with("error: the document cannot be honoured\n  "), "{}", err(&dry));
    for field in ["protocol_prot", "protocol_port"] {
        let fault = format!("\n  loadbalancer.listeners[0].{field}: ");
        assert!(err(&dry).contains(&fault), "{}", err(&dry));
    }
    assert!(setup.agent.state.lock().unwrap().requests.is_empty());

    // Nor need there be one to name. What is to be changed has to be.
    let alone = |file: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amphora-controller"));
        command.env_remove("AMPHORA_ENDPOINTS").env_remove("AMPHORA_CERTS");
        command.args(["apply", file]).args(more).output().unwrap()
    };
    let judged = alone(&faulty, &["--dry-run"]);
    assert_eq!((judged.status.code(), err(&judged)), (Some(1), err(&dry)));
    let sound = setup.file("good.yaml", &yaml(80, 1));
    let judged = alone(&sound, &["--dry-run"]);
    assert_eq!(judged.status.code(), Some(0), "{}", err(&judged));
    assert_eq!(out(&judged), "the document can be honoured; without --amphora nothing is compared\n");
    let unnamed = alone(&sound, &[]);
    assert_eq!(unnamed.status.code(), Some(2));
    assert!(err(&unnamed).contains("which amphora?"), "{}", err(&unnamed));
}

#[test]
fn a_dry_run_has_expressions_judged_by_the_proxy_or_says_that_they_were_not() {
    let setup = Setup::new();
    let file = setup.file("a.yaml", &yaml(80, 1));
    let proxy = |script: &str| {
        let text = setup.file("proxy.sh", &format!("#!/bin/sh\n{script}\n"));
        setup.executable(&text, "proxy")
    };
    let dry_run = |proxy: &str| setup.run(&["apply", &file, "--dry-run", "--proxy", proxy]);

    // It is asked with the document, as JSON.
    let taken = dry_run(&proxy(&format!("[ \"$*\" = '--check -' ] && grep -q '\"id\":\"{LISTENER}\"'")));
    assert_eq!(taken.status.code(), Some(0), "{}", err(&taken));
    assert!(out(&taken).contains("things would change") && err(&taken).is_empty(), "{}", err(&taken));

    let before = setup.agent.state.lock().unwrap().requests.len();
    let fault = r#"{"faults":[{"path":"loadbalancer.x[1].value","reason":"no expression"}]}"#;
    let refused = dry_run(&proxy(&format!("echo '{fault}'; exit 1")));
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
    assert_eq!(
        err(&refused),
        "error: the document cannot be honoured\n  loadbalancer.x[1].value: no expression\n"
    );
    // One that gives no verdict: older, or at fault itself.
    let strange = dry_run(&proxy("echo 'unexpected argument' >&2; exit 2"));
    assert_eq!(strange.status.code(), Some(5), "{}", err(&strange));
    assert!(err(&strange).contains("--check: exit status: 2: unexpected argument"), "{}", err(&strange));
    let missing = dry_run("/nonexistent/proxy");
    assert_eq!(missing.status.code(), Some(2), "{}", err(&missing));
    assert!(err(&missing).contains("/nonexistent/proxy: not there"), "{}", err(&missing));
    assert_eq!(setup.agent.state.lock().unwrap().requests.len(), before);

    // Alone in its directory, as on an operator's own machine.
    let alone = setup.executable(env!("CARGO_BIN_EXE_amphora-controller"), "bin/amphora-controller");
    let (certs, url) = (setup.certs(), setup.url());
    let unjudged = Command::new(&alone)
        .args(["apply", &file, "--dry-run", "--certs", certs.to_str().unwrap(), "--amphora", &url])
        .output()
        .unwrap();
    assert_eq!(unjudged.status.code(), Some(0), "{}", err(&unjudged));
    assert!(out(&unjudged).contains("things would change"), "{}", out(&unjudged));
    assert!(err(&unjudged).starts_with("warning: what L7 policies compare"), "{}", err(&unjudged));
    assert!(err(&unjudged).contains("bin/amphora-proxy is not there"), "{}", err(&unjudged));
}
