"""The HTTP wire against a server that misbehaves."""

import hashlib
import itertools
import logging
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._http import HttpSettings, ask, is_same_place, open_client
from blocks._http_download import download_file, is_html
from blocks._http_errors import parse_retry_after, show_url
from blocks._http_transport import WatchedTransport
from blocks._pace import Pace
from blocks._patience import Patience, SourceBusy
from blocks._records import Fetched
from tests.servers import fault
from tests.servers._programs import require_program
from tests.servers.fault import FaultServer, serve_faults

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40 + b"\xff\xd9"
BIG = b"\xff\xd8\xff\xe0" + bytes(range(251)) * 8000 + b"\xff\xd9"
OTHER = bytes(reversed(BIG))
CANARY = "canary-7f3a"
ONCE = Patience(attempts=1)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serve_faults() as running:
        yield running


@pytest.fixture
def client(server: FaultServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {CANARY}"}
    with open_client(HttpSettings(server.url, timeout_seconds=10, headers=headers)) as opened:
        yield opened


@pytest.fixture
def hasty(server: FaultServer) -> Iterator[httpx.Client]:
    with open_client(HttpSettings(server.url, timeout_seconds=0.3)) as opened:
        yield opened


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def patience(slept: list[float]) -> Patience:
    return Patience(sleep=slept.append, jitter=lambda: 0.5)


def fetched(path: Path, body: bytes) -> tuple[bytes, int, str]:
    return path.read_bytes(), len(body), hashlib.sha256(body).hexdigest()


def as_tuple(result: Fetched) -> tuple[bytes, int, str]:
    return result.path.read_bytes(), result.size, result.sha256


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(client: httpx.Client, url: str, folder: Path, **options: object) -> CatchmentError:
    with pytest.raises(CatchmentError) as caught:
        download_file(client, url, folder / "a.jpg", **{"patience": ONCE} | options)  # type: ignore[arg-type]
    assert not (folder / "a.jpg").exists()
    assert CANARY not in str(caught.value)
    return caught.value


def test_a_file_arrives_whole_with_its_digest_and_time(
    server: FaultServer, client: httpx.Client, tmp_path: Path
) -> None:
    url = server.on("/a.jpg", fault.whole(JPEG, last_modified="Wed, 01 Jul 2026 10:20:30 GMT"))
    result = download_file(client, url, tmp_path / "a.jpg", expected_size=len(JPEG))
    assert result == Fetched(
        tmp_path / "a.jpg",
        len(JPEG),
        hashlib.sha256(JPEG).hexdigest(),
        datetime(2026, 7, 1, 10, 20, 30, tzinfo=UTC),
    )
    assert leftovers(tmp_path) == ["a.jpg"]


def test_requests_say_who_asks_and_want_no_encoding(server: FaultServer, client: httpx.Client, tmp_path: Path) -> None:
    download_file(client, server.on("/a.jpg", fault.whole(JPEG)), tmp_path / "a.jpg")
    headers = server.requests[0].headers
    assert headers["user-agent"].startswith("catchment")
    assert headers["accept-encoding"] == "identity"
    assert "range" not in headers


def test_threads_share_one_pool_of_bounded_connections(server: FaultServer, tmp_path: Path) -> None:
    url = server.on("/a.jpg", fault.whole(JPEG))
    with open_client(HttpSettings(server.url, connections=2)) as client:
        threads = [
            threading.Thread(target=download_file, args=(client, url, tmp_path / f"{number}.jpg"))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(leftovers(tmp_path)) == 8
    assert server.accepted <= 2


@pytest.mark.parametrize(
    ("status", "reason", "advice"),
    [
        (401, Reason.UNAUTHORIZED, "check auth_username and auth_password"),
        (403, Reason.FORBIDDEN, "ask its owner"),
        (404, Reason.NOT_FOUND, "check the address"),
        (407, Reason.UNAUTHORIZED, "proxy"),
        (410, Reason.NOT_FOUND, "for good"),
        (418, Reason.REFUSED, "check the address"),
        (304, Reason.REFUSED, "check the address"),
        (204, Reason.REFUSED, "check the address"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_asked_again(
    server: FaultServer, client: httpx.Client, tmp_path: Path, status: int, reason: Reason, advice: str
) -> None:
    url = server.on("/a.jpg", fault.status(status))
    error = refusal(client, f"{url}?key={CANARY}", tmp_path, patience=Patience())
    assert isinstance(error, SourceRefused)
    assert error.reason == reason
    assert advice in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (408, Reason.TIMEOUT),
        (429, Reason.RATE_LIMITED),
        (500, Reason.SERVER_ERROR),
        (502, Reason.SERVER_ERROR),
        (503, Reason.SERVER_ERROR),
    ],
)
def test_trouble_that_heals_is_tried_again_with_growing_delays(
    server: FaultServer,
    client: httpx.Client,
    tmp_path: Path,
    patience: Patience,
    slept: list[float],
    status: int,
    reason: Reason,
) -> None:
    url = server.on("/a.jpg", fault.status(status), fault.status(status), fault.whole(JPEG))
    assert as_tuple(download_file(client, url, tmp_path / "a.jpg", patience=patience)) == fetched(
        tmp_path / "a.jpg", JPEG
    )
    assert slept == [0.5, 1.0]
    (tmp_path / "a.jpg").unlink()
    error = refusal(client, server.on("/b.jpg", fault.status(status)), tmp_path, patience=patience)
    assert isinstance(error, SourceUnavailable)
    assert error.reason == reason
    assert len(server.requests_for("/b.jpg")) == 3


def test_delays_are_jittered() -> None:
    slept: list[float] = []
    jitters = iter([0.0, 1.0])

    def fail() -> None:
        raise SourceUnavailable("no")

    with pytest.raises(SourceUnavailable):
        Patience(sleep=slept.append, jitter=lambda: next(jitters)).until_it_heals(fail)
    assert slept == [0.25, 1.5]


def test_no_attempt_begins_after_the_deadline() -> None:
    now = [0.0]
    attempts: list[float] = []

    def fail_slowly() -> None:
        attempts.append(now[0])
        now[0] += 20
        raise SourceUnavailable("no")

    with pytest.raises(SourceUnavailable):
        Patience(deadline_seconds=30, clock=lambda: now[0], sleep=lambda _: None).until_it_heals(fail_slowly)
    assert attempts == [0.0, 20.0]


def test_retry_after_is_waited_for(
    server: FaultServer, client: httpx.Client, tmp_path: Path, patience: Patience, slept: list[float]
) -> None:
    url = server.on("/a.jpg", fault.status(429, retry_after="7"), fault.whole(JPEG))
    download_file(client, url, tmp_path / "a.jpg", patience=patience)
    assert slept == [7.25]


def test_a_retry_after_beyond_the_deadline_ends_the_call_at_once(
    server: FaultServer, client: httpx.Client, tmp_path: Path, patience: Patience, slept: list[float]
) -> None:
    error = refusal(client, server.on("/a.jpg", fault.status(503, retry_after="3600")), tmp_path, patience=patience)
    assert isinstance(error, SourceBusy)
    assert (error.wait_seconds, error.reason) == (3600.0, Reason.SERVER_ERROR)
    assert "asks to wait 3,600 s" in str(error)
    assert (slept, len(server.requests)) == ([], 1)


def test_retry_after_is_read_as_seconds_or_date() -> None:
    now = datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert parse_retry_after("120", now) == 120
    assert parse_retry_after(format_datetime(now + timedelta(seconds=90), usegmt=True), now) == 90
    assert parse_retry_after(format_datetime(now - timedelta(days=1), usegmt=True), now) == 0
    assert [parse_retry_after(value, now) for value in (None, "", "soon", "-5", "1.5", "²")] == [None] * 6


def test_a_refused_connection_is_told_and_may_heal(tmp_path: Path) -> None:
    with fault.refuse() as url, open_client(HttpSettings(url)) as client:
        error = refusal(client, url, tmp_path)
    assert isinstance(error, SourceUnavailable)
    assert "refused the connection" in str(error)


def test_an_unknown_name_is_told_and_may_heal(tmp_path: Path) -> None:
    url = "http://no-such-host.invalid/a.jpg"
    with open_client(HttpSettings("http://127.0.0.1/")) as client:
        error = refusal(client, url, tmp_path)
    assert isinstance(error, SourceUnavailable)
    assert "no-such-host.invalid is not known" in str(error)


def test_https_to_a_plain_port_is_told(server: FaultServer, tmp_path: Path) -> None:
    url = server.on("/a.jpg", fault.whole(JPEG)).replace("http:", "https:")
    with open_client(HttpSettings(url, timeout_seconds=10)) as client:
        error = refusal(client, url, tmp_path)
    assert isinstance(error, SourceUnavailable)
    assert "is https right" in str(error)


def test_a_certificate_nobody_vouches_for_is_refused_until_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=cam"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([require_program("openssl"), *command.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    (tmp_path / "staging").mkdir()
    with serve_faults(context) as server:
        url = server.on("/a.jpg", fault.whole(JPEG))
        with open_client(HttpSettings(url)) as client:
            error = refusal(client, url, tmp_path / "staging")
        assert isinstance(error, SourceRefused)
        assert "is not trusted" in str(error)
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with open_client(HttpSettings(url)) as client:
            assert download_file(client, url, tmp_path / "staging" / "a.jpg").size == len(JPEG)


def test_a_silent_server_is_given_up_in_time(tmp_path: Path) -> None:
    with fault.never_answer() as url, open_client(HttpSettings(url, timeout_seconds=0.2)) as client:
        started = time.monotonic()
        error = refusal(client, url, tmp_path)
    assert error.reason == Reason.TIMEOUT
    assert time.monotonic() - started < 5


def test_a_body_that_stalls_is_given_up_and_not_made(server: FaultServer, hasty: httpx.Client, tmp_path: Path) -> None:
    error = refusal(hasty, server.on("/a.jpg", fault.stall(fault.head(200, 100) + JPEG[:50])), tmp_path)
    assert error.reason == Reason.TIMEOUT
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_dripping_server_can_not_hold_a_thread(server: FaultServer, tmp_path: Path, where: str) -> None:
    start = fault.head(200, 10_000) if where == "body" else b""
    url = server.on("/a.jpg", fault.drip(start + fault.head(200, 10_000), seconds=0.05))
    with open_client(HttpSettings(server.url, timeout_seconds=0.2)) as client:
        started = time.monotonic()
        error = refusal(client, url, tmp_path)
    assert error.reason == Reason.TIMEOUT
    assert 0.3 < time.monotonic() - started < 10


def test_every_request_of_a_connection_has_its_own_time(server: FaultServer, tmp_path: Path) -> None:
    url = server.on("/a.jpg", fault.whole(JPEG[:100]))
    half_a_second_a_look = itertools.count(0, 0.5).__next__
    transport = WatchedTransport(limits=httpx.Limits(max_connections=1), clock=half_a_second_a_look)
    with httpx.Client(transport=transport, timeout=5) as client:
        for _ in range(40):
            download_file(client, url, tmp_path / "a.jpg", patience=ONCE)
    assert server.accepted == 1


def test_our_own_byte_rate_is_not_taken_for_a_slow_server(server: FaultServer, tmp_path: Path) -> None:
    url = server.on("/a.jpg", fault.whole(BIG))
    transport = WatchedTransport(lowest_bytes_per_second=1e9, limits=httpx.Limits(max_connections=1))
    with httpx.Client(transport=transport, timeout=0.2) as client:
        pace = Pace(bytes_per_second=4_000_000)
        assert download_file(client, url, tmp_path / "a.jpg", pace=pace, patience=ONCE).size == len(BIG)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (fault.raw(b""), Reason.CONNECTION),
        (fault.raw(b"SSH-2.0-OpenSSH_9.2\r\n"), Reason.CONNECTION),
        (fault.raw(b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n"), Reason.CONNECTION),
        (fault.raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"), Reason.CONNECTION),
        (fault.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"), Reason.CONNECTION),
        (fault.cut(JPEG, 5000), Reason.CUT_SHORT),
        (fault.cut(JPEG, len(JPEG), declared=len(JPEG) + 1), Reason.CUT_SHORT),
        (fault.cut(JPEG, 5000, reset=True), Reason.CONNECTION),
        (fault.chunked(JPEG, finished=False), Reason.CUT_SHORT),
    ],
    ids=["nothing", "not_http", "bad_header", "bad_length", "huge_header", "cut", "too_long", "reset", "chunks_cut"],
)
def test_a_broken_answer_may_heal_and_leaves_no_file(
    server: FaultServer, client: httpx.Client, tmp_path: Path, answer: fault.Answer, reason: Reason
) -> None:
    url = server.on("/a.jpg", answer)
    error = refusal(client, url, tmp_path)
    assert isinstance(error, SourceUnavailable)
    assert error.reason in {reason, Reason.CUT_SHORT if reason is Reason.CONNECTION else reason}
    server.on("/a.jpg", answer, fault.whole(JPEG))
    result = download_file(client, url, tmp_path / "a.jpg", patience=Patience(sleep=lambda _: None))
    assert as_tuple(result) == fetched(tmp_path / "a.jpg", JPEG)
    assert leftovers(tmp_path) == ["a.jpg"]


def test_a_body_without_length_must_have_the_listed_size(
    server: FaultServer, client: httpx.Client, tmp_path: Path
) -> None:
    url = server.on("/a.jpg", fault.until_closed(JPEG[:5000]))
    assert refusal(client, url, tmp_path, expected_size=len(JPEG)).reason == Reason.CUT_SHORT
    assert refusal(client, url, tmp_path, expected_size=10).reason == Reason.SIZE_MISMATCH
    assert leftovers(tmp_path) == []
    assert download_file(client, url, tmp_path / "a.jpg", expected_size=5000).size == 5000


def test_a_chunked_body_needs_no_length(server: FaultServer, client: httpx.Client, tmp_path: Path) -> None:
    result = download_file(client, server.on("/a.jpg", fault.chunked(JPEG)), tmp_path / "a.jpg")
    assert as_tuple(result) == fetched(tmp_path / "a.jpg", JPEG)


def test_chunks_count_more_than_a_length_beside_them(server: FaultServer, client: httpx.Client, tmp_path: Path) -> None:
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(JPEG), JPEG)
    url = server.on("/a.jpg", fault.raw(fault.head(200, 5, transfer_encoding="chunked") + body))
    assert download_file(client, url, tmp_path / "a.jpg").size == len(JPEG)


def test_a_file_that_changed_since_its_listing_is_taken_with_a_warning(
    server: FaultServer, client: httpx.Client, tmp_path: Path
) -> None:
    result = download_file(client, server.on("/a.jpg", fault.whole(JPEG)), tmp_path / "a.jpg", expected_size=5)
    assert as_tuple(result) == fetched(tmp_path / "a.jpg", JPEG)
    assert "the listing said 5" in str(result.warning)


def test_a_body_zipped_against_our_wish_is_unpacked(server: FaultServer, client: httpx.Client, tmp_path: Path) -> None:
    result = download_file(client, server.on("/a.jpg", fault.zipped(JPEG)), tmp_path / "a.jpg", expected_size=len(JPEG))
    assert as_tuple(result) == fetched(tmp_path / "a.jpg", JPEG)
    assert result.warning is None


def test_a_body_that_only_claims_to_be_zipped_is_refused(
    server: FaultServer, client: httpx.Client, tmp_path: Path
) -> None:
    error = refusal(client, server.on("/a.jpg", fault.status(200, JPEG, content_encoding="gzip")), tmp_path)
    assert isinstance(error, SourceRefused)
    assert error.reason == Reason.CORRUPT


def test_a_file_over_the_limit_is_refused_before_its_body_comes(
    server: FaultServer, client: httpx.Client, tmp_path: Path
) -> None:
    url = server.on("/a.jpg", fault.stall(fault.head(200, 10**12)))
    error = refusal(client, url, tmp_path, max_bytes=10**6)
    assert (type(error), error.reason) == (SourceRefused, Reason.TOO_LARGE)
    assert "max_file_bytes" in str(error)


@pytest.mark.parametrize("answer", [fault.chunked(BIG), fault.until_closed(BIG), fault.zipped(bytes(10**6))])
def test_a_file_over_the_limit_is_stopped_where_no_length_warns(
    server: FaultServer, client: httpx.Client, tmp_path: Path, answer: fault.Answer
) -> None:
    error = refusal(client, server.on("/a.jpg", answer), tmp_path, max_bytes=100_000)
    assert (type(error), error.reason) == (SourceRefused, Reason.TOO_LARGE)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<!DOCTYPE html><html><p>Sign in", "image/jpeg"),
        (b"\n\n <html lang=en>", ""),
        (b"\xef\xbb\xbf<!-- quota --><p>", "application/octet-stream"),
        (b"Too many downloads today.", "text/html; charset=utf-8"),
    ],
)
def test_a_web_page_under_an_image_name_is_refused(
    server: FaultServer, client: httpx.Client, tmp_path: Path, body: bytes, content_type: str
) -> None:
    error = refusal(client, server.on("/a.jpg", fault.whole(body, content_type=content_type)), tmp_path)
    assert (type(error), error.reason) == (SourceRefused, Reason.HTML_PAGE)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("content_type", ["text/plain", "text/html", "application/octet-stream", ""])
def test_an_image_is_taken_whatever_its_type_says(
    server: FaultServer, client: httpx.Client, tmp_path: Path, content_type: str
) -> None:
    url = server.on("/a.jpg", fault.whole(JPEG, content_type=content_type))
    assert download_file(client, url, tmp_path / "a.jpg").size == len(JPEG)


def test_no_image_begins_like_a_web_page() -> None:
    starts = [
        b"\xff\xd8\xff\xe0\x00",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a\x01\x00",
        b"RIFF\x00\x00",
        b"BM6\x00",
        b"II*\x00",
        b"",
    ]
    assert [is_html(start, "text/html") for start in starts] == [False] * len(starts)


def test_a_cut_file_is_resumed_where_the_server_proves_it_is_the_same(
    server: FaultServer, client: httpx.Client, tmp_path: Path, patience: Patience
) -> None:
    url = server.on("/a.jpg", fault.cut(BIG, 1_500_000), fault.whole(BIG))
    result = download_file(client, url, tmp_path / "a.jpg", patience=patience)
    assert as_tuple(result) == fetched(tmp_path / "a.jpg", BIG)
    first, second = server.requests
    assert second.headers["range"] == "bytes=1500000-"
    assert second.headers["if-range"] == f'"{hashlib.sha256(BIG).hexdigest()[:16]}"'
    assert leftovers(tmp_path) == ["a.jpg"]
    assert "range" not in first.headers


def test_a_later_process_resumes_what_an_earlier_one_left(
    server: FaultServer, client: httpx.Client, tmp_path: Path
) -> None:
    url = server.on("/a.jpg", fault.cut(BIG, 5000), fault.whole(BIG))
    refusal(client, url, tmp_path)
    assert leftovers(tmp_path) == ["a.jpg.part", "a.jpg.part.etag"]
    with open_client(HttpSettings(server.url)) as other:
        assert as_tuple(download_file(other, url, tmp_path / "a.jpg")) == fetched(tmp_path / "a.jpg", BIG)
    assert server.requests[1].headers["range"] == "bytes=5000-"
    assert leftovers(tmp_path) == ["a.jpg"]


def test_the_bookmark_of_a_large_file_is_there_before_its_body(
    server: FaultServer, hasty: httpx.Client, tmp_path: Path
) -> None:
    url = server.on("/a.jpg", fault.stall(fault.head(200, len(BIG), etag='"1"') + BIG[:70_000]))
    seen: list[list[str]] = []
    thread = threading.Thread(target=lambda: refusal(hasty, url, tmp_path))
    thread.start()
    while thread.is_alive():
        seen.append(leftovers(tmp_path))
        time.sleep(0.02)
    thread.join()
    assert ["a.jpg.part", "a.jpg.part.etag"] in seen[:-2]


def test_a_kill_while_starting_over_leaves_nothing_to_mix(
    server: FaultServer, client: httpx.Client, tmp_path: Path
) -> None:
    url = server.on("/a.jpg", fault.cut(BIG, 9000, etag='"1"'))
    refusal(client, url, tmp_path)
    server.on("/a.jpg", fault.stall(fault.head(200, len(OTHER), etag='W/"2"') + OTHER[:9000]))
    script = (
        "import httpx, sys, pathlib; from blocks._http_download import download_file; "
        "download_file(httpx.Client(), sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, url, str(tmp_path / "a.jpg")]
    child = subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True)
    deadline = time.monotonic() + 30
    while (tmp_path / "a.jpg.part").read_bytes() != OTHER[:9000] and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert (tmp_path / "a.jpg.part").read_bytes() == OTHER[:9000]
    server.on("/a.jpg", fault.whole(BIG, etag='"1"'))
    assert as_tuple(download_file(client, url, tmp_path / "a.jpg")) == fetched(tmp_path / "a.jpg", BIG)


def test_a_resume_by_date_needs_a_date_that_is_old_enough(
    server: FaultServer, client: httpx.Client, tmp_path: Path, patience: Patience
) -> None:
    old, now = "Wed, 01 Jul 2026 10:00:00 GMT", "Wed, 01 Jul 2026 10:05:00 GMT"
    times = {"etag": "", "last_modified": old, "date": now}
    url = server.on("/old.jpg", fault.cut(BIG, 9000, **times), fault.whole(BIG, **times))
    assert download_file(client, url, tmp_path / "old.jpg", patience=patience).size == len(BIG)
    assert server.requests[-1].headers["if-range"] == old
    fresh = {"etag": "", "last_modified": old, "date": "Wed, 01 Jul 2026 10:00:30 GMT"}
    url = server.on("/new.jpg", fault.cut(BIG, 9000, **fresh), fault.whole(BIG, **fresh))
    assert download_file(client, url, tmp_path / "new.jpg", patience=patience).size == len(BIG)
    assert "range" not in server.requests[-1].headers


@pytest.mark.parametrize("fields", [{"etag": 'W/"1"'}, {"etag": ""}, {"etag": '"1"', "accept_ranges": "none"}])
def test_without_a_strong_validator_nothing_is_resumed(
    server: FaultServer, client: httpx.Client, tmp_path: Path, fields: dict[str, str]
) -> None:
    url = server.on("/a.jpg", fault.cut(BIG, 9000, **fields), fault.whole(BIG, **fields))
    refusal(client, url, tmp_path)
    assert leftovers(tmp_path) == []
    assert as_tuple(download_file(client, url, tmp_path / "a.jpg")) == fetched(tmp_path / "a.jpg", BIG)
    assert "range" not in server.requests[1].headers


@pytest.mark.parametrize(
    "answers",
    [
        [fault.whole(OTHER)],
        [fault.whole(OTHER, ranges=False)],
        [fault.partial(OTHER[9000:], 9000, len(BIG), etag='"other"'), fault.whole(OTHER)],
        [fault.partial(OTHER[9000:], 9000, len(BIG)), fault.whole(OTHER)],
        [fault.partial(OTHER, 0, len(BIG), etag='"1"'), fault.whole(OTHER)],
        [fault.partial(OTHER[9000:], 9000, len(BIG) + 1, etag='"1"'), fault.whole(OTHER)],
        [fault.partial(OTHER[9000:-5], 9000, len(BIG), etag='"1"'), fault.whole(OTHER)],
        [fault.status(206, OTHER[9000:], etag='"1"'), fault.whole(OTHER)],
        [fault.status(416), fault.whole(OTHER)],
    ],
    ids=[
        "changed",
        "range_ignored",
        "other_etag",
        "no_etag",
        "wrong_start",
        "wrong_total",
        "wrong_end",
        "no_content_range",
        "416",
    ],
)
def test_two_versions_of_a_file_are_never_mixed(
    server: FaultServer, client: httpx.Client, tmp_path: Path, answers: list[fault.Answer]
) -> None:
    url = server.on("/a.jpg", fault.cut(BIG, 9000, etag='"1"'), *answers)
    refusal(client, url, tmp_path)
    result = download_file(client, url, tmp_path / "a.jpg", patience=ONCE)
    assert as_tuple(result) == fetched(tmp_path / "a.jpg", OTHER)
    assert server.requests[1].headers["range"] == "bytes=9000-"
    assert leftovers(tmp_path) == ["a.jpg"]


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_on_the_way_the_file_is_one_version(
    server: FaultServer, client: httpx.Client, tmp_path: Path, data: st.DataObject
) -> None:
    versions = st.sampled_from([BIG, OTHER, BIG[:-7]])
    cuts = st.builds(fault.cut, versions, st.integers(0, 2_000_000), reset=st.booleans())
    wholes = st.builds(fault.whole, versions, ranges=st.booleans())
    lies = st.builds(fault.partial, versions, st.integers(0, 10_000), st.integers(1, 2_100_000))
    url = server.on("/a.jpg", *data.draw(st.lists(st.one_of(cuts, lies, wholes), max_size=6)), fault.whole(BIG))
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        staging = Path(folder, "a.jpg")
        for _ in range(7):
            try:
                result = download_file(client, url, staging, patience=Patience(sleep=lambda _: None))
            except (SourceUnavailable, SourceRefused):
                assert not staging.exists()
            else:
                break
        body = staging.read_bytes()
        assert body in (BIG, OTHER, BIG[:-7])
        assert result.sha256 == hashlib.sha256(body).hexdigest()
        assert leftovers(staging.parent) == ["a.jpg"]


def test_a_part_of_another_address_is_never_continued(
    server: FaultServer, client: httpx.Client, tmp_path: Path
) -> None:
    refusal(client, server.on("/a.jpg", fault.cut(BIG, 9000, etag='"1"')), tmp_path)
    url = server.on("/b.jpg", fault.whole(OTHER, etag='"1"'))
    assert as_tuple(download_file(client, url, tmp_path / "a.jpg")) == fetched(tmp_path / "a.jpg", OTHER)
    assert "range" not in server.requests[-1].headers


@pytest.mark.parametrize("bookmark", [None, "", "{", "[]", '{"address": 1}'])
def test_a_part_without_a_readable_bookmark_is_started_over(
    server: FaultServer, client: httpx.Client, tmp_path: Path, bookmark: str | None
) -> None:
    (tmp_path / "a.jpg.part").write_bytes(OTHER[:9000])
    if bookmark is not None:
        (tmp_path / "a.jpg.part.etag").write_text(bookmark)
    result = download_file(client, server.on("/a.jpg", fault.whole(BIG)), tmp_path / "a.jpg")
    assert as_tuple(result) == fetched(tmp_path / "a.jpg", BIG)
    assert leftovers(tmp_path) == ["a.jpg"]


def test_a_resume_cut_again_goes_on_from_there(server: FaultServer, client: httpx.Client, tmp_path: Path) -> None:
    def short_rest(exchange: fault.Exchange) -> bool:
        content_range = f"bytes 9000-{len(BIG) - 1}/{len(BIG)}"
        exchange.send(fault.head(206, len(BIG) - 9000, etag='"1"', content_range=content_range) + BIG[9000:20_000])
        return False

    url = server.on("/a.jpg", fault.cut(BIG, 9000, etag='"1"'), short_rest, fault.whole(BIG, etag='"1"'))
    result = download_file(client, url, tmp_path / "a.jpg", patience=Patience(sleep=lambda _: None))
    assert as_tuple(result) == fetched(tmp_path / "a.jpg", BIG)
    assert [request.headers.get("range") for request in server.requests] == [None, "bytes=9000-", "bytes=20000-"]


def test_redirects_within_one_place_are_followed(server: FaultServer, client: httpx.Client, tmp_path: Path) -> None:
    server.on("/b.jpg", fault.redirect("/c.jpg", 308))
    server.on("/c.jpg", fault.whole(JPEG))
    url = server.on("/a.jpg", fault.redirect(f"//eve:{CANARY}@127.0.0.1:{server.port}/b.jpg"))
    assert download_file(client, url, tmp_path / "a.jpg").size == len(JPEG)
    assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {CANARY}"] * 3


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_credentials_never_follow_a_redirect_to_another_place(
    server: FaultServer, client: httpx.Client, tmp_path: Path, host: str
) -> None:
    with serve_faults() as other:
        other.on("/a.jpg", fault.whole(JPEG))
        place = f"http://{host}:{other.port if host == '127.0.0.1' else server.port}"
        url = server.on("/a.jpg", fault.redirect(f"{place}/a.jpg?key={CANARY}"))
        error = refusal(client, url, tmp_path)
        assert (type(error), error.reason) == (SourceRefused, Reason.REDIRECTED_AWAY)
        assert place in str(error)
        assert (other.requests, len(server.requests)) == ([], 1)


def test_a_circle_of_redirects_ends(server: FaultServer, client: httpx.Client, tmp_path: Path) -> None:
    error = refusal(client, server.on("/a.jpg", fault.redirect("/a.jpg")), tmp_path)
    assert isinstance(error, SourceRefused)
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "location", ["http://[", "http://a:b:c/", "javascript:alert(1)", "ftp://127.0.0.1/", "http://\x7f/"]
)
def test_a_redirect_to_nowhere_is_refused(
    server: FaultServer, client: httpx.Client, tmp_path: Path, location: str
) -> None:
    error = refusal(client, server.on("/a.jpg", fault.redirect(location)), tmp_path, patience=Patience())
    assert isinstance(error, SourceRefused)
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["http://a:b/", "http://127.0.0.1/" + "a" * 70_000, "file:///etc/passwd", ""])
def test_an_address_that_is_none_is_refused(client: httpx.Client, tmp_path: Path, url: str) -> None:
    assert isinstance(refusal(client, url, tmp_path), SourceRefused)


