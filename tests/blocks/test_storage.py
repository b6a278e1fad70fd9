import errno
import hashlib
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.exceptions import IncompleteReadError

from blocks._errors import (
    CatchmentError,
    KeyRefused,
    LibraryRefused,
    LibraryUnavailable,
    Reason,
    SourceUnavailable,
    WrongUse,
)
from blocks._layout import with_short_hash
from blocks._local_storage import LocalStorage
from blocks._s3 import S3Remote, translate_source_error
from blocks._s3_storage import MAX_OBJECT_BYTES, S3Storage
from blocks._storage import Incoming, Storage, translate_disk
from tests.servers.rclone import serve_rclone
from tests.servers.s3 import PASSWORD, USER, S3Server, serve_moto, serve_s3_without_conditions

SHOT = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def stage(folder: Path, content: bytes, key: str = "gate/a.jpg", *, move: bool = True) -> Incoming:
    source = folder / f"{sha(content)[:12]}-{len(list(folder.iterdir()))}.jpg"
    source.write_bytes(content)
    return Incoming(source, key, sha(content), len(content), SHOT, "image/jpeg", move)


def put(storage: Storage, file: Incoming) -> str:
    [result] = storage.put_files([file])
    assert isinstance(result, str), result
    return result


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with serve_moto("images") as server:
        yield server


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    root = tmp_path_factory.mktemp("rclone")
    (root / "images").mkdir()
    with serve_rclone(root, "s3", user=USER, password=PASSWORD) as server:
        yield S3Server(server.url)


