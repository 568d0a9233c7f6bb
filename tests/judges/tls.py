"""Judges of TLS: testssl.sh, sslyze and tlsfuzzer."""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from peer import NAME, Listener, NotAvailable, Verdict, certificates, haproxy, web_member

# What testssl.sh finds fault with and is none of the listener's: an authority made for the test publishes no revocations and no
# record in the DNS.
NOT_OURS = ("cert_revocation", "cert_ocspRevoked", "cert_crlDistributionPoints", "DNS_CAArecord", "cert_chain_of_trust",
            "cert_ocspURL", "OCSP_stapling", "security_headers", "cert_trust")


def testssl(peer, directory, reports):
    """Its report in full; anything of MEDIUM and above that is the listener's fails."""
    program = shutil.which("testssl") or shutil.which("testssl.sh")
    if not program:
        raise NotAvailable("testssl.sh is not installed")
    certificates(directory)
    verdicts = []
    with web_member() as member:
        listeners = {name: Listener(member, name) for name in ["ecdsa", "rsa"]}
        with peer(directory, list(listeners.values())):
            for name, listener in listeners.items():
                report = reports / f"testssl-{name}.json"
                report.unlink(missing_ok=True)
                command = [program, "--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--nodns", "none",
                           "--add-ca", directory / "ca.pem", "--jsonfile", report, f"{NAME}:{listener.port}"]
                with (reports / f"testssl-{name}.txt").open("wb") as out:
                    subprocess.run(command, stdout=out, stderr=out, timeout=900)
                findings = json.loads(report.read_text())
                if len(findings) < 50:
                    verdicts.append(Verdict(name, False, f"only {len(findings)} findings: {findings}"))
                    continue
                for finding in findings:
                    if finding["severity"] in ("OK", "INFO"):
                        continue
                    ours = not any(finding["id"].startswith(other) for other in NOT_OURS)
                    bad = ours and finding["severity"] != "LOW"
                    of = f"{name}, {finding['id']}"
                    verdicts.append(Verdict(of, not bad, f"{finding['severity']}: {finding['finding']}"))
                verdicts.append(Verdict(f"{name}, the report", True, f"{len(findings)} findings"))
    return verdicts


def sslyze(peer, directory, reports):
    """Whether the listener is as Mozilla's intermediate configuration wants it, which takes in all known vulnerabilities."""
    certificates(directory)
    verdicts = []
    with web_member() as member:
        listeners = {name: Listener(member, name) for name in ["ecdsa", "rsa"]}
        with peer(directory, list(listeners.values())):
            for name, listener in listeners.items():
                report = reports / f"sslyze-{name}.json"
                command = [sys.executable, "-m", "sslyze", "--mozilla_config=intermediate", f"--json_out={report}",
                           f"--certinfo_ca_file={directory}/ca.pem", f"--sni={NAME}", f"127.0.0.1:{listener.port}"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=600)
                (reports / f"sslyze-{name}.txt").write_text(done.stdout + done.stderr)
                verdicts.append(Verdict(name, done.returncode == 0, compliance(done.stdout)))
    return verdicts


def compliance(text):
    lines = text.split("COMPLIANCE AGAINST TLS CONFIGURATION")[-1].splitlines()[2:]
    return " ".join(line.strip() for line in lines if line.strip())[:2000]


