"""Everything that the README's examples reach out to, on this machine: the vendors' hosts, a gate, a live camera.

Commands run as they stand: a proxy with certificates of its own sends the vendors' host names to local servers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from tests.pictures import make_jpeg
from tests.servers.drive import serve_drive
from tests.servers.dropbox_api import APP_KEY, APP_SECRET, serve_dropbox
from tests.servers.internet import serve_internet
from tests.servers.rtsp import serve_rtsp
from tests.servers.terminal_cdn import TerminalCdn, serve_terminal_cdn

GATE_DAY = datetime(2025, 9, 1, 7, tzinfo=UTC)  # midnight in Los Angeles


@dataclass(frozen=True, slots=True)
class Vendors:
    """`environment`: what leads programs here. `names`: what stands in examples, and what is here in its place."""

    environment: dict[str, str]
    names: dict[str, str]


@contextmanager
def serve_vendors(folder: Path) -> Iterator[Vendors]:
    """Serve Google Drive, Dropbox and the terminal's pictures under their own names, and a live camera."""
    with serve_drive() as drive, serve_dropbox() as dropbox, serve_terminal_cdn() as cdn, serve_rtsp() as rtsp:
        shared = drive.add_folder("shared")
        drive.add_file("drive.jpg", make_jpeg(21), shared)
        dropbox.put("/Garden/dropbox.jpg", make_jpeg(22))
        _fill_gate(cdn)
        hosts = {
            "www.googleapis.com": drive.url,
            "api.dropboxapi.com": dropbox.url,
            "content.dropboxapi.com": dropbox.url,
            "cdn.draydog.com": cdn.url,
        }
        ports = {host: urlsplit(url).port or 0 for host, url in hosts.items()}
        with serve_internet(ports, folder) as internet:
            keys = {
                "DRIVE_API_KEY": drive.api_key,
                "DROPBOX_APP_KEY": APP_KEY,
                "DROPBOX_APP_SECRET": APP_SECRET,
            }
            names = {
                "https://drive.google.com/drive/folders/1AbC…": drive.link(shared),
                "https://www.dropbox.com/scl/fo/…?rlkey=…": dropbox.share("/Garden"),
                "rtsp://viewer@camera.example.org:554/stream1": rtsp.add("/stream1", fps=5).replace(
                    "rtsp://", "rtsp://viewer@"
                ),
                "rtsp://camera.example.org:554/stream1": f"{rtsp.url}/stream1",
                # a browser would read these times from a page
                "--method browser": " ".join(
                    f"--time {hour:02}:{minute}0:07" for hour in range(24) for minute in range(6)
                ),
                "--duration 60 ": "--duration 2 ",
                "--duration 3600 ": "--duration 3 ",
            }
            yield Vendors(internet.environment | keys, names)


def _fill_gate(cdn: TerminalCdn) -> None:
    """Hold a picture each ten minutes of two days, always in the same second of its minute."""
    for stream in ("in_gate", "out_gate"):
        for number in range(2 * 144):
            cdn.put(GATE_DAY + timedelta(minutes=10 * number, seconds=7), stream)
