"""What `amphora-controller export` writes, made of it by a real Octavia, is what was exported."""

import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PORT = 9879
URL = f"http://127.0.0.1:{PORT}"
SERVER = pathlib.Path(__file__).with_name("octavia_server.py")


def copies(_given):
    return 1


def arguments(_parser):
    pass


def certificate(name, issuer=None):
    """Key and certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain), made.public_bytes(pem), (key, made)


def revocations(authority):
    key, made = authority
    now = datetime.datetime.now(datetime.timezone.utc)
    revoked = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(now).build()
    listed = x509.CertificateRevocationListBuilder().issuer_name(made.subject).last_update(now)
    listed = listed.next_update(now + datetime.timedelta(days=30)).add_revoked_certificate(revoked)
    return listed.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def bring_certificates(here, there):
    """As files of `serve`, and of Octavia's local_cert_manager."""
    there.mkdir()
    here.mkdir(exist_ok=True)
    for name in ("shop", "sni", "client"):
        key, chain, _ = certificate(f"{name}.example")
        (here / f"{name}.pem").write_bytes(chain + key)
        (there / f"{name}.crt").write_bytes(chain)
        (there / f"{name}.key").write_bytes(key)
    for name in ("clients", "members"):
        _, chain, authority = certificate(name)
        for directory, suffix in ((here, "pem"), (there, "crt")):
            (directory / f"{name}.{suffix}").write_bytes(chain)
            (directory / f"{name}-crl.{suffix}").write_bytes(revocations(authority))


