"""Frames of a camera that wait on this machine's disk until the library has them: each whole, each telling its story.

    spool/frames/2026/11/20/gate/20261120T140509.120000Z-1a2b3c4d.jpg

The path below the spool is the frame's key. When, where and for whom it was taken stands in the picture itself (EXIF),
so that a frame is never without it, in the spool, in the library or copied out of it.
"""

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._layout import make_safe_segment
from blocks._part import PartFile
from blocks._records import CaptureTime, Claims, Fetched, Listing, RemoteFile, TimeWitness, make_listing
from blocks._storage import translate_disk

FrameFormat = Literal["jpeg", "png"]

_SUFFIXES: dict[FrameFormat, str] = {"jpeg": "jpg", "png": "png"}
_LONGEST_CAMERA = 100

# CIPA DC-008 (EXIF 2.32): the sub-directory, and DateTimeOriginal with its fraction and its distance from UTC.
_EXIF_DIRECTORY, _SOFTWARE, _USER_COMMENT = 0x8769, 0x0131, 0x9286
_ORIGINAL, _SUBSECOND, _OFFSET = 0x9003, 0x9291, 0x9011
_ASCII = b"ASCII\0\0\0"


class SpoolBusy(SourceUnavailable):
    """Another capture fills the spool: let it finish."""


@dataclass(frozen=True, slots=True)
class FrameStory:
    """What is known of a frame beside its pixels.

    `captured_at`: aware; `stream_seconds`: presentation time since the stream's first frame; `mode`: how it was
    captured; `request`: whose wish it was; `event`: number of the motion it belongs to, from 1.
    """

    camera: str
    captured_at: datetime
    stream_seconds: float | None = None
    mode: str | None = None
    request: str | None = None
    event: int | None = None

    @property
    def claims(self) -> Claims:
        """Return what the catalog is to know of it."""
        told = {"stream_seconds": self.stream_seconds, "mode": self.mode, "request": self.request, "event": self.event}
        local = self.captured_at.astimezone(UTC).replace(tzinfo=None)
        return Claims(
            captured=CaptureTime(local, 0, TimeWitness.CAMERA),
            camera=self.camera,
            extra={name: value for name, value in told.items() if value is not None},
        )


def encode_frame(
    pixels: NDArray[np.uint8], story: FrameStory, *, image_format: FrameFormat = "jpeg", quality: int = 90
) -> bytes:
    """Return BGR `pixels` (height, width, 3) as one image file that tells `story` in its EXIF."""
    at = story.captured_at.astimezone(UTC)
    text = {
        "camera": story.camera,
        "captured_at": at.isoformat(timespec="microseconds"),
        **(story.claims.extra or {}),
    }
    exif = Image.Exif()
    exif[_SOFTWARE] = "catchment"
    exif[_EXIF_DIRECTORY] = {
        _ORIGINAL: at.strftime("%Y:%m:%d %H:%M:%S"),
        _SUBSECOND: f"{at.microsecond:06}",
        _OFFSET: "+00:00",
        _USER_COMMENT: _ASCII + json.dumps(text).encode("ascii"),
    }
    encoded = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))
    options: dict[str, Any] = {"quality": quality} if image_format == "jpeg" else {"compress_level": 3}
    picture.save(encoded, image_format, exif=exif, **options)
    return encoded.getvalue()


def read_story(content: bytes) -> FrameStory | None:
    """Return the story that `encode_frame` wrote into the image file `content`, or None where there is none."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            comment = picture.getexif().get_ifd(_EXIF_DIRECTORY).get(_USER_COMMENT, b"")
        told: dict[str, Any] = json.loads(comment.removeprefix(_ASCII))
        return FrameStory(
            camera=told["camera"],
            captured_at=datetime.fromisoformat(told["captured_at"]).astimezone(UTC),
            **{name: told.get(name) for name in ("stream_seconds", "mode", "request", "event")},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError):  # of bytes that are not ours
        return None


def make_frame_key(story: FrameStory, content: bytes, image_format: FrameFormat) -> str:
    """Return `frames/{YYYY}/{MM}/{DD}/{camera}/{time}-{short hash}.{ext}`, in UTC, safe whatever the camera's name."""
    at = story.captured_at.astimezone(UTC)
    camera = make_safe_segment(story.camera.replace("/", "_"))
    if len(camera.encode()) > _LONGEST_CAMERA:
        # A hash in place of its end keeps two long names apart.
        mark = f"~{hashlib.sha256(story.camera.encode(errors='surrogatepass')).hexdigest()[:8]}"
        camera = camera.encode()[: _LONGEST_CAMERA - len(mark)].decode(errors="ignore") + mark
    short = hashlib.sha256(content).hexdigest()[:8]
    return f"frames/{at:%Y/%m/%d}/{camera}/{at:%Y%m%dT%H%M%S.%f}Z-{short}.{_SUFFIXES[image_format]}"