# The scripts that fit a server which has TLS 1.2 and 1.3 with ECDHE and authenticated encryption alone: without a client's
# certificate, without CBC, DHE and RSA key exchange, without renegotiation.
SUITE = ["-C", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
SCRIPTS = {
    "tls13-ccs": [],
    "tls13-connection-abort": [],
    "tls13-conversation": [],
    "tls13-empty-alert": [],
    "tls13-finished": [],
    "tls13-finished-plaintext": [],
    "tls13-hrr": [],
    "tls13-invalid-ciphers": [],
    "tls13-keyshare-omitted": [],
    "tls13-keyupdate": [],
    "tls13-large-number-of-extensions": [],
    "tls13-legacy-version": [],
    "tls13-multiple-ccs-messages": [],
    "tls13-no-unknown-groups": [],
    "tls13-nociphers": [],
    "tls13-record-padding": [],
    "tls13-serverhello-random": [],
    "tls13-session-resumption": [],
    "tls13-shuffled-extentions": [],
    "tls13-symetric-ciphers": [],
    "tls13-unencrypted-alert": [],
    "tls13-unrecognised-groups": [],
    "tls13-version-negotiation": [],
    "tls13-zero-content-type": [],
    "tls13-zero-length-data": [],
    "aes-gcm-nonces": SUITE,
    "ccs": SUITE,
    "connection-abort": SUITE,
    "cve-2016-6309": SUITE,
    "early-application-data": SUITE,
    "extended-master-secret-extension": [],
    "fuzzed-ciphertext": SUITE,
    "hello-request-by-client": SUITE,
    "invalid-client-hello-w-record-overflow": SUITE,
    "invalid-compression-methods": SUITE,
    "invalid-content-type": SUITE,
    "record-layer-fragmentation": SUITE,
    "renegotiation-disabled": SUITE,
    "truncating-of-client-hello": SUITE,
    "version-numbers": SUITE,
    "zero-length-data": SUITE,
}


# Where rustls differs from OpenSSL and a client is as safe, by the script, the probe and what it says: patterns, with the reason.
OTHERWISE = [
    ("", "", 'Expected alert description .* does not match received', "refused with another alert"),
    ("", "", "^ExpectAlert: Unexpected closure", "ended without an alert"),
    ("tls13-zero-content-type|tls13-keyupdate", "", "Unexpected closure", "ended without an alert"),
    ("tls13-connection-abort", "NewSessionTicket", "", "no tickets for who offers no psk_key_exchange_modes (RFC 8446 4.2.9)"),
    ("tls13-version-negotiation", "SSL 2.0", "closure", "ended without an alert"),
    ("", "ffdhe|x448|FFDHE", "handshake_failure|", "no such group"),
    ("tls13-legacy-version", "", r"server_hello\)", "the field is ignored where there is supported_versions (RFC 8446 4.2.1)"),
    ("tls13-no-unknown-groups", "", "hello_retry_request|key_share", "asks for another group"),
    ("tls13-large-number-of-extensions", "", "decode_error", "an extension that is known, with nonsense in it"),
    ("record-layer-fragmentation|truncating-of-client-hello", "", "closure|server_hello\\)", "a hello may have 64 KiB, where OpenSSL has other limits"),
    ("tls13-keyupdate", "multiple KeyUpdate", "ApplicationData", "several requests are answered once"),
]


def tlsfuzzer(peer, directory, reports):
    """A probe that HAProxy passes must pass; what fails with both is told.

    It is a repository without a package: TLSFUZZER is where it was cloned.
    """
    source = os.environ.get("TLSFUZZER")
    if not source or not Path(source, "tlsfuzzer/_apps").is_dir():
        raise NotAvailable("TLSFUZZER does not name a clone of https://github.com/tlsfuzzer/tlsfuzzer")
    certificates(directory)
    with web_member() as member:
        ours = probe_all(peer, source, member, directory, reports)
        theirs = ours if peer is haproxy else probe_all(haproxy, source, member, directory, reports / "haproxy")
    verdicts = []
    for name, (passed, failed, note) in ours.items():
        here_alone = sorted(failed.keys() - theirs[name][1].keys())
        for probe in here_alone:
            reason = otherwise(name, probe, failed[probe])
            verdicts.append(Verdict(f"{name}, {probe}", reason is not None, f"{failed[probe]} ({reason or 'HAProxy passes'})"))
        common = len(failed) - len(here_alone)
        both = f", {common} fail with HAProxy too" if common else ""
        verdicts.append(Verdict(name, passed + len(failed) > 0, f"{passed} pass{both}{note}"))
    return verdicts


def otherwise(name, probe, message):
    for script, probes, messages, reason in OTHERWISE:
        if re.fullmatch(script or ".*", name) and re.search(probes, probe) and re.search(messages, message):
            return reason
    return None


def probe_all(peer, source, member, directory, reports):
    reports.mkdir(exist_ok=True)
    listener = Listener(member, "rsa")
    with peer(directory, [listener]), concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda name: one_script(source, name, listener.port, reports), SCRIPTS)
        return dict(zip(SCRIPTS, done, strict=True))


# Some scripts take a sample of their probes: the same for everybody.
SEEDED = "import random, runpy, sys; random.seed(7); module = sys.argv.pop(1); runpy.run_module(module, run_name='__main__', alter_sys=True)"


def one_script(source, name, port, reports):
    """How many probes passed, which failed with what, and what else there is to say."""
    module = f"tlsfuzzer._apps.test_{name.replace('-', '_')}"
    command = [sys.executable, "-c", SEEDED, module, "-h", "127.0.0.1", "-p", str(port), *SCRIPTS[name]]
    environment = os.environ | {"PYTHONPATH": str(source)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    except subprocess.TimeoutExpired:
        return 0, {"all of it": "not done after 600 s"}, ""
    (reports / f"tlsfuzzer-{name}.txt").write_text(done.stdout + done.stderr)
    counts = dict(re.findall(r"^(PASS|FAIL): (\d+)$", done.stdout, re.MULTILINE))
    if "PASS" not in counts:
        return 0, {"all of it": done.stderr.strip().splitlines()[-1:]}, ""
    listed = done.stdout.split("FAILED:")[-1] if int(counts["FAIL"]) else ""
    failed = dict.fromkeys(re.findall(r"^\t['\"](.*)['\"]$", listed, re.MULTILINE), "")
    # What was said of a probe stands between its name and the next one's.
    for probe, said in re.findall(r"^(.+) \.\.\.\n((?:(?!.+ \.\.\.$).*\n)*)", done.stdout, re.MULTILINE):
        errors = re.findall(r"^\w*(?:Error|Exception): ?(.*)$", said, re.MULTILINE)
        if probe in failed and errors:
            # For what it waited then.
            node = re.findall(r"processing node (\w+)", said)
            failed[probe] = f"{node[-1] if node else ''}: {errors[-1][:200]}"
    return int(counts["PASS"]), failed, ""
