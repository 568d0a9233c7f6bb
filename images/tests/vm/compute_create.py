"""compute_create.py files|cloud-config AMPHORA-ID CA SERVER-PEM CONTROLLERS HEARTBEAT-KEY: what Octavia hands to Nova for an amphora, as
JSON.

Its own task (CertComputeCreate) does it, with a compute driver that only takes down what it is given. `files` is Octavia's default,
personality files; `cloud-config` its deprecated mode, the same files in the user data.
"""

import json
import pathlib
import sys
from unittest import mock

from octavia.common import config, utils
from octavia.controller.worker.v2.tasks import compute_tasks
from oslo_config import cfg


class Driver:
    """Takes down what the amphora would be made with."""

    given = None

    def build(self, **given):
        self.given = given
        return "a compute id"


def main():
    mode, amphora, authority, server, controllers, key = sys.argv[1:]
    options = {
        "controller_worker": {
            "client_ca": authority,
            "user_data_config_drive": {"files": False, "cloud-config": True}[mode],
            "amp_ssh_key_name": "octavia",
            "amp_boot_network_list": ["11111111-1111-1111-1111-111111111111"],
            "loadbalancer_topology": "SINGLE",
        },
        "health_manager": {"controller_ip_port_list": controllers.split(","), "heartbeat_key": key, "heartbeat_interval": 3},
        "haproxy_amphora": {"bind_host": "::", "build_rate_limit": -1},
        "certificates": {"server_certs_key_passphrase": ["insecure-key-do-not-use-this-key"]},
        "amphora_agent": {"admin_log_targets": ["10.0.2.2:514"], "tenant_log_targets": ["10.0.2.2:515"]},
    }
    config.init([])
    for section, values in options.items():
        for name, value in values.items():
            cfg.CONF.set_override(name, value, section)
    driver = Driver()
    # The constructor connects to a cloud and a database.
    with mock.patch.object(compute_tasks.BaseComputeTask, "__init__", lambda self, **_: None):
        task = compute_tasks.CertComputeCreate()
    task.compute = driver
    sealed = utils.get_server_certs_key_passphrases_fernet().encrypt(pathlib.Path(server).read_bytes()).decode()
    task.execute(amphora, sealed, None)
    json.dump({"files": driver.given["config_drive_files"], "user_data": driver.given["user_data"]}, sys.stdout)


main()
