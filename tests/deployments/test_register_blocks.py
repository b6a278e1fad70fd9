"""Documents from the environment, where what was saved before is not valid any more."""

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate, GlobalConcurrencyLimitUpdate
from prefect_aws import S3Bucket

from blocks._errors import WrongUse
from blocks.http_directory import HttpDirectory
from deployments.register_blocks import main, register_types, save_documents

CANARY = "canary-in-a-coal-mine"
BASE_URL = "CATCHMENT_HTTP_DIRECTORY__WORN__BASE_URL"
OWNER = "CATCHMENT_HTTP_DIRECTORY__WORN__OWNER"


@pytest.fixture
def worn(prefect_api: str) -> Iterator[None]:
    """A saved document whose address nothing accepts any more; the rest of it is sound."""
    register_types()
    document = HttpDirectory(base_url="https://gate.example.org/").save("worn", overwrite=True)
    values = {"base_url": f"gopher://{CANARY}/", "location": "north gate"}
    with get_client(sync_client=True) as client:
        client.update_block_document(document, BlockDocumentUpdate(data=values, merge_existing_data=False))
    yield
    HttpDirectory.delete("worn")


@pytest.mark.usefixtures("worn")
def test_the_environment_mends_a_saved_document_that_is_not_valid_any_more() -> None:
    assert save_documents({BASE_URL: "https://new.example.org/"}) == ["saved http-directory/worn (base_url)"]
    saved = HttpDirectory.load("worn")
    assert (saved.base_url, saved.location) == ("https://new.example.org/", "north gate")


@pytest.mark.usefixtures("worn")
def test_a_document_that_stays_invalid_is_told_without_what_it_holds() -> None:
    with pytest.raises(WrongUse, match="http-directory/worn can not be saved from the environment: base_url") as told:
        save_documents({OWNER: "Weser station"})
    assert CANARY not in str(told.value)
    assert told.value.__suppress_context__


@pytest.mark.usefixtures("worn")
def test_a_reference_to_a_document_that_is_not_valid_any_more_is_told_without_what_it_holds() -> None:
    document = S3Bucket(bucket_name="bucket").save("worn", overwrite=True)
    with get_client(sync_client=True) as client:
        values = {"bucket_name": {"not": CANARY}}
        client.update_block_document(document, BlockDocumentUpdate(data=values, merge_existing_data=False))
    with pytest.raises(WrongUse, match="no usable saved Block s3-bucket/worn to be its bucket") as told:
        save_documents({"CATCHMENT_IMAGE_LIBRARY__ARCHIVE__BUCKET": "s3-bucket/worn"})
    assert told.value.__suppress_context__


def test_the_limit_of_cameras_read_at_once_is_made_and_one_that_was_set_stays(
    prefect_api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with get_client(sync_client=True) as client:
        try:
            assert main() == 0
            assert client.read_global_concurrency_limit_by_name("rtsp-streams").limit == 10
            client.update_global_concurrency_limit("rtsp-streams", GlobalConcurrencyLimitUpdate(limit=3))
            assert main() == 0
            assert client.read_global_concurrency_limit_by_name("rtsp-streams").limit == 3
        finally:
            client.delete_global_concurrency_limit_by_name("rtsp-streams")
    assert capsys.readouterr().err == ""
