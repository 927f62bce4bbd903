"""nginx over a folder, on loopback, with an access log that counts the bytes it sent."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_CONF = """
daemon off;
worker_processes 2;
pid {place}/nginx.pid;
error_log {place}/error.log;
user root;
events {{ worker_connections 64; }}
http {{
  log_format sent '$status $body_bytes_sent $request';
  access_log {place}/access.log sent;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""


class Server:
    """A running nginx."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    def forget(self) -> None:
        """Count from now on."""
        self._log.write_text("")

    def sent(self) -> tuple[int, int]:
        """Bodies' bytes and requests since :meth:`forget`."""
        lines = self._log.read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines), len(lines)


@contextlib.contextmanager
def nginx(folder: Path, place: Path) -> Iterator[Server]:
    """Serve ``folder``; logs and temporary files go to ``place``."""
    place.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    conf = place / "nginx.conf"
    conf.write_text(_CONF.format(place=place, folder=folder, port=port))
    process = subprocess.Popen(["nginx", "-c", str(conf), "-e", str(place / "error.log")])
    try:
        _wait(port, process)
        yield Server(f"http://127.0.0.1:{port}", place / "access.log")
    finally:
        process.terminate()
        process.wait(30)


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit("nginx did not start: see its error.log")
