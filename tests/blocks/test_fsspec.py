import hashlib
import io
import pickle
import tarfile
import traceback
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from prefect.client.orchestration import get_client
from prefect.types import SecretDict
from pydantic import SecretStr, ValidationError

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._fsspec import FsspecRemote, find_driver_schemes, parse_time
from blocks._records import RemoteFile, iter_files
from blocks.remote_folder import RemoteFolder

CANARY = "c4n4ry"
OLD = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
NAMES = ["a.jpg", "deep/b c.JPG", "deep/er/ü#1%20?.png", "deep/er/[x]*~1::2.jpg"]
LEFT = ["notes.txt", ".hidden.jpg", "half.jpg.part", ".stfolder/c.jpg"]
FILES = {name: name.encode() * 50_000 for name in NAMES} | dict.fromkeys(LEFT, b"left")


class Shelf(fsspec.AbstractFileSystem):  # type: ignore[misc] # fsspec is untyped
    """A driver as vendors write them: `folders` are its answers, an exception among them is raised."""

    protocol = "shelf"

    def __init__(self, folders: dict[str, Any], token: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.folders, self.token = folders, token

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[dict[str, Any]]:
        answer = self.folders.get(path.strip("/"), FileNotFoundError(path))
        if isinstance(answer, Exception):
            raise answer
        return list(answer)


fsspec.register_implementation("shelf", f"{__name__}:Shelf", clobber=True)
fsspec.register_implementation("nowhere", "no_such_driver.spec.Driver", clobber=True, errtxt=CANARY)


def shelf(folders: dict[str, Any], **fields: Any) -> RemoteFolder:
    options = SecretDict({"folders": folders, "token": CANARY})
    return RemoteFolder(url="shelf://cam", options=options, settle_seconds=0, **fields)


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """An empty store in memory, which fsspec keeps one of a process."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield MemoryFileSystem()
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(params=["memory", "zip", "tar"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a folder `cam` that holds `FILES`, beside one that holds none of them."""
    files = {f"cam/{name}": content for name, content in FILES.items()} | {"camera/outside.jpg": b"outside"}
    archive = tmp_path / f"of cards.{request.param}"
    if request.param == "memory":
        memory: MemoryFileSystem = request.getfixturevalue("memory")
        memory.pipe({f"/{name}": content for name, content in files.items()})
        return "memory://cam"
    if request.param == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name, content in files.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(archive, "w") as tape:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(content), int(OLD.timestamp())
                tape.addfile(member, io.BytesIO(content))
    return f"{request.param}://cam::{archive}"


def test_every_image_is_listed_and_comes_whole(url: str, tmp_path: Path) -> None:
    source = RemoteFolder(url=url, settle_seconds=0.05)
    with source.connected():
        files = {file.key: file for file in iter_files(source.list_files())}
        assert sorted(files) == sorted(NAMES)
        for name, file in files.items():
            assert file.size == len(FILES[name])
            assert file.modified == (OLD if url.startswith("tar") else None)
            fetched = source.download(file, tmp_path / "staging" / "one.jpg")
            assert fetched.path.read_bytes() == FILES[name]
            assert (fetched.size, fetched.sha256) == (file.size, hashlib.sha256(FILES[name]).hexdigest())
    assert [path.name for path in (tmp_path / "staging").iterdir()] == ["one.jpg"]


def test_threads_share_no_connection(url: str, tmp_path: Path) -> None:
    source = RemoteFolder(url=url, settle_seconds=0)
    # fsspec's memory driver gives all readers of one file the same open file; others open one each
    readers = 1 if url.startswith("memory") else 4
    files = list(iter_files(source.list_files())) * readers

    def fetch(numbered: tuple[int, RemoteFile]) -> bool:
        number, file = numbered
        return source.download(file, tmp_path / f"{number}.jpg").path.read_bytes() == FILES[file.key]

    with source.connected(), ThreadPoolExecutor(4) as threads:
        assert all(threads.map(fetch, enumerate(files)))


@pytest.mark.parametrize(("depth", "count"), [(0, 1), (1, 2), (2, 4)])
def test_the_depth_is_kept(url: str, depth: int, count: int) -> None:
    assert RemoteFolder(url=url, settle_seconds=0, recurse_depth=depth).list_files().height == count


@pytest.mark.parametrize("folder", ["none", "cam/a.jpg"])
def test_a_folder_that_is_not_there_is_refused(url: str, folder: str) -> None:
    with pytest.raises(SourceRefused) as refusal:
        RemoteFolder(url=url.replace("://cam", f"://{folder}")).list_files()
    assert refusal.value.reason is Reason.NOT_FOUND


def test_a_source_that_was_emptied_is_refused(memory: MemoryFileSystem) -> None:
    memory.mkdir("/cam")
    with pytest.raises(SourceRefused, match="holds nothing") as refusal:
        RemoteFolder(url="memory://cam").list_files()
    assert refusal.value.reason is Reason.NOT_FOUND


def test_an_archive_that_is_gone_or_none_is_an_answer(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="There is no zip://") as refusal:
        RemoteFolder(url=f"zip://::{tmp_path}/gone.zip").list_files()
    assert refusal.value.reason is Reason.NOT_FOUND
    (tmp_path / "half.zip").write_bytes(b"PK\3\4 not yet")
    with pytest.raises(SourceUnavailable, match="BadZipFile"):
        RemoteFolder(url=f"zip://::{tmp_path}/half.zip").list_files()


def test_a_name_that_is_no_utf_8_is_listed_and_fetched(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tape:
        member = tarfile.TarInfo(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
        member.size = 6
        tape.addfile(member, io.BytesIO(b"coffee"))
    source = RemoteFolder(url=f"tar://::{tmp_path}/a.tar", settle_seconds=0)
    [file] = iter_files(source.list_files())
    assert (file.key, file.locator) == ("café.jpg", "caf%E9.jpg")
    assert source.download(file, tmp_path / "a.jpg").size == 6


def test_a_file_that_went_after_it_was_listed_is_an_answer(memory: MemoryFileSystem, tmp_path: Path) -> None:
    memory.pipe({"/cam/a.jpg": b"one", "/cam/b.jpg": b"two"})
    source = RemoteFolder(url="memory://cam", settle_seconds=0)
    file = next(iter_files(source.list_files()))
    memory.rm("/cam/a.jpg")
    with pytest.raises(SourceRefused) as refusal:
        source.download(file, tmp_path / "a.jpg")
    assert refusal.value.reason is Reason.NOT_FOUND
    assert list(tmp_path.iterdir()) == []


def test_a_file_written_to_while_it_is_read_is_not_taken(memory: MemoryFileSystem) -> None:
    memory.pipe("/cam/a.jpg", b"one")
    remote = FsspecRemote("memory://cam", {})
    with pytest.raises(SourceUnavailable) as refusal:
        remote.read(RemoteFile("a.jpg"), lambda chunk: memory.pipe("/cam/a.jpg", chunk + b"more"))
    assert refusal.value.reason is Reason.CHANGED_MIDWAY


def test_a_file_too_large_is_refused_and_leaves_nothing(url: str, tmp_path: Path) -> None:
    source = RemoteFolder(url=url, max_file_bytes=50_000)
    with pytest.raises(SourceRefused) as refusal:
        source.download(RemoteFile("a.jpg"), tmp_path / "staging" / "a.jpg")
    assert refusal.value.reason is Reason.TOO_LARGE
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.parametrize("key", ["../camera/outside.jpg", "deep/../../camera/outside.jpg", "/camera/outside.jpg"])
def test_nothing_outside_the_folder_is_read(url: str, tmp_path: Path, key: str) -> None:
    for file in (RemoteFile(key), RemoteFile("a.jpg", locator=key)):
        with pytest.raises(SourceRefused, match="does not lie within"):
            RemoteFolder(url=url).download(file, tmp_path / "a.jpg")


def test_nothing_outside_the_folder_is_listed() -> None:
    names = ["cam/in.jpg", "cam/../up.jpg", "cam/..", "camera/x.jpg", "other.jpg", "cam/sub/deeper.jpg", "cam/n\0.jpg"]
    found = [{"name": name, "type": "file", "size": 1} for name in names]
    kinds = [{"name": f"cam/{kind}.jpg", "type": kind, "size": 1} for kind in ("link", "other")]
    itself = {"name": "cam/", "type": "file", "size": 0}
    assert shelf({"cam": [itself, *found, *kinds]}).list_files()["key"].to_list() == ["in.jpg"]


def test_only_what_the_driver_tells_beyond_doubt_is_a_fact() -> None:
    facts: list[dict[str, Any]] = [
        {"size": 7, "mtime": OLD.timestamp(), "etag": '"x"'},
        {"size": 7, "last_modified": OLD.astimezone(timezone(timedelta(hours=2))), "generation": 17},
        {"size": None, "LastModified": OLD.replace(tzinfo=None), "mtime": 0, "etag": None, "ukey": b"?"},
        {"size": -1, "modified": "2025-03-04", "mtime": OLD.timestamp() * 1000, "created": OLD},
    ]
    found = [{"name": f"cam/{number}.jpg", "type": "file"} | told for number, told in enumerate(facts)]
    files = iter_files(shelf({"cam": found}).list_files())
    assert [(file.size, file.modified, file.validator) for file in files] == [
        (7, OLD, '"x"'),
        (7, OLD, "17"),
        (None, None, None),
        (None, None, None),
    ]


@pytest.mark.parametrize("value", [None, "2025", float("nan"), float("inf"), 10**400, -1.0, datetime(2025, 3, 4)])  # noqa: DTZ001 - naive on purpose
def test_what_is_no_moment_is_unknown(value: object) -> None:
    assert parse_time(value) is None


def test_a_folder_that_went_after_its_parent_was_listed_is_empty(memory: MemoryFileSystem) -> None:
    memory.pipe({"/cam/a.jpg": b"one", "/cam/deep/b.jpg": b"two"})
    walk = FsspecRemote("memory://cam", {}).walk(None)
    assert next(walk).key == "a.jpg"
    memory.rm("/cam/deep", recursive=True)
    assert list(walk) == []


def test_a_folder_of_which_a_file_went_while_it_was_listed_is_not_taken_for_empty() -> None:
    deep = {"name": "cam/deep", "type": "directory", "size": 0}
    with pytest.raises(SourceUnavailable) as refusal:
        shelf({"cam": [deep], "cam/deep": FileNotFoundError()}).list_files()
    assert refusal.value.reason is Reason.CHANGED_MIDWAY


class VendorError(Exception):
    """What only its vendor's library knows, with the HTTP status it came of."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__(f"GET https://vendor.example/?token={CANARY} failed")
        self.status_code = status


def make_wrapped_error() -> ValueError:
    error = ValueError(CANARY)
    error.__cause__ = ConnectionRefusedError(CANARY)
    return error


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (PermissionError(13, CANARY), SourceRefused, Reason.FORBIDDEN),
        (OSError(2, CANARY), SourceRefused, Reason.NOT_FOUND),
        (OSError(5, CANARY), SourceUnavailable, Reason.CONNECTION),
        (ConnectionResetError(CANARY), SourceUnavailable, Reason.CONNECTION),
        (TimeoutError(CANARY), SourceUnavailable, Reason.TIMEOUT),
        (ValueError(CANARY), SourceRefused, Reason.REFUSED),
        (make_wrapped_error(), SourceUnavailable, Reason.CONNECTION),
        (VendorError(), SourceUnavailable, Reason.CONNECTION),
        (VendorError(401), SourceRefused, Reason.UNAUTHORIZED),
        (VendorError(403), SourceRefused, Reason.FORBIDDEN),
        (VendorError(404), SourceRefused, Reason.NOT_FOUND),
        (VendorError(418), SourceRefused, Reason.REFUSED),
        (VendorError(429), SourceUnavailable, Reason.RATE_LIMITED),
        (VendorError(503), SourceUnavailable, Reason.SERVER_ERROR),
    ],
    ids=repr,
)
def test_what_a_driver_raises_is_told_in_our_words_and_without_its_secrets(
    error: Exception, kind: type[CatchmentError], reason: Reason
) -> None:
    with pytest.raises(kind) as refusal:
        shelf({"cam": error}).list_files()
    assert refusal.value.reason is reason
    assert CANARY not in "".join(traceback.format_exception(refusal.value))


def test_secrets_are_shown_to_nobody() -> None:
    source = RemoteFolder(
        url="shelf://cam", username="me", password=SecretStr(CANARY), options=SecretDict({CANARY: CANARY})
    )
    with pytest.raises(SourceRefused, match="check url and options") as refusal:
        source.list_files()
    told = traceback.format_exception(refusal.value)
    for text in (*told, repr(source), str(source), source.model_dump_json(), source.root, source.source_name):
        assert CANARY not in text
    with pytest.raises(ValidationError) as wrong:
        RemoteFolder(url="shelf://cam", options=CANARY)
    assert CANARY not in str(wrong.value)


def test_login_and_options_reach_the_driver_and_a_pickled_block_keeps_them(memory: MemoryFileSystem) -> None:
    memory.pipe("/cam/a.jpg", b"one")
    source = RemoteFolder(
        url="memory://cam", username="me", password=SecretStr("word"), options=SecretDict({"token": "t"})
    )
    for block in (source, pickle.loads(pickle.dumps(source))):
        with block._pool.use(block._connect) as remote:
            assert isinstance(remote, FsspecRemote)
            given = remote._driver.storage_options
        assert given == {"username": "me", "password": "word", "token": "t", "use_listings_cache": False}


@pytest.mark.parametrize(
    ("scheme", "package"),
    [("gs", "'fsspec[gs]'"), ("smb", "'fsspec[smb]'"), ("oss", "ossfs"), ("nowhere", "no-such-driver")],
)
def test_a_driver_that_is_not_installed_is_named(scheme: str, package: str) -> None:
    with pytest.raises(SourceRefused) as refusal:
        RemoteFolder(url=f"{scheme}://host/cam").list_files()
    assert str(refusal.value) == f"{scheme}:// needs a further package: pip install {package}."


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("http://host/x", "HTTP Directory"),
        ("https://host/x", "HTTP Directory"),
        ("ssh://host/x", "is not known"),
        ("simplecache::ftp://host/x", "is not known"),
        ("simplecache://x", "is not known"),
        ("gs://bucket/x::ftp://host/y", "chains"),
        ("smb://me:hunter2@host/x", "put them into the fields"),
        ("abfs://me:hunter2@host/x", "put them into the fields"),
        ("zip://folder", "names no archive"),
        ("zip://folder::ftp://host/a.zip", "names no archive"),
        ("zip://folder::a.zip", "names no archive"),
    ],
)
def test_a_wrong_url_is_refused_with_advice(url: str, advice: str) -> None:
    with pytest.raises(ValidationError, match=advice) as refusal:
        RemoteFolder(url=url)
    assert "hunter2" not in str(refusal.value)


def test_what_fsspec_knows_is_accepted_and_our_own_wires_are_kept() -> None:
    assert {"gs", "gcs", "abfs", "az", "smb", "hdfs", "webhdfs", "memory", "zip", "oss"} <= find_driver_schemes()
    assert not {"file", "s3", "ftp", "sftp", "ssh", "webdav", "http", "https", "reference"} & find_driver_schemes()
    url = "abfs://pictures@account.dfs.core.windows.net/cam"
    assert RemoteFolder(url=url.replace("abfs", "ABFS")).root == url


def test_options_for_a_wire_of_our_own_are_refused() -> None:
    with pytest.raises(ValidationError, match="options are for"):
        RemoteFolder(url="s3://bucket/x", options=SecretDict({"anon": True}))


@pytest.mark.usefixtures("prefect_api")
def test_a_saved_block_comes_back_whole_and_is_shown_masked() -> None:
    options = {"token": CANARY, "nested": {"deep": CANARY}, "count": 3}
    source = RemoteFolder(url="memory://cam", options=SecretDict(options))
    source.save("kept-options", overwrite=True, _sync=True)  # type: ignore[call-arg] # of Prefect's async_dispatch
    loaded = RemoteFolder.load("kept-options", _sync=True)  # type: ignore[call-arg] # of Prefect's async_dispatch
    assert isinstance(loaded, RemoteFolder)
    assert loaded.options is not None
    assert loaded.options.get_secret_value() == options
    with get_client(sync_client=True) as client:
        shown = client.read_block_document_by_name("kept-options", "remote-folder", include_secrets=False)
    assert set(shown.data["options"]) == set(options)
    assert CANARY not in shown.model_dump_json()
    RemoteFolder.delete("kept-options")  # the server is every test's
