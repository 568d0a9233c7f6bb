"""Octavia's own driver of amphorae, in a process of its own, and what it has a load balancer be."""

import json
import os
import pathlib
import subprocess
import uuid

from cloud import octavia_python
from common import ROOT, Failed
from networks import MEMBER_HOST, VIP

LB = "33333333-3333-4333-8333-333333333333"
WEB = "44444444-4444-4444-8444-444444444444"
TLS = "44444444-4444-4444-8444-444444444446"
DATAGRAMS = "44444444-4444-4444-8444-444444444447"
POOL = "66666666-6666-4666-8666-666666666666"
DATAGRAM_POOL = "66666666-6666-4666-8666-666666666667"
MEMBER_POOL = "66666666-6666-4666-8666-666666666668"
# The name that the certificate of the listener of HTTPS has.
NAME = "shop.example"


class Driver:
    """`tests/octavia/driver.py`: asked line by line, it does by `/1.0` what a controller does."""

    def __init__(self, directory, amphora, certs, management):
        client = certs / "driver.pem"
        client.write_text((certs / "client.pem").read_text() + (certs / "client.key").read_text())
        arguments = {
            "ca": str(certs / "ca.pem"), "client": str(client), "base_path": "/var/lib/octavia", "amphora": amphora,
            "other": str(uuid.uuid4()), "role": "STANDALONE",
            # Octavia's own patience but for the pauses, for a machine that is emulated.
            "options": {"bind_port": management.agent, "connection_max_retries": 120, "connection_retry_interval": 1,
                        "rest_request_conn_timeout": 10, "rest_request_read_timeout": 60},
        }
        self.log = directory / "driver.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([octavia_python(), ROOT / "tests/octavia/driver.py", json.dumps(arguments)],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                                            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def does(self, call, **arguments):
        """Gives what it answers; that it is refused is a failure."""
        self.process.stdin.write(json.dumps(arguments | {"call": call}, default=str) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "it has ended"}
        if "error" in answer:
            raise Failed(f"Octavia's driver, {call}: {answer}\n{self.log.read_text()[-3000:]}")
        return answer["ok"]


def make_certificate(path, name):
    """A key with a certificate that signs itself, in one PEM."""
    key = path.with_suffix(".key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7",
                    "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", path],
                   check=True, capture_output=True)
    path.write_text(path.read_text() + key.read_text())


def renew(certs, amphora):
    """Another key and certificate of the agent by the same authority, in one PEM."""
    key, request, extension, renewed = (certs / f"renewed.{kind}" for kind in ("key", "csr", "ext", "pem"))
    subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={amphora}",
                    "-keyout", key, "-out", request], check=True, capture_output=True)
    extension.write_text(f"subjectAltName=DNS:{amphora}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
    subprocess.run(["openssl", "x509", "-req", "-in", request, "-CA", certs / "ca.pem", "-CAkey", certs / "ca.key", "-set_serial", "77",
                    "-days", "7", "-extfile", extension, "-out", renewed], check=True, capture_output=True)
    renewed.write_text(renewed.read_text() + key.read_text())
    return renewed


def load_balancer(member_address, member_port, datagram_port, certificate: pathlib.Path):
    """As the database has it: HTTP at 80, HTTPS at 443 with its member in the network of members, and UDP at 53."""
    return {
        "id": LB, "vip_address": VIP,
        "listeners": [
            {"id": WEB, "protocol": "HTTP", "protocol_port": 80, "default_pool_id": POOL},
            {"id": TLS, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_pool_id": MEMBER_POOL,
             "tls_certificate_id": str(certificate)},
            {"id": DATAGRAMS, "protocol": "UDP", "protocol_port": 53, "default_pool_id": DATAGRAM_POOL, "connection_limit": 1000},
        ],
        "pools": [
            {"id": POOL, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": [
                {"id": "77777777-7777-4777-8777-777777777771", "address": member_address, "protocol_port": member_port}]},
            {"id": MEMBER_POOL, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": [
                {"id": "77777777-7777-4777-8777-777777777773", "address": MEMBER_HOST, "protocol_port": member_port}]},
            {"id": DATAGRAM_POOL, "protocol": "UDP", "lb_algorithm": "ROUND_ROBIN", "members": [
                {"id": "77777777-7777-4777-8777-777777777772", "address": member_address, "protocol_port": datagram_port}]},
        ],
    }
