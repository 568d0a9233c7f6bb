"""The proxies that are judged, each with the same listeners: certificates, members and configurations are made here."""

import contextlib
import dataclasses
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path

NAME = "judged.example"


class NotAvailable(Exception):
    """What is to be judged, or the judge, is not there."""


@dataclasses.dataclass
class Verdict:
    what: str
    good: bool
    why: str = ""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def openssl(directory, *arguments):
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
RSA = ["-newkey", "rsa:2048"]
SERVERS = {"ecdsa": EC, "rsa": RSA}
CLIENTS = {"client-rsa": RSA, "client-ecdsa": EC, "client-ed25519": ["-newkey", "ed25519"]}


def certificates(directory):
    """An authority, and `ecdsa.pem` and `rsa.pem` of it, each a certificate with its chain and its key, as operators have them.

    And those of clients, each with a file of its own for the certificate and the key.
    """
    openssl(directory, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "300",
            "-subj", "/CN=judges", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    for name, key in (SERVERS | CLIENTS).items():
        purpose, subject = ("serverAuth", NAME) if name in SERVERS else ("clientAuth", name)
        extensions = (
            f"subjectAltName=DNS:{subject}\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
            f"extendedKeyUsage={purpose}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        (directory / "extensions").write_text(extensions)
        openssl(directory, "req", *key, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={subject}")
        openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "90", "-extfile", "extensions", "-out", f"{name}.crt")
        both = (directory / f"{name}.crt").read_text() + (directory / f"{name}.key").read_text()
        (directory / f"{name}.pem").write_text(both)


class Web(http.server.BaseHTTPRequestHandler):
    """A member: answers GET and HEAD with a text, and sends back what is posted."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"hello\n")

    do_HEAD = do_GET

    def do_POST(self):
        body = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(body or b"hello\n")

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        # In one piece, as some judges want to have it.
        self._headers_buffer.append(b"\r\n" + (body if self.command != "HEAD" else b""))
        self.flush_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Judges break requests off, and the proxy those to the member."""


@contextlib.contextmanager
def web_member():
    server = Server(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


@dataclasses.dataclass
class Listener:
    """A listener: `certificate` is `ecdsa`, `rsa` or None for plain HTTP; the member speaks HTTP/2 over TLS where `member_http2`.

    `clients` is whether they are asked for a certificate: None, `OPTIONAL` or `MANDATORY`. `versions` are those of TLS.
    """

    member: int
    certificate: str = None
    member_http2: bool = False
    clients: str = None
    versions: tuple = ("TLSv1.2", "TLSv1.3")
    port: int = dataclasses.field(default_factory=free_port)


def wait_for(ports, process, log):
    deadline = time.monotonic() + 20
    for port in ports:
        while True:
            if process.poll() is not None:
                raise NotAvailable(f"it has ended: {log.read_text().strip()[-2000:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if time.monotonic() > deadline:
                raise NotAvailable(f"port {port} does not listen: {log.read_text().strip()[-2000:]}")
            time.sleep(0.02)


@contextlib.contextmanager
def started(command, ports, directory):
    log = directory / "output.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_for(ports, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


CIPHERS = (
    "ciphers ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305 "
    "ciphersuites TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256 "
    "no-sslv3 no-tlsv10 no-tlsv11 alpn h2,http/1.1"
)


HAPROXY_VERIFIES = {"OPTIONAL": "optional", "MANDATORY": "required"}


@contextlib.contextmanager
def haproxy(directory, listeners):
    if not shutil.which("haproxy"):
        raise NotAvailable("there is no haproxy")
    text = "global\n nbthread 1\n maxconn 1000\ndefaults\n mode http\n timeout client 50s\n timeout server 50s\n timeout connect 5s\n"
    for number, listener in enumerate(listeners):
        tls = f"ssl crt {directory}/{listener.certificate}.pem {CIPHERS}" if listener.certificate else ""
        if listener.clients:
            tls += f" ca-file {directory}/ca.pem verify {HAPROXY_VERIFIES[listener.clients]}"
        if "TLSv1.3" not in listener.versions:
            tls += " no-tlsv13"
        if "TLSv1.2" not in listener.versions:
            tls += " no-tlsv12"
        member = f"ssl ca-file {directory}/ca.pem verify required alpn h2" if listener.member_http2 else ""
        hsts = ' http-response set-header Strict-Transport-Security "max-age=31536000;"\n' if tls else ""
        text += (
            f"frontend f{number}\n bind 127.0.0.1:{listener.port} {tls}\n default_backend b{number}\n{hsts}"
            f"backend b{number}\n server m 127.0.0.1:{listener.member} {member}\n"
        )
    (directory / "haproxy.cfg").write_text(text)
    command = ["haproxy", "-db", "-f", directory / "haproxy.cfg"]
    with started(command, [listener.port for listener in listeners], directory) as process:
        yield process


def document(listeners):
    """The load balancer as the native API has it."""

    def new():
        return str(uuid.uuid4())

    made = {"id": new(), "vip_address": "127.0.0.1", "listeners": [], "pools": []}
    for listener in listeners:
        member = {"id": new(), "address": "127.0.0.1", "protocol_port": listener.member, "weight": 1}
        pool = {"id": new(), "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": [member]}
        if listener.member_http2:
            pool |= {"tls_enabled": True, "ca_tls_container_ref": "ca", "alpn_protocols": ["h2"]}
        it = {"id": new(), "protocol": "HTTP", "protocol_port": listener.port, "default_pool_id": pool["id"]}
        if listener.certificate:
            it |= {"protocol": "TERMINATED_HTTPS", "default_tls_container_ref": listener.certificate}
            it |= {"hsts_max_age": 31536000, "tls_versions": list(listener.versions)}
        if listener.clients:
            it |= {"client_authentication": listener.clients, "client_ca_tls_container_ref": "ca"}
        made["listeners"].append(it)
        made["pools"].append(pool)
    return {"loadbalancer": made}


@contextlib.contextmanager
def amphora(directory, listeners):
    program = os.environ["AMPHORA_PROXY_BIN"]
    if not Path(program).exists():
        raise NotAvailable(f"{program} is not built (AMPHORA_PROXY_BIN)")
    state = directory / "state"
    (state / "certificates").mkdir(parents=True)
    for name in ["ca", "ecdsa", "rsa"]:
        shutil.copy(directory / f"{name}.pem", state / "certificates" / f"{name}.pem")
        (state / "certificates" / f"{name}.pem").chmod(0o600)
    file = state / "loadbalancer.json"
    file.write_text(json.dumps(document(listeners)))
    checked = subprocess.run([program, "--check", file], capture_output=True, text=True)
    if checked.returncode != 0:
        raise NotAvailable(f"the document is refused: {(checked.stdout + checked.stderr).strip()}")
    command = [program, "--state-dir", state, "--control-socket", directory / "control.sock", "--workers", "1"]
    with started(command, [listener.port for listener in listeners], directory) as process:
        yield process


PEERS = {"amphora": amphora, "haproxy": haproxy}
