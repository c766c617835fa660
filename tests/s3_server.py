"""A real S3 server in a process of its own, and a proxy before it that fails, stalls, repeats and loses requests, by seed."""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "never-to-be-shown-anywhere"
BUCKET = "films"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of a server on loopback with one empty bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **CREDENTIALS})
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _wait_for(port, server)
        make_bucket(endpoint)
        yield endpoint
    finally:
        server.kill()
        server.wait()


def make_bucket(endpoint: str) -> None:
    """Makes the bucket, as its owner would beforehand."""
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT"), timeout=30) as answer:
        assert answer.status == 200


def environment(endpoint: str, *, timeout: float = 60.0) -> dict[str, str]:
    """What a process needs to find the server and to be let in."""
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "LATENTRAY_STORE_TIMEOUT": str(timeout)}


@dataclass
class Faults:
    """Shares of requests that are answered 503, never answered, made twice, and answered though the answer is lost; and what was done.

    Every put takes `put_seconds` longer; `heard` is told method and path of each request before anything is done with it.
    """

    fail: float = 0.0
    stall: float = 0.0
    repeat: float = 0.0
    lose: float = 0.0
    seed: int = 0
    put_seconds: float = 0.0
    heard: Callable[[str, str], None] = lambda method, path: None
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random, self._lock = random.Random(self.seed), threading.Lock()

    def draw(self) -> str:
        """What becomes of the next request."""
        with self._lock:
            at, name = self._random.random(), "pass"
            for fault in ("fail", "stall", "repeat", "lose"):
                if at < getattr(self, fault):
                    name = fault
                    break
                at -= getattr(self, fault)
            self.counts[name] += 1
            return name


@contextmanager
def flaky(endpoint: str, faults: Faults) -> Iterator[str]:
    """The endpoint of a proxy before `endpoint` that does to requests what `faults` draws."""
    server = _Proxy(endpoint, faults)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, endpoint: str, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.target, self.faults, self.over = endpoint.removeprefix("http://"), faults, threading.Event()

    def handle_error(self, *args: Any) -> None:
        pass  # whoever asked has gone: that is what the faults are for


class _Request(BaseHTTPRequestHandler):
    server: _Proxy

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.faults.heard(self.command, self.path)
        if self.command == "PUT":
            self.server.over.wait(self.server.faults.put_seconds)
        fault = self.server.faults.draw()
        if fault == "fail":
            self.answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
        elif fault == "stall":
            self.server.over.wait()  # until the test ends: whoever asked has to give up by himself
            self.close_connection = True
        else:
            status, headers, data = self.forward(body)
            if fault == "repeat":
                self.forward(body)
            if fault == "lose":
                self.close_connection = True
            else:
                self.answer(status, headers, data)

    def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            connection.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length", headers.get("content-length"))
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any

    def log_message(self, *args: Any) -> None:
        pass


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert server.poll() is None, "the S3 server ended"
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        threading.Event().wait(0.05)
    raise AssertionError("the S3 server did not begin to listen")
