"""From a web server's directory into the library: what a person sees of it."""

import time
from datetime import UTC, datetime

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact

from blocks._errors import SourceRefused, SourceUnavailable
from blocks.library import ImageLibrary
from tasks.report import artifact_key
from tests.flows.ingesting import (
    LONG_AGO,
    Site,
    assert_sound,
    directory,
    images_of,
    index_page,
    ingest,
    last_run,
    visible_files,
)
from tests.pictures import make_jpeg
from tests.servers import fault
from tests.servers.fault import FaultServer

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")


def read_artifact(key: str) -> Artifact:
    with get_client(sync_client=True) as client:
        [*artifacts] = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return artifacts[0]


def test_first_everything_comes_and_then_nothing(site: Site, library: ImageLibrary) -> None:
    for number in range(3):
        site.put(f"IMG_{number}.jpg", make_jpeg(number))
    first = ingest(site.source(), library)
    assert (first.state.type.value, first.report.status, first.report.stored) == ("COMPLETED", "success", 3)
    before = visible_files(library)
    second = ingest(site.source(), library)
    assert (second.report.status, second.report.planned, second.report.unchanged) == ("no_new_files", 0, 3)
    assert visible_files(library) == before
    assert_sound(library)


def test_an_unchanged_source_costs_one_request_and_no_task_run_per_file(
    site: Site, library: ImageLibrary, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        site.put(f"{number}.jpg", make_jpeg(number))
    ingest(site.source(), library)
    before = len(site.requests())
    caplog.clear()
    ingest(site.source(), library)
    assert site.requests()[before:] == [""]
    finished = [record for record in caplog.records if record.name == "prefect.task_runs" and "Finished" in record.msg]
    assert sorted(record.task_name for record in finished) == ["diff", "list_files"]  # type: ignore[attr-defined]


def test_what_a_picture_says_of_itself_is_in_the_catalog(site: Site, library: ImageLibrary) -> None:
    exif = {"taken": "2026:02:03 04:05:06", "offset": "+01:00", "make": "Reconyx", "model": "HP2X", "serial": "H500"}
    site.put("told.jpg", make_jpeg(1, **exif, position=(52.5, -13.25), orientation=6))
    site.put("Aufnahme_260304_0506_WEIR2.jpg", make_jpeg(2))
    site.put("untold.jpg", make_jpeg(3))
    ingest(site.source(location="weir", owner="Ada"), library)
    rows = {row["key"]: row for row in images_of(library)}
    told = rows["told.jpg"]
    assert (told["captured_at"], told["captured_at_source"]) == ("2026-02-03T04:05:06+01:00", "exif")
    assert (told["width"], told["height"], told["format"]) == (480, 640, "jpeg")
    assert (told["latitude"], told["longitude"]) == pytest.approx((52.5, -13.25))
    assert (told["location"], told["owner"], told["camera"]) == ("weir", "Ada", "Reconyx HP2X")
    named = rows["Aufnahme_260304_0506_WEIR2.jpg"]
    assert (named["captured_at"], named["captured_at_source"]) == ("2026-03-04T05:06:00", "file_name")
    assert named["camera"] == "WEIR2"
    untold = rows["untold.jpg"]
    assert (untold["captured_at"], untold["captured_at_source"]) == ("2026-03-01T10:20:00+00:00", "server")


def test_a_file_keeps_its_modification_time_and_its_bytes(site: Site, library: ImageLibrary) -> None:
    site.put("a.jpg", make_jpeg(1), modified=datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC))
    ingest(site.source(layout="{name}"), library)
    stored = library.folder / "a.jpg"
    assert stored.stat().st_mtime == datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp()
    assert stored.read_bytes() == make_jpeg(1)


def test_what_a_capped_run_leaves_the_next_ones_finish(site: Site, library: ImageLibrary) -> None:
    for number in range(7):
        site.put(f"{number}.jpg", make_jpeg(number))
    reports = [ingest(site.source(), library, max_files=3).report for _ in range(4)]
    assert [(report.stored, report.deferred) for report in reports] == [(3, 4), (3, 1), (1, 0), (0, 0)]
    assert [str(report.status) for report in reports] == ["success"] * 3 + ["no_new_files"]
    assert_sound(library)


def test_a_paused_source_is_left_alone(site: Site, library: ImageLibrary) -> None:
    site.put("a.jpg", make_jpeg(1))
    ending = ingest(site.source(is_active=False), library)
    assert (ending.state.name, ending.report.status) == ("Inactive", "inactive")
    assert site.requests() == []
    assert not library.folder.exists()


