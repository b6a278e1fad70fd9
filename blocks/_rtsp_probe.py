"""A first knock at a camera's door, without credentials, so that what is wrong has a name before FFmpeg hides it."""

import re
import socket
import ssl
import time
from urllib.parse import urlsplit

from blocks._errors import SourceRefused
from blocks._rtsp_errors import explain_connection, explain_gibberish, explain_redirect, explain_silence, explain_status

_LONGEST_ANSWER = 65_536
_WANTS_LOGIN = 401


def knock(url: str, place: str, *, timeout_seconds: float, verify_certificate: bool = True) -> None:
    """Return when the camera at `url` answers as cameras do, asking for a login or not; `place` is how people see it.

    FFmpeg would follow a redirect to any host and log in there; here it is an error. What a camera does after the
    login is not seen.

    Raises:
        SourceUnavailable: nobody answered as RTSP has it within `timeout_seconds`.
        SourceRefused: the answer is no, or lies elsewhere.
    """
    deadline = time.monotonic() + timeout_seconds
    try:
        answer = _ask(url, place, deadline, verify_certificate=verify_certificate)
    except OSError as error:
        raise explain_connection(error, place) from None
    except UnicodeError:  # of the name's encoding (IDNA)
        raise SourceRefused(f"The host in {place} is no name that a network takes: check its spelling.") from None
    if not (found := re.match(rb"RTSP/\d\.\d (\d{3})", answer)):
        raise explain_gibberish(place)
    status = int(found[1])
    if 300 <= status < 400:
        raise explain_redirect(place, _find_target(answer))
    if status >= 400 and status != _WANTS_LOGIN:
        raise explain_status(status, place)


def _ask(url: str, place: str, deadline: float, *, verify_certificate: bool) -> bytes:
    parts = urlsplit(url)
    is_tls = parts.scheme == "rtsps"
    address = (parts.hostname or "", parts.port or (322 if is_tls else 554))
    request = f"DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\nUser-Agent: catchment\r\n\r\n"
    with socket.create_connection(address, timeout=_left(deadline, place)) as plain:
        connection = plain
        if is_tls:
            context = ssl.create_default_context()
            context.check_hostname = verify_certificate
            context.verify_mode = ssl.CERT_REQUIRED if verify_certificate else ssl.CERT_NONE
            connection = context.wrap_socket(plain, server_hostname=address[0])
        with connection:
            connection.sendall(request.encode("utf-8"))
            answer = b""
            while b"\r\n\r\n" not in answer and len(answer) < _LONGEST_ANSWER:
                connection.settimeout(_left(deadline, place))
                if not (piece := connection.recv(4096)):
                    break
                answer += piece
    return answer


def _left(deadline: float, place: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise explain_silence(place)
    return left


def _find_target(answer: bytes) -> str:
    """Return the server that a redirect names; its path may repeat what is secret in ours."""
    found = re.search(rb"^Location: *(\S+)", answer, re.IGNORECASE | re.MULTILINE)
    target = urlsplit(found[1].decode("utf-8", "replace") if found else "")
    return f"{target.scheme}://{target.netloc.rpartition('@')[2]}" if target.netloc else "another address"
