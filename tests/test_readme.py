"""The README is true: every command in it runs, in the order a reader would type them."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pictures import make_jpeg
from tests.servers._programs import require_program
from tests.servers.http_server import find_free_port, serve_http_server
from tests.servers.vendors import serve_vendors

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FENCES = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)
SHELL = [line for language, text in FENCES if language == "sh" for line in text.splitlines()]
SETUP = [line for line in SHELL if line.startswith("python3 -m venv")]
STEPS = [
    (language, step)
    for language, text in FENCES
    for step in (text.splitlines() if language == "sh" else [text])
    if step not in SETUP
]


@dataclass(frozen=True, slots=True)
class Reader:
    """Someone at a terminal, in a folder of their own, with a camera directory to take from."""

    folder: Path
    port: int
    environment: dict[str, str]
    names: dict[str, str]

    def translate(self, step: str) -> str:
        """Put what is here in place of the README's example addresses."""
        for name, here in self.names.items():
            step = step.replace(name, here)
        return step

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=200, check=False
        )


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader who has installed catchment; what runs until Ctrl-C is stopped at the end."""
    home = tmp_path_factory.mktemp("reader")
    pictures = home / "camera"
    for place in ("hameln", "garden"):
        (pictures / place).mkdir(parents=True)
        for number in range(3):
            (pictures / place / f"{place}_{number}.jpg").write_bytes(make_jpeg(number))
    programs = home / "bin"
    programs.mkdir()
    for name, module in {"catchment": "flows.cli:main", "prefect": "prefect.cli:app"}.items():
        code = f"from {module.replace(':', ' import ')} as main; main()"
        script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n'
        (programs / name).write_text(script)
    # Not a link: Python looks for its virtual environment beside the name it was called by.
    (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(home),
        "PREFECT_HOME": str(home / ".prefect"),
        "PYTHONPATH": str(ROOT),
        "CAMERA_PASSWORD": "wrong but unasked for",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    for number, name in enumerate(("before", "after")):
        (home / f"{name}.jpg").write_bytes(make_jpeg(30 + number))
    downloads = home / "downloads" / "gates"
    downloads.mkdir(parents=True)
    (downloads / "20250901T100000_in_gate.jpg").write_bytes(make_jpeg(40))
    with serve_http_server(pictures) as server, serve_vendors(home) as vendors:
        port = find_free_port()
        names = {"https://cameras.example.org/": server.url, ":4200": f":{port}", "/srv/pitwall": str(home)}
        yield Reader(home, port, environment | vendors.environment, vendors.names | names)
    for pid in (int(path.read_text()) for path in home.glob("*.pid")):
        os.kill(pid, signal.SIGINT)
        _wait_for_end(pid)


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return
        time.sleep(0.1)
    pytest.fail("catchment up did not stop on Ctrl-C")


def _start_up(reader: Reader) -> None:
    """Run `catchment up` beside us until it says where the UI is; every later command talks to its server."""
    log = reader.folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["catchment", "up", "--port", str(reader.port)],
            cwd=reader.folder,
            env=reader.environment,
            executable=str(reader.folder / "bin" / "catchment"),
            stdout=output,
            stderr=output,
        )
    (reader.folder / "up.pid").write_text(str(process.pid))
    deadline = time.monotonic() + 180
    while "Ctrl-C" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    process.returncode = 0  # it is waited for by its pid at the end of the module
    reader.environment["PREFECT_API_URL"] = f"http://127.0.0.1:{reader.port}/api"


@pytest.mark.parametrize(("language", "step"), STEPS, ids=[step.strip().splitlines()[0][:60] for _, step in STEPS])
def test_every_command_of_the_readme_runs(reader: Reader, language: str, step: str) -> None:
    if step == "catchment up":
        _start_up(reader)
        return
    if step.startswith("curl"):
        require_program("curl")
    command = ["python", "-c", step] if language == "python" else ["sh", "-c", step]
    done = reader.run([reader.translate(part) for part in command])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert '"detail"' not in done.stdout, "Prefect's API refused the call"


def test_the_two_commands_of_the_first_screen_are_what_the_projects_check_runs() -> None:
    first_screen = README.split("\n## ")[0]
    assert len(SETUP) == 2
    assert all(command in first_screen for command in SETUP)
    check = (ROOT / ".ci" / "run").read_text()
    assert "grep '^python3 -m venv' README.md" in check


def test_what_the_readme_points_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
