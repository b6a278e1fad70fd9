import pickle
import threading
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from blocks._errors import WrongUse
from blocks._frame_spool import FrameSpool, FrameStory, encode_frame
from blocks._records import RemoteFile
from blocks._rtsp_address import fill_places, split_address
from blocks.rtsp_camera import RtspCamera
from tests.servers.rtsp import read_counter, serve_rtsp
from tests.servers.rtsp_pictures import draw_picture

TEXT = st.text(st.characters(min_codepoint=0x20, blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30)


def secrets_of(camera: RtspCamera) -> tuple[str | None, str | None]:
    return tuple(secret.get_secret_value() if secret else None for secret in (camera.username, camera.password))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("written", "url", "username", "password"),
    [
        ("rtsp://gate.example:554/live?channel=1", "rtsp://gate.example:554/live?channel=1", None, None),
        ("RTSPS://gate.example", "rtsps://gate.example", None, None),
        ("rtsp://me:word@gate.example/live", "rtsp://gate.example/live", "me", "word"),
        ("rtsp://me:p%40ss%3A%2F@[::1]:8554/a", "rtsp://[::1]:8554/a", "me", "p@ss:/"),
        ("rtsp://me:p@ss:w@gate.example/live", "rtsp://gate.example/live", "me", "p@ss:w"),
        ("rtsp://me@gate.example/live", "rtsp://gate.example/live", "me", None),
        ("rtsp://:word@gate.example/live", "rtsp://gate.example/live", None, "word"),
        (
            "rtsp://gate.example/user=me&password=w%26rd&channel=1",
            "rtsp://gate.example/user={username}&password={password}&channel=1",
            "me",
            "w&rd",
        ),
        (
            "rtsp://gate.example/user=me_password=word_channel=1_stream=0.sdp",
            "rtsp://gate.example/user={username}_password={password}_channel=1_stream=0.sdp",
            "me",
            "word",
        ),
        ("rtsp://gate.example/live?pwd=word", "rtsp://gate.example/live?pwd={password}", None, "word"),
        ("rtsp://gate.example/live?pwd=", "rtsp://gate.example/live?pwd=", None, None),
        ("rtsp://gate.example/live?user={username}", "rtsp://gate.example/live?user={username}", None, None),
    ],
)
def test_credentials_in_the_address_are_moved_into_the_secret_fields(
    written: str, url: str, username: str | None, password: str | None
) -> None:
    camera = RtspCamera(url=written)
    assert (camera.url, camera.root) == (url, url)
    assert secrets_of(camera) == (username, password)


@given(username=TEXT.filter(lambda text: ":" not in text), password=TEXT)
def test_every_credential_comes_back_from_an_address(username: str, password: str) -> None:
    address = split_address(f"rtsp://{quote(username, safe='')}:{quote(password, safe='')}@gate.example/live")
    assert (address.url, address.username, address.password) == ("rtsp://gate.example/live", username, password)
    address = split_address(f"rtsp://gate.example/live?user={quote(username, safe='')}&pwd={quote(password, safe='')}")
    if "_" not in username + password:  # some makers part their fields with it
        filled = fill_places(address.url, address.username, address.password)
        assert filled == f"rtsp://gate.example/live?user={quote(username, safe='')}&pwd={quote(password, safe='')}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gate.example/live",
        "http://gate.example/",
        "rtsp://",
        "rtsp:///live",
        "rtsp://gate.example:99999/live",
        "rtsp://me:can/ary@gate.example/live",
        "rtsp://me:can#ary@gate.example/live",
        "rtsp://gate.example/a canary",
        "rtsp://gate.example:canary/live",
        "rtsp://gate.example/live\r\nX: canary",
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RtspCamera(url=url)
    assert "rtsp://" in str(caught.value) or "%20" in str(caught.value)
    assert "ary" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "rtsp://me:canary@gate.example/", "password": "other"},
        {"username": "can:ary", "password": "canary"},
        {"username": "canary\n"},
        {"url": "rtsps://gate.example/", "transport": "udp"},
        {"camera_id": "../canary"},
        {"camera_id": "a" * 101},
        {"camera_id": ""},
        {"camera_id": "ga te"},
        {"fps": 31},
        {"fps": 0},
        {"read_timeout_seconds": 0},
    ],
)
def test_wrong_fields_are_refused_without_repeating_secrets(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        RtspCamera(**({"url": "rtsp://gate.example/"} | fields))
    assert "canary" not in str(caught.value)


def test_no_credential_shows_in_the_block_or_its_copies(tmp_path: Path) -> None:
    camera = RtspCamera(url="rtsp://canary:canary-word@gate.example/live?pwd=canary-word", camera_id="gate")
    bound = camera.with_spool(tmp_path)
    for copy in (camera, bound, camera.model_copy(deep=True), pickle.loads(pickle.dumps(camera))):
        shown = [repr(copy), str(copy), copy.model_dump_json(), copy.root, copy.source_name, copy.folder_name]
        assert "canary" not in "".join(shown)
        assert secrets_of(copy) == ("canary", "canary-word")


def test_a_saved_camera_comes_back_as_it_was(prefect_api: str) -> None:
    camera = RtspCamera(url="rtsp://me:w%3Frd@gate.example/live", camera_id="gate", fps=5)
    camera.save("gate-saved", overwrite=True)
    try:
        loaded = RtspCamera.load("gate-saved")
        assert (loaded.url, loaded.fps, loaded.camera) == ("rtsp://gate.example/live", 5, "gate")
        assert secrets_of(loaded) == ("me", "w?rd")
        assert loaded.source_name == loaded.with_spool(Path("/none")).source_name == "rtsp-camera/gate-saved"
    finally:
        RtspCamera.delete("gate-saved")


def test_a_camera_without_an_id_is_called_as_its_block_or_its_address() -> None:
    assert RtspCamera(url="rtsp://gate.example:554/live").camera == "gate.example-554-live"


def test_the_cameras_files_are_the_frames_of_its_spool(tmp_path: Path) -> None:
    camera = RtspCamera(url="rtsp://gate.example/live", camera_id="gate")
    story = FrameStory("gate", datetime(2026, 11, 20, 14, 5, 9, tzinfo=UTC))
    spool = FrameSpool(tmp_path / "spool")
    with spool.held():
        key = spool.put(encode_frame(draw_picture(5), story), story)
    bound = camera.with_spool(tmp_path / "spool")
    assert bound.list_files()["key"].to_list() == [key]
    fetched = bound.download(RemoteFile(key), tmp_path / "frame.jpg")
    assert fetched.claims is not None
    assert fetched.claims.camera == "gate"
    assert fetched.path.read_bytes()[:2] == b"\xff\xd8"


def test_a_live_camera_has_no_files_of_its_own(tmp_path: Path) -> None:
    camera = RtspCamera(url="rtsp://gate.example/live")
    with pytest.raises(WrongUse, match="catchment capture"):
        camera.list_files()
    with pytest.raises(WrongUse, match="catchment capture"):
        camera.download(RemoteFile("a.jpg"), tmp_path / "a.jpg")


def test_a_camera_is_watched_with_what_its_address_held() -> None:
    with serve_rtsp() as server:
        url = server.add("/gate", codec="mjpeg", login=("me", "w@rd"))
        camera = RtspCamera(
            url=url.replace("://", "://me:w%40rd@"), open_timeout_seconds=30, password=SecretStr("w@rd")
        )
        with camera.open_stream(fps=None, stopped=threading.Event()) as frames:
            numbers = [read_counter(frame.pixels) for frame in islice(frames, 3)]
        assert numbers == sorted(set(numbers) & set(server.camera("/gate").sent))
