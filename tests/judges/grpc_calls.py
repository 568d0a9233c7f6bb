"""gRPC as its own library speaks it, on both sides of the proxy: calls of all four kinds, trailers, limits."""

import concurrent.futures
import contextlib
import threading
import time

import grpc

from peer import NAME, Listener, Verdict, certificates

MIB = 1 << 20


class Service(grpc.GenericRpcHandler):
    """Bytes in, bytes out: messages need no schema here."""

    def service(self, details):
        calls = {
            "/t.T/Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "/t.T/Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "/t.T/Count": grpc.unary_stream_rpc_method_handler(self.count),
            "/t.T/Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "/t.T/Refuse": grpc.unary_unary_rpc_method_handler(self.refuse),
            "/t.T/Pause": grpc.unary_unary_rpc_method_handler(self.pause),
            "/t.T/Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "/t.T/Late": grpc.unary_stream_rpc_method_handler(self.late),
        }
        return calls.get(details.method)

    def __init__(self):
        self.cancelled = threading.Event()

    def echo(self, request, context):
        metadata = dict(context.invocation_metadata())
        context.send_initial_metadata([("seen", metadata.get("asked", "")), ("blob-bin", metadata.get("blob-bin", b""))])
        context.set_trailing_metadata([("last", "yes")])
        return request

    def sum(self, requests, context):
        return str(sum(len(request) for request in requests)).encode()

    def count(self, request, context):
        for number in range(int(request)):
            yield str(number).encode()

    def talk(self, requests, context):
        for request in requests:
            yield b"re: " + request

    def refuse(self, request, context):
        context.set_trailing_metadata([("reason", "a, b")])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "näh: 100 %")

    def pause(self, request, context):
        time.sleep(float(request))
        return request

    def wait(self, request, context):
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(30)
        return b""

    def late(self, request, context):
        yield b"first"
        context.abort(grpc.StatusCode.DATA_LOSS, "in the middle")


# A server that asks all the time whether its client is there.
PINGING = [
    ("grpc.keepalive_time_ms", 50),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10),
]


@contextlib.contextmanager
def server(directory, options=()):
    service = Service()
    options = [("grpc.max_receive_message_length", 8 * MIB), *options]
    it = grpc.server(concurrent.futures.ThreadPoolExecutor(80), [service], options=options)
    pair = ((directory / "ecdsa.key").read_bytes(), (directory / "ecdsa.crt").read_bytes())
    port = it.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    it.start()
    try:
        yield service, port
    finally:
        it.stop(0)


def judge(peer, directory, reports):
    pinged = {f"{name}, of a server that pings": CASES[name] for name in (SILENT, "a talk", "200 calls at once")}
    return [*calls(peer, directory / "quiet", CASES, ()), *calls(peer, directory / "pinging", pinged, PINGING)]


def calls(peer, directory, cases, options):
    directory.mkdir()
    certificates(directory)
    with server(directory, options) as (service, member):
        listener = Listener(member, "ecdsa", member_http2=True)
        with peer(directory, [listener]):
            trust = grpc.ssl_channel_credentials((directory / "ca.pem").read_bytes())
            options = [("grpc.ssl_target_name_override", NAME), ("grpc.max_receive_message_length", 8 * MIB)]
            with grpc.secure_channel(f"127.0.0.1:{listener.port}", trust, options) as channel:
                return [one(name, case, channel, service) for name, case in cases.items()]


def one(name, case, channel, service):
    try:
        case(channel, service)
        return Verdict(name, True)
    except Exception as error:  # Whatever it is, the case has failed, and the others are still to be tried.
        return Verdict(name, False, " ".join(f"{type(error).__name__}: {error}".split())[:500])


def unary(channel, _):
    response, call = channel.unary_unary("/t.T/Echo").with_call(
        b"hello", timeout=10, metadata=[("asked", "this"), ("blob-bin", b"\x00\xff\x01")]
    )
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert response == b"hello", response
    assert initial["seen"] == "this" and initial["blob-bin"] == b"\x00\xff\x01", initial
    assert trailing["last"] == "yes" and call.code() == grpc.StatusCode.OK, trailing


def empty(channel, _):
    assert channel.unary_unary("/t.T/Echo")(b"", timeout=10) == b""


def large(channel, _):
    body = bytes(range(256)) * (4 * MIB // 256)
    assert channel.unary_unary("/t.T/Echo")(body, timeout=30) == body


def client_stream(channel, _):
    assert channel.stream_unary("/t.T/Sum")((b"x" * 1000 for _ in range(500)), timeout=30) == b"500000"


def server_stream(channel, _):
    got = [int(message) for message in channel.unary_stream("/t.T/Count")(b"1000", timeout=30)]
    assert got == list(range(1000)), got[:10]


def bidirectional(channel, _):
    """The next message leaves when the answer to the last one is there: nothing may be held back."""
    answered = threading.Semaphore(0)

    def requests():
        for number in range(50):
            yield str(number).encode()
            assert answered.acquire(timeout=10), f"no answer to message {number}"

    got = []
    for answer in channel.stream_stream("/t.T/Talk")(requests(), timeout=30):
        got.append(answer)
        answered.release()
    assert got == [f"re: {number}".encode() for number in range(50)], got[:3]


def failure(channel, method, stream=False):
    try:
        if stream:
            call = channel.unary_stream(method)(b"", timeout=10)
            messages = []
            for message in call:
                messages.append(message)
        else:
            channel.unary_unary(method)(b"", timeout=10)
    except grpc.RpcError as error:
        return error
    raise AssertionError("no error")


def trailers_only(channel, _):
    error = failure(channel, "/t.T/Refuse")
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and error.details() == "näh: 100 %", error
    assert dict(error.trailing_metadata())["reason"] == "a, b"


def unknown_method(channel, _):
    assert failure(channel, "/t.T/Nothing").code() == grpc.StatusCode.UNIMPLEMENTED


def error_behind_messages(channel, _):
    error = failure(channel, "/t.T/Late", stream=True)
    assert error.code() == grpc.StatusCode.DATA_LOSS and error.details() == "in the middle", error


def deadline(channel, service):
    """The member learns that nobody waits any more."""
    service.cancelled.clear()
    try:
        channel.unary_unary("/t.T/Wait")(b"", timeout=0.5)
        raise AssertionError("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert service.cancelled.wait(10), "the member was not told"


def many(channel, _):
    echo = channel.unary_unary("/t.T/Echo")
    calls = [echo.future(str(number).encode() * 1000, timeout=30) for number in range(200)]
    assert all(call.result() == str(number).encode() * 1000 for number, call in enumerate(calls))


def silent(channel, _):
    """One has nothing to say for longer than anybody asks whether the other side is there, and others go on beside it."""
    pause = channel.unary_unary("/t.T/Pause").future(b"6", timeout=30)
    echo = channel.unary_unary("/t.T/Echo")
    while not pause.done():
        assert echo(b"x", timeout=10) == b"x"
        time.sleep(1.3)
    assert pause.result() == b"6"


SILENT = "a call that is silent for long"

CASES = {
    "unary, metadata and trailers": unary,
    "an empty message": empty,
    "4 MiB each way": large,
    "a stream from the client": client_stream,
    "a stream from the server": server_stream,
    "a talk": bidirectional,
    "trailers alone": trailers_only,
    "an unknown method": unknown_method,
    "an error behind messages": error_behind_messages,
    "a deadline": deadline,
    "200 calls at once": many,
    SILENT: silent,
}