def test_only_the_upgrade_to_https_changes_the_origin() -> None:
    here = httpx.URL("http://cam.example/a")
    accepted = ["http://cam.example/b", "http://CAM.example:80/", "https://cam.example/a", "https://cam.example:443/"]
    refused = ["http://cam.example:81/", "http://www.cam.example/", "https://cam.example:8443/", "ftp://cam.example/a"]
    assert [is_same_place(here, httpx.URL(url)) for url in accepted] == [True] * 4
    assert [is_same_place(here, httpx.URL(url)) for url in refused] == [False] * 4
    assert not is_same_place(httpx.URL("https://cam.example/a"), here)
    assert not is_same_place(httpx.URL("http://cam.example:8080/"), httpx.URL("https://cam.example:8080/"))


def test_no_secret_reaches_a_text_or_a_log(
    server: FaultServer, client: httpx.Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for answer in (fault.status(401), fault.status(500), fault.raw(b"nonsense"), fault.cut(JPEG, 500)):
        refusal(client, server.on("/a.jpg", answer), tmp_path)
    assert CANARY not in caplog.text
    assert CANARY not in repr(HttpSettings(server.url, headers={"Authorization": CANARY}))
    assert show_url(f"https://eve:{CANARY}@cam.example:8443/a%20b/c.jpg?key={CANARY}#x") == (
        "https://cam.example:8443/a%20b/c.jpg"
    )


def test_loopback_is_never_asked_for_through_a_proxy(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.on("/a.jpg", fault.whole(JPEG))
    with fault.refuse() as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        with open_client(HttpSettings(server.url)) as client:
            assert download_file(client, url, tmp_path / "a.jpg").size == len(JPEG)


def test_a_proxy_of_the_environment_is_used(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("/a.jpg", fault.whole(JPEG))
    monkeypatch.setenv("http_proxy", server.url)
    with open_client(HttpSettings("http://cam.invalid/")) as client:
        assert download_file(client, "http://cam.invalid/a.jpg", tmp_path / "a.jpg").size == len(JPEG)
    assert server.requests[0].path == "http://cam.invalid/a.jpg"


def test_requests_keep_their_rate_over_all_threads() -> None:
    pace = Pace(requests_per_second=100)
    started = time.monotonic()
    threads = [threading.Thread(target=lambda: [pace.before_request() for _ in range(10)]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.35 < time.monotonic() - started < 5


def test_bytes_keep_their_rate_within_a_tenth_over_ten_seconds() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds + 0.002

    pace = Pace(bytes_per_second=1_000_000, clock=lambda: now[0], sleep=sleep)
    taken = 0
    while now[0] < 10:
        now[0] += 0.001
        pace.after_bytes(16_384)
        taken += 16_384
    assert abs(taken / now[0] / 1_000_000 - 1) < 0.1


def test_an_idle_minute_is_no_licence_for_a_burst() -> None:
    now = [0.0]
    slept: list[float] = []
    pace = Pace(requests_per_second=1, clock=lambda: now[0], sleep=slept.append)
    pace.before_request()
    now[0] = 60.0
    pace.before_request()
    pace.before_request()
    assert slept == [pytest.approx(0.9)]


def test_failures_inside_the_answer_are_translated_too(server: FaultServer, client: httpx.Client) -> None:
    url = server.on("/page", fault.cut(JPEG, 10))
    with pytest.raises(SourceUnavailable), ask(client, url, pace=Pace()) as response:
        response.read()
