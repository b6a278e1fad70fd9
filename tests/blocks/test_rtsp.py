import logging
import socket
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable, WrongUse
from blocks._rtsp import Frame, RtspSettings, open_stream
from tests.servers._programs import require_program
from tests.servers.rtsp import RtspServer, never_answer, read_counter, refuse, serve_rtsp
from tests.servers.rtsp_pictures import draw_picture

CANARY = "p@ss:w/ö%rd"
SOON = 20.0  # seconds: far above the timeouts here, far below waiting for ever


@pytest.fixture
def server() -> Iterator[RtspServer]:
    with serve_rtsp() as running:
        yield running


def watch(url: str, count: int, fps: float | None = None, **settings: Any) -> list[Frame]:
    """Return the first `count` frames."""
    wanted = RtspSettings(url, **({"open_timeout_seconds": SOON, "read_timeout_seconds": SOON} | settings))
    with open_stream(wanted, fps=fps, stopped=threading.Event()) as frames:
        return list(islice(frames, count))


def fail(url: str, **settings: Any) -> CatchmentError:
    """Return the error in which watching ends, and soon."""
    began = time.monotonic()
    with pytest.raises(CatchmentError) as caught:
        watch(url, 1000, **settings)
    assert time.monotonic() - began < SOON
    return caught.value


def numbers_of(frames: list[Frame]) -> list[int]:
    numbers = [read_counter(frame.pixels) for frame in frames]
    assert None not in numbers
    return [number for number in numbers if number is not None]


@pytest.mark.parametrize("number", [0, 1, 77, 1_048_575])
@pytest.mark.parametrize("scene", ["still", "moving"])
def test_a_picture_says_its_number(number: int, scene: Any) -> None:
    picture = draw_picture(number, scene)
    assert (read_counter(picture), read_counter(picture[::2, ::2])) == (number, number)


@pytest.mark.parametrize("scene", ["black", "grey"])
def test_an_even_picture_says_none(scene: Any) -> None:
    assert read_counter(draw_picture(1, scene)) is None


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_pictures_come_in_order_each_once_and_with_their_times(server: RtspServer, codec: str, transport: str) -> None:
    url = server.add("/gate", codec=codec)
    frames = watch(url, 8, transport=transport)
    numbers = numbers_of(frames)
    assert numbers == sorted(set(numbers))
    assert [frame.number - frames[0].number for frame in frames] == list(range(8))
    assert set(numbers) <= set(server.camera("/gate").sent)
    for frame, number in zip(frames, numbers, strict=True):
        assert not frame.is_corrupt
        assert frame.stream_seconds == pytest.approx((number - numbers[0]) / 10, abs=0.001)
        late = frame.received_at - server.time_of(number, 10)
        assert timedelta(milliseconds=-50) < late < timedelta(seconds=SOON)
        assert frame.received_at.tzinfo is UTC


def test_only_as_many_frames_as_wanted_are_taken_by_the_streams_own_time(server: RtspServer) -> None:
    frames = watch(server.add("/gate", fps=25, codec="mjpeg"), 7, fps=5)
    seconds = [frame.stream_seconds or 0 for frame in frames]
    assert seconds[-1] >= 6 / 5 - 0.03


def test_a_camera_slower_than_wanted_loses_no_picture(server: RtspServer) -> None:
    frames = watch(server.add("/gate", fps=8, codec="mjpeg"), 6, fps=30)
    assert [frame.number for frame in frames] == list(range(6))


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_credentials_with_every_letter_open_the_stream(server: RtspServer, auth: str) -> None:
    url = server.add("/gate", login=("us er", CANARY), auth=auth)
    assert len(watch(url, 2, username="us er", password=CANARY)) == 2
    for wrong in ({"username": "us er", "password": "other"}, {}):
        error = fail(url, **wrong)
        assert (type(error), error.reason) == (SourceRefused, Reason.UNAUTHORIZED)


