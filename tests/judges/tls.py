"""Judges of TLS: testssl.sh and sslyze."""

import json
import shutil
import subprocess
import sys

from peer import NAME, Listener, NotAvailable, Verdict, certificates, web_member

# What testssl.sh finds fault with and is none of the listener's: an authority made for the test publishes no revocations and no
# record in the DNS; and the OpenSSL of this machine may have no engines.
NOT_OURS = ("cert_revocation", "cert_ocspRevoked", "cert_crlDistributionPoints", "DNS_CAArecord", "cert_chain_of_trust",
            "cert_ocspURL", "OCSP_stapling", "security_headers", "cert_trust", "engine_problem")


# Checks that testssl.sh does not always come to the end of.
UNSTEADY = {"sessionresumption_ticket": "openssl s_client breaks off, of HAProxy's sessions as well"}

# With keys of ECDSA and RSA; where clients may, and must, show a certificate; and of one version alone.
LISTENERS = {
    "ecdsa": {"certificate": "ecdsa"},
    "rsa": {"certificate": "rsa"},
    "optional": {"certificate": "rsa", "clients": "OPTIONAL"},
    "mandatory": {"certificate": "ecdsa", "clients": "MANDATORY"},
    "tls12": {"certificate": "rsa", "versions": ("TLSv1.2",)},
    "tls13": {"certificate": "ecdsa", "versions": ("TLSv1.3",)},
}


def testssl(peer, directory, reports):
    """Its report in full; anything of MEDIUM and above that is the listener's fails."""
    program = shutil.which("testssl") or shutil.which("testssl.sh")
    if not program:
        raise NotAvailable("testssl.sh is not installed")
    certificates(directory)
    verdicts = []
    with web_member() as member:
        # That of Debian 12 shows no certificate.
        listeners = {name: Listener(member, **fields) for name, fields in LISTENERS.items() if name != "mandatory"}
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
                    unsteady = finding["severity"] == "WARN" and UNSTEADY.get(finding["id"])
                    bad = ours and finding["severity"] != "LOW" and not unsteady
                    of = f"{name}, {finding['id']}"
                    why = f"{finding['severity']}: {finding['finding']}{unsteady and f' ({unsteady})' or ''}"
                    verdicts.append(Verdict(of, not bad, why))
                verdicts.append(Verdict(f"{name}, the report", True, f"{len(findings)} findings"))
    return verdicts


# What Mozilla's intermediate configuration does not want and is right all the same: what sslyze says, and the reason.
WANTED = {
    "* tls_curves: TLS curves {'secp521r1'} are supported, but should be rejected.":
        "stronger than what it wants, and offered last; HAProxy with OpenSSL 3.0 offers it before secp384r1, and x448",
}


def sslyze(peer, directory, reports):
    """Whether the listener is as Mozilla's intermediate configuration wants it, which takes in all known vulnerabilities."""
    certificates(directory)
    verdicts = []
    with web_member() as member:
        listeners = {name: Listener(member, **fields) for name, fields in LISTENERS.items()}
        with peer(directory, list(listeners.values())):
            for name, listener in listeners.items():
                report = reports / f"sslyze-{name}.json"
                command = [sys.executable, "-m", "sslyze", "--mozilla_config=intermediate", f"--json_out={report}",
                           f"--certinfo_ca_file={directory}/ca.pem", f"--sni={NAME}", f"127.0.0.1:{listener.port}"]
                if listener.clients == "MANDATORY":
                    command += [f"--cert={directory}/client-rsa.crt", f"--key={directory}/client-rsa.key"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=600)
                (reports / f"sslyze-{name}.txt").write_text(done.stdout + done.stderr)
                # Each line that begins with a star is one objection.
                said = done.stdout.split("COMPLIANCE AGAINST TLS CONFIGURATION")[-1]
                objections = [line.strip() for line in said.splitlines() if line.strip().startswith("* ")]
                for objection in objections:
                    reason = WANTED.get(objection)
                    verdicts.append(Verdict(name, reason is not None, f"{objection} {reason and '(' + reason + ')' or ''}"))
                told = done.returncode == 0 or objections
                verdicts.append(Verdict(f"{name}, the report", bool(told), f"{len(objections)} objections" if told else done.stdout[-500:] + done.stderr[-500:]))
    return verdicts