def load_balancers(subnets):
    """All that one can have, some of it more than once."""
    vip, further = subnets
    monitor = {"delay": 5, "timeout": 3, "max_retries": 2}
    yield {"name": "empty", "vip_subnet_id": vip}
    yield {
        "name": "all", "description": "of it", "vip_subnet_id": vip, "tags": ["one", "two"], "admin_state_up": False,
        "additional_vips": [{"subnet_id": further}],
        "listeners": [
            {
                "name": "web", "protocol": "HTTP", "protocol_port": 80, "connection_limit": 500, "allowed_cidrs": ["192.0.2.0/24"],
                "insert_headers": {"X-Forwarded-For": "true"}, "timeout_client_data": 1234, "timeout_member_connect": 1235,
                "timeout_member_data": 1236, "timeout_tcp_inspect": 1237, "tags": ["t"], "description": "text",
                "default_pool": {"name": "web"},
                "l7policies": [
                    {"name": "to", "action": "REDIRECT_TO_POOL", "redirect_pool": {"name": "api"}, "rules": [
                        {"type": "PATH", "compare_type": "STARTS_WITH", "value": "/api", "invert": True},
                        {"type": "HEADER", "compare_type": "EQUAL_TO", "key": "X-Kind", "value": "7", "tags": ["r"]},
                        {"type": "COOKIE", "compare_type": "CONTAINS", "key": "c", "value": "v", "admin_state_up": False},
                        {"type": "HOST_NAME", "compare_type": "REGEX", "value": "^a+$"},
                        {"type": "FILE_TYPE", "compare_type": "EQUAL_TO", "value": "gif"}]},
                    {"action": "REDIRECT_PREFIX", "redirect_prefix": "https://www.example.com", "redirect_http_code": 308},
                    {"action": "REDIRECT_TO_URL", "redirect_url": "https://www.example.com/", "tags": ["p"]},
                    {"action": "REJECT", "admin_state_up": False}],
            },
            {
                "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": "shop",
                "sni_container_refs": ["sni", "shop"], "client_ca_tls_container_ref": "clients",
                "client_crl_container_ref": "clients-crl", "client_authentication": "OPTIONAL", "alpn_protocols": ["http/1.1"],
                "tls_versions": ["TLSv1.3"], "tls_ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256", "hsts_max_age": 60,
                "hsts_preload": True, "default_pool": {"name": "api"},
            },
            {"protocol": "HTTPS", "protocol_port": 8443},
            {"protocol": "TCP", "protocol_port": 25, "default_pool": {"name": "proxied"}},
            {"protocol": "UDP", "protocol_port": 53, "default_pool": {"name": "names"}},
            {"protocol": "SCTP", "protocol_port": 99},
            {"protocol": "PROMETHEUS", "protocol_port": 9090},
        ],
        "pools": [
            {
                "name": "web", "protocol": "HTTP", "lb_algorithm": "LEAST_CONNECTIONS",
                "session_persistence": {"type": "APP_COOKIE", "cookie_name": "session"},
                "members": [
                    {"name": "a", "address": "192.0.2.50", "protocol_port": 80, "weight": 7, "tags": ["x"], "subnet_id": vip},
                    {"address": "2001:db8::50", "protocol_port": 81, "backup": True, "admin_state_up": False,
                     "monitor_address": "192.0.2.51", "monitor_port": 8080}],
                "healthmonitor": {**monitor, "type": "HTTP", "max_retries_down": 4, "http_method": "HEAD", "url_path": "/health",
                                  "expected_codes": "200,202", "http_version": 1.1, "domain_name": "www.example.com"},
            },
            {
                "name": "api", "protocol": "HTTP", "lb_algorithm": "SOURCE_IP", "tls_enabled": True, "tls_container_ref": "client",
                "ca_tls_container_ref": "members", "crl_container_ref": "members-crl", "tls_versions": ["TLSv1.2"],
                "alpn_protocols": ["h2"], "tls_ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256",
            },
            {"name": "proxied", "protocol": "PROXYV2", "lb_algorithm": "ROUND_ROBIN",
             "healthmonitor": {**monitor, "type": "TCP", "admin_state_up": False}},
            {
                "name": "names", "protocol": "UDP", "lb_algorithm": "SOURCE_IP",
                "session_persistence": {"type": "SOURCE_IP", "persistence_timeout": 30, "persistence_granularity": "255.255.0.0"},
                "healthmonitor": {**monitor, "type": "UDP-CONNECT"},
            },
            {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"},
        ],
    }


class Octavia:
    """The real one, while it is a context."""

    def __init__(self, place):
        python = os.environ.get("AMPHORA_OCTAVIA_PYTHON", "target/octavia-venv/bin/python")
        self.log = place / "octavia.log"
        self.command = [python, SERVER, place, str(PORT)]
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=self.log.open("ab"), stderr=subprocess.STDOUT)
        end = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            try:
                urllib.request.urlopen(URL).close()
                return self
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"Octavia does not answer:\n{self.log.read_text()[-4000:]}")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)

    def make(self, body):
        """Status and answer of a fully populated create."""
        headers = {"Content-Type": "application/json", "X-Project-Id": "there"}
        request = urllib.request.Request(f"{URL}/v2/lbaas/loadbalancers", json.dumps(body).encode(), headers, method="POST")
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def exported(directory, *arguments, environment=None):
    """The bodies by the names of their load balancers, and what a person is told."""
    shutil.rmtree(directory, ignore_errors=True)
    command = [os.environ["AMPHORA_CONTROLLER_BIN"], "export", "--output", directory, *arguments]
    done = subprocess.run(command, check=False, text=True, capture_output=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise SystemExit(f"export says {done.stderr}")
    bodies = [json.loads(path.read_text()) for path in directory.glob("*.json")]
    return {body["loadbalancer"]["name"]: body for body in bodies}, done.stdout


def ordered(value):
    """Lists whose order says nothing, and nothing that is empty: `export` says it, or not, of what was said or not."""
    if isinstance(value, dict):
        return {name: ordered(one) for name, one in value.items() if one not in (None, [], {}, "")}
    if isinstance(value, list):
        return sorted(map(ordered, value), key=lambda one: json.dumps(one, sort_keys=True))
    return value


def differences(one, other, path=""):
    """Where two differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            yield from differences(one.get(name), other.get(name), f"{path}.{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (first, second) in enumerate(zip(one, other)):
            yield from differences(first, second, f"{path}[{number}]")
    elif one != other:
        yield f"{path}: {one!r} and {other!r}"


def run(serve, place, _given):
    subnets = serve.subnets(serve.network("vip"))
    (place / "subnets.json").write_text(json.dumps(subnets))
    bring_certificates(serve.data / "certificates", place / "certificates")
    passed, failed = 0, 0

    def check(what, good, why=""):
        nonlocal passed, failed
        passed, failed = passed + bool(good), failed + (not good)
        if not good:
            print(f"FAILED {what}: {why}", flush=True)

    subnets = [subnet["id"] for subnet in sorted(subnets, key=lambda subnet: subnet["ip_version"])]
    for body in load_balancers(subnets):
        status, answer = serve.call("POST", "/v2/lbaas/loadbalancers", {"loadbalancer": body})
        check(f"making {body['name']}", status == 201, answer)
    of_rows, told = exported(place / "of-rows", "--data-dir", serve.data)
    for name in ("shop", "sni", "client", "clients", "clients-crl", "members", "members-crl"):
        check(f"what is said of the certificate {name}", f" {name}: bring" in told, told)
    of_api, also_told = exported(place / "of-api", "--api", serve.url, environment={"OS_TOKEN": serve.token()})
    for name in of_rows:
        differ = [*differences(ordered(of_rows[name]), ordered(of_api.get(name)))]
        check(f"what the API tells of {name}", not differ, "\n  ".join(differ))
    check("what a person is told", sorted(told.splitlines()) == sorted(also_told.splitlines()), f"{told}\n{also_told}")
    with Octavia(place) as octavia:
        for name, body in of_rows.items():
            status, answer = octavia.make(body)
            check(f"Octavia makes {name}", status == 201, answer)
        there, _ = exported(place / "there", "--api", f"{URL}/v2.0")
        for name in of_rows:
            differ = [*differences(ordered(of_rows[name]), ordered(there.get(name)))]
            check(f"what Octavia has made of {name}", not differ, "\n  ".join(differ))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
