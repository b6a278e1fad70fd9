"""Frames wait on disk whole, tell their own story, and stay inside their folder whatever the camera is called."""

import io
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from blocks._errors import LibraryRefused, LibraryUnavailable, Reason, SourceRefused
from blocks._frame_spool import (
    FrameFormat,
    FrameSpool,
    FrameStory,
    SpoolBusy,
    encode_frame,
    make_frame_key,
    read_story,
)
from blocks._layout import render_layout
from blocks._records import CaptureTime, RemoteFile, TimeWitness, is_safe_key, iter_files
from tasks._image import inspect_image
from tests.pictures import draw_picture

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 11, 20, 14, 5, 9, 120_003, tzinfo=UTC)
STORY = FrameStory("pit-1", AT, stream_seconds=12.5, mode="continuous", request="r-1", event=None)
PIXELS = np.ascontiguousarray(np.asarray(draw_picture(3, (160, 120)))[:, :, ::-1])


def spool_of(folder: Path, *stories: FrameStory) -> tuple[FrameSpool, list[str]]:
    spool = FrameSpool(folder)
    return spool, [spool.put(encode_frame(PIXELS, story), story) for story in stories]


def story_at(seconds: float, camera: str = "pit-1") -> FrameStory:
    return FrameStory(camera, AT + timedelta(seconds=seconds))


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_a_frame_carries_its_time_camera_and_request_itself(image_format: FrameFormat) -> None:
    content = encode_frame(PIXELS, STORY, image_format=image_format)
    assert read_story(content) == STORY
    exif = Image.open(io.BytesIO(content)).getexif().get_ifd(ExifTags.IFD.Exif)
    assert exif[ExifTags.Base.DateTimeOriginal] == "2026:11:20 14:05:09"
    assert exif[ExifTags.Base.SubsecTimeOriginal] == "120003"
    assert exif[ExifTags.Base.OffsetTimeOriginal] == "+00:00"


def test_the_bytes_alone_tell_when_a_frame_was_taken() -> None:
    content = encode_frame(PIXELS, STORY)
    facts = inspect_image(content, key="copied-elsewhere.jpg", sha256="0" * 64, modified=None, arrived=AT).facts
    assert facts.captured == CaptureTime(AT.replace(tzinfo=None), 0, TimeWitness.EXIF)


def test_a_time_in_another_zone_is_kept_as_the_same_instant() -> None:
    there = FrameStory("gate", AT.astimezone(timezone(timedelta(hours=9))))
    kept = read_story(encode_frame(PIXELS, there))
    assert kept is not None
    assert (kept.captured_at, kept.captured_at.tzinfo) == (AT, UTC)


def test_png_frames_keep_every_pixel() -> None:
    kept = np.asarray(Image.open(io.BytesIO(encode_frame(PIXELS, STORY, image_format="png"))))
    assert np.array_equal(kept[:, :, ::-1], PIXELS)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"no image", encode_frame(PIXELS, STORY)[:300]])
def test_what_is_no_frame_of_ours_tells_no_story(content: bytes) -> None:
    assert read_story(content) is None


def test_a_picture_that_was_put_there_by_hand_tells_no_story() -> None:
    plain = io.BytesIO()
    draw_picture(1, (64, 48)).save(plain, "JPEG")
    assert read_story(plain.getvalue()) is None


def test_a_frame_comes_out_of_the_spool_as_it_went_in_with_what_is_claimed_of_it(tmp_path: Path) -> None:
    spool, [key] = spool_of(tmp_path / "spool", STORY)
    [listed] = iter_files(spool.list_files())
    fetched = spool.download(listed, tmp_path / "staged", 10_000_000)
    assert fetched.path.read_bytes() == (tmp_path / "spool" / key).read_bytes() == encode_frame(PIXELS, STORY)
    assert (fetched.size, listed.size, fetched.modified) == (len(encode_frame(PIXELS, STORY)),) * 2 + (AT,)
    assert fetched.claims is not None
    assert fetched.claims.captured == CaptureTime(AT.replace(tzinfo=None), 0, TimeWitness.CAMERA)
    assert fetched.claims.camera == "pit-1"
    assert fetched.claims.extra == {"stream_seconds": 12.5, "mode": "continuous", "request": "r-1"}


def test_frames_are_listed_oldest_first_and_stay_until_they_are_removed(tmp_path: Path) -> None:
    spool, keys = spool_of(tmp_path, story_at(3), story_at(1), story_at(2))
    assert list(spool.list_files()["key"]) == [keys[1], keys[2], keys[0]]
    spool.remove([keys[1], keys[1], "frames/2026/11/20/pit-1/never-there.jpg"])
    assert list(spool.list_files()["key"]) == [keys[2], keys[0]]