@pytest.fixture(params=["local", "s3 with conditions", "s3 that ignores conditions"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path / "library")
    server: S3Server = request.getfixturevalue("moto" if request.param == "s3 with conditions" else "rclone")
    return S3Storage(server.client(), "images", f"of/{tmp_path.name}")


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


def test_a_file_is_stored_under_its_key(storage: Storage, staging: Path) -> None:
    file = stage(staging, b"one")
    assert put(storage, file) == "gate/a.jpg"
    assert storage.read_bytes("gate/a.jpg") == b"one"
    assert storage.hash_object("gate/a.jpg") == sha(b"one")
    stored = storage.stat("gate/a.jpg")
    assert stored is not None
    assert stored.size == 3
    assert stored.sha256 in {sha(b"one"), None}
    assert not file.source.exists()


def test_the_same_bytes_again_change_nothing(storage: Storage, staging: Path) -> None:
    assert [put(storage, stage(staging, b"one")) for _ in range(2)] == ["gate/a.jpg"] * 2
    assert list(storage.list_keys()) == [("gate/a.jpg", 3)]


def test_other_bytes_under_a_taken_key_get_their_own(storage: Storage, staging: Path) -> None:
    put(storage, stage(staging, b"one"))
    marked = with_short_hash("gate/a.jpg", sha(b"two"))
    assert [put(storage, stage(staging, b"two")) for _ in range(2)] == [marked] * 2
    assert storage.read_bytes("gate/a.jpg") == b"one"
    assert storage.read_bytes(marked) == b"two"


def test_every_short_mark_taken_leads_to_a_longer_one(storage: Storage, staging: Path) -> None:
    content = b"wanted"
    for digits, other in ((0, b"x"), (8, b"y")):
        key = with_short_hash("gate/a.jpg", sha(content), digits) if digits else "gate/a.jpg"
        put(storage, stage(staging, other, key))
    assert put(storage, stage(staging, content)) == with_short_hash("gate/a.jpg", sha(content), 16)


def test_every_name_taken_costs_only_that_file(storage: Storage, staging: Path) -> None:
    content = b"wanted"
    taken = ["gate/a.jpg", *(with_short_hash("gate/a.jpg", sha(content), digits) for digits in (8, 16, 64))]
    for key in taken:
        put(storage, stage(staging, b"in the way", key))
    [bad, good] = storage.put_files([stage(staging, content), stage(staging, b"other", "gate/b.jpg")])
    assert (type(bad), good) == (KeyRefused, "gate/b.jpg")
    assert {storage.read_bytes(key) for key in taken} == {b"in the way"}


def test_writers_at_the_same_instant_overwrite_nobody(storage: Storage, staging: Path) -> None:
    contents = [b"writer %d" % number for number in range(12)]
    files = [stage(staging, content) for content in contents]
    with ThreadPoolExecutor(12) as threads:
        keys = list(threads.map(lambda file: put(storage, file), files))
    assert len(set(keys)) == 12
    assert [storage.read_bytes(key) for key in keys] == contents


def test_a_file_stored_before_a_kill_is_adopted(storage: Storage, staging: Path) -> None:
    file = stage(staging, b"one")
    put(storage, file)
    assert not file.source.exists()
    assert put(storage, file) == "gate/a.jpg"


def test_one_bad_file_costs_only_itself(storage: Storage, staging: Path) -> None:
    good = [stage(staging, b"good %d" % number, f"gate/{number}.jpg") for number in range(4)]
    lost = stage(staging, b"lost", "gate/lost.jpg")
    lost.source.unlink()
    results = storage.put_files([*good[:2], lost, *good[2:]])
    assert [result for result in results if isinstance(result, str)] == [file.key for file in good]
    assert isinstance(results[2], LibraryUnavailable)


def test_an_original_that_is_not_ours_stays_as_it_was(storage: Storage, staging: Path) -> None:
    file = stage(staging, b"one", move=False)
    before = file.source.stat()
    put(storage, file)
    after = file.source.stat()
    assert (after.st_mtime_ns, after.st_ino, after.st_nlink) == (before.st_mtime_ns, before.st_ino, 1)
    file.source.write_bytes(b"edited")
    assert storage.read_bytes("gate/a.jpg") == b"one"


def test_listings_leave_what_is_catchments_own(storage: Storage, staging: Path) -> None:
    for key in ("b/2.jpg", "a/1.jpg", "a b/ü.jpg", "top.jpg"):
        put(storage, stage(staging, key.encode(), key))
    storage.put_bytes(".catchment/thumbnails/ab/x.jpg", b"small")
    assert dict(storage.list_keys()) == {"b/2.jpg": 7, "a/1.jpg": 7, "a b/ü.jpg": 10, "top.jpg": 7}
    assert [key for key, _ in storage.list_keys("a/")] == ["a/1.jpg"]
    assert {key for key, _ in storage.list_keys("a")} == {"a/1.jpg", "a b/ü.jpg"}
    assert list(storage.list_keys("none/")) == []


def test_a_thumbnail_may_be_made_again(storage: Storage) -> None:
    for content in (b"first", b"second"):
        storage.put_bytes(".catchment/thumbnails/ab/x.jpg", content)
    assert storage.read_bytes(".catchment/thumbnails/ab/x.jpg") == b"second"


def test_many_thumbnails_may_be_put_again(storage: Storage, staging: Path) -> None:
    made = {f".catchment/thumbnails/{number:02}/{number}.jpg": b"thumbnail %d" % number for number in range(20)}
    storage.put_bytes(next(iter(made)), b"old")
    files = {key: stage(staging, content).source for key, content in made.items()}
    for _ in range(2):
        storage.put_many(files)
        assert {key: storage.read_bytes(key) for key in made} == made
    storage.put_many({})


def test_a_thumbnail_that_is_nowhere_is_brought_again(storage: Storage, staging: Path) -> None:
    with pytest.raises(CatchmentError):
        storage.put_many({".catchment/thumbnails/ab/x.jpg": staging / "gone.thumb"})
    assert storage.stat(".catchment/thumbnails/ab/x.jpg") is None


def test_what_is_deleted_is_gone_and_may_be_deleted_again(storage: Storage, staging: Path) -> None:
    put(storage, stage(staging, b"one"))
    for _ in range(2):
        storage.delete("gate/a.jpg")
    assert storage.stat("gate/a.jpg") is None
    with pytest.raises(LibraryRefused):
        storage.read_bytes("gate/a.jpg")


@pytest.mark.parametrize("key", ["../a.jpg", "/etc/a.jpg", "a//b.jpg", "", "a/../b.jpg", "a\0.jpg", "..\\a.jpg"])
def test_a_key_that_could_escape_is_refused(storage: Storage, staging: Path, key: str) -> None:
    [result] = storage.put_files([stage(staging, b"one", key)])
    assert isinstance(result, WrongUse)
    with pytest.raises(WrongUse):
        storage.read_bytes(key)


def test_the_time_of_an_image_stays_with_it(tmp_path: Path, staging: Path) -> None:
    storage = LocalStorage(tmp_path / "library")
    for move in (True, False):
        key = put(storage, stage(staging, b"moved %d" % move, move=move))
        assert datetime.fromtimestamp((storage.root / key).stat().st_mtime, UTC) == SHOT


def test_a_big_batch_is_stored_in_order(tmp_path: Path, staging: Path) -> None:
    storage = LocalStorage(tmp_path / "library")
    files = [stage(staging, b"%d" % number, f"{number % 7}/{number}.jpg") for number in range(100)]
    assert storage.put_files(files) == [file.key for file in files]
    assert list(staging.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_staging_on_another_disk_is_copied_and_proven(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "library")
    far = Path("/dev/shm") / f"catchment-{os.getpid()}"
    far.mkdir()
    try:
        assert put(storage, stage(far, b"one")) == "gate/a.jpg"
        storage.put_many({"thumbnails/t.jpg": stage(far, b"small").source})
        assert storage.read_bytes("thumbnails/t.jpg") == b"small"
        damaged = stage(far, b"two", "gate/b.jpg")
        damaged.source.write_bytes(b"tw0")
        [result] = storage.put_files([damaged])
        assert isinstance(result, LibraryUnavailable)
        assert [path.name for path in (storage.root / "gate").iterdir()] == ["a.jpg"]
    finally:
        for path in far.iterdir():
            path.unlink()
        far.rmdir()


def test_a_folder_in_the_place_of_a_file_is_not_disturbed(tmp_path: Path, staging: Path) -> None:
    storage = LocalStorage(tmp_path / "library")
    put(storage, stage(staging, b"one", "a/b.jpg"))
    assert put(storage, stage(staging, b"two", "a")) == with_short_hash("a", sha(b"two"))
    [result] = storage.put_files([stage(staging, b"three", "a/b.jpg/c.jpg")])
    assert isinstance(result, KeyRefused)
    assert "A file stands where" in str(result)


FILL = """
import hashlib, resource, signal, sys
from pathlib import Path
from blocks._local_storage import LocalStorage
from blocks._storage import Incoming
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
source = Path(sys.argv[2])
digest = hashlib.sha256(source.read_bytes()).hexdigest()
[result] = LocalStorage(Path(sys.argv[1])).put_files(
    [Incoming(source, "a/b.jpg", digest, source.stat().st_size, move=False)]
)
print(type(result).__name__)
"""


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "big.jpg"
    source.write_bytes(os.urandom(300_000))
    done = subprocess.run(
        [sys.executable, "-c", FILL, tmp_path / "library", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "KeyRefused"
    assert [path for path in (tmp_path / "library").rglob("*") if path.is_file()] == []
    assert source.stat().st_size == 300_000


KILL = """
import hashlib, sys
from pathlib import Path
from blocks._local_storage import LocalStorage
from blocks._storage import Incoming
storage, staging = LocalStorage(Path(sys.argv[1])), Path(sys.argv[2])
files = sorted(staging.iterdir())
print("go", flush=True)
for source in files:
    content = source.read_bytes()
    storage.put_files([Incoming(source, f"a/{source.name}", hashlib.sha256(content).hexdigest(), len(content))])
"""


def test_a_kill_anywhere_leaves_whole_files_and_a_run_that_ends_the_same(tmp_path: Path, staging: Path) -> None:
    contents = {f"{number:03}.jpg": os.urandom(50_000) for number in range(400)}
    for name, content in contents.items():
        (staging / name).write_bytes(content)
    library = tmp_path / "library"
    process = subprocess.Popen([sys.executable, "-c", KILL, library, staging], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    while not (library / "a/050.jpg").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    storage = LocalStorage(library)
    stored = [key for key, _ in storage.list_keys()]
    assert 50 < len(stored) < 400
    assert all(storage.read_bytes(key) == contents[Path(key).name] for key in stored)
    for name, content in contents.items():
        assert put(storage, Incoming(staging / name, f"a/{name}", sha(content), len(content))) == f"a/{name}"
    assert [key for key, _ in storage.list_keys()] == [f"a/{name}" for name in contents]
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, LibraryUnavailable, "free space"),
        (errno.EDQUOT, LibraryUnavailable, "free space"),
        (errno.EROFS, LibraryRefused, "mount it writable"),
        (errno.EACCES, LibraryRefused, "right"),
        (errno.ENAMETOOLONG, KeyRefused, "shorter layout"),
        (errno.EFBIG, KeyRefused, "limit"),
        (errno.ENOTDIR, KeyRefused, "move it away"),
        (errno.EIO, LibraryUnavailable, "check it"),
    ],
)
def test_a_failing_disk_says_what_to_do(number: int, kind: type[CatchmentError], advice: str) -> None:
    error = translate_disk(OSError(number, os.strerror(number)), "a/b.jpg")
    assert type(error) is kind
    assert advice in str(error)
    assert "a/b.jpg" in str(error)


def test_a_name_the_disk_does_not_take_costs_only_that_file(tmp_path: Path, staging: Path) -> None:
    storage = LocalStorage(tmp_path / "library")
    [bad, good] = storage.put_files([stage(staging, b"one", "x" * 300), stage(staging, b"two")])
    assert isinstance(bad, KeyRefused)
    assert good == "gate/a.jpg"


def test_a_disk_that_fails_midway_says_so(tmp_path: Path, staging: Path) -> None:
    storage = LocalStorage(tmp_path / "library")
    key = put(storage, stage(staging, b"one"))
    with pytest.raises(LibraryUnavailable, match="failed at gate"), storage.open(key):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_what_a_bucket_can_not_hold_costs_only_that_file(moto: S3Server, staging: Path) -> None:
    storage = S3Storage(moto.client(), "images", "x" * 500)
    long = stage(staging, b"one", "/".join(["y" * 100] * 6))
    huge = stage(staging, b"two", "huge.jpg")
    huge = Incoming(huge.source, huge.key, huge.sha256, MAX_OBJECT_BYTES + 1)
    [too_long, too_large, good] = storage.put_files([long, huge, stage(staging, b"three")])
    assert (type(too_long), type(too_large), good) == (KeyRefused, KeyRefused, "gate/a.jpg")


def test_a_staged_file_that_changed_is_brought_again(moto: S3Server, staging: Path) -> None:
    file = stage(staging, b"one")
    file.source.write_bytes(b"changed")
    [result] = S3Storage(moto.client(), "images", "changed").put_files([file])
    assert type(result) is LibraryUnavailable


def test_an_object_that_is_cut_short_may_still_come() -> None:
    error = translate_source_error(IncompleteReadError(actual_bytes=1, expected_bytes=2), "a.jpg")
    assert (type(error), error.reason) == (SourceUnavailable, Reason.CUT_SHORT)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux to count sockets")
def test_a_closed_connection_to_a_bucket_holds_no_socket(rclone: S3Server) -> None:
    before = count_sockets()
    remote = S3Remote(rclone.client(), "images", "none")
    assert list(remote.walk(None)) == []
    assert count_sockets() == before + 1
    remote.close()
    assert count_sockets() == before


def count_sockets() -> int:
    links = (str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    return sum(link.startswith("socket:") for link in links)


def test_an_object_put_by_others_is_known_by_its_bytes(moto: S3Server, staging: Path) -> None:
    client = moto.client()
    client.put_object(Bucket="images", Key="theirs/a.jpg", Body=b"one")
    storage = S3Storage(client, "images", "theirs")
    assert put(storage, stage(staging, b"one", "a.jpg")) == "a.jpg"
    assert put(storage, stage(staging, b"two", "a.jpg")) == with_short_hash("a.jpg", sha(b"two"))


def test_the_server_itself_refuses_to_overwrite(moto: S3Server, staging: Path) -> None:
    class Blind(S3Storage):
        """A writer whose look came before another's put."""

        looks = 0

        def stat(self, key: str):  # type: ignore[no-untyped-def]
            self.looks += 1
            return None if self.looks == 1 else super().stat(key)

    client = moto.client()
    client.put_object(Bucket="images", Key="race/a.jpg", Body=b"theirs")
    marked = with_short_hash("a.jpg", sha(b"ours"))
    assert put(Blind(client, "images", "race"), stage(staging, b"ours", "a.jpg")) == marked
    assert S3Storage(client, "images", "race").read_bytes("a.jpg") == b"theirs"


def test_a_server_without_conditional_puts_still_takes_files(staging: Path) -> None:
    with serve_s3_without_conditions() as server:
        storage = S3Storage(server.client(), "images")
        assert put(storage, stage(staging, b"one")) == "gate/a.jpg"
        assert put(storage, stage(staging, b"two")) == with_short_hash("gate/a.jpg", sha(b"two"))
        assert storage.read_bytes("gate/a.jpg") == b"one"


def test_a_large_object_is_put_in_little_memory(moto: S3Server, staging: Path) -> None:
    source = staging / "large.tif"
    digest = hashlib.sha256()
    with source.open("wb") as file:
        for number in range(70):
            chunk = bytes([number]) * (1 << 20)
            file.write(chunk)
            digest.update(chunk)
    storage = S3Storage(moto.client(), "images", "large")
    tracemalloc.start()
    try:
        key = put(storage, Incoming(source, "large.tif", digest.hexdigest(), 70 << 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert storage.stat(key) is not None
    assert peak < 16 << 20


def test_a_bucket_that_is_not_there_or_a_dead_server_is_told_apart(moto: S3Server, staging: Path) -> None:
    [gone] = S3Storage(moto.client(), "none").put_files([stage(staging, b"one")])
    assert type(gone) is LibraryRefused
    assert "no bucket" in str(gone)
    [dead] = S3Storage(S3Server("http://127.0.0.1:1").client(), "images").put_files([stage(staging, b"one")])
    assert isinstance(dead, LibraryUnavailable)
    assert "not-a-secret" not in str(gone) + str(dead)


def test_wrong_credentials_are_refused_without_being_told(rclone: S3Server, staging: Path) -> None:
    storage = S3Storage(S3Server(rclone.url, "tester", "wrong-key").client(), "images")
    [result] = storage.put_files([stage(staging, b"one")])
    assert type(result) is LibraryRefused
    assert "credentials" in str(result)
    assert "wrong-key" not in str(result)


def test_a_sector_that_can_not_be_read_costs_the_file_that_lies_on_it(tmp_path: Path) -> None:
    unreadable = Path("/proc/self/mem")  # its first page is mapped nowhere: reading it is an I/O error
    if not unreadable.exists():
        pytest.skip("this machine has no file that fails to be read")
    (tmp_path / "a.jpg").symlink_to(unreadable)
    with pytest.raises(KeyRefused, match=r"a\.jpg"):
        LocalStorage(tmp_path).hash_object("a.jpg")
