"""How often tasks are tried again, in one place."""

from typing import Any, TypedDict

from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from blocks._errors import LibraryUnavailable, SourceUnavailable
from blocks._patience import SourceBusy


class TaskPolicy(TypedDict, total=False):
    """The part of `@task`'s options that a policy sets."""

    retries: int
    retry_delay_seconds: Any
    retry_jitter_factor: float
    retry_condition_fn: Any
    cache_policy: CachePolicy
    persist_result: bool


TRIES = 3
"""How often a task that talks to a source or the library is begun at most."""


def heals(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Tell whether a failed task's error is one that a few seconds may mend, and a try is left.

    A source that asks for a longer wait than a run has is left alone.

    Prefect wants a plain function here: with a partial, a bound method or a callable object it silently never retries.
    """
    error = state.data if isinstance(state.data, BaseException) else state.result(raise_on_failure=False)
    may_heal = isinstance(error, SourceUnavailable | LibraryUnavailable) and not isinstance(error, SourceBusy)
    return task_run.run_count < TRIES and may_heal


OUTSIDE = TaskPolicy(
    retries=TRIES,  # one more than are made: Prefect logs a traceback when its own count is used up
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=heals,
    cache_policy=NO_CACHE,
    persist_result=False,
)
"""For tasks that talk to a source or the library: two more tries after some 2 and 4 seconds, if time may mend it."""

INSIDE = TaskPolicy(cache_policy=NO_CACHE, persist_result=False)
"""For tasks that only compute: a second try would fail as the first did."""
