"""The command line as a person or a script meets it: exit codes, lines on stderr, tables and JSON."""

import io
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from blocks.library import ImageLibrary
from flows._table import print_rows, show
from flows.cli import explain, needs_api
from tests.flows.commands import Command
from tests.flows.ingesting import Site
from tests.pictures import HTML_PAGE, make_jpeg
from tests.servers import fault
from tests.servers.fault import FaultServer

CANARY = "canary-in-a-cage"


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["list"],
        ["images", "--nonsense"],
        ["ingest", ".", "--dry-run", "--max-files", "0"],
        ["ingest", ".", "--dry-run", "--recurse", "-1"],
        ["list", "gopher://127.0.0.1/"],
        ["list", "https:///nothing"],
        ["list", "no-such-folder"],
        ["list", "name\0with-nul"],
        ["images"],
        ["images", "--library", "nowhere"],
        ["image", "abcd", "--library", "filled"],
        ["image", "x", "--library", "filled"],
        ["status", "77", "--library", "filled"],
        ["runs", "--source", "nobody", "--library", "filled"],
        ["runs", "--status", "nonsense", "--library", "filled"],
        ["images", "--since", "yesterday", "--library", "filled"],
        ["retry", "--reason", "nonsense", "--library", "filled"],
        ["verify", "--library", "a-file"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2_and_a_line_that_says_so(
    arguments: list[str], catchment: Command, tmp_path: Path
) -> None:
    ImageLibrary(folder=tmp_path / "filled").catalog()
    (tmp_path / "a-file").write_text("in the way")
    said = catchment(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) <= 2


def test_credentials_in_an_address_are_refused_and_not_repeated(catchment: Command) -> None:
    for scheme in ("https", "sftp", "webdavs"):
        said = catchment("list", f"{scheme}://me:{CANARY}@127.0.0.1/")
        assert said.code == 2
        assert "catchment sources add" in said.err
        assert CANARY not in said.out + said.err


def test_a_source_that_does_not_answer_ends_with_1(catchment: Command, bare_site: Site) -> None:
    said = catchment("list", f"{bare_site.url}nowhere/")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: ")


def test_list_shows_what_a_source_holds_with_exactly_these_columns(catchment: Command, site: Site) -> None:
    site.put("a b.jpg", b"x" * 10)
    said = catchment("list", site.url, "--format", "json")
    assert said.code == 0
    [row] = said.rows
    assert list(row) == ["key", "size", "modified", "validator"]
    assert row["key"] == "a b.jpg"


def test_a_dry_run_shows_the_plan_and_touches_nothing(catchment: Command, site: Site, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        site.put(name, b"x")
    said = catchment("ingest", site.url, "--dry-run", "--max-files", "2", "--format", "json")
    assert said.code == 0
    assert [(row["decision"], row["key"]) for row in said.rows] == [
        ("new", "a.jpg"),
        ("new", "b.jpg"),
        ("deferred", "c.jpg"),
    ]
    assert list(said.rows[0]) == ["decision", "key", "size", "modified"]
    assert list(tmp_path.iterdir()) == []
    assert [path for path in site.requests() if path] == []


@pytest.mark.usefixtures("with_api")
def test_from_a_folder_to_the_catalog_and_back(catchment: Command, tmp_path: Path) -> None:
    place = tmp_path / "card"
    place.mkdir()
    for number in range(3):
        (place / f"Aufnahme_25060{number + 1}_0630_CAM{number % 2}.jpg").write_bytes(make_jpeg(number, (160, 120)))
    (place / "broken.jpg").write_bytes(HTML_PAGE)
    for path in place.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))

    said = catchment("ingest", place)
    assert (said.code, said.err) == (0, "")
    assert "3 stored, 1 quarantined" in said.out
    assert "broken.jpg" in said.out

    [report] = catchment("ingest", place, "--format", "json").rows
    assert (report["stored"], report["duplicate"]) == (0, 0)

    images = catchment("images", "--format", "json").rows
    assert [row["captured_at"][:10] for row in images] == ["2025-06-03", "2025-06-02", "2025-06-01"]
    assert {
        "sha256", "source", "key", "size", "width", "height", "format", "captured_at", "captured_at_source", "camera",
        "latitude", "longitude", "perceptual_hash", "stored_at",
    } <= set(images[0])  # fmt: skip
    assert [row["camera"] for row in catchment("images", "--camera", "CAM1", "--format", "json").rows] == ["CAM1"]
    inside = catchment("images", "--since", "2025-06-02", "--until", "2025-06-02", "--format", "json").rows
    assert [row["captured_at"][:10] for row in inside] == ["2025-06-02"]
    assert len(catchment("images", "--limit", "1", "--format", "json").rows) == 1
    [file] = catchment("images", "--status", "quarantined", "--format", "json").rows
    assert (file["key"], file["reason"]) == ("broken.jpg", "html_page")

    [known] = catchment("image", images[0]["sha256"][:12], "--format", "json").rows
    assert known["sha256"] == images[0]["sha256"]
    assert [attempt["verdict"] for attempt in known["attempts"]] == ["stored"]
    assert images[0]["sha256"] in catchment("image", images[0]["sha256"][:12]).out

    newest, first = catchment("runs", "--format", "json").rows
    assert newest["run_id"] > first["run_id"]
    assert first["planned"] == first["stored"] + first["duplicate"] + first["quarantined"] + first["failed"] == 4
    assert {"source", "status", "deferred", "bytes", "seconds", "started_at"} <= set(first)
    [known] = catchment("status", first["run_id"], "--format", "json").rows
    assert (known["state"], len(known["files"])) == ("partial", 4)
    assert "1 files" in catchment("retry", "--reason", "html_page").out

    assert catchment("verify").code == 0
    next((tmp_path / "library").rglob("*CAM1.jpg")).unlink()
    assert catchment("verify").code == 1
    [finding] = catchment("verify", "--repair", "--format", "json").rows
    assert finding["problem"] == "missing"
    assert catchment("ingest", place).code == 0
    assert (catchment("verify").code, len(catchment("images", "--format", "json").rows)) == (0, 3)

    strict = tmp_path / "other"
    said = catchment("ingest", place, "--strict", "--library", strict)
    assert said.code == 1
    assert said.err.startswith("error: ")


