"""What is noted beside an object tells its origin, whatever camera and file are called, and fits into S3's headers."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote

import pytest

from blocks._local_storage import LocalStorage
from blocks._s3_storage import S3Storage
from blocks._storage import Incoming, Storage
from tests.servers.s3 import S3Server, serve_moto


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serve_moto("frames") as running:
        yield running


def put(storage: Storage, folder: Path, key: str, metadata: dict[str, str]) -> str:
    path = folder / "staged"
    path.write_bytes(key.encode())
    digest = sha256(key.encode()).hexdigest()
    [result] = storage.put_files([Incoming(path, key, digest, len(key.encode()), metadata=metadata)])
    assert isinstance(result, str), result
    return result


@pytest.mark.parametrize(
    "text",
    [
        "Haas_Pit_1",
        "Pit Lane / Box 1",
        "Überwachung 雪.jpg",
        "two\r\nX-Amz-Acl: public-read",
        "nul\0 and tab\t",
        " spaces around ",
        "100% & more = less",
        "lone \ud800",
    ],
)
def test_any_text_is_noted_and_reads_back(text: str, server: S3Server, tmp_path: Path) -> None:
    key = put(
        S3Storage(server.client(), "frames"),
        tmp_path,
        f"{sha256(ascii(text).encode()).hexdigest()}.jpg",
        {"name": text},
    )
    noted = server.client().head_object(Bucket="frames", Key=key)["Metadata"]
    assert unquote(noted["name"]) == text.replace("\ud800", "?")
    assert set(noted) == {"name", "sha256"}


@pytest.mark.parametrize("character", ["x", "雪", "%"])
def test_long_text_is_cut_between_characters_and_the_object_is_stored(
    character: str, server: S3Server, tmp_path: Path
) -> None:
    names = dict.fromkeys(("name", "camera", "captured", "request"), character * 1000)
    key = put(S3Storage(server.client(), "frames"), tmp_path, f"long-{ord(character)}.jpg", names)
    noted = server.client().head_object(Bucket="frames", Key=key)["Metadata"]
    assert set(unquote(noted["camera"])) == {character}
    assert sum(len(name) + len(text) for name, text in noted.items()) < 2_048


def test_the_digest_is_not_for_others_to_say(server: S3Server, tmp_path: Path) -> None:
    key = put(S3Storage(server.client(), "frames"), tmp_path, "digest.jpg", {"sha256": "forged"})
    noted = server.client().head_object(Bucket="frames", Key=key)["Metadata"]
    assert noted["sha256"] == sha256(b"digest.jpg").hexdigest()


def test_a_folder_takes_files_with_metadata_and_keeps_the_bytes(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "library")
    key = put(storage, tmp_path, "a.jpg", {"name": "a.jpg"})
    assert storage.read_bytes(key) == b"a.jpg"
