"""A client that notes to the nanosecond when it sent a request. Signature Version 4, written from its description."""

import hashlib
import hmac
import json
import selectors
import socket
import time
from dataclasses import dataclass

from .places import Unmeasured

REGION = "us-east-1"


@dataclass
class Answer:
    """One answer; the times are of the clock that functions read as well (CLOCK_MONOTONIC)."""

    status: int
    headers: dict
    body: bytes
    sent_ns: int
    answered_ns: int

    @property
    def start(self):
        """Which start the invocation had, as the server tells in development mode."""
        return self.headers.get("x-martlet-start")

    @property
    def millis(self):
        return (self.answered_ns - self.sent_ns) / 1e6

    def good(self):
        if self.status not in (200, 201, 202) or "x-amz-function-error" in self.headers:
            raise Unmeasured(f"the server answered {self.status}: {self.body[:300]!r}")
        return self


def read_credentials(path):
    pairs = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    pairs = {name.strip(): value.strip() for name, value in pairs.items()}
    return pairs["aws_access_key_id"], pairs["aws_secret_access_key"]


class Client:
    """One connection that stays open."""

    def __init__(self, port, credentials):
        self.host = f"127.0.0.1:{port}"
        self.key, self.secret = read_credentials(credentials)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def bytes_of(self, method, path, body=b"", headers=(), service="lambda"):
        """The whole request, signed for now; `headers` (pairs) stay unsigned."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        day, digest = stamp[:8], hashlib.sha256(body).hexdigest()
        names = "host;x-amz-content-sha256;x-amz-date"
        canonical = f"{method}\n{path}\n\nhost:{self.host}\nx-amz-content-sha256:{digest}\nx-amz-date:{stamp}\n\n{names}\n{digest}"
        scope = f"{day}/{REGION}/{service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in (day, REGION, service, "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        more = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = (f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nX-Amz-Date: {stamp}\r\nX-Amz-Content-Sha256: {digest}\r\n"
                f"Authorization: AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, Signature={key.hex()}\r\n"
                f"{more}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
        return head.encode() + body

    def invocation(self, function, payload=b"{}", cold=None):
        """The request that calls `function`; `cold` forces that kind of start (development mode only)."""
        headers = [("X-Martlet-Cold-Start", cold)] if cold else []
        return self.bytes_of("POST", f"/2015-03-31/functions/{function}/invocations", payload, headers)

    def send(self, request):
        """Sends and gives the time right before."""
        sent = time.monotonic_ns()
        self.socket.sendall(request)
        return sent

    def receive(self, sent):
        while (answer := self.parse(sent)) is None:
            self.read()
        return answer

    def read(self):
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise Unmeasured("the server closed the connection")
        self.buffer += chunk

    def parse(self, sent):
        """The answer, once all of it is there."""
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return None
        self.buffer = rest[length:]
        return Answer(int(lines[0].split()[1]), headers, rest[:length], sent, time.monotonic_ns())

    def call(self, method, path, document=None):
        """A request of the API; gives the document that came back."""
        body = b"" if document is None else json.dumps(document).encode()
        answer = self.receive(self.send(self.bytes_of(method, path, body))).good()
        return json.loads(answer.body) if answer.body else None

    def invoke(self, function, payload=b"{}", cold=None):
        return self.receive(self.send(self.invocation(function, payload, cold))).good()


def together(clients, requests):
    """Sends one request on each connection, all at once, and gives the answers in the order of the connections.

    One thread and a selector: threads of the client would take the cores that are measured.
    """
    sent = [client.send(request) for client, request in zip(clients, requests)]
    answers = [None] * len(clients)
    with selectors.DefaultSelector() as selector:
        for index, client in enumerate(clients):
            selector.register(client.socket, selectors.EVENT_READ, index)
        missing = len(clients)
        while missing:
            ready = selector.select(60)
            if not ready:
                raise Unmeasured(f"{missing} of {len(clients)} calls were not answered within a minute")
            for key, _ in ready:
                client = clients[key.data]
                client.read()
                if answer := client.parse(sent[key.data]):
                    answers[key.data] = answer.good()
                    selector.unregister(client.socket)
                    missing -= 1
    return answers