@pytest.mark.usefixtures("with_api")
def test_a_source_is_saved_shown_paused_resumed_and_removed_and_its_secret_never_shown(
    catchment: Command, site: Site, tmp_path: Path
) -> None:
    site.put("a.jpg", make_jpeg(7, (160, 120)))
    secret = tmp_path / "password"
    secret.write_text(f"{CANARY}\n")
    name = "http-directory/cli-garden"
    login = ["--auth-type", "basic", "--auth-username", "me", "--auth-password-file", secret]
    heard = [catchment("sources", "add", "http-directory", "cli-garden", "--base-url", site.url, *login)]
    assert heard[0].code == 0, heard[0].err
    heard.append(catchment("sources", "add", "http-directory", "cli-garden", "--base-url", site.url))
    assert heard[-1].code == 2
    assert "--overwrite" in heard[-1].err
    heard.append(catchment("sources", "show", name))
    assert "********" in heard[-1].out

    heard.append(catchment("sources", "pause", name))
    paused = catchment("ingest", name)
    assert (paused.code, paused.out) == (0, "")
    assert "paused" in paused.err
    heard.append(catchment("sources", "resume", name))
    stored = catchment("ingest", name)
    assert "1 stored" in stored.out, "the secret is still there after pause and resume"
    [row] = [row for row in catchment("sources", "--format", "json").rows if row["source"] == name]
    assert (row["active"], row["last_status"], row["last_pulled_filename"]) == (True, "success", "a.jpg")
    assert (row["stored"], row["failed"], row["vanished"], row["last_pull_timestamp"] is None) == (1, 0, 0, False)
    heard += [paused, stored, catchment("sources"), catchment("ingest-all"), catchment("doctor", "--format", "json")]
    assert {row["state"] for row in heard[-1].rows if row["check"] == name} == {"ok"}
    assert heard[-1].code == 0

    assert catchment("sources", "remove", name).code == 2
    assert catchment("sources", "remove", name, "--yes").code == 0
    [row] = [row for row in catchment("sources", "--format", "json").rows if row["source"] == name]
    assert (row["active"], row["message"], row["last_pulled_filename"]) == (None, "not saved", "a.jpg")
    assert catchment("ingest", name).code == 2
    assert len(catchment("images", "--format", "json").rows) == 1
    assert CANARY not in "".join(said.out + said.err for said in heard)


