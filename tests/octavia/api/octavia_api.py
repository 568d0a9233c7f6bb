"""The API of the real Octavia over SQLite, without workers: after each change all is ACTIVE.

python -m venv venv && venv/bin/pip install octavia==19.0.0 fixtures testtools oslotest webtest
venv/bin/python octavia_api.py PORT
"""

import sys
import warnings
from unittest import mock
from wsgiref.simple_server import make_server, WSGIRequestHandler
from octavia.tests.functional.api.v2 import base
from octavia.db import models


class T(base.BaseAPITest):
    def runTest(self):
        pass


t = T()
t.setUp()
warnings.resetwarnings()
warnings.simplefilter("ignore")
t.conf.config(group="api_settings", default_provider_driver="amphora")


class Client:
    def cast(self, *arguments, **more):
        pass


mock.patch("octavia.common.rpc.get_client", lambda *a, **k: Client()).start()
from octavia.db import api as db_api

app = t.app.app


def settle():
    s = db_api.get_session()
    with s.begin():
        for m in (models.L7Rule, models.L7Policy, models.HealthMonitor, models.Member, models.Listener, models.Pool, models.LoadBalancer):
            for o in s.query(m).filter(m.provisioning_status == "PENDING_DELETE").all():
                if m is models.LoadBalancer:
                    o.provisioning_status = "DELETED"
                else:
                    s.delete(o)
                    s.flush()
            s.query(m).filter(m.provisioning_status.in_(["PENDING_CREATE", "PENDING_UPDATE"])).update({"provisioning_status": "ACTIVE", "operating_status": "ONLINE"})
        for l in s.query(models.Listener).all():
            l.l7policies.reorder()


def wrapped(env, start):
    env.setdefault("HTTP_X_PROJECT_ID", "default")
    if not env.get("HTTP_X_PROJECT_ID"):
        env["HTTP_X_PROJECT_ID"] = "default"
    body = list(app(env, start))
    try:
        if env["REQUEST_METHOD"] != "GET":
            settle()
    except Exception as e:
        import traceback

        traceback.print_exc()
    return body


class H(WSGIRequestHandler):
    def log_message(self, *a):
        pass


srv = make_server("127.0.0.1", int(sys.argv[1]), wrapped, handler_class=H)
print("ready", flush=True)
srv.serve_forever()
