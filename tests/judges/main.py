"""Runs judges against a proxy and says what they found.

Each judge is asked for what it finds fault with; its rule says what of that fails. The exit status is 1 when anything
failed, and 2 when a judge that was asked for by its name could not be run.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import grpc_calls
import http2
import tls
import tlsfuzzer
import websocket
from peer import PEERS, NotAvailable

JUDGES = {
    "testssl": tls.testssl,
    "sslyze": tls.sslyze,
    "tlsfuzzer": tlsfuzzer.tlsfuzzer,
    "httpwg": http2.httpwg,
    "grpc": grpc_calls.judge,
    "websocket": websocket.judge,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("judges", nargs="*", metavar="JUDGE", help=", ".join(JUDGES) + "; all by default")
    parser.add_argument("--peer", choices=PEERS, default="amphora", help="whom to judge; this proxy by default")
    parser.add_argument("--keep", type=Path, help="where reports of the judges go")
    arguments = parser.parse_args()
    unknown = set(arguments.judges) - set(JUDGES)
    if unknown:
        parser.error(f"no such judge: {', '.join(sorted(unknown))}")
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as scratch:
        reports = arguments.keep or Path(scratch) / "reports"
        reports.mkdir(parents=True, exist_ok=True)
        for name in arguments.judges or JUDGES:
            directory = Path(scratch) / name
            directory.mkdir()
            try:
                verdicts = JUDGES[name](PEERS[arguments.peer], directory, reports)
            except NotAvailable as reason:
                print(f"SKIPPED: {name}: {reason}", flush=True)
                skipped += 1
                continue
            for verdict in verdicts:
                passed += verdict.good
                failed += not verdict.good
                word = "ok" if verdict.good else "FAILED"
                print(f"{name}: {verdict.what}: {word}{verdict.why and ': '}{verdict.why}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 2 if skipped and arguments.judges else 0


if __name__ == "__main__":
    sys.exit(main())
