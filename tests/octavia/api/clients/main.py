"""Clients and test suites of others against `amphora-controller serve`."""

import argparse
import importlib
import pathlib
import signal
import subprocess
import sys
import tempfile

from serve import Serve

SUITES = {
    "tempest": "octavia-tempest-plugin's tests of the API",
    "gophercloud": "terraform's provider and cloud-provider-openstack, by their library",
    "commands": "every command of python-octaviaclient",
    "export": "what export writes, made of it by a real Octavia",
    "sdk": "every method of openstacksdk",
    "schema": "schemathesis, by the description that serve tells",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    suites = parser.add_subparsers(dest="suite", required=True)
    modules = {}
    for name, text in SUITES.items():
        modules[name] = importlib.import_module(f"{name}_suite")
        own = suites.add_parser(name, help=text, description=text)
        own.add_argument("--keep", metavar="DIR", type=pathlib.Path, help="where data, logs and results stay")
        modules[name].arguments(own)
    arguments = parser.parse_args()
    # Amphorae do not outlive this, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="clients-") as scratch:
        place = (arguments.keep or pathlib.Path(scratch)).absolute()
        place.mkdir(parents=True, exist_ok=True)
        # Proxies run as nobody, and get to their files through it.
        place.chmod(0o711)
        module = modules[arguments.suite]
        with Serve(place, getattr(module, "SETTINGS", {}), module.copies(arguments)) as serve:
            sys.exit(module.run(serve, place, arguments))


main()
