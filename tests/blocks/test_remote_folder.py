import hashlib
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect_aws import AwsCredentials, MinIOCredentials
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr, ValidationError

from blocks._errors import LibraryUnavailable, Reason, SourceRefused, SourceUnavailable
from blocks._ftp import parse_ftp_time, parse_list_line
from blocks._records import RemoteFile, iter_files
from blocks._remote import Entry, take_settled
from blocks._webdav import parse_multistatus
from blocks.remote_folder import RemoteFolder
from tests.servers._programs import require_program
from tests.servers.http_server import find_free_port, private_folder, running
from tests.servers.rclone import Protocol, serve_rclone
from tests.servers.s3 import PASSWORD, USER, serve_moto

OLD = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
NAMES = ["a.jpg", "deep/b c.JPG", "deep/er/ü#1%20?.png", "deep/er/d.jpg"]


def write(path: Path, content: bytes, modified: datetime = OLD) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (modified.timestamp(), modified.timestamp()))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose sub-folder `images` (a bucket to S3) holds images and what is none."""
    root = tmp_path_factory.mktemp("tree")
    for number, name in enumerate(NAMES):
        write(root / "images" / name, os.urandom(70_000 + number))
    for name in (
        "notes.txt",
        ".hidden.jpg",
        "half.jpg.part",
        ".stfolder/c.jpg",
        "lost+found/x.jpg",
        "~syncthing~y.jpg",
    ):
        write(root / "images" / name, b"left")
    write(root / "other" / "secret.jpg", b"outside")
    return root


@dataclass(frozen=True, slots=True)
class Place:
    """A served tree: how a Block reaches its folder `images`."""

    url: str
    fields: dict[str, Any]

    def block(self, **fields: Any) -> RemoteFolder:
        return RemoteFolder(url=self.url, **(self.fields | fields))


@contextmanager
def serve(protocol: Protocol, root: Path) -> Iterator[Place]:
    with serve_rclone(root, protocol, user=USER, password=PASSWORD) as server:
        login = {"username": USER, "password": PASSWORD}
        if protocol == "s3":
            yield Place("s3://images", login | {"endpoint_url": server.url})
        elif protocol == "webdav":
            yield Place(f"webdav://{server.host}:{server.port}/images", login)
        elif protocol == "sftp":
            place = Place(f"{server.url}images", login)
            yield Place(place.url, login | {"host_key": read_host_key(place)})
        else:
            yield Place(f"{server.url}images", login)


def read_host_key(place: Place) -> str:
    with pytest.raises(SourceRefused) as refusal:
        place.block(host_key="SHA256:none").list_files()
    return next(word.strip(",") for word in str(refusal.value).split() if word.startswith("SHA256:"))


@pytest.fixture(scope="module", params=["local", "s3", "sftp", "ftp", "webdav"])
def place(request: pytest.FixtureRequest, tree: Path) -> Iterator[Place]:
    if request.param == "local":
        yield Place(str(tree / "images"), {})
    else:
        with serve(request.param, tree) as served:
            yield served


def test_every_image_is_listed_and_nothing_else(place: Place, tree: Path) -> None:
    files = {file.key: file for file in iter_files(place.block().list_files())}
    assert sorted(files) == sorted(NAMES)
    for name, file in files.items():
        assert file.size == (tree / "images" / name).stat().st_size
        assert file.modified is not None
        assert abs(file.modified - OLD) < timedelta(seconds=1)
        assert file.validator


def test_every_listed_file_comes_whole(place: Place, tree: Path, tmp_path: Path) -> None:
    source = place.block()
    with source.connected():
        for file in iter_files(source.list_files()):
            content = (tree / "images" / file.key).read_bytes()
            fetched = source.download(file, tmp_path / "one.jpg")
            assert fetched.path.read_bytes() == content
            assert (fetched.size, fetched.sha256) == (len(content), hashlib.sha256(content).hexdigest())
            assert fetched.modified is not None
    assert [path.name for path in tmp_path.iterdir()] == ["one.jpg"]


def test_threads_share_no_connection(place: Place, tree: Path, tmp_path: Path) -> None:
    source = place.block()
    files = list(iter_files(source.list_files())) * 4

    def fetch(numbered: tuple[int, RemoteFile]) -> bool:
        number, file = numbered
        fetched = source.download(file, tmp_path / f"{number}.jpg")
        return fetched.path.read_bytes() == (tree / "images" / file.key).read_bytes()

    with source.connected(), ThreadPoolExecutor(4) as threads:
        assert all(threads.map(fetch, enumerate(files)))


@pytest.mark.parametrize(("depth", "count"), [(0, 1), (1, 2), (2, 4)])
def test_the_depth_is_kept(place: Place, depth: int, count: int) -> None:
    assert place.block(recurse_depth=depth).list_files().height == count


def test_a_file_too_large_is_refused_and_leaves_nothing(place: Place, tmp_path: Path) -> None:
    source = place.block(max_file_bytes=50_000)
    with pytest.raises(SourceRefused) as refusal:
        source.download(next(iter_files(source.list_files())), tmp_path / "a.jpg")
    assert refusal.value.reason is Reason.TOO_LARGE
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_gone_is_an_answer(place: Place, tmp_path: Path) -> None:
    with pytest.raises(SourceRefused) as refusal:
        place.block().download(RemoteFile("gone.jpg", 10), tmp_path / "a.jpg")
    assert refusal.value.reason is Reason.NOT_FOUND
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["../other/secret.jpg", "deep/../../other/secret.jpg"])
def test_nothing_outside_the_folder_is_fetched(tree: Path, tmp_path: Path, key: str) -> None:
    with pytest.raises(SourceRefused):
        Place(str(tree / "images"), {}).block().download(RemoteFile(key), tmp_path / "a.jpg")
    with pytest.raises(SourceRefused):
        Place(str(tree / "images"), {}).block().download(RemoteFile("a.jpg", locator=key), tmp_path / "a.jpg")


@pytest.mark.parametrize("protocol", ["s3", "sftp", "ftp", "webdav"])
def test_a_wrong_password_is_refused_and_told_to_nobody(protocol: Protocol, tree: Path) -> None:
    with serve(protocol, tree) as served:
        source = served.block(password="guessed-wrong")
        with pytest.raises(SourceRefused) as refusal:
            source.list_files()
    assert refusal.value.reason in {Reason.UNAUTHORIZED, Reason.FORBIDDEN}
    for text in (str(refusal.value), repr(source), source.source_name, source.root, repr(refusal.value)):
        assert "guessed-wrong" not in text


def test_a_folder_that_is_not_there_is_refused(place: Place) -> None:
    if place.url == "s3://images":
        pytest.skip("S3 has no folders: an absent one is empty")
    with pytest.raises(SourceRefused) as refusal:
        RemoteFolder(url=f"{place.url}/none", **place.fields).list_files()
    assert refusal.value.reason is Reason.NOT_FOUND


@pytest.mark.parametrize("scheme", ["s3", "sftp", "ftp", "ftps", "webdav"])
def test_a_dead_server_may_come_back(scheme: str) -> None:
    address = f"127.0.0.1:{find_free_port()}"
    fields: dict[str, Any] = {"username": "u", "password": "p"}
    url = f"{scheme}://{address}/images"
    if scheme == "s3":
        url, fields = "s3://images", fields | {"endpoint_url": f"http://{address}"}
    with pytest.raises(SourceUnavailable):
        RemoteFolder(url=url, **fields).list_files()


@pytest.mark.parametrize("scheme", ["s3", "sftp", "ftp", "webdav"])
def test_a_server_that_never_answers_does_not_hold_a_run(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        fields: dict[str, Any] = {"username": "u", "password": "p", "timeout_seconds": 0.3}
        url = f"{scheme}://{address}/images"
        if scheme == "s3":
            url, fields = "s3://images", fields | {"endpoint_url": f"http://{address}"}
        with pytest.raises(SourceUnavailable):
            RemoteFolder(url=url, **fields).list_files()


def test_an_unknown_sftp_server_is_not_given_the_password(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree))
    with serve("sftp", tree) as served:
        with pytest.raises(SourceRefused) as refusal:
            served.block(host_key=None).list_files()
        assert served.fields["host_key"] in str(refusal.value)
        assert "put it in host_key" in str(refusal.value)


def test_sftp_takes_a_private_key(tree: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "open it", "-f", key], check=True)
    extra = ("--authorized-keys", str(key.with_suffix(".pub")))
    with serve_rclone(tree, "sftp", user=USER, password=PASSWORD, extra=extra) as server:
        login = {"username": USER, "private_key": key.read_text(), "password": "open it"}
        served = Place(f"{server.url}images", login)
        host_key = read_host_key(served)
        assert served.block(host_key=host_key).list_files().height == len(NAMES)
        with pytest.raises(SourceRefused, match="does not open it"):
            served.block(host_key=host_key, password="wrong").list_files()


def test_s3_takes_a_credentials_block_and_refuses_what_changed(tmp_path: Path) -> None:
    with serve_moto("photos") as server:
        client = server.client()
        client.put_object(Bucket="photos", Key="of/cam/a.jpg", Body=b"one")
        client.put_object(Bucket="photos", Key="official.jpg", Body=b"elsewhere")
        source = RemoteFolder(
            url="s3://photos/of",
            credentials=MinIOCredentials(
                minio_root_user=server.user,
                minio_root_password=SecretStr(server.password),
                aws_client_parameters=AwsClientParameters(endpoint_url=server.url),
            ),
        )
        [file] = iter_files(source.list_files())
        assert file.key == "cam/a.jpg"
        assert source.download(file, tmp_path / "a.jpg").size == 3
        client.put_object(Bucket="photos", Key="of/cam/a.jpg", Body=b"two")
        with pytest.raises(SourceUnavailable) as refusal:
            source.download(file, tmp_path / "b.jpg")
        assert refusal.value.reason is Reason.CHANGED_MIDWAY


VSFTPD = """
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
run_as_launching_user=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={root}
secure_chroot_dir={empty}
anon_world_readable_only=NO
seccomp_sandbox=NO
pasv_address=127.0.0.1
"""


def test_ftp_without_mlsd_is_listed_whole(tmp_path: Path) -> None:
    vsftpd = require_program("vsftpd")
    root = tmp_path / "ftp"
    write(root / "pics/one two.jpg", b"1")
    write(root / "pics/deep/b.jpg", b"22")
    (root / "pics/link.jpg").symlink_to(root / "pics/one two.jpg")
    write_latin(root / "pics")
    for folder in (root, *root.parents):
        if folder.is_relative_to(tmp_path.parent):
            folder.chmod(0o755)
    with private_folder() as own:
        port = find_free_port()
        (own / "empty").mkdir()
        (own / "vsftpd.conf").write_text(VSFTPD.format(port=port, root=root, empty=own / "empty"))
        with running([vsftpd, own / "vsftpd.conf"], port=port, log=own / "log"):
            source = RemoteFolder(url=f"ftp://127.0.0.1:{port}/pics", settle_seconds=0.1)
            files = {file.key: file for file in iter_files(source.list_files())}
            assert {key: file.size for key, file in files.items()} == {
                "one two.jpg": 1,
                "deep/b.jpg": 2,
                "café.jpg": 6,
            }
            assert {file.modified for file in files.values()} == {None}
            assert source.download(files["deep/b.jpg"], tmp_path / "b.jpg").size == 2
            assert source.download(files["café.jpg"], tmp_path / "c.jpg").size == 6
            with pytest.raises(SourceRefused, match="no /none"):
                RemoteFolder(url=f"ftp://127.0.0.1:{port}/none").list_files()


def test_a_listing_is_taken_twice_where_no_time_is_told() -> None:
    first = [RemoteFile("still.jpg", 5, None, "Nov 20"), RemoteFile("grows.jpg", 5, None, "Nov 20")]
    again = [RemoteFile("still.jpg", 5, None, "Nov 20"), RemoteFile("grows.jpg", 9, None, "Nov 20")]
    waits: list[float] = []
    settled = take_settled(first, lambda: again, 5, now=OLD, sleep=waits.append)
    assert [file.key for file in settled] == ["still.jpg"]
    assert waits == [5]


def test_a_file_is_taken_when_its_writer_has_finished(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    write(tmp_path / "old.jpg", b"1", now - timedelta(minutes=1))
    write(tmp_path / "young.jpg", b"1", now)
    write(tmp_path / "future.jpg", b"1", now + timedelta(days=400))
    keys = RemoteFolder(url=str(tmp_path), settle_seconds=20).list_files()["key"].to_list()
    assert keys == ["future.jpg", "old.jpg"]
    assert RemoteFolder(url=str(tmp_path), settle_seconds=0).list_files().height == 3


def test_links_are_followed_only_inside_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "real/a.jpg", b"1")
    write(tmp_path / "outside/secret.jpg", b"2")
    (root / "in.jpg").symlink_to(root / "real/a.jpg")
    (root / "out.jpg").symlink_to(tmp_path / "outside/secret.jpg")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "real/loop").symlink_to(root)
    (root / "broken.jpg").symlink_to(root / "none")
    source = RemoteFolder(url=f"file://{root}")
    assert sorted(source.list_files()["key"]) == ["in.jpg", "real/a.jpg"]
    with pytest.raises(SourceRefused, match="link out of"):
        source.download(RemoteFile("out.jpg"), tmp_path / "a.jpg")


def test_a_name_that_is_no_utf_8_is_listed_and_fetched(tmp_path: Path) -> None:
    write_latin(tmp_path)
    source = RemoteFolder(url=str(tmp_path), settle_seconds=0)
    [file] = iter_files(source.list_files())
    assert (file.key, file.locator) == ("café.jpg", "caf%E9.jpg")
    assert source.download(file, tmp_path / "a.jpg").size == 6


def write_latin(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"coffee")


def test_a_full_staging_disk_is_not_the_sources_fault(tree: Path, tmp_path: Path) -> None:
    source = RemoteFolder(url=str(tree / "images"))
    staging = tmp_path / "full.jpg"
    staging.with_name("full.jpg.part").symlink_to("/dev/full")
    with pytest.raises(LibraryUnavailable, match="free space"):
        source.download(RemoteFile("a.jpg"), staging)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("ftp://me:hunter2@host/x", "put them into the fields"),
        ("sftp://me@host/x", "put them into the fields"),
        ("gopher://host/x", "is not known"),
        ("s3:///x", "names no bucket"),
        ("ftp:///x", "names no host"),
        ("ftp://host:many/x", "Port"),
        ("  ", "is empty"),
    ],
)
def test_a_wrong_url_is_refused_without_its_secret(url: str, advice: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        RemoteFolder(url=url)
    assert advice in str(refusal.value)
    assert "hunter2" not in str(refusal.value) + repr(refusal.value)


def test_a_block_crosses_to_another_process_without_its_connections(tree: Path) -> None:
    source = RemoteFolder(url=str(tree / "images"))
    with source.connected():
        source.list_files()
        copy = pickle.loads(pickle.dumps(source))
    assert copy == source
    assert copy.list_files().height == len(NAMES)


@pytest.mark.parametrize(
    "credentials",
    [
        MinIOCredentials(minio_root_user="key", minio_root_password=SecretStr("word")),
        AwsCredentials(aws_access_key_id="key", aws_secret_access_key=SecretStr("word")),
    ],
)
def test_credentials_come_back_as_what_they_were(credentials: MinIOCredentials | AwsCredentials) -> None:
    saved = RemoteFolder(url="s3://b/x", credentials=credentials).model_dump(context={"include_secrets": True})
    for slug in ({"block_type_slug": credentials.get_block_type_slug()}, {}):
        loaded = RemoteFolder(**(saved | {"credentials": saved["credentials"] | slug}))
        assert loaded.credentials == credentials


def test_credentials_that_do_not_fit_are_not_quoted() -> None:
    with pytest.raises(ValidationError) as refusal:
        RemoteFolder(url="s3://b/x", credentials={"minio_root_password": ["hunter2"], "minio_root_user": "u"})
    assert "minio_root_password" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_sftp_without_its_package_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['paramiko'] = None\nfrom blocks.remote_folder import RemoteFolder\n"
        "RemoteFolder(url='sftp://h/x').list_files()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "SourceRefused: SFTP needs a further package: pip install 'catchment[sftp]'." in done.stderr


def test_the_source_is_named_by_its_place(tree: Path) -> None:
    assert RemoteFolder(url="sftp://camera.example/upload/").source_name == "sftp://camera.example/upload"
    assert RemoteFolder(url="/srv/my photos").root == "file:///srv/my%20photos"


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("-rw-r--r--    1 0  0   3172 Nov 20 18:26 a b.jpg", Entry(b"a b.jpg", False, 3172, None, "Nov 20")),
        ("-rw-r--r--+ 1 cam users 12 Jan  1  2024  lead.jpg", Entry(b" lead.jpg", False, 12, None, "Jan 1")),
        ("drwxr-xr-x    2 0  0   4096 Nov 20 18:26 deep", Entry(b"deep", True, None, None, "Nov 20")),
        ("lrwxrwxrwx    1 0  0      9 Nov 20 18:26 l.jpg -> a.jpg", None),
        ("total 12", None),
        ("", None),
        ("11-20-26  06:26PM       3172 a b.jpg", Entry(b"a b.jpg", False, 3172, None, "11-20-26 06:26PM")),
        ("11-20-2026  18:26   <DIR>   deep", Entry(b"deep", True, None, None, "11-20-2026 18:26")),
    ],
)
def test_a_line_of_list_is_read(line: str, entry: Entry | None) -> None:
    assert parse_list_line(line) == entry


def test_a_listing_of_unknown_form_is_refused_whole() -> None:
    with pytest.raises(SourceRefused, match="MLSD"):
        parse_list_line("a.jpg [R--] 12 files")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("20250304050607", OLD),
        ("20250304050607.123", OLD),
        ("20251304050607", None),
        ("Nov 20 18:26", None),
        (None, None),
    ],
)
def test_an_ftp_time_is_utc(text: str | None, time: datetime | None) -> None:
    assert parse_ftp_time(text) == time


MULTISTATUS = b"""<?xml version="1.0"?><!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]>
<d:multistatus xmlns:d="DAV:">
 <d:response><d:href>/dav/pics/</d:href><d:propstat><d:prop><d:resourcetype><d:collection/></d:resourcetype></d:prop>
  <d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>
 <d:response><d:href>http://inside:8080/dav/pics/a%20b.jpg</d:href><d:propstat><d:prop><d:resourcetype/>
  <d:getcontentlength>12</d:getcontentlength><d:getetag>"x"</d:getetag>
  <d:getlastmodified>Tue, 04 Mar 2025 05:06:07 GMT</d:getlastmodified></d:prop>
  <d:status>HTTP/1.1 200 OK</d:status></d:propstat>
  <d:propstat><d:prop><d:getcontentlength>99</d:getcontentlength></d:prop><d:status>HTTP/1.1 404 Not Found</d:status>
  </d:propstat></d:response>
 <d:response><d:href>/dav/pics/deep/</d:href><d:propstat><d:prop><d:resourcetype><d:collection/></d:resourcetype>
  <d:getetag>&e;</d:getetag></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>
 <d:response><d:href>/dav/other/x.jpg</d:href></d:response>
 <d:response><d:href>/dav/pics/../x.jpg</d:href></d:response>
</d:multistatus>"""


@pytest.mark.parametrize("size", [7, 10_000])
def test_a_multistatus_is_read_as_it_comes(size: int) -> None:
    chunks = [MULTISTATUS[start : start + size] for start in range(0, len(MULTISTATUS), size)]
    assert list(parse_multistatus(chunks, b"/dav/pics/")) == [
        Entry(b"a b.jpg", False, 12, OLD, '"x"'),
        Entry(b"deep", True, None, None, None),
    ]


@pytest.mark.parametrize("body", [MULTISTATUS[:600], b"<html></html>", b"", b"no xml"])
def test_a_multistatus_that_is_cut_or_none_is_refused(body: bytes) -> None:
    with pytest.raises(SourceRefused):
        list(parse_multistatus([body] if body else [], b"/dav/pics/"))