class FrameSpool:
    """A folder of frames; one capture at a time writes it, and whoever holds the source may read and clear it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the one capture that fills this spool; death lets go of it.

        Raises:
            SpoolBusy: another capture does.
            LibraryUnavailable, LibraryRefused: the disk does not let us.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise translate_disk(error, "the spool") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SpoolBusy("Another capture of this camera still goes on; let it finish, or stop it.") from error
            self._sweep()
            yield
        finally:
            os.close(lock)

    def put(self, content: bytes, story: FrameStory, image_format: FrameFormat = "jpeg") -> str:
        """Write a frame durably, whole or not at all, and return its key.

        Raises:
            LibraryUnavailable, LibraryRefused: the disk does not take it.
        """
        key = make_frame_key(story, content, image_format)
        path = self.folder / key
        part = path.with_name(path.name + ".part")
        try:
            self._make_folder(path.parent)
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise translate_disk(error, f"the frame {path.name}") from error
        return key

    def list_files(self) -> Listing:
        """Return every frame that lies whole in the spool, oldest first within a camera.

        Raises:
            LibraryUnavailable, LibraryRefused: the folder can not be read.
        """
        return make_listing(sorted(self._walk(), key=lambda file: file.key))

    def download(self, file: RemoteFile, destination: Path, max_bytes: int) -> Fetched:
        """Copy a frame to `destination`, through `destination.part`; it stays in the spool.

        Raises:
            SourceRefused: it is gone, or larger than `max_bytes`.
        """
        try:
            content = (self.folder / file.key).read_bytes()
        except FileNotFoundError as error:
            raise SourceRefused(f"{file.name} is no longer in the spool.", reason=Reason.NOT_FOUND) from error
        with PartFile(destination, max_bytes=max_bytes) as part:
            part.write(content)
            digest = part.commit()
        story = read_story(content)
        return Fetched(
            destination,
            len(content),
            digest,
            modified=story.captured_at if story else None,
            claims=story.claims if story else None,
        )

    def remove(self, keys: Iterable[str]) -> None:
        """Remove frames that the library has; those that are gone already are no matter.

        Raises:
            LibraryUnavailable, LibraryRefused: the disk would not let go.
        """
        try:
            for key in keys:
                (self.folder / key).unlink(missing_ok=True)
        except OSError as error:
            raise translate_disk(error, "the spool") from error

    def _walk(self) -> Iterator[RemoteFile]:
        endings = tuple(f".{suffix}" for suffix in _SUFFIXES.values())
        for folder, _, names in os.walk(self.folder / "frames", onerror=_raise_unless_gone):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    if name.endswith(endings):
                        yield RemoteFile(path.relative_to(self.folder).as_posix(), path.stat().st_size)

    def _sweep(self) -> None:
        """Remove what a killed capture left half-written, and folders of days that are done."""
        for folder, _, names in os.walk(self.folder / "frames", topdown=False):
            for name in names:
                if name.endswith(".part"):
                    with suppress(OSError):
                        Path(folder, name).unlink()
            with suppress(OSError):  # it holds frames
                Path(folder).rmdir()

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` and those above it, durably."""
        missing = [folder, *folder.parents]
        missing = missing[: missing.index(self.folder)]
        for path in reversed(missing):
            if not path.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                _sync_folder(path.parent)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise translate_disk(error, "the spool") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