def test_a_dry_run_tells_the_plan_and_touches_nothing(site: Site, library: ImageLibrary) -> None:
    for number in range(3):
        site.put(f"{number}.jpg", make_jpeg(number))
    ending = ingest(site.source(), library, max_files=2, dry_run=True)
    assert (ending.report.status, ending.report.planned, ending.report.deferred) == ("planned", 2, 1)
    assert site.requests() == [""]
    assert not library.folder.exists()
    assert "| new | 0.jpg |" in str(read_artifact(artifact_key("plan", site.source().source_name)).data)


def test_a_dry_run_of_a_known_source_changes_no_byte_of_its_library(site: Site, library: ImageLibrary) -> None:
    site.put("a.jpg", make_jpeg(1))
    ingest(site.source(), library)
    site.put("b.jpg", make_jpeg(2))
    before = {path: path.stat().st_mtime_ns for path in library.folder.rglob("*") if "sqlite" not in path.name}
    ending = ingest(site.source(), library, dry_run=True)
    assert (ending.report.planned, ending.report.unchanged) == (1, 1)
    assert {p: p.stat().st_mtime_ns for p in library.folder.rglob("*") if "sqlite" not in p.name} == before
    assert last_run(library)["stored"] == 1


def test_without_a_library_the_images_go_where_the_environment_says(
    site: Site, library: ImageLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("a.jpg", make_jpeg(1))
    monkeypatch.setenv("CATCHMENT_LIBRARY", str(library.folder))
    assert ingest(site.source(), None).report.stored == 1
    assert_sound(library)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (fault.status(500), SourceUnavailable),
        (fault.status(401), SourceRefused),
        (fault.raw(b""), SourceUnavailable),
        (fault.whole(b"<html><form>Please log in<input type=password></form></html>"), SourceRefused),
    ],
    ids=["500", "401", "hangs-up", "login-page"],
)
def test_a_failing_source_ends_failed_with_a_sentence_and_no_traceback(
    faults: FaultServer,
    library: ImageLibrary,
    caplog: pytest.LogCaptureFixture,
    answer: fault.Answer,
    kind: type[Exception],
) -> None:
    faults.on("/", answer)
    ending = ingest(directory(faults.url), library)
    assert ending.state.is_failed()
    assert isinstance(ending.error, kind)
    assert ending.state.message == str(ending.error)
    assert str(ending.error).endswith(".")
    run = last_run(library)
    assert (run["status"], run["message"]) == ("failed", str(ending.error))
    assert [record.message for record in caplog.records if record.exc_info or "Traceback" in record.message] == []
    assert any(str(ending.error) in record.message for record in caplog.records if record.name == "prefect.flow_runs")


def test_the_report_shows_pictures_and_says_what_was_not_stored(
    site: Site, faults: FaultServer, library: ImageLibrary
) -> None:
    hostile = ["a|b.jpg", "<script>alert(1)<.jpg", "![x](y).jpg", "line\nbreak.jpg"]
    quoted = ["a%7Cb.jpg", "%3Cscript%3Ealert(1)%3C.jpg", "!%5Bx%5D(y).jpg", "line%0Abreak.jpg"]
    faults.on("/", index_page([*quoted, "broken.jpg"]))
    for number, path in enumerate(quoted):
        faults.on(f"/{path}", fault.whole(make_jpeg(number)))
    faults.on("/broken.jpg", fault.whole(b"<html>gone</html>"))
    ending = ingest(directory(faults.url), library)
    assert (ending.report.stored, ending.report.quarantined, ending.report.status) == (4, 1, "partial")
    assert {row["key"] for row in images_of(library)} == set(hostile)
    text = str(read_artifact(artifact_key("report", faults.url)).data)
    assert text.count("![](data:image/jpeg;base64,") == 4
    assert "html_page" in text
    assert not any(name in text for name in [*hostile, "<"])
    rows = [line for line in text.splitlines() if line.startswith("| ![](data")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}


def test_automations_hear_of_every_batch_that_was_stored(site: Site, library: ImageLibrary) -> None:
    site.put("a.jpg", make_jpeg(1))
    ending = ingest(site.source(), library)
    with get_client(sync_client=True) as client:
        [event] = await_events(client, f"catchment.source.{site.source().source_name}")
    assert event["event"] == "catchment.image.stored"
    payload = event["payload"]
    assert (payload["stored"], payload["failed"], payload["run_id"]) == (1, 0, ending.report.run_id)
    assert payload["bytes"] == len(make_jpeg(1))


def await_events(client: SyncPrefectClient, resource: str) -> list[dict[str, object]]:
    """Return the events about `resource` once the server has written them down, which it does every few seconds."""
    query = {"filter": {"any_resource": {"id": [resource]}, "occurred": {"since": LONG_AGO.isoformat()}}}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = client._client.post("/events/filter", json=query).json()["events"]
        if found:
            return list(found)
        time.sleep(0.3)
    raise AssertionError("the server heard of no event")
