"""`catchment demo` on a machine with nothing but the package."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from flows._demo_camera import draw_pictures, serve_pictures

ROOT = Path(__file__).parents[2]


def run_demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", "from flows.cli import main; main()", "demo", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "CATCHMENT_"))}
    environment = {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "HOME": str(folder / "home")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("somewhere")


@pytest.fixture(scope="module")
def finished(place: Path) -> subprocess.CompletedProcess[str]:
    return run_demo(place, "--images", "5")


def test_the_demo_stores_every_picture_and_then_finds_nothing_new(finished: subprocess.CompletedProcess[str]) -> None:
    assert (finished.returncode, finished.stderr) == (0, "")
    assert re.search(r"first pull .* 5 stored", finished.stdout)
    assert re.search(r"second pull .* nothing new among 5 listed files", finished.stdout)
    assert re.search(r"All of it took \d+ s\.", finished.stdout)


def test_the_demo_writes_into_its_own_folder_only(finished: subprocess.CompletedProcess[str], place: Path) -> None:
    assert finished.returncode == 0
    assert [entry.name for entry in place.iterdir()] == ["catchment-demo"]
    stored = sorted(path.name for path in (place / "catchment-demo" / "demo-camera").rglob("*.jpg"))
    assert stored == sorted(draw_pictures(5))


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "catchment-demo" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    finished = run_demo(tmp_path)
    assert finished.returncode == 2
    assert "no demo made" in finished.stderr
    assert mine.read_text() == "mine"


def test_pictures_are_the_same_every_time_and_all_different() -> None:
    pictures = draw_pictures(14)
    assert pictures == draw_pictures(14)
    assert len(set(pictures.values())) == 14


def test_pictures_say_when_where_and_by_which_camera_they_were_taken() -> None:
    name, content = next(iter(draw_pictures(1).items()))
    exif = Image.open(io.BytesIO(content)).getexif()
    assert name == "Aufnahme_260514_0552_WEIR2.jpg"
    assert exif.get_ifd(0x8769)[0x9003] == "2026:05:14 05:52:00"
    assert exif.get_ifd(0x8769)[0x9011] == "+02:00"
    assert exif.get_ifd(0x8825)[1] == "N"


def test_the_camera_serves_what_it_lists_and_nothing_else() -> None:
    pictures = {"a.jpg": b"one", "b.jpg": b"two"}
    with serve_pictures(pictures) as address, httpx.Client(trust_env=False) as client:
        links = re.findall('href="([^"]+)"', client.get(address).text)
        assert {link: client.get(address + link).content for link in links} == pictures
        assert client.get(address + "c.jpg").status_code == 404
