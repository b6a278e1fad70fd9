"""Every saved, active source has its turn, whatever becomes of the others."""

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import get_client

from blocks.http_directory import HttpDirectory
from blocks.library import ImageLibrary
from blocks.source import ImageSource
from flows.ingest_all_sources import ingest_all_sources
from tasks._report import IngestReport
from tasks.sources import SOURCE_KINDS, list_source_names
from tests.flows.ingesting import Site, assert_sound, directory, folder_source
from tests.pictures import make_jpeg
from tests.servers import fault
from tests.servers.fault import FaultServer

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")


@pytest.fixture
def saved() -> Iterator[dict[str, ImageSource]]:
    """Sources to be saved, beside none of another test; removed again at the end."""
    for name in list_source_names():
        slug, _, document = name.partition("/")
        next(kind for kind in SOURCE_KINDS if kind.get_block_type_slug() == slug).delete(document)
    sources: dict[str, ImageSource] = {}
    yield sources
    for name, source in sources.items():
        type(source).delete(name)


def save(sources: dict[str, ImageSource], **added: ImageSource) -> None:
    for name, source in added.items():
        source.save(name, overwrite=True)
        sources[name] = source


def ingest_all(library: ImageLibrary, **options: object) -> tuple[str, dict[str, IngestReport]]:
    state = ingest_all_sources(library, return_state=True, **options)
    return state.type.value, {report.source: report for report in state.result(raise_on_failure=False)}


def test_a_source_that_fails_does_not_touch_the_next(
    saved: dict[str, ImageSource], site: Site, faults: FaultServer, library: ImageLibrary
) -> None:
    faults.on("/", fault.status(401))
    (site.folder / "card").mkdir()
    for number in range(3):
        site.put(f"{number}.jpg", make_jpeg(number))
    site.put("card/x.jpg", make_jpeg(7))
    save(
        saved,
        amiss=directory(faults.url),
        asleep=directory(faults.url, is_active=False),
        bank=site.source(),
        card=folder_source(site.folder / "card"),
    )
    ended, reports = ingest_all(library, max_files_per_source=2)
    assert ended == "FAILED"
    assert {name: (str(report.status), report.stored) for name, report in reports.items()} == {
        "http-directory/amiss": ("failed", 0),
        "http-directory/asleep": ("inactive", 0),
        "http-directory/bank": ("success", 2),
        "remote-folder/card": ("success", 1),
    }
    assert reports["http-directory/bank"].deferred == 1
    assert "401" in str(reports["http-directory/amiss"].message)
    assert_sound(library)


def test_a_saved_source_that_is_no_longer_valid_is_told_and_left(
    saved: dict[str, ImageSource], site: Site, library: ImageLibrary
) -> None:
    site.put("a.jpg", make_jpeg(1))
    save(saved, bank=site.source(), spoilt=directory("http://127.0.0.1/"))
    with get_client(sync_client=True) as client:
        document = client.read_block_document_by_name("spoilt", HttpDirectory.get_block_type_slug())
        broken = {"base_url": "http://127.0.0.1/", "auth_type": "header"}
        client._client.patch(f"/block_documents/{document.id}", json={"data": broken, "merge_existing_data": False})
    ended, reports = ingest_all(library)
    assert (ended, reports["http-directory/bank"].stored) == ("FAILED", 1)
    assert "auth_type header needs auth_header" in str(reports["http-directory/spoilt"].message)


def test_nothing_saved_is_nothing_to_do(saved: dict[str, ImageSource], library: ImageLibrary) -> None:
    assert ingest_all(library) == ("COMPLETED", {})
