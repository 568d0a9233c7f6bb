"""A judge of HTTP/2: httpwg-cli, a successor of h2spec in Rust, without TLS."""

import collections
import os
import re
import shutil
import subprocess

from peer import Listener, NotAvailable, Verdict, certificates, web_member

# What it demands and RFC 9113 does not, by the ends of the names of its tests.
EXCEPT = {
    "sends headers frame with leading space in field value": "white space around a value is taken away, as in HTTP/1.1",
    "sends headers frame with trailing tab in field value": "the same",
}

# What tests say that break off by themselves, by how it begins.
BREAKS = {
    "Wanted (BitFlags<FrameT>(0b1000000, Ping))": "after the client's GOAWAY the connection ends, with no stream left, and the test still wants an answer to PING",
}


def httpwg(peer, directory, reports):
    """Every test must pass but what is left out, with the reason."""
    program = shutil.which("httpwg")
    if not program:
        raise NotAvailable("httpwg-cli is not installed (cargo install httpwg-cli)")
    certificates(directory)
    with web_member() as member:
        listener = Listener(member)
        with peer(directory, [listener]):
            # It wants a server to start, and waits until the address listens, as it does already.
            command = [program, "-a", f"127.0.0.1:{listener.port}", "--frame-timeout", "2000", "--", "sleep", "600"]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, env=os.environ | {"NO_COLOR": "1"})
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode(errors="replace"))
    (reports / "httpwg.txt").write_text(text)
    summary = re.search(r"Passed (\d+)/(\d+) tests", text)
    if not summary:
        return [Verdict("all tests", False, text[-500:])]
    failures = re.findall(r"Test failed: (.*)\n(?:\s*\n)*(?:\s*0: (.*))?", text)
    verdicts = []
    for name, why in failures:
        excepted = next((reason for end, reason in EXCEPT.items() if name.endswith(end)), None)
        verdicts.append(Verdict(name, excepted is not None, f"{why}{excepted and ' (' + excepted + ')' or ''}"))
    passed, total = map(int, summary.groups())
    # One that breaks off itself has no name in the report.
    nameless = total - passed - len(failures)
    if nameless:
        said = collections.Counter(re.findall(r"panicked \(crashed\).\nMessage:\s+(.*)", text))
        reasons = {begin: reason for begin, reason in BREAKS.items() if any(why.startswith(begin) for why in said)}
        explained = sum(n for why, n in said.items() if why.startswith(tuple(reasons)))
        why = "; ".join([*(f"{n} times {why}" for why, n in said.most_common(5)), *reasons.values()])
        verdicts.append(Verdict(f"{nameless} tests that broke off", nameless <= explained, why))
    verdicts.append(Verdict(f"{passed} of {total} tests", passed > 0))
    return verdicts
