#!/usr/bin/env python3
"""Endpoints of SCTP in user space (usrsctp, Debian's libusrsctp2), for kernels that have none. One process for each network namespace.

Reads commands on standard input, each a line, and answers each with a line, when it has said `ready`:

    listen NAME ADDRESS PORT          accepts associations, and answers each message by `NAME PEER MESSAGE`
    end NAME                          listens no more, and aborts the associations that it has accepted
    open LABEL ADDRESS REMOTE PORT    associates from an address: `ok`, or what the error is called
    begin LABEL ADDRESS REMOTE PORT   the same, without waiting for what comes of it
    send LABEL MESSAGE                sends, and waits for nothing
    ask LABEL MESSAGE                 what is answered, or what the error is called
    wait LABEL                        what comes unasked: a message, `END`, or what the error is called
    close LABEL                       shuts down: `ok` when the other side has done so, too
    unreachable                       waits for ICMP or ICMPv6 of SCTP: type and code

What takes longer than ten seconds is answered by `TIMEOUT`. Ends with its input.
"""

import ctypes
import ctypes.util
import errno
import os
import queue
import socket
import struct
import sys
import threading
import time

PATIENCE = 10
SCTP = 132
LIBRARY = os.environ.get("AMPHORA_USRSCTP") or ctypes.util.find_library("usrsctp") or "libusrsctp.so.2"
lib = ctypes.CDLL(LIBRARY, use_errno=True)
lib.usrsctp_socket.restype = ctypes.c_void_p
lib.usrsctp_socket.argtypes = [ctypes.c_int] * 3 + [ctypes.c_void_p] * 2 + [ctypes.c_uint32, ctypes.c_void_p]
lib.usrsctp_accept.restype = ctypes.c_void_p
lib.usrsctp_accept.argtypes = [ctypes.c_void_p] * 3
for name in ("usrsctp_bind", "usrsctp_connect"):
    getattr(lib, name).argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]
lib.usrsctp_listen.argtypes = [ctypes.c_void_p, ctypes.c_int]
lib.usrsctp_shutdown.argtypes = [ctypes.c_void_p, ctypes.c_int]
lib.usrsctp_set_upcall.argtypes = [ctypes.c_void_p] * 3
lib.usrsctp_set_non_blocking.argtypes = [ctypes.c_void_p, ctypes.c_int]
lib.usrsctp_close.argtypes = [ctypes.c_void_p]
lib.usrsctp_close.restype = None
lib.usrsctp_setsockopt.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
lib.usrsctp_recvv.restype = ctypes.c_ssize_t
lib.usrsctp_recvv.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t] + [ctypes.c_void_p] * 6
lib.usrsctp_sendv.restype = ctypes.c_ssize_t
lib.usrsctp_sendv.argtypes = [
    ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int,
    ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint, ctypes.c_int,
]


class Failed(Exception):
    """What an error is called."""


def check(result):
    if result is None or result < 0:
        number = ctypes.get_errno()
        raise Failed(errno.errorcode.get(number, str(number)))
    return result


def sockaddr(address, port):
    if ":" in address:
        packed = struct.pack("!HI", port, 0) + socket.inet_pton(socket.AF_INET6, address) + bytes(4)
        return struct.pack("=H", socket.AF_INET6) + packed
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)


def text_of(raw):
    if struct.unpack_from("=H", raw)[0] == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, raw[8:24])
    return socket.inet_ntoa(raw[4:8])


def told_of(made):
    """The socket, which says when something comes to it, and does not wait."""
    check(lib.usrsctp_set_non_blocking(made, 1))
    check(lib.usrsctp_set_upcall(made, wake, None))
    return made


