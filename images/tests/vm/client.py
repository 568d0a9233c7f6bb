"""A client that asks a VIP all the time, and says what it has seen of an event."""

import concurrent.futures
import dataclasses
import http.client
import threading
import time

from common import until
from service import answered

# Requests that are under way at once; one of an outage takes as long as that.
CLIENTS = 200
# Between requests, seconds. Emulated processors answer some hundred a second.
EVERY = 0.025


@dataclasses.dataclass
class Seen:
    """What a client saw."""

    outage: float
    usual: float
    lost: int
    requests: int


class Client:
    """Asks at a rate whatever becomes of its requests, on a connection each, so that an outage costs it no more than its length."""

    def __init__(self, vip, port):
        self.vip, self.port = vip, port
        self.answered, self.lost, self.requests = [], 0, 0
        self.stopped = threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(CLIENTS)
        self.clock = threading.Thread(target=self.ask, daemon=True)
        self.clock.start()

    def ask(self):
        due = time.monotonic()
        while not self.stopped.is_set():
            self.requests += 1
            self.pool.submit(self.one)
            due += EVERY
            time.sleep(max(0.0, due - time.monotonic()))

    def one(self):
        try:
            # Longer than the first retransmission of a SYN, which is no loss but a delay.
            if answered(self.vip, self.port, 5.0):
                self.answered.append(time.monotonic())
                return
        except (OSError, http.client.HTTPException):
            pass
        self.lost += 1

    def more(self, answers):
        """Waits for so many more answers."""
        goal = len(self.answered) + answers
        until("answers of the VIP", lambda: True if len(self.answered) >= goal else None)

    def finish(self, event):
        """Asks no more; gives what was seen of an event at that time: the longest time without an answer, and the longest before it."""
        self.stopped.set()
        self.clock.join()
        self.pool.shutdown()
        times = sorted(self.answered)
        gaps = list(zip(times, times[1:]))
        before = [b - a for a, b in gaps if b < event]
        return Seen(max(b - a for a, b in gaps if b >= event), max(before), self.lost, self.requests)
