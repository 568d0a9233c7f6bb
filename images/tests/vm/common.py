"""What the tests of machines share: where things are, how they wait, and how they end."""

import http.client
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

# One generous bound for whatever is waited for: emulation on a machine that has other things to do.
BOUND = 600.0
# Of a question that is asked again when it is not answered: short, because what QEMU's own network asks of a machine that is not
# there yet is answered late.
PROBE = 3.0


class Failed(Exception):
    """What was waited for did not come."""


def until(what, probe, bound=BOUND):
    """Calls probe until it gives something, and gives that."""
    deadline = time.monotonic() + bound
    last = None
    while time.monotonic() < deadline:
        try:
            if (got := probe()) is not None:
                return got
        except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
            last = error
        time.sleep(0.1)
    raise Failed(f"{what}: not within {bound:.0f} s; last: {last!r}")


def free_port(kind=socket.SOCK_STREAM):
    """One below those that the kernel gives to whoever asks for none, as QEMU's own network does for each flow of its machine: it is to be free later, too."""
    for port in random.sample(range(20000, 32000), 1000):
        with socket.socket(socket.AF_INET, kind) as s:
            try:
                s.bind(("", port))
            except OSError:
                continue
            return port
    raise Failed("no port is free")


def add_arguments(parser):
    """Those that all tests of machines have."""
    parser.add_argument("--image", type=pathlib.Path, default=TARGET / "image/amphora.qcow2")
    parser.add_argument("--controller", type=pathlib.Path,
                        default=os.environ.get("AMPHORA_CONTROLLER_BIN", TARGET / "debug/amphora-controller"))
    parser.add_argument("--keep-console", type=pathlib.Path, default=TARGET / "image-tests", help="where consoles of failures go")


def add_check(parser):
    """That of the tests which measure seconds."""
    parser.add_argument("--check", action="store_true", help="also hold the seconds to docs/specification.md; on a machine that does nothing else")


def end_when_told():
    """Tidies up when it is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
