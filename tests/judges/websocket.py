"""WebSocket over HTTP/2 (RFC 8441): extended CONNECT by the library h2, to a member that speaks WebSocket over HTTP/1.1."""

import base64
import contextlib
import hashlib
import os
import socket
import ssl
import struct
import threading

import h2.config
import h2.connection
import h2.events

from peer import NAME, Listener, Verdict, certificates

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE = 1, 8


def frame(opcode, payload, mask=b""):
    """A whole message as one frame (RFC 6455 5.2)."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size) if size < 65536 else b"\x7f" + struct.pack(">Q", size)
    head = bytes([0x80 | opcode, length[0] | (0x80 if mask else 0)]) + length[1:] + mask
    return head + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload)) if mask else head + payload


def read_frame(read):
    first, second = read(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", read(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", read(8))
    mask = read(4) if second & 0x80 else b""
    payload = read(size)
    return first & 0x0F, bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload)) if mask else payload


def serve(connection):
    """A member that sends every message back."""
    stream = connection.makefile("rwb")

    def read(size):
        data = stream.read(size)
        if len(data) < size:
            raise EOFError
        return data

    with contextlib.suppress(OSError, EOFError, KeyError, ValueError), connection:
        while line := stream.readline():
            method, target, _ = line.split()
            fields = {}
            while (line := stream.readline().strip()):
                name, _, value = line.partition(b":")
                fields[name.lower()] = value.strip()
            if fields.get(b"upgrade", b"").lower() != b"websocket" or method != b"GET":
                stream.write(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n")
                stream.flush()
                continue
            accept = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + MAGIC).digest())
            stream.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\nX-Target: " + target + b"\r\n\r\n"
            )
            stream.flush()
            while True:
                opcode, payload = read_frame(read)
                stream.write(frame(opcode, payload))
                stream.flush()
                if opcode == CLOSE:
                    return


@contextlib.contextmanager
def member():
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=[connection], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield listener.getsockname()[1]


class Client:
    """A connection of HTTP/2."""

    def __init__(self, port, directory):
        context = ssl.create_default_context(cafile=directory / "ca.pem")
        context.set_alpn_protocols(["h2"])
        self.socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10), server_hostname=NAME)
        assert self.socket.selected_alpn_protocol() == "h2"
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http.initiate_connection()
        self.heads, self.data, self.ended, self.settings = {}, {}, set(), None
        self.flush()
        self.until(lambda: self.settings is not None)

    def flush(self):
        self.socket.sendall(self.http.data_to_send())

    def until(self, reached):
        while not reached():
            came = self.socket.recv(65536)
            assert came, "the connection was closed"
            for event in self.http.receive_data(came):
                if isinstance(event, h2.events.RemoteSettingsChanged) and self.settings is None:
                    self.settings = {int(code): change.new_value for code, change in event.changed_settings.items()}
                elif isinstance(event, h2.events.ResponseReceived):
                    self.heads[event.stream_id] = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.data.setdefault(event.stream_id, bytearray()).extend(event.data)
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended.add(event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    self.ended.add(event.stream_id)
                    self.heads.setdefault(event.stream_id, {":status": f"reset {event.error_code}"})
                elif isinstance(event, h2.events.ConnectionTerminated):
                    raise AssertionError(f"GOAWAY {event.error_code}")
            self.flush()

    def connect(self, path):
        stream = self.http.get_next_available_stream_id()
        self.http.send_headers(stream, [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", path),
            (":authority", NAME), ("sec-websocket-version", "13"), ("origin", f"https://{NAME}"),
        ])
        self.flush()
        self.until(lambda: stream in self.heads)
        return stream

    def send(self, stream, data):
        while data:
            self.until(lambda: self.http.local_flow_control_window(stream) > 0)
            size = min(self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size, len(data))
            self.http.send_data(stream, data[:size])
            self.flush()
            data = data[size:]

    def receive(self, stream):
        def read(size):
            self.until(lambda: len(self.data.get(stream, b"")) >= size or stream in self.ended)
            piece = bytes(self.data.get(stream, b"")[:size])
            assert len(piece) == size, "the stream has ended"
            del self.data[stream][:size]
            return piece

        return read_frame(read)


def announced(client):
    assert client.settings.get(8) == 1, f"SETTINGS_ENABLE_CONNECT_PROTOCOL: {client.settings}"


def echo(client):
    stream = client.connect("/chat?room=1")
    assert client.heads[stream][":status"] == "200", client.heads[stream]
    assert client.heads[stream].get("x-target") == "/chat?room=1", client.heads[stream]
    for message in [b"hello", b"", b"x" * 300_000]:
        client.send(stream, frame(TEXT, message, os.urandom(4)))
        assert client.receive(stream) == (TEXT, message)
    client.send(stream, frame(CLOSE, b"\x03\xe8", os.urandom(4)))
    assert client.receive(stream) == (CLOSE, b"\x03\xe8")
    client.until(lambda: stream in client.ended)


def several(client):
    streams = [client.connect(f"/{number}") for number in range(5)]
    for stream in streams:
        client.send(stream, frame(TEXT, str(stream).encode(), os.urandom(4)))
    for stream in reversed(streams):
        assert client.receive(stream) == (TEXT, str(stream).encode())


def beside_requests(client):
    """A plain request on the same connection gets its answer while a WebSocket is open."""
    stream = client.connect("/")
    other = client.http.get_next_available_stream_id()
    client.http.send_headers(other, [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", NAME)], end_stream=True)
    client.flush()
    client.until(lambda: other in client.ended)
    assert client.heads[other][":status"] == "400", "the member's answer"
    client.send(stream, frame(TEXT, b"still", os.urandom(4)))
    assert client.receive(stream) == (TEXT, b"still")


CASES = {
    "extended CONNECT is announced": announced,
    "messages come back, and a close": echo,
    "several at once": several,
    "beside requests": beside_requests,
}


def judge(peer, directory, reports):
    certificates(directory)
    verdicts = []
    with member() as port:
        listener = Listener(port, "ecdsa")
        with peer(directory, [listener]):
            for name, case in CASES.items():
                try:
                    client = Client(listener.port, directory)
                    with client.socket:
                        case(client)
                    verdicts.append(Verdict(name, True))
                except Exception as error:  # The other cases are still to be tried.
                    verdicts.append(Verdict(name, False, f"{type(error).__name__}: {error}"[:500]))
    return verdicts
