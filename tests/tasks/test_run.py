"""The frame of an ingest: what it refuses, what it waits for, how often it tries."""

import pytest
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import ParameterTypeError
from prefect.states import Failed, State

from blocks._errors import LibraryRefused, LibraryUnavailable, SourceRefused, SourceUnavailable
from flows.ingest_http_directory import ingest_http_directory
from tasks import ingest as tasks_of_an_ingest
from tasks.policies import TRIES, heals
from tasks.run import IN_FLIGHT, bounded


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SourceUnavailable("later"), True),
        (LibraryUnavailable("later"), True),
        (SourceRefused("no"), False),
        (LibraryRefused("no"), False),
        (ValueError("a mistake of ours"), False),
    ],
)
def test_only_what_time_may_mend_is_tried_again_and_never_more_than_three_times(
    error: Exception, *, expected: bool
) -> None:
    state: State[object] = Failed(data=error)
    runs = [TaskRun(task_key="k", dynamic_key="1", run_count=count) for count in range(1, TRIES + 1)]
    tried_again = [heals(tasks_of_an_ingest.download, run, state) for run in runs]
    assert tried_again == [expected, expected, False]


@pytest.mark.parametrize("name", ["list_files", "diff", "download", "process", "store"])
def test_no_task_keeps_its_results_or_takes_them_from_a_cache(name: str) -> None:
    task = getattr(tasks_of_an_ingest, name)
    assert task.persist_result is False
    assert task.cache_policy.compute_key(None, {}, {}) is None


def test_every_stage_of_every_batch_in_flight_has_a_thread() -> None:
    assert bounded()._max_workers == 3 * IN_FLIGHT


@pytest.mark.parametrize("max_files", [0, -1])
def test_a_cap_below_one_is_refused(max_files: int) -> None:
    with pytest.raises(ParameterTypeError, match="greater than or equal to 1"):
        ingest_http_directory.validate_parameters({"source": {"base_url": "http://127.0.0.1/"}, "max_files": max_files})
