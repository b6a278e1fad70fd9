"""How many cameras are read at once, over all machines: Prefect's global concurrency limit `rtsp-streams`."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from blocks._errors import SourceUnavailable, WrongUse

STREAMS_LIMIT = "rtsp-streams"
"""The limit's name; the registration script makes it."""

MOST_STREAMS = 10
"""What the limit is until somebody sets it otherwise."""

_LEASE_SECONDS = 60.0  # the shortest that Prefect takes: for so long a killed capture keeps its place


class StreamsBusy(SourceUnavailable):
    """As many streams are open as may be: wait until one ends."""


def ensure_streams_limit() -> None:
    """Make the limit of streams open at once, where there is none; one that somebody has set stays as it is."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(STREAMS_LIMIT)
        except ObjectNotFound:
            wanted = GlobalConcurrencyLimitCreate(name=STREAMS_LIMIT, limit=MOST_STREAMS)
            client.create_global_concurrency_limit(wanted)


def forget_open_streams() -> None:
    """Count no stream as open: for a server that has just started and knows nothing of the captures killed before.

    Prefect keeps who holds a place in the server's memory, and how many are taken in its database.
    """
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(STREAMS_LIMIT, GlobalConcurrencyLimitUpdate(active_slots=0))


@contextmanager
def hold_stream(*, waits: bool = True) -> Iterator[None]:
    """Hold one of the places for open streams, and wait for it as long as it takes.

    Raises:
        StreamsBusy: all are taken, and it does not wait.
        WrongUse: there is no such limit, or it allows none.
    """
    limit = _read_limit()
    if limit.active_slots >= limit.limit:
        if not waits:
            raise StreamsBusy(f"{limit.active_slots} streams are open, as many as may be.")
        get_run_logger().info("%d streams are open, as many as may be: this one waits", limit.active_slots)
    with concurrency(
        STREAMS_LIMIT,
        strict=True,
        lease_duration=_LEASE_SECONDS,
        raise_on_lease_renewal_failure=False,  # Prefect's server being away is no reason to lose frames
    ):
        yield


def _read_limit() -> GlobalConcurrencyLimitResponse:
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(STREAMS_LIMIT)
        except ObjectNotFound as error:
            raise WrongUse(
                f"Prefect knows no concurrency limit {STREAMS_LIMIT}, and without it nothing bounds how many cameras "
                f"are read at once; make it: prefect gcl create {STREAMS_LIMIT} --limit {MOST_STREAMS} "
                "(python -m deployments.register_blocks does it, too)."
            ) from error
    if limit.limit < 1:
        raise WrongUse(
            f"The concurrency limit {STREAMS_LIMIT} is 0, so no camera may be read; raise it: prefect gcl update "
            f"{STREAMS_LIMIT} --limit {MOST_STREAMS}"
        )
    return limit
