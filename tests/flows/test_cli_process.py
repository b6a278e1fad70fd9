"""The command line as a process of its own, with the server it brings: quiet, and gone when it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.flows.ingesting import Site
from tests.pictures import make_jpeg
from tests.servers import fault
from tests.servers.fault import FaultServer

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-P", "-c", "from flows.cli import main; main()"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A machine on which Prefect was never used."""
    home = tmp_path_factory.mktemp("home")
    return {**os.environ, "PREFECT_HOME": str(home), "PYTHONPATH": str(ROOT), "HOME": str(home)}


def start(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [*PROGRAM, *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def servers_of(home: str) -> list[str]:
    """Return the processes that serve Prefect out of `home`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"PREFECT_HOME={home}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if "_prefect_server" in line]


def await_no_server(home: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while servers_of(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert servers_of(home) == []


def test_a_run_without_a_server_brings_its_own_says_one_thing_and_leaves_nothing_running(
    bare_site: Site, tmp_path: Path, environment: dict[str, str]
) -> None:
    bare_site.put("a.jpg", make_jpeg(1, (160, 120)))
    process = start(tmp_path, environment, "ingest", bare_site.url)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.startswith(f"{bare_site.url}: 1 stored")
    await_no_server(environment["PREFECT_HOME"], seconds=0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_run_ends_clean_and_leaves_no_server(
    number: signal.Signals, code: int, faults: FaultServer, tmp_path: Path, environment: dict[str, str]
) -> None:
    url = faults.on("/", fault.stall())
    process = start(tmp_path, environment, "ingest", url)
    while not faults.requests_for("/") and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert err.startswith("error: interrupted") or number is signal.SIGKILL
    await_no_server(environment["PREFECT_HOME"])


def test_a_reader_that_has_seen_enough_is_no_error(
    bare_site: Site, tmp_path: Path, environment: dict[str, str]
) -> None:
    for number in range(3_000):
        bare_site.put(f"{'long-name-' * 8}{number}.jpg", b"")
    process = start(tmp_path, environment, "list", bare_site.url, "--format", "json")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait(timeout=60)) == ("", 141)
    process.stderr.close()


def test_help_imports_nothing_heavy(tmp_path: Path, environment: dict[str, str]) -> None:
    code = (
        "import sys; from flows.cli import run; run(['--help']);"
        "print('heavy:', {'prefect', 'polars', 'cv2', 'sqlalchemy', 'pydantic'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.stdout.endswith("heavy: set()\n"), ended.stdout + ended.stderr


def test_doctor_ends_in_time_though_a_source_never_answers(
    faults: FaultServer, tmp_path: Path, environment: dict[str, str]
) -> None:
    slow = faults.on("/slow/", fault.stall())
    code = (
        "from blocks.http_directory import HttpDirectory; from flows import cli_doctor;"
        "cli_doctor._SOURCE_SECONDS = 0.5;"
        f"sources = [HttpDirectory(base_url=url) for url in ({slow!r}, {faults.url + 'nothing/'!r})];"
        "print(*[(check.state, check.check) for check in cli_doctor._check_sources(sources)], sep='\\n')"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=20
    )
    assert ended.stdout.splitlines() == [f"('broken', '{faults.url}nothing/')", f"('warning', '{slow}')"], ended.stderr


def test_a_home_of_prefect_that_can_not_be_made_is_told(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "file").touch()
    ended = subprocess.run(
        [*PROGRAM, "sources"],
        cwd=tmp_path,
        env=environment | {"PREFECT_HOME": str(tmp_path / "file" / "home")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "set PREFECT_HOME" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