def new(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = check(lib.usrsctp_socket(family, socket.SOCK_STREAM, SCTP, None, None, 0, None))
    name = sockaddr(address, port)
    check(lib.usrsctp_bind(made, name, len(name)))
    return made


changed = threading.Condition()
changes = 0


@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
def wake(_socket, _argument, _flags):
    """Something has come to a socket, or it has failed. Called with the library's locks held."""
    tell()


def tell():
    global changes
    with changed:
        changes += 1
        changed.notify_all()


def wait_for(result, ended=lambda: False):
    """Tries again until there is a result, or an error: a socket that somebody waits in cannot be closed."""
    while not ended():
        before = changes
        try:
            return result()
        except Failed as error:
            if str(error) != "EAGAIN":
                raise
        with changed:
            if changes == before:
                changed.wait(0.5)
    raise Failed("ENDED")


def receive(made):
    """The next message; none when the other side has shut down."""
    data = ctypes.create_string_buffer(1 << 16)
    length, flags = ctypes.c_uint32(0), ctypes.c_int(0)
    info_length, info_type = ctypes.c_uint32(0), ctypes.c_uint(0)
    refs = [ctypes.byref(value) for value in (length, info_length, info_type, flags)]
    count = check(lib.usrsctp_recvv(made, data, len(data), None, refs[0], None, *refs[1:]))
    return data.raw[:count]


def send(made, message):
    check(lib.usrsctp_sendv(made, message, len(message), None, 0, None, 0, 0, 0))


def abort(made):
    """Closes at once: the other side is told by ABORT."""
    linger = struct.pack("ii", 1, 0)
    lib.usrsctp_setsockopt(made, socket.SOL_SOCKET, socket.SO_LINGER, linger, len(linger))
    lib.usrsctp_close(made)


class Server:
    def __init__(self, name, address, port):
        self.name, self.threads, self.ended = name, [], False
        self.socket = new(address, port)
        check(lib.usrsctp_listen(told_of(self.socket), 64))
        self.run(self.accept)

    def run(self, work, *args):
        thread = threading.Thread(target=work, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self):
        peer = ctypes.create_string_buffer(28)
        try:
            while True:
                length = ctypes.c_uint32(28)
                take = lambda: check(lib.usrsctp_accept(self.socket, peer, ctypes.byref(length)))
                made = wait_for(take, lambda: self.ended)
                self.run(self.serve, told_of(made), text_of(peer.raw))
        except Failed:
            abort(self.socket)

    def serve(self, made, peer):
        try:
            while message := wait_for(lambda: receive(made), lambda: self.ended):
                send(made, f"{self.name} {peer} ".encode() + message)
            lib.usrsctp_close(made)
        except Failed:
            abort(made)

    def end(self):
        self.ended = True
        tell()
        for thread in self.threads:
            thread.join()


class Client:
    def __init__(self, address, remote, port):
        self.socket, self.heard = new(address, 0), queue.Queue()
        name = sockaddr(remote, port)
        threading.Thread(target=self.run, args=(name,), daemon=True).start()

    def run(self, name):
        try:
            check(lib.usrsctp_connect(self.socket, name, len(name)))
            told_of(self.socket)
            self.heard.put(b"ok")
            while True:
                message = wait_for(lambda: receive(self.socket))
                self.heard.put(message or b"END")
                if not message:
                    return
        except Failed as error:
            self.heard.put(str(error).encode())

    def answer(self):
        try:
            return self.heard.get(timeout=PATIENCE)
        except queue.Empty:
            return b"TIMEOUT"


def unreachables(found):
    """What ICMP and ICMPv6 say of packets of SCTP."""
    def listen(family, protocol):
        with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
            while True:
                packet = raw.recv(2048)
                v4 = family == socket.AF_INET
                icmp = packet[(packet[0] & 15) * 4:] if v4 else packet
                inner = icmp[8:]
                if len(inner) > 9 and icmp[0] in ((3,) if v4 else (1, 4)) and inner[9 if v4 else 6] == SCTP:
                    found.put(f"{icmp[0]} {icmp[1]}".encode())
    for family, protocol in ((socket.AF_INET, socket.IPPROTO_ICMP), (socket.AF_INET6, socket.IPPROTO_ICMPV6)):
        threading.Thread(target=listen, args=(family, protocol), daemon=True).start()


def main():
    lib.usrsctp_init(0, None, None)
    servers, clients, icmp = {}, {}, queue.Queue()
    unreachables(icmp)

    def do(command, args):
        match command, args:
            case "listen", [name, address, port]:
                servers[name] = Server(name, address, int(port))
            case "end", [name]:
                servers.pop(name).end()
            case "open", [label, address, remote, port]:
                clients[label] = Client(address, remote, int(port))
                return clients[label].answer()
            case "begin", [label, address, remote, port]:
                clients[label] = Client(address, remote, int(port))
            case "send", [label, message]:
                send(clients[label].socket, message.encode())
            case "ask", [label, message]:
                send(clients[label].socket, message.encode())
                return clients[label].answer()
            case "wait", [label]:
                return clients[label].answer()
            case "close", [label]:
                client = clients.pop(label)
                check(lib.usrsctp_shutdown(client.socket, socket.SHUT_WR))
                answer = client.answer()
                lib.usrsctp_close(client.socket)
                return b"ok" if answer == b"END" else answer
            case "unreachable", []:
                try:
                    return icmp.get(timeout=PATIENCE)
                except queue.Empty:
                    return b"TIMEOUT"
            case _:
                return b"UNKNOWN"
        return b"ok"

    print("ready", flush=True)
    for line in sys.stdin:
        command, *args = line.split()
        try:
            answer = do(command, args)
        except Failed as error:
            answer = str(error).encode()
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()
    # Without a farewell: what is still associated finds out by itself.
    os._exit(0)


if __name__ == "__main__":
    main()
