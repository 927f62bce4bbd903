"""A small HTTP server with range requests, on loopback, that can be told to misbehave; and nginx, that does not."""

import contextlib
import email.message
import http.server
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

#: Looks at (method, path, how many requests came before) and may name a fault for this answer.
Faults = Callable[[str, str, int], str]

#: Bytes of a body written at once, so that what was sent to a visitor who left is counted closely.
_PIECE = 64 * 1024


class RangeServer(http.server.ThreadingHTTPServer):
    """Serves a folder. Asked as a proxy, it serves the same folder for every host.

    Attributes:
        fault: names what goes wrong: ``drop`` (close), ``short`` (half the body), ``cut N`` (N bytes of the body),
            ``flip`` (one bit), ``wait MILLISECONDS`` (before the answer), ``STATUS`` or ``STATUS SECONDS`` (with
            Retry-After).
        requests: (method, path) of every request; headers: those of every request, in the same order.
        connections: how many were opened. sent: bytes of bodies.
        redirect: send every visitor to that server instead. password: the Authorization that is asked for.
        posted: bodies that came.
    """

    daemon_threads = True

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.ranges = ranges
        self.fault: Faults = lambda method, path, before: ""
        self.requests: list[tuple[str, str]] = []
        self.headers: list[email.message.Message] = []
        self.posted: list[bytes] = []
        self.connections = 0
        self.sent = 0
        self.redirect = ""
        self.password = ""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, object]:
        self.connections += 1
        return super().get_request()


def by_map(letters: str, fault: str) -> Faults:
    """Fault the requests that have an ``E`` in the map, counted from the first; those behind its end are right."""
    return lambda method, path, before: fault if letters[before : before + 1] == "E" else ""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes; the second would wait for an acknowledgement that waits for it.
    disable_nagle_algorithm = True
    server: RangeServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            before = len(self.server.requests)
            self.server.requests.append((self.command, self.path))
            self.server.headers.append(self.headers)
        fault = self.server.fault(self.command, self.path, before)
        if fault:
            self._status(int(fault))
            return
        self.server.posted.append(content)
        self._status(204)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _answer(self, *, body: bool) -> None:
        with self.server.lock:
            before = len(self.server.requests)
            self.server.requests.append((self.command, self.path))
            self.server.headers.append(self.headers)
        fault, _, number = self.server.fault(self.command, self.path, before).partition(" ")
        path = self.server.folder / urllib.parse.urlsplit(self.path).path.lstrip("/")
        if fault == "wait":
            time.sleep(int(number) / 1000)
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
        elif self.server.redirect:
            self._status(302, Location=f"{self.server.redirect}{self.path}")
        elif self.server.password and self.headers.get("Authorization") != self.server.password:
            self._status(401, **{"WWW-Authenticate": "Basic"})
        elif fault.isdecimal():
            self._status(int(fault), **({"Retry-After": number} if number else {}))
        elif not path.is_file():
            self._status(404)
        else:
            self._serve(path, fault, number, body=body)

    def _serve(self, path: Path, fault: str, number: str, *, body: bool) -> None:
        data = path.read_bytes()
        total, status, extra = len(data), 200, {"ETag": f'"{path.stat().st_mtime_ns}"'}
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.server.ranges:
            first, last = int(wanted[1]), min(int(wanted[2] or total), total - 1)
            if first >= total:
                self._status(416, **{"Content-Range": f"bytes */{total}"})
                return
            status, data = 206, data[first : last + 1]
            extra["Content-Range"] = f"bytes {first}-{last}/{total}"
        if fault == "flip" and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            limit = {"short": len(data) // 2, "cut": int(number or 0)}.get(fault, len(data))
            with contextlib.suppress(OSError):
                for at in range(0, min(limit, len(data)), _PIECE):
                    piece = data[at : min(at + _PIECE, limit)]
                    # Counted first: who has read the last byte may look at once, before this thread runs again.
                    with self.server.lock:
                        self.server.sent += len(piece)
                    self.wfile.write(piece)
            if limit < len(data):
                self.close_connection = True

    def _status(self, status: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextlib.contextmanager
def serving(folder: Path, *, ranges: bool = True, tls: tuple[Path, Path] | None = None) -> Iterator[RangeServer]:
    """The server, in a thread, for the length of the block; ``tls``: certificate and key."""
    with RangeServer(folder, ranges=ranges) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Relay:
    """A wire to a server on this machine that can be cut. One thread for each direction of each connection.

    Attributes:
        cuts: how often it was cut.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._down = False
        self._left: int | None = None
        self._lasting = 0.0
        self._mender: threading.Timer | None = None
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def cut(self, after: int = 0, lasting: float = 0) -> None:
        """Break every connection and take no new one, once ``after`` more bytes went to the server.

        Args:
            lasting: seconds from the break until it is mended; 0 for until somebody does.
        """
        with self._lock:
            self._left, self._lasting = after, lasting
        if not after:
            self._break()

    def mend(self) -> None:
        """Take connections again."""
        with self._lock:
            self._down, self._left, self._lasting = False, None, 0

    def close(self) -> None:
        if self._mender is not None:
            self._mender.join()
        self._lasting = 0.0
        self._break()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _break(self) -> None:
        with self._lock:
            if not self._down and self._lasting:
                self._mender = threading.Timer(self._lasting, self.mend)
                self._mender.start()
            self.cuts += not self._down
            self._down = True
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._down:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=self._copy, args=(server, client, False), daemon=True)
        back.start()
        self._copy(client, server, True)
        back.join()
        with self._lock:
            for end in (client, server):
                self._open.remove(end)
                end.close()

    def _copy(self, source: socket.socket, target: socket.socket, upward: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
                if upward and self._left is not None and not self._down:
                    self._left -= len(data)
                    if self._left <= 0:
                        self._break()
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def free_port() -> int:
    """A port of this machine that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert isinstance(port, int)
    return port


def wait_for(port: int, process: "subprocess.Popen[bytes]", seconds: float = 30.0) -> None:
    """Until a process listens on a port."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        assert time.monotonic() < end, f"{process.args} does not listen on {port}"
        time.sleep(0.05)


@contextlib.contextmanager
def nginx(folder: Path, place: Path) -> Iterator[str]:
    """The web server that people use, serving a folder. ``place`` takes its files. Gives the URL."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert program is not None
    port = free_port()
    place.mkdir()
    temporary = " ".join(
        f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (place / "conf").write_text(
        f"daemon off; master_process off; pid {place}/pid; error_log {place}/error; events {{}}\n"
        f"http {{ {temporary} access_log {place}/access; sendfile on; keepalive_requests 10000;\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    process = subprocess.Popen([program, "-p", place, "-c", place / "conf"], stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
