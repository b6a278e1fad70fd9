"""GStreamer's RTSP server on a loopback port: the other one, which is not ours; run as a script it is the server.

The script belongs to the system's Python, which has GStreamer's bindings (Debian: gir1.2-gst-rtsp-server-1.0,
python3-gi, gstreamer1.0-plugins-base, -good and -ugly).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PYTHON = "/usr/bin/python3"
_PIPELINES = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96",
    "mjpeg": "video/x-raw,format=I420 ! jpegenc ! rtpjpegpay name=pay0 pt=26",
}


@contextmanager
def serve_gstreamer(*, login: tuple[str, str] | None = None, auth: str = "digest") -> Iterator[str]:
    """Run the server for the length of the `with`; yield its URL: /h264 and /mjpeg below it send 15 pictures a second.

    A missing package skips the test, or fails it in CI.
    """
    _require_gstreamer()
    command = [_PYTHON, __file__, auth, *(login or ())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout
            port = process.stdout.readline().strip()
            assert port.isdigit(), "GStreamer's server did not start"
            yield f"rtsp://127.0.0.1:{port}"
        finally:
            process.kill()


def _require_gstreamer() -> None:
    import pytest

    names = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
    names += " gstreamer1.0-plugins-ugly"
    ask = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer;"
    ask += "Gst.init(None); import sys; sys.exit(not all(map(Gst.ElementFactory.find, "
    ask += "['x264enc', 'jpegenc', 'rtph264pay', 'rtpjpegpay', 'videotestsrc', 'videoconvert'])))"
    if Path(_PYTHON).exists() and subprocess.run([_PYTHON, "-c", ask], capture_output=True, timeout=60).returncode == 0:
        return
    message = f"GStreamer's RTSP server is not installed (Debian packages {names})"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def _serve(auth: str, login: tuple[str, str] | None) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    role = "viewer"
    if login:
        keeper = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", role)
        if auth == "basic":
            keeper.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
            keeper.add_basic(GstRtspServer.RTSPAuth.make_basic(*login), token)
        else:
            keeper.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            keeper.add_digest(*login, token)
        server.set_auth(keeper)
    for name, pipeline in _PIPELINES.items():
        factory = GstRtspServer.RTSPMediaFactory()
        source = (
            "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1 ! videoconvert"
        )
        factory.set_launch(f"( {source} ! {pipeline} )")
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role(role, "media.factory.access", True)
        permissions.add_permission_for_role(role, "media.factory.construct", True)
        factory.set_permissions(permissions)
        server.get_mount_points().add_factory(f"/{name}", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    _serve(sys.argv[1], (sys.argv[2], sys.argv[3]) if len(sys.argv) > 3 else None)
