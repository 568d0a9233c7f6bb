"""What is asked of an amphora: by its API, by amphora-controller, by clients of its load balancer."""

import contextlib
import http.client
import http.server
import json
import socket
import ssl
import subprocess
import threading

from cloud import HEARTBEAT_KEY
from common import BOUND, PROBE, Failed, until
from networks import VIP, VIP_SUBNET

LISTENER = "3c9f2c57-1d5e-4b53-9d80-7c0d9a1f9a22"


class Member(http.server.BaseHTTPRequestHandler):
    """The load balancer's member."""

    body = b"the member"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def member(address):
    """A member that serves on an address; gives its port."""
    server = http.server.ThreadingHTTPServer((address, 0), Member)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def datagram_member(address):
    """One that answers datagrams; gives its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member_socket:
        member_socket.bind((address, 0))

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    _, client = member_socket.recvfrom(2048)
                    member_socket.sendto(Member.body, client)

        threading.Thread(target=serve, daemon=True).start()
        yield member_socket.getsockname()[1]


def answered(address, port, timeout=PROBE):
    """One request, on a connection of its own; None when it is not the member that answers."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return True if (answer.status, answer.read()) == (200, Member.body) else None
    finally:
        connection.close()


class Agent:
    """The agent's API, by mutual TLS, its certificate asked for by the amphora's id."""

    def __init__(self, machine, amphora, certs):
        self.machine, self.amphora = machine, amphora
        self.context = ssl.create_default_context(cafile=certs / "ca.pem")
        self.context.load_cert_chain(certs / "client.pem", certs / "client.key")

    @property
    def endpoint(self):
        return f"https://{self.amphora}@{self.machine.management.endpoint}"

    def ask(self, method, path, document=None, timeout=PROBE):
        self.machine.alive()
        management = self.machine.management
        connection = http.client.HTTPSConnection(management.host, management.agent, timeout=timeout, context=self.context)
        raw = socket.create_connection((management.host, management.agent), timeout=timeout)
        try:
            connection.sock = self.context.wrap_socket(raw, server_hostname=self.amphora)
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()
            raw.close()

    def certificate(self):
        """The agent's own, as it shows it to a new connection: DER."""
        management = self.machine.management
        with socket.create_connection((management.host, management.agent), timeout=PROBE) as raw, \
                self.context.wrap_socket(raw, server_hostname=self.amphora) as stream:
            return stream.getpeercert(binary_form=True)

    def answers(self):
        return True if self.ask("GET", "/2.0/info")[0] == 200 else None

    def configure_port(self, mac, address):
        """Configures the port that was plugged, once the machine has it."""
        document = {"mtu": 1450, "vrrp_ip": address, "fixed_ips": [],
                    "vips": [{"ip_address": VIP, "subnet_cidr": VIP_SUBNET, "gateway": "10.77.0.2", "host_routes": []}]}
        said = None

        def configured():
            nonlocal said
            said = self.ask("PUT", f"/2.0/interfaces/{mac}", document, 60)
            return True if said[0] < 300 else None

        try:
            until("the port", configured)
        except Failed as error:
            raise Failed(f"{error}; the agent says {said}") from error


def load_balancer(member_address, member_port):
    return {"loadbalancer": {
        "id": "0b0e0c3a-4f43-4f0c-9b53-3d7a5f4f7c11", "name": "boot", "vip_address": VIP, "listeners": [{
            "id": LISTENER, "name": "front", "protocol": "HTTP", "protocol_port": 8080,
            "default_pool": {
                "id": "9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33", "name": "web", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN",
                "members": [{"id": "5a8e4d21-2b3c-4d5e-9f60-1a2b3c4d5e44", "name": "one", "address": member_address,
                             "protocol_port": member_port}]}}]}}


class Controller:
    """amphora-controller."""

    def __init__(self, program, certs):
        self.program, self.certs = program, certs

    def make_certs(self, *amphorae):
        ids = [word for amphora in amphorae for word in ("--amphora-id", amphora)]
        subprocess.run([self.program, "certs", "init", self.certs, *ids], check=True, capture_output=True)

    def run(self, agents, *arguments):
        endpoints = [word for agent in agents for word in ("--amphora", agent.endpoint)]
        done = subprocess.run([self.program, "--certs", self.certs, *endpoints, *arguments],
                              check=False, capture_output=True, text=True, timeout=BOUND)
        if done.returncode != 0:
            raise Failed(f"amphora-controller {arguments[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def heartbeat(self, bind, key=HEARTBEAT_KEY):
        """Waits for one that verifies."""
        done = subprocess.run([self.program, "heartbeats", "--bind", bind, "--key", key, "--count", "1", "--json"],
                              check=False, capture_output=True, text=True, timeout=BOUND)
        if done.returncode != 0:
            raise Failed(f"amphora-controller heartbeats: {done.stdout}{done.stderr}")
        return done.stdout
