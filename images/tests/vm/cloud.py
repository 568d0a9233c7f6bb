"""What the cloud gives a machine: the configuration drive, with what Octavia hands to Nova."""

import json
import os
import pathlib
import subprocess
import uuid

from common import TARGET, Failed

HEARTBEAT_KEY = "insecure"


def octavia_python():
    """A Python that has Octavia. ./test makes one."""
    python = os.environ.get("AMPHORA_OCTAVIA_PYTHON", TARGET / "octavia-venv/bin/python")
    if not pathlib.Path(python).exists():
        raise Failed(f"no Python with Octavia: neither AMPHORA_OCTAVIA_PYTHON nor {python}")
    return python


def by_octavia(mode, amphora, certs, controllers):
    """What Octavia hands to Nova, rendered by its own code: files by path, and user data."""
    script = pathlib.Path(__file__).with_name("compute_create.py")
    out = subprocess.run([octavia_python(), script, mode, amphora, certs / "ca.pem", certs / f"server-{amphora}.pem", controllers, HEARTBEAT_KEY],
                         check=False, capture_output=True, text=True)
    if out.returncode != 0:
        raise Failed(f"{script.name}: {out.stderr[-2000:]}")
    return json.loads(out.stdout)


def by_hand(amphora, certs, controllers, topology):
    """The same without Octavia."""
    conf = f"""[DEFAULT]
debug = False
[haproxy_amphora]
base_cert_dir = /var/lib/octavia/certs
base_path = /var/lib/octavia
bind_host = ::
bind_port = 9443
[health_manager]
controller_ip_port_list = {controllers}
heartbeat_interval = 3
heartbeat_key = {HEARTBEAT_KEY}
[amphora_agent]
amphora_id = {amphora}
agent_server_ca = /etc/octavia/certs/client_ca.pem
agent_server_cert = /etc/octavia/certs/server.pem
[controller_worker]
loadbalancer_topology = {topology}
"""
    return {
        "files": {
            "/etc/octavia/amphora-agent.conf": conf,
            "/etc/octavia/certs/client_ca.pem": (certs / "ca.pem").read_text(),
            "/etc/octavia/certs/server.pem": (certs / f"server-{amphora}.pem").read_text(),
        },
        "user_data": "#cloud-config\n",
    }


def config_drive(directory, amphora, given, mac, networks, key):
    """The drive as Nova makes it: iso9660 with the label config-2."""
    tree = directory / "drive" / "openstack"
    latest, content = tree / "latest", tree / "content"
    latest.mkdir(parents=True)
    content.mkdir()
    # Nova's id of the machine is not Octavia's of the amphora.
    meta = {"uuid": str(uuid.uuid4()), "name": f"amphora-{amphora}", "hostname": f"amphora-{amphora}",
            "public_keys": {"octavia": key}, "keys": [{"name": "octavia", "type": "ssh", "data": key}], "files": []}
    for number, (path, text) in enumerate((given["files"] or {}).items()):
        meta["files"].append({"path": path, "content_path": f"/content/{number:04}"})
        (content / f"{number:04}").write_text(text)
    links = [{"id": "tap0", "type": "ovs", "ethernet_mac_address": mac, "mtu": 1450, "vif_id": "v"}]
    (latest / "meta_data.json").write_text(json.dumps(meta))
    (latest / "network_data.json").write_text(json.dumps({"links": links, "networks": networks, "services": []}))
    (latest / "user_data").write_text(given["user_data"] or "")
    drive = directory / "config.iso"
    subprocess.run(["genisoimage", "-quiet", "-J", "-r", "-V", "config-2", "-o", drive, directory / "drive"], check=True)
    return drive


def make_key(directory):
    """A key for the shell of a machine; gives its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "key"], check=True)
    return (directory / "key.pub").read_text()