ANSWERS = {
    "wrong-path": ({"status": {"DESCRIBE": 404}}, SourceRefused, Reason.NOT_FOUND),
    "forbidden": ({"status": {"DESCRIBE": 403}}, SourceRefused, Reason.FORBIDDEN),
    "full": ({"status": {"DESCRIBE": 503}}, SourceUnavailable, Reason.SERVER_ERROR),
    "odd": ({"status": {"DESCRIBE": 454}}, SourceRefused, Reason.REFUSED),
    "late-refusal": ({"status": {"SETUP": 454}}, SourceRefused, Reason.REFUSED),
    "broken": ({"status": {"PLAY": 500}}, SourceUnavailable, Reason.SERVER_ERROR),
    "other-transport": ({"status": {"SETUP": 461}}, SourceRefused, Reason.REFUSED),
    "sound-only": ({"has_video": False, "has_audio": True}, SourceRefused, Reason.NO_VIDEO),
    "nothing": ({"has_video": False}, SourceRefused, Reason.NO_VIDEO),
    "hangs-up": ({"drop_after": 0}, SourceUnavailable, Reason.CUT_SHORT),
    "dropped": ({"drop_after": 5}, SourceUnavailable, Reason.CUT_SHORT),
    "reset": ({"drop_after": 5, "is_drop_reset": True}, SourceUnavailable, Reason.CUT_SHORT),
    "over": ({"bye_after": 5}, SourceUnavailable, Reason.CUT_SHORT),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_every_answer_has_its_own_error(server: RtspServer, case: str) -> None:
    behaviour, kind, reason = ANSWERS[case]
    error = fail(server.add("/gate", fps=25, **behaviour))
    assert (type(error), error.reason) == (kind, reason)
    assert server.url in str(error)


def test_no_path_no_camera_no_name_no_rtsp_are_told_apart(server: RtspServer) -> None:
    assert fail(server.url + "/nowhere").reason is Reason.NOT_FOUND
    with refuse() as url:
        assert "refuses the connection" in str(fail(url))
    assert "check the name" in str(fail("rtsp://no-such-camera.invalid/live"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_speak_ssh, args=(listener,), daemon=True).start()
        assert "does not answer as a camera" in str(fail(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/live"))


def _speak_ssh(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"SSH-2.0-dropbear\r\n\r\n")


def test_a_camera_that_never_answers_ends_at_the_open_timeout() -> None:
    with never_answer() as url:
        error = fail(url, open_timeout_seconds=0.7)
    assert (type(error), error.reason) == (SourceUnavailable, Reason.TIMEOUT)


@pytest.mark.parametrize("behaviour", [{"describe_seconds": 60.0}, {"stall_after": 0}], ids=["slow", "silent"])
def test_a_camera_that_opens_and_sends_nothing_ends_at_the_open_timeout(
    server: RtspServer, behaviour: dict[str, Any]
) -> None:
    error = fail(server.add("/gate", **behaviour), open_timeout_seconds=0.7)
    assert (type(error), error.reason) == (SourceUnavailable, Reason.TIMEOUT)


@pytest.mark.parametrize(
    ("behaviour", "transport"),
    [({}, "tcp"), ({}, "udp"), ({"has_audio": True}, "tcp"), ({"codec": "mjpeg"}, "tcp")],
    ids=["tcp", "udp", "sound-goes-on", "mjpeg"],
)
def test_a_silent_stream_ends_at_the_read_timeout(
    server: RtspServer, behaviour: dict[str, Any], transport: str
) -> None:
    url = server.add("/gate", stall_after=5, **behaviour)
    error = fail(url, read_timeout_seconds=0.7, transport=transport)
    assert (type(error), error.reason) == (SourceUnavailable, Reason.STALLED)


def test_after_a_restart_the_stream_goes_on_where_the_camera_is(server: RtspServer) -> None:
    url = server.add("/gate", fps=25, codec="mjpeg")
    settings = RtspSettings(url, open_timeout_seconds=SOON, read_timeout_seconds=SOON)
    with open_stream(settings, fps=None, stopped=threading.Event()) as frames:
        before = numbers_of(list(islice(frames, 3)))
        server.stop()
        with pytest.raises(SourceUnavailable) as caught:
            before += (number for frame in frames for number in numbers_of([frame]))
    assert caught.value.reason is Reason.CUT_SHORT
    assert "refuses the connection" in str(fail(url))
    server.start()
    assert min(numbers_of(watch(url, 3))) > max(before)


def test_stopping_ends_the_frames(server: RtspServer) -> None:
    stopped = threading.Event()
    settings = RtspSettings(server.add("/gate", fps=25), open_timeout_seconds=SOON, read_timeout_seconds=SOON)
    with open_stream(settings, fps=None, stopped=stopped) as frames:
        next(frames)
        stopped.set()
        assert list(frames) == []


def test_stopping_does_not_wait_for_a_camera_that_does_not_answer() -> None:
    stopped = threading.Event()
    threading.Timer(0.3, stopped.set).start()
    with never_answer() as url:
        settings = RtspSettings(url, open_timeout_seconds=300)
        with open_stream(settings, fps=None, stopped=stopped) as frames:
            assert list(frames) == []


def test_a_picture_that_builds_on_a_damaged_one_is_damaged_too(server: RtspServer) -> None:
    frames = watch(server.add("/gate", fps=25, scene="moving", cut_picture=10), 30)
    assert {frame.number for frame in frames if frame.is_corrupt} == set(range(10, 20))  # every tenth builds on none


def test_a_picture_that_can_not_be_decoded_costs_only_itself(server: RtspServer) -> None:
    frames = watch(server.add("/gate", fps=40, codec="mjpeg", garble=0.05), 40)
    assert len({read_counter(frame.pixels) for frame in frames}) > 20


def test_credentials_follow_no_redirect(server: RtspServer) -> None:
    with serve_rtsp() as other:
        target = other.add("/gate")
        error = fail(server.add("/gate", location=target + "?secret"), username="me", password=CANARY)
        assert (type(error), error.reason) == (SourceRefused, Reason.REDIRECTED_AWAY)
        assert other.url in str(error)
        assert "secret" not in str(error)
        assert other.camera("/gate").requests == []


def test_credentials_in_the_path_are_sent_there_and_shown_nowhere(server: RtspServer) -> None:
    server.add("/user=me&password=word&channel=1", codec="mjpeg")
    url = server.url + "/user={username}&password={password}&channel=1"
    assert len(watch(url, 2, username="me", password="word")) == 2
    assert "word&" not in str(fail(url, username="me", password="wrong-word"))


@pytest.mark.parametrize(
    "behaviour",
    [
        {},
        {"status": {"PLAY": 404}},
        {"location": "rtsp://other.example/"},
        {"drop_after": 2},
        {"stall_after": 2},
        {"describe_seconds": 60},
    ],
    ids=["denied", "refused", "redirected", "dropped", "stalled", "slow"],
)
def test_no_credential_shows_in_any_error_or_log(
    server: RtspServer, behaviour: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    url = server.add("/gate", login=("canary-user", "canary-word" if behaviour else "other"), **behaviour)
    login = {"username": "canary-user", "password": "canary-word"}
    patience = 0.7 if "describe_seconds" in behaviour else SOON
    with pytest.raises(CatchmentError) as caught:
        watch(url, 1000, open_timeout_seconds=patience, read_timeout_seconds=0.7, **login)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=False)
    chain = [caught.value.__cause__, caught.value.__context__]
    seen = "".join([*told.format(), repr(caught.value), str(chain), caplog.text, *capfd.readouterr()])
    seen += repr(RtspSettings(url, **login))
    assert "canary" not in seen


def test_credentials_that_ffmpeg_would_cut_are_refused(server: RtspServer) -> None:
    error = fail(server.add("/gate"), username="me", password="x" * 200)
    assert isinstance(error, WrongUse)
    assert "xxx" not in str(error)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "cert.pem", folder / "key.pem"
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=camera -addext subjectAltName=IP:127.0.0.1"
    files = ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run([require_program("openssl"), *command.split(), *files], check=True, capture_output=True)
    return paths


@pytest.fixture
def tls_server(certificate: tuple[Path, Path]) -> Iterator[RtspServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with serve_rtsp(context) as running:
        yield running


def test_over_tls_only_a_camera_that_someone_vouches_for_is_watched(
    tls_server: RtspServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tls_server.add("/gate", login=("me", CANARY), stall_after=5)
    login = {"username": "me", "password": CANARY}
    error = fail(url, **login)
    assert isinstance(error, SourceRefused)
    assert "verify_certificate" in str(error)
    assert tls_server.camera("/gate").authorizations == []
    assert len(watch(url, 2, verify_certificate=False, **login)) == 2
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert len(watch(url, 2, **login)) == 2
    assert fail(url, read_timeout_seconds=0.7, **login).reason is Reason.STALLED


def test_ten_streams_at_once_lose_no_picture(server: RtspServer) -> None:
    urls = [server.add(f"/camera-{number}", codec="mjpeg", fps=5) for number in range(10)]
    taken: dict[str, list[Frame]] = {}
    threads = [
        threading.Thread(target=lambda url=url: taken.update({url: watch(url, 10, fps=5)}))  # type: ignore[misc]
        for url in urls
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [[frame.number for frame in taken[url]] for url in urls] == [list(range(10))] * 10
    assert all(frame.received_at <= datetime.now(UTC) for frames in taken.values() for frame in frames)


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_a_host_that_no_network_takes_is_refused(host: str) -> None:
    settings = RtspSettings(f"rtsp://{host}/x", None, None, "tcp", 5, 5)
    with (
        pytest.raises(SourceRefused, match="check its spelling"),
        open_stream(settings, fps=1, stopped=threading.Event()),
    ):
        pass
