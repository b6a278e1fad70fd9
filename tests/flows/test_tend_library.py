"""The library is held against its catalog by a flow, which ends as the library stands."""

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from blocks.library import ImageLibrary
from flows.ingest_remote_folder import ingest_remote_folder
from flows.tend_library import tend_library
from tasks._verify import VerifyReport
from tests.flows.ingesting import folder_source
from tests.pictures import make_jpeg

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def kept(tmp_path: Path, library: ImageLibrary) -> ImageLibrary:
    """A library with two images of a memory card that still holds them."""
    card = tmp_path / "card"
    card.mkdir()
    for number in range(2):
        (card / f"{number}.jpg").write_bytes(make_jpeg(number))
    ingest_remote_folder(folder_source(card, layout="{name}"), library)
    return library


def tend(library: ImageLibrary, *, repair: bool = False) -> tuple[str, VerifyReport]:
    state = tend_library(library, repair=repair, return_state=True)
    return state.type.value, state.result(raise_on_failure=False)


def read_newest_artifact() -> str:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["library-check"])), limit=200
        )
    return str(max(found, key=lambda artifact: artifact.created).data)


def test_a_sound_library_completes(kept: ImageLibrary) -> None:
    ended, report = tend(kept)
    assert (ended, report.images, report.is_sound) == ("COMPLETED", 2, True)
    assert "2 images checked: all is well" in read_newest_artifact()
    assert tend_library(kept).summary == report.summary


def test_a_damaged_library_fails_until_it_is_repaired(kept: ImageLibrary) -> None:
    (kept.folder / "0.jpg").unlink()
    ended, report = tend(kept)
    assert (ended, report.found["missing"]) == ("FAILED", 1)
    assert "| missing | 0.jpg |" in read_newest_artifact()
    ended, report = tend(kept, repair=True)
    assert (ended, report.repaired) == ("COMPLETED", 1)
    assert tend(kept)[0] == "COMPLETED"


def test_a_library_that_can_not_be_used_fails_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "library").write_text("no folder")
    state = tend_library(ImageLibrary(folder=tmp_path / "library"), return_state=True)
    assert state.is_failed()
    assert "move it away" in str(state.message)
