"""What terraform's provider and cloud-provider-openstack ask, by gophercloud of Debian (golang-go, golang-github-gophercloud-gophercloud-dev)."""

import os
import pathlib
import shutil
import subprocess

from serve import PASSWORD

LIBRARY = pathlib.Path("/usr/share/gocode")


def copies(_given):
    return 1


def arguments(_parser):
    pass


def run(serve, place, _given):
    if not shutil.which("go") or not (LIBRARY / "src/github.com/gophercloud").exists():
        raise SystemExit("apt-get install golang-go golang-github-gophercloud-gophercloud-dev")
    program = place / "gophercloud"
    source = pathlib.Path(__file__).with_name("gophercloud.go")
    build = {**os.environ, "GO111MODULE": "off", "GOPATH": str(LIBRARY), "GOCACHE": str(place / "cache"), "GOFLAGS": ""}
    subprocess.run(["go", "build", "-o", program, source], env=build, check=True)
    account = {
        "OS_AUTH_URL": f"{serve.url}/v3",
        "OS_USERNAME": "admin",
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "admin",
        "OS_DOMAIN_NAME": "Default",
    }
    return subprocess.run([program], env={**os.environ, **account}, check=False).returncode
