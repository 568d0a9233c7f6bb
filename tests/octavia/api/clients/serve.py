"""A `serve` of its own: users, two networks, and a directory for all that it keeps."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request

import argon2

PORT = 9876
PASSWORD = "secret"
# Who may use it: the project and the roles in it, as Keystone has them by default.
USERS = {
    "admin": ("admin", "admin"),
    "primary": ("primary", "member"),
    "lb-admin": ("lb-admin", "admin"),
    "lb-observer": ("lb-observer", "reader"),
    "lb-global-observer": ("lb-global-observer", "reader"),
    "lb-member": ("lb-member", "member"),
    "lb-member2": ("lb-member2", "member"),
}
# Somebody without a role that load balancers know.
NOBODY = "not-member"
NETWORKS = {"vip": "10.60.0.0/16, fd60::/64", "other": "10.61.0.0/24"}


def suffixes(copies):
    """What the names of each copy of the users end in."""
    return ["", *(f"-{number}" for number in range(2, copies + 1))]


class Serve:
    """Runs while it is a context."""

    def __init__(self, place, settings, copies=1):
        self.url = f"http://127.0.0.1:{PORT}"
        self.data = place / "data"
        self.log = place / "serve.log"
        self.config = place / "octavia.conf"
        # Few passes: a suite asks for many tokens.
        self.hash = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
        sections = {
            "api_settings": {"bind_port": PORT, "auth_strategy": "keystone"},
            # Suites bring one set of certificates for all projects.
            "certificates": {"shared_storage": True},
            "networks": NETWORKS,
            "users": {
                f"{name}{copy}": f"{project}{copy} {roles} {self.hash}"
                for copy in suffixes(copies)
                for name, (project, roles) in {**USERS, NOBODY: (NOBODY, "guest")}.items()
            },
        }
        for section, options in settings.items():
            sections.setdefault(section, {}).update(options)
        text = ""
        for section, options in sections.items():
            text += f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()) + "\n"
        self.config.write_text(text)
        self.process = None

    def __enter__(self):
        program = os.environ["AMPHORA_CONTROLLER_BIN"]
        command = [program, "serve", "--config-file", self.config, "--data-dir", self.data]
        self.process = subprocess.Popen(command, stderr=self.log.open("ab"))
        for _ in range(200):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(self.url).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"serve does not answer:\n{self.log.read_text()}")

    def __exit__(self, *_):
        self.empty()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def is_up(self):
        return self.process.poll() is None

    def token(self, user="admin"):
        project = USERS.get(user, (user, ""))[0]
        password = {"user": {"name": user, "domain": {"id": "default"}, "password": PASSWORD}}
        scope = {"project": {"name": project, "domain": {"id": "default"}}}
        body = {"auth": {"identity": {"methods": ["password"], "password": password}, "scope": scope}}
        request = urllib.request.Request(f"{self.url}/v3/auth/tokens", json.dumps(body).encode())
        with urllib.request.urlopen(request) as answer:
            return answer.headers["X-Subject-Token"]

    def call(self, method, path, body=None, user="admin"):
        """The status and the body of an answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Auth-Token": self.token(user), "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        return status, json.loads(text) if text else None

    def empty(self, seconds=60):
        """Deletes every load balancer, so that no amphora is left."""
        end = time.monotonic() + seconds
        while self.is_up() and time.monotonic() < end:
            balancers = self.call("GET", "/v2/lbaas/loadbalancers")[1]["loadbalancers"]
            amphorae = self.call("GET", "/v2/octavia/amphorae")[1]["amphorae"]
            if not balancers and not amphorae:
                return
            for balancer in balancers:
                self.call("DELETE", f"/v2/lbaas/loadbalancers/{balancer['id']}?cascade=true")
            time.sleep(0.2)

    def network(self, name):
        return self.call("GET", f"/v2.0/networks?name={name}")[1]["networks"][0]

    def subnets(self, network):
        return self.call("GET", f"/v2.0/subnets?network_id={network['id']}")[1]["subnets"]
