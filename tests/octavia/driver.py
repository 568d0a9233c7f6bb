#!/usr/bin/env python3
"""Octavia's own driver of amphorae, told what to do line by line.

Each line of standard input is a JSON object `{"call": name, ...}`; the answer is a line of JSON: `{"ok": ...}`, or `{"error": name}`
with the name of what was raised. The arguments are a JSON object: `ca`, `client` (certificate and key in one PEM), `base_path`,
`amphora` and `other` (ids of this one and of the other one of a pair), `role` (STANDALONE, or MASTER or BACKUP of a pair), and where
they differ from the test's `options` of Octavia's section `haproxy_amphora`. Runs in an environment that has the package octavia
(19.0.0), and needs no database: model objects are in memory.
"""

import contextlib
import json
import pathlib
import re
import select
import socket
import sys

from octavia.amphorae.backends.health_daemon import status_message
from octavia.certificates.common import local
from octavia.common import config
from octavia.common import data_models as models
from octavia.network import data_models as network

import objects

ARGUMENTS = json.loads(sys.argv[1])


class Secrets:
    """A certificate manager: a reference is the path of a PEM."""

    def get_cert(self, context, cert_ref, **_):
        pem = pathlib.Path(cert_ref).read_text()
        parts = re.findall(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----\n", pem, re.S)
        key = next(part for part in parts if "PRIVATE KEY" in part)
        chain = [part for part in parts if "PRIVATE KEY" not in part]
        return local.LocalCert(chain[0], key, intermediates="".join(chain[1:]) or None)

    def get_secret(self, context, secret_ref):
        return pathlib.Path(secret_ref).read_text()


class Database:
    """As much of it as the driver writes to: listeners that it could not update."""

    def __init__(self):
        self.failed = []

    def session(self):
        return self

    def begin(self):
        return contextlib.nullcontext(self)

    def ListenerRepository(self):  # pylint: disable=invalid-name
        return self

    def update(self, _, listener, **__):
        self.failed.append(listener)


DATABASE = Database()


def driver():
    conf = config.cfg.CONF
    group = {
        "base_path": ARGUMENTS["base_path"],
        "base_cert_dir": ARGUMENTS["base_path"] + "/certs",
        "bind_port": 9443,
        "server_ca": ARGUMENTS["ca"],
        "client_cert": ARGUMENTS["client"],
        "connection_max_retries": 5,
        "connection_retry_interval": 1,
        "rest_request_conn_timeout": 5,
        "rest_request_read_timeout": 60,
    }
    for name, value in (group | ARGUMENTS.get("options", {})).items():
        conf.set_override(name, value, group="haproxy_amphora")
    conf.set_override("vrrp_check_interval", 1, group="keepalived_vrrp")
    conf.set_override("cert_manager", "local_cert_manager", group="certificates")
    from octavia.amphorae.drivers.haproxy import rest_api_driver

    made = rest_api_driver.HaproxyAmphoraLoadBalancerDriver()
    made.cert_manager = Secrets()
    rest_api_driver.db_api = rest_api_driver.repo = DATABASE
    return made


class Controller:
    def __init__(self):
        self.driver = driver()
        second = ARGUMENTS["role"] == "BACKUP"
        both = [self.model(ARGUMENTS["amphora"], second), self.model(ARGUMENTS["other"], not second)]
        self.amphora = both[0]
        self.amphora.role = ARGUMENTS["role"]
        self.pair = both if ARGUMENTS["role"] != "STANDALONE" else both[:1]
        self.group = models.LoadBalancer(
            id="lb", vip=models.Vip(ip_address="10.77.0.100"), amphorae=both,
            vrrp_group=models.VRRPGroup(
                vrrp_group_name="33333333333343338333333333333333", vrrp_auth_type="PASS", vrrp_auth_pass="3333333",
                advert_int=1))
        self.manager = None
        self.totals = {}

    @staticmethod
    def model(amphora_id, second):
        amphora = models.Amphora(
            id=amphora_id, lb_network_ip="127.0.0.1", status="ALLOCATED", vrrp_port_id="port", ha_ip="10.77.0.100",
            vrrp_ip="10.77.0.102" if second else "10.77.0.101", vrrp_interface="eth1", vrrp_id=1,
            vrrp_priority=90 if second else 100)
        amphora.api_version = None
        return amphora

    @property
    def client(self):
        self.driver._populate_amphora_api_version(self.amphora)
        return self.driver.clients[self.amphora.api_version]

    def load_balancer(self, doc):
        lb = objects.load_balancer_model(doc)
        lb.amphorae = self.pair
        lb.topology = "ACTIVE_STANDBY" if len(self.pair) > 1 else "SINGLE"
        return lb

    def plug_vip(self, mac, additional=(), vnic_type="normal", **_):
        """The VIP's port; `additional` has other VIPs: `ip_address`, `cidr`, `gateway_ip`."""
        subnet = network.Subnet(id="subnet", cidr="10.77.0.0/24", gateway_ip="10.77.0.1", host_routes=[])
        port = network.Port(id="port", mac_address=mac, network=network.Network(id="network", mtu=1500))
        lb = models.LoadBalancer(vip=models.Vip(ip_address="10.77.0.100", vnic_type=vnic_type))
        more = [network.AdditionalVipData(
            ip_address=vip["ip_address"],
            subnet=network.Subnet(id="other", cidr=vip["cidr"], gateway_ip=vip["gateway_ip"], host_routes=[])) for vip in additional]
        self.driver.post_vip_plug(self.amphora, lb, None, port, subnet, additional_vip_data=more)

    def plug_network(self, mac, fixed_ips, vnic_type="normal", **_):
        """A network of members; `fixed_ips` have `ip_address`, `cidr`, and `routes` by destination."""
        addresses = []
        for fixed_ip in fixed_ips:
            routes = [network.HostRoute(destination=to, nexthop=by) for to, by in fixed_ip.get("routes", {}).items()]
            subnet = network.Subnet(id="members", cidr=fixed_ip["cidr"], gateway_ip=None, host_routes=routes)
            addresses.append(network.FixedIP(subnet_id="members", ip_address=fixed_ip["ip_address"], subnet=subnet))
        port = network.Port(id="members", mac_address=mac, fixed_ips=addresses, vnic_type=vnic_type,
                            network=network.Network(id="network", mtu=1500))
        self.driver.post_network_plug(self.amphora, port, None)

    def interface(self, ip, **_):
        return self.driver.get_interface_from_ip(self.amphora, ip)

    def update(self, lb, **_):
        """Gives the listeners that it has left out, since what belongs to them is refused."""
        DATABASE.failed.clear()
        self.driver.update_amphora_listeners(self.load_balancer(lb), self.amphora)
        return DATABASE.failed

    def delete_listener(self, lb, listener, **_):
        lb = self.load_balancer(lb)
        self.driver.delete(next(one for one in lb.listeners if one.id == listener))

    def upload(self, lb, text=None, **_):
        """What `update` does, but for the reload; or this text."""
        self.client.upload_config(self.amphora, lb["id"], self.render(lb) if text is None else text)

    def render(self, lb, **_):
        """The text that `update` sends."""
        return self.driver.jinja_combo.build_config(
            host_amphora=self.amphora, listeners=self.load_balancer(lb).listeners, tls_certs={},
            haproxy_versions=self.driver._get_haproxy_versions(self.amphora),
            amp_details=self.client.get_details(self.amphora))

    def reload(self, lb, **_):
        self.driver.reload(self.load_balancer(lb), self.amphora)

    def stop(self, lb, **_):
        """The driver never asks for it, but the API has it."""
        self.client._action("stop", self.amphora, lb["id"])

    def start_vrrp(self, **_):
        subnet = {"ip_address": "10.77.0.100", "cidr": "10.77.0.0/24", "gateway_ip": "10.77.0.1", "host_routes": []}
        networks = {self.amphora.id: {"vip_subnet": subnet, "additional_vip_data": []}}
        self.driver.update_vrrp_conf(self.group, networks, self.amphora)
        self.driver.start_vrrp_service(self.amphora)

    def reload_vrrp(self, **_):
        self.driver.reload_vrrp_service(models.LoadBalancer(amphorae=[self.amphora]))

    def stop_vrrp(self, **_):
        self.driver.stop_vrrp_service_on_amphora(self.amphora)

    def rules(self, rules, **_):
        self.driver.set_interface_rules(self.amphora, "10.77.0.101", rules)

    def listeners(self, **_):
        return self.client.get_all_listeners(self.amphora)

    def details(self, **_):
        return self.client.get_details(self.amphora)

    def heartbeat(self, **_):
        """The next heartbeat as the health manager reads it, with the sums of what all of them have counted."""
        if self.manager is None:
            self.manager = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.manager.bind(("127.0.0.1", 5555))
            self.manager.settimeout(30)
        message = self._beat()
        while select.select([self.manager], [], [], 0)[0]:
            message = self._beat()
        return {"message": message, "totals": self.totals}

    def _beat(self):
        envelope, _ = self.manager.recvfrom(64 * 1024)
        message = status_message.unwrap_envelope(envelope, "insecure")
        for listener, told in message["listeners"].items():
            totals = self.totals.setdefault(listener, {"rx": 0, "tx": 0, "totconns": 0})
            for name in totals:
                totals[name] += told["stats"][name]
        return message

    def rotate(self, pem, **_):
        self.driver.upload_cert_amp(self.amphora, pathlib.Path(pem).read_text())

    def configure(self, text, **_):
        self.driver.update_amphora_agent_config(self.amphora, text)


def main():
    controller = Controller()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(controller, request["call"])(**{k: v for k, v in request.items() if k != "call"})}
        except Exception as error:  # pylint: disable=broad-except
            answer = {"error": type(error).__name__, "detail": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
