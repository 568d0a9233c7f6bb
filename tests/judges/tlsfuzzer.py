"""The judge tlsfuzzer: its scripts for servers of TLS 1.2 and 1.3, each of which is run or has a reason why not."""

import concurrent.futures
import os
import re
import subprocess
import sys
from pathlib import Path

from peer import Listener, NotAvailable, Verdict, certificates, haproxy, web_member

# The listeners: with keys of RSA and of ECDSA; clients may show certificates; TLS 1.2 alone.
LISTENERS = {
    "rsa": {"certificate": "rsa"},
    "ecdsa": {"certificate": "ecdsa"},
    "clients": {"certificate": "rsa", "clients": "OPTIONAL"},
    "tls12": {"certificate": "rsa", "versions": ("TLSv1.2",)},
}
SUITE = ["-C", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
SHOWN = {name: ["-k", f"client-{name}.key", "-c", f"client-{name}.crt"] for name in ["rsa", "ecdsa", "ed25519"]}

# Those that are run: the listener, arguments, scripts.
RUN = [
    ("rsa", [], """
        tls13-ccs tls13-connection-abort tls13-conversation tls13-empty-alert tls13-finished tls13-finished-plaintext tls13-hrr
        tls13-invalid-ciphers tls13-keyshare-omitted tls13-keyupdate tls13-large-number-of-extensions tls13-legacy-version
        tls13-multiple-ccs-messages tls13-no-unknown-groups tls13-nociphers tls13-record-padding
        tls13-record-layer-limits tls13-serverhello-random tls13-shuffled-extentions tls13-symetric-ciphers
        tls13-unencrypted-alert tls13-unrecognised-groups tls13-zero-content-type tls13-zero-length-data tls13-crfg-curves
        tls13-ecdhe-curves tls13-obsolete-curves tls13-pkcs-signature tls13-rsa-signatures tls13-signature-algorithms
        sig-algs signature-algorithms x25519 invalid-cipher-suites invalid-client-hello invalid-session-id invalid-version
        sslv2-connection clienthello-md5
    """),
    ("rsa", ["--kems", "x25519mlkem768"], "tls13-mlkem"),
    ("rsa", ["-t", "2"], "tls13-count-tickets"),
    ("rsa", ["-d"], """
        tls13-0rtt-garbage alpn-negotiation client-compatibility client-hello-max-size downgrade-protection
        extended-master-secret-extension fallback-scsv invalid-server-name-extension invalid-server-name-extension-resumption
        large-hello large-number-of-extensions message-skipping no-heartbeat resumption-with-wrong-ciphers
        session-ticket-resumption sessionID-resumption ssl-death-alert sslv2hello-protocol export-ciphers-rejected
        legacy-renegotiation
    """),
    ("rsa", ["-d", *SUITE], """
        tls13-version-negotiation aes-gcm-nonces ccs connection-abort conversation cve-2016-6309 early-application-data
        fuzzed-ciphertext hello-request-by-client invalid-client-hello-w-record-overflow
        invalid-compression-methods invalid-content-type no-mlkem-in-old-tls record-layer-fragmentation
        renegotiation-disabled truncating-of-client-hello version-numbers zero-length-data
    """),
    ("rsa", SUITE, "interleaved-CKE-with-CCS cve-2004-0079 point-extension"),
    ("rsa", ["-d", "--no-status"], "ocsp-stapling"),
    ("rsa", ["-d", "--tls1.2-cipher", SUITE[1], "--client-pke", "psk_dhe_ke"], "tls13-session-resumption"),
    ("ecdsa", ["-g", "secp256r1"], "tls13-ecdsa-support"),
    ("ecdsa", ["--ecdsa"], "signature-algorithms"),
    ("tls12", [], "tls13-non-support"),
    ("clients", SHOWN["rsa"], "tls13-certificate-request tls13-certificate-verify"),
    ("clients", ["-d", *SHOWN["rsa"]], """
        certificate-verify-malformed-sig extended-master-secret-extension-with-client-cert rsa-sigs-on-certificate-verify
    """),
    ("clients", ["-d", *SUITE, *SHOWN["rsa"]], """
        certificate-malformed certificate-request certificate-verify certificate-verify-malformed
    """),
    ("clients", SHOWN["ecdsa"], "tls13-ecdsa-in-certificate-verify ecdsa-in-certificate-verify"),
    ("clients", SHOWN["ed25519"], "tls13-eddsa-in-certificate-verify eddsa-in-certificate-verify"),
]

# Those that are not, with the reason: a server that passes them, or the script, ...
NOT_RUN = {
    "has no suites with CBC, CCM or RC4, and so no padding, MAC or records for these":
        "SSLv3-padding aesccm atypical-padding cve-2016-2107 encrypt-then-mac encrypt-then-mac-renegotiation fuzzed-MAC fuzzed-padding "
        "fuzzed-plaintext lucky13 record-size-limit",
    "has no key exchange with RSA, which is written into them":
        "bleichenbacher-timing-marvin bleichenbacher-timing-pregenerate bleichenbacher-workaround invalid-rsa-key-exchange-messages "
        "truncating-of-kRSA-client-key-exchange openssl-3712 empty-extensions extensions fuzzed-finished message-duplication serverhello-random "
        "truncating-of-finished TLSv1_2-rejected-without-TLSv1_2",
    "has no key exchange with finite fields":
        "dhe-key-share-random dhe-no-shared-secret-padding dhe-rsa-key-exchange dhe-rsa-key-exchange-signatures "
        "dhe-rsa-key-exchange-with-bad-messages ffdhe-expected-params ffdhe-negotiation tls13-dhe-shared-secret-padding tls13-ffdhe-groups "
        "tls13-ffdhe-sanity",
    "has no DSA": "dsa-in-certificate-verify dsa-sig-flexibility",
    "has no curves of brainpool": "tls13-ecdhe-brainpool-curves tls13-ecdsa-brainpool-in-certificate-verify",
    "has no ML-DSA": "tls13-mldsa-in-certificate-verify",
    "wants certificates with Ed448 and RSASSA-PSS keys": "tls13-eddsa tls13-rsapss-signatures",
    "has no renegotiation":
        "interleaved-application-data-and-fragmented-handshakes-in-renegotiation interleaved-application-data-in-renegotiation "
        "renegotiation-changed-clienthello sig-algs-renegotiation-resumption renegotiation-disabled-client-cert",
    "signs with SHA-1 for clients that name no signature algorithms, which nobody here does, nor HAProxy":
        "chacha20 ecdhe-rsa-key-exchange ecdhe-padded-shared-secret ecdhe-rsa-key-share-random unsupported-curve-fallback",
    "says that points are uncompressed, which none is not (RFC 8422 section 5.1.2): points that are wrong come in x25519 and tls13-ecdhe-curves":
        "ecdhe-rsa-key-exchange-with-bad-messages",
    "offers RSASSA-PSS with a key for it alone": "rsa-pss-sigs-on-certificate-verify",
    "wants a server that sends back what it gets": "lengths tls13-lengths",
    "has no heartbeats; that none is answered is for no-heartbeat to find out": "heartbeat",
    "has no compression of certificates": "tls13-certificate-compression tls13-client-certificate-compression",
    "has no external keys (PSK)": "tls13-psk_dhe_ke tls13-psk_ke",
    "asks for certificates during the handshake alone": "tls13-post-handshake-auth",
    "asks for no new keys by itself": "tls13-keyupdate-from-server",
    "measures time, or takes thousands of signatures apart": "tls13-minerva ecdsa-sig-flexibility",
    "was written for SSL 2.0, of which nothing is spoken":
        "sslv2-force-cipher sslv2-force-cipher-3des sslv2-force-cipher-non3des sslv2-force-export-cipher",
    "wants a suite with ChaCha20 that is chosen for 2^64 records": "cve-2016-7054",
}

# Where rustls differs from OpenSSL, and no client is worse off: patterns of the script, of the probe and of what it says, with the
# reason. Nothing is here that lets a client go on that should not.
OTHERWISE = [
    # RFC 8446 section 6.2 wants one alert or another; all of them are fatal, and the connection has ended.
    ("", "", 'Expected alert description .* does not match received', "refused, with another alert"),
    # rustls has no alert for these, and behind the keys nobody but it could send one.
    ("tls13-zero-content-type", "zero content type", "Unexpected closure", "refused without an alert (rustls: IllegalTlsInnerPlaintext)"),
    ("tls13-keyupdate", "appdata between", "Unexpected closure", "refused without an alert (rustls: MessageInterleavedWithHandshakeMessage)"),
    ("tls13-version-negotiation", "SSL 2.0", "closure", "a hello of SSL 2.0 is no TLS, and is told nothing"),
    # 64 KiB are what rustls takes of a hello, OpenSSL 128; the longest that anybody sends has some 2.
    ("large-hello|large-number-of-extensions|.*signature-algorithms.*|record-layer-fragmentation|truncating-of-client-hello",
     "padding|ciphers|extensions|methods|schemes|max fragment|big pad", "Unexpected closure|illegal_parameter", "a hello of 64 KiB and more"),
    # RFC 8446 section 5.1 has 2^14; rustls takes 2^14 + 2048 of a record whatever is in it, which is what is to be had in memory anyway.
    ("record-layer-fragmentation|tls13-record-layer-limits", "over fragmentation limit|too big ClientHello", "server_hello", "a record of 18 KiB"),
    ("tls13-connection-abort|tls13-count-tickets", "NewSessionTicket", "", "no tickets for who offers no psk_key_exchange_modes (RFC 8446 4.2.9)"),
    ("", "ffdhe|x448|FFDHE", "handshake_failure|^: $|^$", "no such group"),
    ("tls13-legacy-version", "", r"server_hello\)", "the field is ignored where there is supported_versions (RFC 8446 4.2.1)"),
    ("tls13-no-unknown-groups", "", "hello_retry_request|key_share", "a group of those is known: secp521r1"),
    ("tls13-obsolete-curves", "inconsistent extensions", "hello_retry_request", "asks for another group; who may look for this need not (RFC 8446 4.2.8)"),
    ("tls13-large-number-of-extensions", "", "decode_error", "an extension that is known, with nonsense in it"),
    ("tls13-keyupdate", "multiple KeyUpdate", "ApplicationData", "several requests are answered once (RFC 8446 4.6.3)"),
    ("tls13-0rtt-garbage", "fragmented early data", "bad_record_mac|closure", "more than 32 KiB of early data that is not wanted"),
    # The alert is encrypted, behind the ServerHello: rustls looks for an algorithm to sign with when it signs.
    ("tls13-(pkcs-signature|rsa-signatures|ecdsa-support|signature-algorithms)", "", r"server_hello\)", "refused one message later"),
    ("extended-master-secret-extension-with-client-cert", "resume", "Handshake.certificate", "sessions are resumed by ticket alone"),
    # RFC 5746 section 3.6. That is a client in the middle of a renegotiation with somebody else, which finds out by itself: the answer
    # has no verify_data of its first handshake (section 3.5).
    ("legacy-renegotiation", "non-empty initial", r"server_hello\)", "a renegotiation_info that is not empty is not looked at; the client refuses"),
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
    for name, (passed, failed) in ours.items():
        here_alone = sorted(failed.keys() - theirs[name][1].keys())
        for probe in here_alone:
            reason = otherwise(name, probe, failed[probe])
            verdicts.append(Verdict(f"{name}, {probe}", reason is not None, f"{failed[probe]} ({reason or 'HAProxy passes'})"))
        common = len(failed) - len(here_alone)
        both = f", {common} fail with HAProxy too" if common else ""
        there_alone = len(theirs[name][1].keys() - failed.keys())
        alone = f", {there_alone} fail with HAProxy alone" if there_alone else ""
        verdicts.append(Verdict(name, passed > 0, f"{passed} pass{both}{alone}"))
    known = {script for _, _, scripts in RUN for script in scripts.split()} | {s for all_ in NOT_RUN.values() for s in all_.split()}
    there = {path.stem.removeprefix("test-") for path in Path(source, "scripts").glob("test-*.py")}
    for name in sorted(there - known):
        verdicts.append(Verdict(name, False, "a script that is neither run nor has a reason why not"))
    return verdicts


def otherwise(name, probe, message):
    for script, probes, messages, reason in OTHERWISE:
        if re.fullmatch(script or ".*", name) and re.search(probes, probe) and re.search(messages, message):
            return reason
    return None


def probe_all(peer, source, member, directory, reports):
    """What came of each run, by a name that tells it from others of the same script."""
    reports.mkdir(exist_ok=True)
    runs = {}
    for listener, arguments, scripts in RUN:
        for script in scripts.split():
            runs[script if script not in runs else f"{script} ({listener})"] = (script, listener, arguments)
    listeners = {name: Listener(member, **fields) for name, fields in LISTENERS.items()}
    wanted = os.environ.get("TLSFUZZER_SCRIPTS")
    if wanted:
        runs = {name: run for name, run in runs.items() if run[0] in wanted.split()}
    with peer(directory, list(listeners.values())), concurrent.futures.ThreadPoolExecutor(2) as pool:

        def one(name):
            script, listener, arguments = runs[name]
            return one_script(source, script, arguments, listeners[listener].port, directory, reports / f"tlsfuzzer-{name}.txt")

        return dict(zip(runs, pool.map(one, runs), strict=True))


# Some scripts take a sample of their probes: the same for everybody. Suites that many name, without an option, are those that
# a listener has instead.
RUNNER = """
import random, runpy, sys
from tlslite.constants import CipherSuite
random.seed(7)
for key in ("RSA", "ECDSA"):
    setattr(CipherSuite, f"TLS_ECDHE_{key}_WITH_AES_128_CBC_SHA", getattr(CipherSuite, f"TLS_ECDHE_{key}_WITH_AES_128_GCM_SHA256"))
module = sys.argv.pop(1)
runpy.run_module(module, run_name='__main__', alter_sys=True)
"""


def one_script(source, name, arguments, port, directory, report):
    """How many probes passed, and which failed with what."""
    module = f"tlsfuzzer._apps.test_{name.replace('-', '_')}"
    command = [sys.executable, "-c", RUNNER, module, "-h", "127.0.0.1", "-p", str(port), *arguments]
    environment = os.environ | {"PYTHONPATH": str(source)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=directory)
    except subprocess.TimeoutExpired:
        return 0, {"all of it": "not done after 600 s"}
    report.write_text(done.stdout + done.stderr)
    counts = dict(re.findall(r"^(PASS|XFAIL|FAIL): (\d+)$", done.stdout, re.MULTILINE))
    if "PASS" not in counts:
        return 0, {"all of it": " ".join((done.stdout + done.stderr).strip().splitlines()[-1:])}
    listed = done.stdout.split("FAILED:")[-1] if int(counts["FAIL"]) else ""
    failed = dict.fromkeys(re.findall(r"^\t['\"](.*)['\"]$", listed, re.MULTILINE), "")
    # What was said of a probe stands between its name and the next one's.
    for probe, said in re.findall(r"^(.+) \.\.\.\n((?:(?!.+ \.\.\.$).*\n)*)", done.stdout, re.MULTILINE):
        errors = re.findall(r"^\w*(?:Error|Exception): ?(.*)$", said, re.MULTILINE)
        if probe in failed and errors:
            # For what it waited then.
            node = re.findall(r"processing node (\w+)", said)
            failed[probe] = f"{node[-1] if node else ''}: {errors[-1][:200]}"
    # Some scripts expect that nothing of theirs is spoken.
    return int(counts["PASS"]) + int(counts["XFAIL"]), failed
