"""A real RTSP server on loopback (RFC 2326; RTP over TCP or UDP) whose cameras misbehave on command.

with serve_rtsp() as server:
    url = server.add("/gate", fps=10)                    # H.264; codec="mjpeg" is cheaper
    server.camera("/gate").stall_after = 20              # pictures; then silence, the connection open
    ...
    assert read_counter(frame.pixels) == 17

A picture's number is the server's clock, so that it goes on over reconnects and restarts: `server.time_of(number)`.
"""

import base64
import hashlib
import random
import secrets
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlsplit

from tests.servers import fault
from tests.servers.rtsp_pictures import ENCODERS, Scene, draw_picture, read_counter

__all__ = ["Camera", "RtspServer", "never_answer", "read_counter", "refuse", "serve_rtsp"]

_REALM = "catchment test"
_CLOCK = 90_000  # RTP ticks a second


@dataclass
class Camera:
    """One stream and how it behaves; change it while it runs."""

    path: str
    codec: str = "h264"
    fps: float = 10.0
    scene: Scene = "still"
    login: tuple[str, str] | None = None
    auth: Literal["basic", "digest"] = "digest"
    status: dict[str, int] = field(default_factory=dict)  # method → refuse with it
    location: str | None = None  # answer DESCRIBE with 302
    describe_seconds: float = 0.0  # think so long before the answer
    has_video: bool = True
    has_audio: bool = False  # announced and sent: noise, every 20 ms
    stall_after: int | None = None  # pictures of a session; then silence
    drop_after: int | None = None  # then hang up
    bye_after: int | None = None  # then RTCP BYE, as a stream that is over
    is_drop_reset: bool = False
    lose: float = 0.0  # share of RTP packets that never arrive
    garble: float = 0.0  # share of RTP packets whose bytes are noise
    cut_picture: int | None = None  # this one of a session, from 0, loses the second half of its bytes
    sent: list[int] = field(default_factory=list)  # numbers of the pictures that went out
    requests: list[str] = field(default_factory=list)  # "METHOD user-agent"
    authorizations: list[str] = field(default_factory=list)  # as they came
    sessions: int = 0  # PLAYs