def test_a_key_says_day_camera_time_and_content(tmp_path: Path) -> None:
    _, [key] = spool_of(tmp_path, STORY)
    folder, _, name = key.rpartition("/")
    assert folder == "frames/2026/11/20/pit-1"
    assert name.startswith("20261120T140509.120003Z-")
    assert len(name) == len("20261120T140509.120003Z-1a2b3c4d.jpg")


def test_two_frames_of_one_moment_lie_beside_each_other(tmp_path: Path) -> None:
    spool = FrameSpool(tmp_path)
    keys = {spool.put(encode_frame(np.full((48, 64, 3), shade, np.uint8), STORY), STORY) for shade in (40, 90)}
    assert len(keys) == 2


HOSTILE = [
    "../../etc",
    "..",
    ".",
    "",
    "/",
    "a\0b",
    "x" * 300,
    "ü" * 300,
    "CON",
    "a/b\\c",
    "\ud800",
    " . ",
    "~",
    "\u202e",
]


@pytest.mark.parametrize("camera", HOSTILE)
def test_a_hostile_camera_name_stays_inside_its_prefix(camera: str, tmp_path: Path) -> None:
    story = FrameStory(camera, AT)
    spool, [key] = spool_of(tmp_path / "spool", story)
    assert (tmp_path / "spool" / key).resolve().is_relative_to((tmp_path / "spool/frames/2026/11/20").resolve())
    assert list(spool.list_files()["key"]) == [key]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "spool" / key]


@given(st.text(max_size=400))
def test_every_camera_name_gives_a_key_of_its_day_that_any_library_takes_as_it_is(camera: str) -> None:
    story = FrameStory(camera, AT)
    key = make_frame_key(story, b"content", "jpeg")
    assert is_safe_key(key)
    assert key.startswith("frames/2026/11/20/")
    assert key.count("/") == 5
    assert len(key.encode()) <= 200
    name = key.rpartition("/")[2]
    asked = {"source": "s", "key": key, "name": name, "captured": AT, "camera": camera, "sha256": "0" * 64}
    assert render_layout("{key}", **asked, format="jpeg") == key  # type: ignore[arg-type] # of the mixed values


def test_two_long_names_that_begin_alike_have_folders_of_their_own() -> None:
    keys = {make_frame_key(FrameStory("x" * 200 + end, AT), b"", "jpeg") for end in "ab"}
    assert len({key.rpartition("/")[0] for key in keys}) == 2


def test_one_capture_at_a_time_fills_a_spool_and_the_next_one_may_when_it_is_done(tmp_path: Path) -> None:
    first, second = FrameSpool(tmp_path), FrameSpool(tmp_path)
    with first.held(), pytest.raises(SpoolBusy, match="Another capture"), second.held():
        pass
    with second.held():
        pass


def test_a_killed_capture_lets_go_and_what_it_left_half_written_is_swept(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path; from blocks._frame_spool import FrameSpool\n"
        "with FrameSpool(Path(sys.argv[1])).held(): print('held', flush=True); signal.pause()"
    )
    spool, [key] = spool_of(tmp_path, STORY)
    (tmp_path / key).with_suffix(".jpg.part").write_bytes(b"half")
    (tmp_path / "frames/2026/11/19/pit-1").mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(SpoolBusy), spool.held():
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
    (tmp_path / key).with_suffix(".jpg.part").write_bytes(b"half")
    with spool.held():
        assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".lock", key.rpartition("/")[2]]
        assert not (tmp_path / "frames/2026/11/19").exists()


def test_a_half_written_frame_is_no_frame(tmp_path: Path) -> None:
    spool, [key] = spool_of(tmp_path, STORY)
    (tmp_path / key).rename(tmp_path / f"{key}.part")
    assert spool.list_files().is_empty()


def test_a_frame_that_is_gone_or_too_large_costs_only_itself(tmp_path: Path) -> None:
    spool, [key] = spool_of(tmp_path / "spool", STORY)
    with pytest.raises(SourceRefused) as refused:
        spool.download(RemoteFile(key), tmp_path / "staged", 100)
    assert refused.value.reason is Reason.TOO_LARGE
    spool.remove([key])
    with pytest.raises(SourceRefused) as gone:
        spool.download(RemoteFile(key), tmp_path / "staged", 100_000)
    assert gone.value.reason is Reason.NOT_FOUND


def test_an_empty_or_missing_spool_holds_no_frames(tmp_path: Path) -> None:
    assert FrameSpool(tmp_path).list_files().is_empty()
    assert FrameSpool(tmp_path / "never").list_files().is_empty()


def test_a_disk_that_takes_no_frame_is_told_as_the_librarys(tmp_path: Path) -> None:
    (tmp_path / "frames").write_bytes(b"a file stands in the way")
    with pytest.raises((LibraryRefused, LibraryUnavailable)):
        FrameSpool(tmp_path).put(encode_frame(PIXELS, STORY), STORY)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told_as_the_librarys(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LibraryRefused), FrameSpool(tmp_path / "spool").held():
        pass
