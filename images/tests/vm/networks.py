"""Networks of machines: QEMU's own, and those of a network namespace."""

import contextlib
import ctypes
import dataclasses
import ipaddress
import os
import socket
import struct
import subprocess
import threading
import time

from common import Failed, free_port

VIP = "10.77.0.100"
VIP_SUBNET = "10.77.0.0/24"
# A network of members that gives addresses by DHCP and by router advertisements, and this host in it.
MEMBER_SUBNET = "10.78.0.0/24"
MEMBER_HOST = "10.78.0.2"


@contextlib.contextmanager
def network_namespace():
    """What the calling thread does, and starts, within this is in a network namespace of its own, which goes with the last of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_network = 0x40000000  # CLONE_NEWNET of sched.h
    outer = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(new_network) != 0:
            raise Failed(f"no network namespace is to be had: {os.strerror(ctypes.get_errno())}")
        ip("link", "set", "lo", "up")
        yield
    finally:
        libc.setns(outer, new_network)
        os.close(outer)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


@dataclasses.dataclass
class Management:
    """A machine's management network."""

    # What QEMU is told of it, as the backend `management`.
    netdev: str
    # Where the agent is reached, and the shell.
    host: str
    agent: int
    ssh: int
    # `networks` of network_data.json, and where the machine finds the controller.
    networks: list
    controller: str

    @property
    def endpoint(self):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.agent}"


def slirp(static=False):
    """QEMU's own network, with DHCP; or what that would say, written into the configuration drive."""
    agent, ssh = free_port(), free_port()
    network = {"id": "network0", "link": "tap0", "type": "ipv4_dhcp", "network_id": "n"}
    if static:
        network |= {"type": "ipv4", "ip_address": "10.0.2.15", "netmask": "255.255.255.0",
                    "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.2.2"}]}
    netdev = f"user,id=management,hostfwd=tcp:127.0.0.1:{agent}-:9443,hostfwd=tcp:127.0.0.1:{ssh}-:22"
    return Management(netdev, "127.0.0.1", agent, ssh, [network], "10.0.2.2")


def tap(name):
    """A device for QEMU's `tap`."""
    ip("tuntap", "add", "mode", "tap", "name", name)
    ip("link", "set", name, "up")
    return f"tap,ifname={name},script=no,downscript=no"


def ipv6(static, mac):
    """A management network of IPv6 alone: the address is written into the drive, or follows from what a router advertises."""
    prefix = ipaddress.IPv6Network("fd6d:616e:6167::/64")
    router = str(prefix[1])
    netdev = tap("management")
    ip("address", "add", f"{router}/64", "dev", "management", "nodad")
    if static:
        host = str(prefix[5])
        network = {"type": "ipv6", "ip_address": host, "netmask": "ffff:ffff:ffff:ffff::",
                   "routes": [{"network": "::", "netmask": "::", "gateway": router}]}
    else:
        octets = bytes.fromhex(mac.replace(":", ""))
        # RFC 4291, appendix A
        identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
        host = str(prefix[int.from_bytes(identifier, "big")])
        network = {"type": "ipv6_slaac"}
        threading.Thread(target=advertise, args=("management", prefix), daemon=True).start()
    network |= {"id": "network0", "link": "tap0", "network_id": "n"}
    return Management(f"{netdev},id=management", host, 9443, 22, [network], f"[{router}]")


def advertise(interface, prefix):
    """A router's advertisements (RFC 4861), of a prefix to make addresses of, until the interface is gone."""
    # sections 4.2 and 4.6.2: on-link, autonomous
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    message += struct.pack("!BBBBIII16s", 3, 4, prefix.prefixlen, 0xC0, 86400, 14400, 0, prefix.network_address.packed)
    index = socket.if_nametoindex(interface)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        while True:
            try:
                socket.if_indextoname(index)
            except OSError:
                return
            # Nobody is at the other end before QEMU is.
            with contextlib.suppress(OSError):
                s.sendto(message, ("ff02::1", 0, 0, index))
            time.sleep(0.5)