class RtspServer:
    """A server of any number of cameras on one loopback port; `stop()` and `start()` are a restart."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._cameras: dict[str, Camera] = {}
        self._began = time.monotonic()
        self._began_utc = datetime.now(UTC)
        self._listener = _reserve(0)
        self.port: int = self._listener.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        return f"{'rtsps' if self._context else 'rtsp'}://127.0.0.1:{self.port}"

    def add(self, path: str, **behaviour: object) -> str:
        """Put up a camera at `path`; return its URL."""
        self._cameras[path] = Camera(path, **behaviour)  # type: ignore[arg-type]
        return self.url + path

    def camera(self, path: str) -> Camera:
        return self._cameras[path]

    def time_of(self, number: int, fps: float) -> datetime:
        """Return when picture `number` of a camera with `fps` was drawn, UTC."""
        return datetime.fromtimestamp(self._began_utc.timestamp() + number / fps, UTC)

    def clock(self) -> float:
        """Return the seconds since the server was made; a restart does not set it back."""
        return time.monotonic() - self._began

    def find(self, url: str) -> Camera | None:
        """Return the camera that `url` names, its tracks included."""
        path = urlsplit(url).path.rstrip("/")
        return self._cameras.get(path) or self._cameras.get(path.rpartition("/")[0])

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._listener.listen(64)
        self._stopped = threading.Event()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def stop(self, *, is_reset: bool = False) -> None:
        """Break every connection off and wait for every thread; from now on the port refuses."""
        self._stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = _reserve(self.port)
        with self._lock:
            for connection in self._connections:
                _hang_up(connection, is_reset=is_reset)
        for thread in self._threads:
            thread.join(10)

    def close(self) -> None:
        """Give the port back."""
        self._listener.close()

    def _accept(self) -> None:
        listener = self._listener
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._context:
                    connection = self._context.wrap_socket(connection, True, do_handshake_on_connect=False)
                with self._lock:
                    self._connections.add(connection)
                    thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                    self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            _Session(self, connection, self._stopped).run()
        with self._lock:
            self._connections.discard(connection)


class _Session:
    """One viewer's connection: its requests, and the thread that sends it pictures."""

    def __init__(self, server: RtspServer, connection: socket.socket, stopped: threading.Event) -> None:
        self._server = server
        self._connection = connection
        self._stopped = stopped
        self._over = threading.Event()
        self._sending = threading.Lock()
        self._nonce = secrets.token_hex(8)
        self._id = secrets.token_hex(4)
        self._udp: dict[str, tuple[socket.socket, int]] = {}  # track → socket, the viewer's port
        self._channels: dict[str, int] = {}  # track → interleaved channel
        self._player: threading.Thread | None = None

    def run(self) -> None:
        """Answer requests until the viewer hangs up."""
        try:
            for request in self._read_requests():
                if not self._answer(*request):
                    break
        finally:
            self._over.set()
            if self._player:
                self._player.join(10)
            for wire, _ in self._udp.values():
                wire.close()

    def _read_requests(self) -> Iterator[tuple[str, str, dict[str, str]]]:
        """Yield method, URL and header fields of each request; the viewer's interleaved reports are left out."""
        came = b""
        while True:
            if came[:1] == b"$" and len(came) >= 4:
                length = 4 + int.from_bytes(came[2:4], "big")
                if len(came) >= length:
                    came = came[length:]
                    continue
            elif came[:1] != b"$" and b"\r\n\r\n" in came:
                head, _, came = came.partition(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                method, url, _ = first.split(" ", 2)
                pairs = (line.partition(":")[::2] for line in lines)
                yield method, url, {name.lower(): value.strip() for name, value in pairs}
                continue
            if not (more := self._receive()):
                return
            came += more

    def _receive(self) -> bytes:
        # One thread at a time: OpenSSL can not read and write one connection at once.
        while not self._stopped.is_set():
            is_waiting = isinstance(self._connection, ssl.SSLSocket) and self._connection.pending()
            if is_waiting or select.select([self._connection], [], [], 0.1)[0]:
                with self._sending:
                    return self._connection.recv(65536)
        return b""

    def _answer(self, method: str, url: str, headers: dict[str, str]) -> bool:
        number = headers.get("cseq", "0")
        camera = self._server.find(url)
        if camera:
            camera.requests.append(f"{method} {headers.get('user-agent', '')}".strip())
            if "authorization" in headers:
                camera.authorizations.append(headers["authorization"])
        if method == "OPTIONS":
            self._reply(200, number, {"Public": "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"})
            return True
        if camera is None:
            self._reply(404, number)
            return True
        if camera.login and not self._is_known(camera, method, headers):
            challenge = (
                f'Digest realm="{_REALM}", nonce="{self._nonce}"'
                if camera.auth == "digest"
                else f'Basic realm="{_REALM}"'
            )
            self._reply(401, number, {"WWW-Authenticate": challenge})
            return True
        if method in camera.status:
            self._reply(camera.status[method], number)
            return True
        return self._obey(camera, method, url, number, headers.get("transport", ""))

    def _obey(self, camera: Camera, method: str, url: str, number: str, transport: str) -> bool:
        session = {"Session": f"{self._id};timeout=60"}
        if method == "DESCRIBE":
            if camera.describe_seconds and self._pause(camera.describe_seconds):
                return False
            if camera.location:
                self._reply(302, number, {"Location": camera.location})
                return True
            fields = {"Content-Type": "application/sdp", "Content-Base": url.rstrip("/") + "/"}
            self._reply(200, number, fields, _describe(camera))
        elif method == "SETUP":
            granted = self._set_up(url.rstrip("/").rpartition("/")[2], transport)
            self._reply(200 if granted else 461, number, session | ({"Transport": granted} if granted else {}))
        elif method == "PLAY":
            camera.sessions += 1
            self._reply(200, number, session | {"Range": "npt=now-"})
            self._player = threading.Thread(target=self._play, args=(camera,), daemon=True)
            self._player.start()
        elif method in {"GET_PARAMETER", "SET_PARAMETER"}:
            self._reply(200, number, session)
        elif method == "TEARDOWN":
            self._reply(200, number, session)
            return False
        else:
            self._reply(501, number)
        return True

    def _is_known(self, camera: Camera, method: str, headers: dict[str, str]) -> bool:
        assert camera.login
        kind, _, rest = headers.get("authorization", "").partition(" ")
        username, password = camera.login
        if camera.auth == "basic":
            return kind == "Basic" and base64.b64decode(rest) == f"{username}:{password}".encode()
        fields = {
            name.strip(): value.strip(' "') for name, _, value in (part.partition("=") for part in rest.split(","))
        }
        first = _md5(f"{username}:{_REALM}:{password}")
        second = _md5(f"{method}:{fields.get('uri')}")
        return kind == "Digest" and fields.get("response") == _md5(f"{first}:{self._nonce}:{second}")

    def _set_up(self, track: str, wish: str) -> str | None:
        fields = dict(part.partition("=")[::2] for part in wish.split(";"))
        if "interleaved" in fields:
            self._channels[track] = int(fields["interleaved"].partition("-")[0])
            return f"RTP/AVP/TCP;unicast;interleaved={fields['interleaved']}"
        if "client_port" not in fields or self._server.url.startswith("rtsps"):
            return None
        wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        wire.bind(("127.0.0.1", 0))
        self._udp[track] = (wire, int(fields["client_port"].partition("-")[0]))
        port = wire.getsockname()[1]
        return f"RTP/AVP;unicast;client_port={fields['client_port']};server_port={port}-{port + 1}"

    def _play(self, camera: Camera) -> None:
        with suppress(OSError):
            if camera.has_audio:
                self._play_both(camera)
            else:
                self._send_pictures(camera)

    def _play_both(self, camera: Camera) -> None:
        noise = threading.Thread(target=self._send_noise, daemon=True)
        noise.start()
        try:
            if camera.has_video:
                self._send_pictures(camera)
        finally:
            noise.join(60)

    def _send_noise(self) -> None:
        with suppress(OSError):
            for count in range(1 << 30):
                if self._pause(0.02):
                    return
                self._send_rtp("audio", 0, count, count * 160, bytes([0xFF]) * 160, last=True)

    def _send_pictures(self, camera: Camera) -> None:
        encoder = ENCODERS[camera.codec]()
        chance = random.Random(camera.path)
        sequence = chance.randrange(1 << 16)
        shown = 0
        number = int(self._server.clock() * camera.fps) + 1
        while not self._pause(number / camera.fps - self._server.clock()):
            if shown == camera.stall_after:
                return
            if shown == camera.drop_after:
                _hang_up(self._connection, is_reset=camera.is_drop_reset)
                return
            if shown == camera.bye_after:
                # Compound, as RFC 3550 §6.1 wants it: an empty receiver report, then the farewell.
                self._send("video", struct.pack("!BBHIBBHI", 0x80, 201, 1, 7, 0x81, 203, 1, 7), is_control=True)
                return
            if camera.scene != "frozen":
                pixels = draw_picture(number, camera.scene)
            payloads = list(encoder.encode(pixels))
            if shown == camera.cut_picture:
                payloads = [payload[: len(payload) // 2] for payload in payloads]
            sequence = self._send_picture(camera, encoder.payload_type, payloads, number, sequence, chance)
            camera.sent.append(number)
            shown += 1
            number = max(number + 1, int(self._server.clock() * camera.fps))

    def _send_picture(
        self, camera: Camera, kind: int, payloads: list[bytes], number: int, sequence: int, chance: random.Random
    ) -> int:
        for index, payload in enumerate(payloads):
            sequence += 1
            if chance.random() < camera.lose:
                continue
            if chance.random() < camera.garble:
                payload = payload[:12] + chance.randbytes(len(payload[12:]))
            stamp = int(number / camera.fps * _CLOCK)
            is_last = index == len(payloads) - 1
            self._send_rtp("video", kind, sequence, stamp, payload, last=is_last)
        return sequence

    def _send_rtp(self, track: str, kind: int, sequence: int, stamp: int, payload: bytes, *, last: bool) -> None:
        header = struct.pack("!BBHII", 0x80, last << 7 | kind, sequence & 0xFFFF, stamp & 0xFFFFFFFF, 7)
        self._send(track, header + payload)

    def _send(self, track: str, packet: bytes, *, is_control: bool = False) -> None:
        if track in self._udp:
            wire, port = self._udp[track]
            wire.sendto(packet, ("127.0.0.1", port + is_control))
        elif track in self._channels:
            with self._sending:
                frame = struct.pack("!cBH", b"$", self._channels[track] + is_control, len(packet))
                self._connection.sendall(frame + packet)

    def _reply(self, code: int, number: str, fields: dict[str, str] | None = None, body: str = "") -> None:
        lines = [f"RTSP/1.0 {code} As Scripted", f"CSeq: {number}"]
        lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        with self._sending:
            self._connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    def _pause(self, seconds: float) -> bool:
        """Wait; return whether the session or the server has ended meanwhile."""
        until = time.monotonic() + seconds
        while not self._over.is_set() and (left := until - time.monotonic()) > 0:
            if self._stopped.wait(min(left, 0.05)):
                break
        return self._over.is_set() or self._stopped.is_set()


@contextmanager
def serve_rtsp(context: ssl.SSLContext | None = None) -> Iterator[RtspServer]:
    """Run an `RtspServer` for the length of the `with`; rtsps with a `context`."""
    server = RtspServer(context)
    try:
        yield server
    finally:
        server.stop()
        server.close()


@contextmanager
def refuse() -> Iterator[str]:
    """Yield the URL of a camera whose port refuses every connection."""
    with fault.refuse() as url:
        yield url.replace("http", "rtsp", 1) + "live"


@contextmanager
def never_answer() -> Iterator[str]:
    """Yield the URL of a camera that takes connections and never says a word."""
    with fault.never_answer() as url:
        yield url.replace("http", "rtsp", 1) + "live"


def _reserve(port: int) -> socket.socket:
    """Take the port without listening on it: connections are refused, and nobody else gets it."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", port))
    return holder


def _describe(camera: Camera) -> str:
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 0.0.0.0", "t=0 0", "a=control:*"]
    if camera.has_video:
        encoder = ENCODERS[camera.codec]()
        lines += [f"m=video 0 RTP/AVP {encoder.payload_type}"]
        lines += [f"a={attribute}" for attribute in [*encoder.describe(), "control:video"]]
    if camera.has_audio:
        lines += ["m=audio 0 RTP/AVP 0", "a=rtpmap:0 PCMU/8000", "a=control:audio"]
    return "\r\n".join(lines) + "\r\n"


def _hang_up(connection: socket.socket, *, is_reset: bool) -> None:
    with suppress(OSError):
        if is_reset:  # the session's own thread sees the end and closes, which then is a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD if is_reset else socket.SHUT_RDWR)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()  # RFC 2617, as cameras speak it