@pytest.mark.usefixtures("with_api")
def test_a_configured_api_that_does_not_answer_is_told_in_a_line(
    catchment: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        said = catchment("sources")
    assert said.code == 1
    assert "does not answer" in said.err


@pytest.mark.usefixtures("with_api")
def test_an_api_that_answers_no_is_told_in_a_line(
    catchment: Command, faults: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    api_url = faults.on("/api/health", fault.status(200)).removesuffix("/health")
    faults.on("/api/block_types/slug/http-directory/block_documents", *[fault.status(403, CANARY.encode())] * 9)
    monkeypatch.setenv("PREFECT_API_URL", api_url)
    with temporary_settings({PREFECT_API_URL: api_url}):
        said = catchment("sources")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: Prefect's API answered 403: check PREFECT_API_URL")
    assert len(said.err.splitlines()) == 1
    assert CANARY not in said.err


@pytest.mark.skipif(find_spec("socksio") is not None, reason="with socksio installed, httpx can use SOCKS proxies")
def test_a_proxy_that_takes_a_further_package_is_told_in_a_line(
    catchment: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    said = catchment("list", "http://cameras.example.org/")
    assert (said.code, said.out) == (1, "")
    assert "pip install 'httpx[socks]'" in said.err


@pytest.mark.usefixtures("with_api")
def test_an_input_that_ends_at_a_question_changes_nothing(catchment: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catchment("sources", "add", "http-directory", "kept", "--base-url", "http://127.0.0.1/").code == 0
    terminal, stdin = os.openpty()
    os.write(terminal, b"\x04")  # Ctrl-D
    with os.fdopen(stdin) as keyboard, os.fdopen(terminal):
        monkeypatch.setattr("sys.stdin", keyboard)
        said = catchment("sources", "remove", "http-directory/kept")
    assert (said.code, said.err.startswith("error: the input ended")) == (2, True)
    assert catchment("sources", "remove", "http-directory/kept", "--yes").code == 0


def test_an_unexpected_error_is_named_and_never_quoted() -> None:
    assert explain(ZeroDivisionError(CANARY)) == (
        "unexpected ZeroDivisionError; CATCHMENT_DEBUG=1 before the command shows where it came from"
    )


def test_only_commands_that_need_prefect_start_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "card-one" / "dcim").mkdir(parents=True)
    served = ["ingest .", "ingest-all", "sources", "doctor", "list http-directory/a", "runs --library=image-library/b",
              "list https://drive.google.com/drive/folders/1 --recurse 2"]  # fmt: skip
    alone = ["", "--help", "ingest --help", "images", "runs --library x", "list https://h/x/", "verify", "demo", "up",
             "list card-one/dcim", "ingest . --dry-run"]  # fmt: skip
    assert [line for line in served if not needs_api(line.split())] == []
    assert [line for line in alone if needs_api(line.split())] == []


def test_tables_cut_no_value_and_let_no_name_steer_the_terminal() -> None:
    out = io.StringIO()
    long = "folder/" * 60 + "name.jpg"
    assert print_rows(({"key": key} for key in (long, "\x1b[2J\nx.jpg")), ["key"], out=out) == 2
    assert out.getvalue().splitlines() == ["KEY", long, r"\x1b[2J\nx.jpg"]
    assert show("Grüße 鳥.jpg") == "Grüße 鳥.jpg"


def test_a_number_out_of_bounds_is_refused_in_plain_words(catchment: Command) -> None:
    said = catchment("ingest", "http://127.0.0.1:1/", "--max-files", "0")
    assert said.code == 2
    assert "greater than or equal to 1" in said.err
    assert "validation error" not in said.err
    assert "type=" not in said.err
