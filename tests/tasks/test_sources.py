"""Saved sources as Prefect keeps them, and a source that must not take what is the library's own."""

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from blocks._errors import WrongUse
from blocks.http_directory import HttpDirectory
from blocks.library import ImageLibrary
from blocks.remote_folder import RemoteFolder
from tasks.sources import keep_apart, load_sources

CANARY = "canary-in-a-mine"


@pytest.mark.usefixtures("prefect_api")
def test_a_source_that_can_not_be_loaded_costs_no_other_and_quotes_nothing() -> None:
    HttpDirectory(base_url="https://gate.example.org/").save("sound")
    # A field called `self` is a TypeError of Python's own when the Block is made, and no ValidationError.
    spoilt = {"odd": {"url": "s3://bucket/", "credentials": {"self": CANARY}}, "worn": {"url": f"http://{CANARY}/"}}
    for name, values in spoilt.items():
        document = RemoteFolder(url="s3://bucket/").save(name)
        with get_client(sync_client=True) as client:
            client.update_block_document(document, BlockDocumentUpdate(data=values, merge_existing_data=False))
    try:
        sources, broken = load_sources()
    finally:
        for name in spoilt:
            RemoteFolder.delete(name)
        HttpDirectory.delete("sound")
    assert "http-directory/sound" in [source.source_name for source in sources]
    assert broken.keys() >= {"remote-folder/odd", "remote-folder/worn"}
    assert "TypeError" in str(broken["remote-folder/odd"])
    assert CANARY not in "".join(map(str, broken.values()))


def test_a_folder_that_holds_the_library_leaves_the_librarys_images_out(tmp_path: Path) -> None:
    home = tmp_path / "card [1]" / "my library"
    (home / "garden").mkdir(parents=True)
    for path in (home / "garden" / "stored.jpg", tmp_path / "card [1]" / "new.jpg"):
        path.write_bytes(b"x")
    source = RemoteFolder(url=str(tmp_path / "card [1]"), settle_seconds=0)
    for _ in range(2):
        keep_apart(source, ImageLibrary(folder=home))
        assert source.list_files()["key"].to_list() == ["new.jpg"]
    assert len(source.exclude) == 1


@pytest.mark.parametrize("place", [".", "garden"])
def test_a_folder_in_the_library_is_no_source_for_it(place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    with pytest.raises(WrongUse, match="lies in the library"):
        keep_apart(RemoteFolder(url=str(tmp_path / place)), ImageLibrary(folder=tmp_path))


def test_sources_elsewhere_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    for source in (
        RemoteFolder(url=str(tmp_path / "card")),
        RemoteFolder(url="sftp://host/"),
        HttpDirectory(base_url="https://gate.example.org/"),
    ):
        keep_apart(source, ImageLibrary(folder=tmp_path / "library"))
        assert source.exclude == []
