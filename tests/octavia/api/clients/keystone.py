"""What tempest asks of Keystone beyond tokens: it makes a user with a role that nobody knows. `serve` has its users from its
configuration, so that user is one of these, lent for as long as tempest wants it; all else goes to `serve`."""

import http.client
import http.server
import json
import re
import threading
import uuid

from serve import NOBODY, PASSWORD, PORT, suffixes

FORWARDED = {"content-type", "x-auth-token", "x-subject-token", "accept"}


class Keystone:
    def __init__(self, serve, copies):
        self.serve = serve
        self.lock = threading.Lock()
        # Users that can be lent: name and project. Those that are lent: the password that tempest has given them.
        self.free = [NOBODY + suffix for suffix in suffixes(copies)]
        self.lent = {}
        handler = type("Handler", (Handler,), {"keystone": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def administer(self, method, path, body):
        """The answer to what `serve` does not do; None where it does."""
        with self.lock:
            if (method, path) == ("POST", "/v3/users"):
                name, identifier = self.free.pop(), uuid.uuid4().hex
                self.lent[identifier] = (name, body["user"]["password"])
                return 201, {"user": {"id": identifier, "name": body["user"]["name"]}}
            if (method, path) == ("POST", "/v3/projects"):
                return 201, {"project": {"id": uuid.uuid4().hex, "name": body["project"]["name"]}}
            if method == "GET" and path.startswith("/v3/roles"):
                return 200, {"roles": []}
            if (method, path) == ("POST", "/v3/roles"):
                return 201, {"role": {"id": uuid.uuid4().hex, "name": body["role"]["name"]}}
            if method == "PUT" and re.fullmatch(r"/v3/projects/\w+/users/\w+/roles/\w+", path):
                return 204, None
            if method == "DELETE" and re.fullmatch(r"/v3/(users|projects|roles)/\w+", path):
                lent = self.lent.pop(path.rsplit("/", 1)[1], None)
                if lent:
                    self.free.append(lent[0])
                return 204, None
        return None

    def lend(self, body):
        """Lets who was lent in as who it is."""
        user = body["auth"]["identity"].get("password", {}).get("user", {})
        name, password = self.lent.get(user.get("id"), (None, None))
        if name and password == user["password"]:
            user.clear()
            user.update(name=name, domain={"id": "default"}, password=PASSWORD)
            body["auth"]["scope"] = {"project": {"name": name, "domain": {"id": "default"}}}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    keystone = None

    def log_message(self, *_):
        pass

    def answer(self, status, headers, data):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def any(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(data) if data else {}
        told = self.keystone.administer(self.command, self.path, body)
        if told:
            status, object = told
            data = json.dumps(object).encode() if object else b""
            self.answer(status, [("Content-Type", "application/json")], data)
            return
        if "auth" in body:
            self.keystone.lend(body)
            data = json.dumps(body).encode()
        headers = {name: value for name, value in self.headers.items() if name.lower() in FORWARDED}
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
        connection.request(self.command, self.path, data, headers)
        answer = connection.getresponse()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() in FORWARDED]
        # The catalog leads here.
        own, keystone = f"{self.keystone.serve.url}/v3".encode(), f"{self.keystone.url}/v3".encode()
        self.answer(answer.status, kept, answer.read().replace(own, keystone))
        connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = any
