"""The API of a real Octavia, over SQLite in memory, with its own noop drivers for what it asks of a cloud: python octavia_server.py DIR PORT.

DIR has `subnets.json`, as `GET /v2.0/subnets` tells them, and `certificates`, in the form of Octavia's local_cert_manager.
"""

import json
import pathlib
import sys
import warnings
from wsgiref import simple_server

warnings.simplefilter("ignore")

# Octavia's parts read options while they are imported.
# ruff: noqa: E402
from octavia.api import app
from octavia.common import constants
from octavia.db import api as db_api
from octavia.db import base_models, models
from octavia.network import data_models
from octavia.network.drivers.noop_driver import driver as noop

CONFIGURATION = """\
[DEFAULT]
transport_url = fake://
[api_settings]
auth_strategy = noauth
default_provider_driver = amphora
enabled_provider_drivers = amphora:The Octavia Amphora driver.
[database]
connection = sqlite://
[controller_worker]
network_driver = network_noop_driver
compute_driver = compute_noop_driver
volume_driver = volume_noop_driver
image_driver = image_noop_driver
[certificates]
cert_manager = local_cert_manager
storage_path = {place}/certificates
"""

# Tables of names, which Octavia's migrations fill.
NAMES = {
    models.ProvisioningStatus: constants.SUPPORTED_PROVISIONING_STATUSES,
    models.OperatingStatus: constants.SUPPORTED_OPERATING_STATUSES,
    models.HealthMonitorType: constants.SUPPORTED_HEALTH_MONITOR_TYPES,
    models.Algorithm: constants.SUPPORTED_LB_ALGORITHMS,
    models.Protocol: constants.SUPPORTED_PROTOCOLS,
    models.SessionPersistenceType: constants.SUPPORTED_SP_TYPES,
    models.AmphoraRoles: constants.SUPPORTED_AMPHORA_ROLES,
    models.LBTopology: constants.SUPPORTED_LB_TOPOLOGIES,
    models.VRRPAuthMethod: constants.SUPPORTED_VRRP_AUTH,
    models.L7RuleType: constants.SUPPORTED_L7RULE_TYPES,
    models.L7RuleCompareType: constants.SUPPORTED_L7RULE_COMPARE_TYPES,
    models.L7PolicyAction: constants.SUPPORTED_L7POLICY_ACTIONS,
    models.ClientAuthenticationMode: constants.SUPPORTED_CLIENT_AUTH_MODES,
}


class Quiet(simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass


def main():
    place, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    configuration = place / "octavia-api.conf"
    configuration.write_text(CONFIGURATION.format(place=place))
    served = app.setup_app(argv=["octavia-api", "--config-file", str(configuration)])
    base_models.BASE.metadata.create_all(db_api.get_engine())
    session = db_api.get_session()
    with session.begin():
        for table, names in NAMES.items():
            session.add_all(table(name=name) for name in names)
    for told in json.loads((place / "subnets.json").read_text()):
        subnet = data_models.Subnet(
            id=told["id"], name=told["name"], network_id=told["network_id"], cidr=told["cidr"],
            gateway_ip=told["gateway_ip"], ip_version=told["ip_version"],
        )
        noop._NOOP_MANAGER_VARS["subnets"][subnet.id] = subnet
        noop._NOOP_MANAGER_VARS["current_network"] = subnet.network_id
    server = simple_server.make_server("127.0.0.1", port, served, handler_class=Quiet)
    server.serve_forever()


main()
