#!/usr/bin/env python3
"""Octavia's own amphora, on a machine of its own as far as it can tell: its agent, and the HAProxy and keepalived that it starts.

Runs as root in the network namespace that is to be the machine's, as the first process of new mount and process namespaces
(`unshare --mount --pid --fork --mount-proc --kill-child --propagation private`), by a Python that has the package octavia
(19.0.0). Whatever is written to /etc, /run, /usr and /var is gone with it. Arguments: the agent's configuration, and a
directory of certificates, which the agent finds in /etc/octavia/certs.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
LAYERS = ["/etc", "/var", "/usr/local", "/usr/lib/systemd"]

# What the image has beside the package.
PROGRAMS = {
    "amphora-agent": "octavia.cmd.agent",
    "amphora-interface": "octavia.cmd.interface",
    "haproxy-vrrp-check": "octavia.cmd.haproxy_vrrp_check",
}


def machine(config, certificates):
    """Layers of memory above the directories that an amphora writes to."""
    binaries, contents = {}, {}
    for name in ["server.pem", "client_ca.pem"]:
        contents[name] = pathlib.Path(certificates, name).read_bytes()
    contents["config"] = pathlib.Path(config).read_bytes()
    for name, module in PROGRAMS.items():
        binaries[name] = f"#!{sys.executable}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
    binaries["systemctl"] = (HERE / "systemctl").read_text()
    # Masquerading is for LVS alone.
    binaries["lvs-masquerade.sh"] = "#!/bin/sh\nexit 0\n"

    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    for number, lower in enumerate(LAYERS):
        upper, work = f"/run/layers/{number}/upper", f"/run/layers/{number}/work"
        os.makedirs(upper)
        os.makedirs(work)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, lower], check=True)
    for directory in ["/etc/octavia/certs", "/var/lib/octavia", "/run/rsyslog/octavia", "/run/netns",
                      "/usr/lib/systemd/system"]:
        os.makedirs(directory, exist_ok=True)
    for name in ["server.pem", "client_ca.pem"]:
        pathlib.Path("/etc/octavia/certs", name).write_bytes(contents[name])
    pathlib.Path("/etc/octavia/amphora-agent.conf").write_bytes(contents["config"])
    pathlib.Path("/var/lib/octavia/haproxy-default-user-group.conf").write_text("global\n    group nogroup\n")
    for name, text in binaries.items():
        path = pathlib.Path("/usr/local/bin", name)
        path.write_text(text)
        path.chmod(0o755)
    os.environ["PATH"] = "/usr/local/bin:" + os.environ["PATH"]
    # The agent finds the log's socket from where a machine starts its services.
    os.environ["HOME"] = "/run"
    os.chdir("/")
    os.symlink(pathlib.Path(certificates, "agent.log"), "/var/log/amphora-agent.log")


def main():
    config, certificates = sys.argv[1:]
    machine(config, certificates)
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind("/run/rsyslog/octavia/log")
    subprocess.Popen([shutil.which("amphora-agent"), "--config-file", "/etc/octavia/amphora-agent.conf"])
    if os.fork() == 0:
        while True:
            log.recv(65536)
    # The first process of a machine buries the others.
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
