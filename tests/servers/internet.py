"""The vendors' addresses on this machine: a proxy that sends each known host to a local server, over TLS of its own.

with serve_internet({"api.example.com": port}, folder) as internet:
    run(command, env=os.environ | internet.environment)      # https://api.example.com/… reaches the local port
"""

import select
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

from tests.servers._programs import require_program

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Internet:
    """How a program gets to the hosts: its proxy, and the authority that vouches for them."""

    proxy_url: str
    certificate: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that httpx and curl take both from; what is on this machine is reached directly."""
        trusted = dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE"), str(self.certificate))
        direct = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
        return {"HTTPS_PROXY": self.proxy_url, "https_proxy": self.proxy_url, **direct, **trusted}


@contextmanager
def serve_internet(ports: Mapping[str, int], folder: Path) -> Iterator[Internet]:
    """Serve every host of `ports` from the plain HTTP server at its port; other hosts are out of reach."""
    certificate = folder / "internet.pem"
    context = _make_context(ports, certificate)

    class Tunnel(StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                host = self.rfile.readline().decode("ascii").split(" ")[1].rpartition(":")[0]
                while self.rfile.readline().strip():
                    pass
                if host not in ports:
                    self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                    return
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                with (
                    context.wrap_socket(self.connection, server_side=True) as client,
                    socket.create_connection(("127.0.0.1", ports[host])) as server,
                ):
                    _relay(client, server)

    class Proxy(ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

    with Proxy(("127.0.0.1", 0), Tunnel) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            yield Internet(f"http://127.0.0.1:{proxy.server_address[1]}", certificate)
        finally:
            proxy.shutdown()


def _relay(client: ssl.SSLSocket, server: socket.socket) -> None:
    """Carry bytes both ways until either side has said all; one thread, as a TLS connection is not safe in two."""
    while True:
        ready = [client] if client.pending() else select.select([client, server], [], [])[0]
        for one, other in ((client, server), (server, client)):
            if one in ready:
                if not (data := one.recv(_CHUNK)):
                    return
                other.sendall(data)


def _make_context(hosts: Mapping[str, int], certificate: Path) -> ssl.SSLContext:
    key = certificate.with_suffix(".key")
    names = ",".join(f"DNS:{host}" for host in hosts)
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=catchment-tests"
    wanted = ["-addext", f"subjectAltName={names}", "-keyout", key, "-out", certificate]
    subprocess.run([require_program("openssl"), *command.split(), *wanted], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
