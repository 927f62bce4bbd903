"""A small HTTP server with range requests, on loopback, that can be told to misbehave."""

import contextlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

#: Looks at (method, path, how many requests came before) and may name a fault for this answer.
Faults = Callable[[str, str, int], str]


class RangeServer(http.server.ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        fault: names what goes wrong: ``drop`` (close), ``500``, ``short`` (half the body), ``flip`` (one bit).
        requests: (method, path) of every request.
    """

    daemon_threads = True

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.ranges = ranges
        self.fault: Faults = lambda method, path, before: ""
        self.requests: list[tuple[str, str]] = []
        self.posted: list[bytes] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_POST(self) -> None:
        self.server.posted.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _answer(self, *, body: bool) -> None:
        with self.server.lock:
            before = len(self.server.requests)
            self.server.requests.append((self.command, self.path))
        fault = self.server.fault(self.command, self.path, before)
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
            return
        path = self.server.folder / self.path.lstrip("/")
        if fault == "500" or not path.is_file():
            self.send_response(500 if fault == "500" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        status = 200
        wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and self.server.ranges:
            first, last = map(int, wanted.groups())
            status = 206 if first < len(data) else 416
            data = data[first : last + 1]
        if fault == "flip" and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            with contextlib.suppress(OSError):
                self.wfile.write(data[: len(data) // 2] if fault == "short" else data)
            if fault == "short":
                self.close_connection = True


@contextlib.contextmanager
def serving(folder: Path, *, ranges: bool = True) -> Iterator[RangeServer]:
    """The server, in a thread, for the length of the block."""
    with RangeServer(folder, ranges=ranges) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
