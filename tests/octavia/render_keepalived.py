#!/usr/bin/env python3
"""Renders keepalived.conf for one amphora of a pair with Octavia's own template.

Reads JSON on standard input and writes the text that Octavia's controller would upload. Runs in an environment that has
the package octavia (19.0.0).

    {"name": "...", "interface": "eth1", "vrid": 1, "priority": 100, "advert_int": 1, "auth_pass": "...",
     "address": "10.77.0.101", "peers": ["10.77.0.102"], "base_path": "/...", "check_interval": 5,
     "vips": [{"ip_address": "10.77.0.100", "cidr": "10.77.0.0/24", "gateway_ip": "10.77.0.1", "host_routes": []}]}
"""

import json
import sys

from oslo_config import cfg

from octavia.amphorae.drivers.keepalived.jinja import jinja_cfg
from octavia.common import config  # noqa: F401  registers the options
from octavia.common import constants
from octavia.common import data_models as models


def main():
    doc = json.load(sys.stdin)
    cfg.CONF.set_override("base_path", doc["base_path"], group="haproxy_amphora")
    cfg.CONF.set_override("vrrp_check_interval", doc.get("check_interval", 5), group="keepalived_vrrp")

    def amphora(address):
        return models.Amphora(
            vrrp_ip=address,
            vrrp_interface=doc["interface"],
            vrrp_id=doc["vrid"],
            vrrp_priority=doc["priority"],
            status=constants.AMPHORA_ALLOCATED,
        )

    first, *others = doc["vips"]
    lb = models.LoadBalancer(
        vip=models.Vip(ip_address=first["ip_address"]),
        vrrp_group=models.VRRPGroup(
            vrrp_group_name=doc["name"],
            vrrp_auth_type="PASS",
            vrrp_auth_pass=doc["auth_pass"],
            advert_int=doc["advert_int"],
        ),
        amphorae=[amphora(address) for address in [doc["address"], *doc["peers"]]],
    )
    networks = {
        constants.VIP_SUBNET: first,
        "additional_vip_data": [{"ip_address": vip["ip_address"], "subnet": vip} for vip in others],
    }
    templater = jinja_cfg.KeepalivedJinjaTemplater()
    sys.stdout.write(templater.build_keepalived_config(lb, amphora(doc["address"]), networks))


if __name__ == "__main__":
    main()
