"""What the guests reach over the network: nginx with the repository and job documents, and an ear for reports.

Guests in QEMU's user network reach this machine's loopback as 10.0.2.2. nginx runs with its own configuration in its
own folder, as a child of the test; nothing of the system's nginx is read or written.
"""

import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from core.process import find_tool, missing_tool

#: This machine as the guests see it.
HOST = "10.0.2.2"

_CONFIGURATION = """
daemon off;
master_process on;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{port};
        location /repo/ {{ alias {repository}/; }}
        location /report {{ proxy_pass http://127.0.0.1:{ear}; }}
        location / {{ root {documents}; }}
    }}
}}
"""


class RepositoryServer:
    """nginx over a repository folder. A context manager.

    Args:
        documents: what else it serves, below ``/``; a folder of its own by default.

    Attributes:
        port: on this machine's loopback.
        reports: JSON documents that were POSTed to ``/report``, oldest first.
    """

    def __init__(self, repository: Path, folder: Path, documents: Path | None = None) -> None:
        self._repository = repository
        self._folder = folder
        self._documents = documents or folder / "documents"
        self._stack = ExitStack()
        self._arrived = threading.Condition()
        self.reports: list[dict[str, Any]] = []
        self.port = 0

    def __enter__(self) -> Self:
        self._documents.mkdir(parents=True, exist_ok=True)
        try:
            ear = self._open_ear()
            self.port = _free_port()
            self._start_nginx(ear)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note("--- nginx, last requests ---\n" + "\n".join(self.requests()[-15:]))
        self._stack.close()

    def url(self, path: str) -> str:
        """The address of ``path`` as guests reach it."""
        return f"http://{HOST}:{self.port}/{path}"

    def publish(self, name: str, document: object) -> str:
        """Serve ``document`` as JSON under ``name``; returns its address for guests."""
        (self._documents / name).write_text(json.dumps(document, indent=2))
        return self.url(name)

    def requests(self) -> list[str]:
        """nginx's access log, one line per request."""
        log = self._folder / "access.log"
        return log.read_text(errors="replace").splitlines() if log.exists() else []

    def wait_report(self, count: int, timeout: float) -> dict[str, Any]:
        """The report number ``count`` (1 is the first); waits until it is there.

        Raises:
            AssertionError: it did not come in time.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.reports) >= count, timeout):
                raise AssertionError(f"no report was posted within {timeout:.0f} s")
            return self.reports[count - 1]

    def _hear(self, document: dict[str, Any]) -> None:
        with self._arrived:
            self.reports.append(document)
            self._arrived.notify_all()

    def _open_ear(self) -> int:
        hear = self._hear

        class Ear(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                body = self.rfile.read(length)
                try:
                    hear(json.loads(body))
                    self.send_response(204)
                except ValueError:
                    self.send_response(400)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Silent: nginx keeps the log."""

        server = self._stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ear))
        threading.Thread(target=server.serve_forever, name="reports", daemon=True).start()
        self._stack.callback(server.shutdown)
        return int(server.server_address[1])

    def _start_nginx(self, ear: int) -> None:
        program = find_tool("nginx")
        if program is None:
            raise missing_tool("nginx")
        configuration = self._folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                folder=self._folder,
                port=self.port,
                ear=ear,
                repository=self._repository,
                documents=self._documents,
            )
        )
        errors = self._stack.enter_context((self._folder / "start.log").open("wb"))
        argv = [program, "-p", str(self._folder), "-c", str(configuration), "-e", str(self._folder / "error.log")]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        self._stack.callback(_stop, process)
        self._wait_up(process)

    def _wait_up(self, process: subprocess.Popen[bytes]) -> None:
        for _ in range(300):
            if process.poll() is not None:
                break
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
                return
            except OSError:
                time.sleep(0.1)
            finally:
                connection.close()
        raise AssertionError("nginx did not start: " + (self._folder / "start.log").read_text(errors="replace"))


def _stop(process: subprocess.Popen[bytes]) -> None:
    # SIGTERM: the master ends its worker too; killed outright it would leave the worker behind.
    process.terminate()
    process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
