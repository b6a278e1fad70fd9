"""The same wire against a server that is not ours."""

import threading
from itertools import islice

import pytest

from blocks._errors import CatchmentError, Reason
from blocks._rtsp import Frame, RtspSettings, open_stream
from tests.servers.gstreamer_rtsp import serve_gstreamer


def watch(url: str, **settings: str) -> list[Frame]:
    wanted = RtspSettings(url, open_timeout_seconds=30, read_timeout_seconds=30, **settings)  # type: ignore[arg-type]
    with open_stream(wanted, fps=None, stopped=threading.Event()) as frames:
        return list(islice(frames, 5))


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_gstreamers_server_is_watched_with_its_login_and_only_so(auth: str) -> None:
    with serve_gstreamer(login=("us er", "p@ss:w/rd"), auth=auth) as url:
        for path, transport in [("/h264", "tcp"), ("/mjpeg", "tcp"), ("/h264", "udp")]:
            frames = watch(url + path, username="us er", password="p@ss:w/rd", transport=transport)
            assert [frame.pixels.shape for frame in frames] == [(240, 320, 3)] * 5
            seconds = [frame.stream_seconds or 0 for frame in frames]
            assert seconds == pytest.approx([index / 15 for index in range(5)], abs=0.03)
            assert not any(frame.is_corrupt for frame in frames)
        for wrong in ({"username": "us er", "password": "other"}, {}):
            with pytest.raises(CatchmentError) as caught:
                watch(url + "/h264", **wrong)
            assert caught.value.reason is Reason.UNAUTHORIZED


def test_gstreamers_server_without_such_a_path_is_told_apart() -> None:
    with serve_gstreamer() as url, pytest.raises(CatchmentError) as caught:
        watch(url + "/nowhere")
    assert caught.value.reason is Reason.NOT_FOUND
