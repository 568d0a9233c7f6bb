"""Clients and test suites of others against `amphora-controller serve`."""

import argparse
import importlib
import pathlib
import subprocess
import sys
import tempfile

from serve import Serve

SUITES = {
    "tempest": "octavia-tempest-plugin's tests of the API",
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
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="clients-") as scratch:
        place = (arguments.keep or pathlib.Path(scratch)).absolute()
        place.mkdir(parents=True, exist_ok=True)
        module = modules[arguments.suite]
        with Serve(place, getattr(module, "SETTINGS", {}), module.copies(arguments)) as serve:
            sys.exit(module.run(serve, place, arguments))


main()
