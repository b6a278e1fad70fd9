"""Bringing a batch whole into staging, each file failing alone."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from blocks._errors import CatchmentError, LibraryRefused, LibraryUnavailable, Reason, SourceRefused, SourceUnavailable
from blocks._patience import SourceBusy
from blocks._records import Fetched, Outcome, RemoteFile, Rows, Verdict
from blocks._storage import translate_disk
from blocks.source import ImageSource
from tasks._plan import Batch

SILENCE = 10
"""So many files in a row without an answer mean that the source is down, not the files bad."""

_NOTES = TypeAdapter(dict[str, Fetched])


def is_silence(reason: Reason | None) -> bool:
    """Tell whether a file failed because nobody answered, or only with: not now."""
    return reason in {Reason.TIMEOUT, Reason.CONNECTION, Reason.RATE_LIMITED, Reason.SERVER_ERROR}


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that lies whole in staging, and the row of the listing it came for."""

    file: RemoteFile
    fetched: Fetched


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Staged:
    """A downloaded batch: what lies in staging, and the outcome of every file that was tried and does not.

    `stopped` says why some files were not tried; they are in neither.
    """

    title: str
    files: Rows[StagedFile]
    ended: Rows[Outcome]
    stopped: str | None


def staging_path(staging: Path, key: str) -> Path:
    """Return where `key` is staged: the same place in every run, so that a cut download can be resumed."""
    return staging / hashlib.sha256(key.encode()).hexdigest()[:32]


def clear_staging(staging: Path, wanted: Iterable[str] | None = None) -> None:
    """Remove what a killed run left, but for cut downloads, which may be resumed: all, or those of the `wanted` keys.

    Raises:
        LibraryUnavailable, LibraryRefused: the disk would not let go.
    """
    try:
        cut = [path for path in staging.iterdir() if not _is_removed_whole(path)]
        kept = {staging_path(staging, key).name for key in wanted} if cut and wanted is not None else None
        for path in cut:
            if kept is not None and path.name.partition(".")[0] not in kept:
                path.unlink()
    except OSError as error:
        raise translate_disk(error, "the staging folder") from error


def _is_removed_whole(path: Path) -> bool:
    if ".part" in path.suffixes:
        return False
    path.unlink()
    return True


def fetch_batch(source: ImageSource, batch: Batch, staging: Path, *, is_last_try: bool) -> Staged:
    """Bring every file of `batch` into `staging`; what an earlier try in this run brought is not fetched again.

    Raises:
        SourceUnavailable: some files may still come and this is not the last try; what came stays in staging.
        LibraryUnavailable, LibraryRefused: staging could not take a file.
    """
    notes = staging / f"{batch.number}.came"
    came = _NOTES.validate_json(notes.read_bytes()) if notes.exists() else {}
    fetching = _Fetching(source, staging, came)
    ends = fetching.fetch_all(batch.files)
    files = [end for end in ends if isinstance(end, StagedFile)]
    failures = [end for end in ends if isinstance(end, tuple)]
    healing = [error for _, error in failures if isinstance(error, SourceUnavailable)]
    if healing and not is_last_try:
        notes.write_bytes(_NOTES.dump_json({item.file.key: item.fetched for item in files}))
        raise SourceUnavailable(
            f"{len(batch.files) - len(files)} of {len(batch.files)} files did not come: {healing[0]}",
            reason=healing[0].reason,
        )
    notes.unlink(missing_ok=True)
    return Staged(
        title=batch.title,
        files=Rows(files),
        ended=Rows(failed_outcome(file, error) for file, error in failures),
        stopped=fetching.why_stopped if None in ends else None,
    )


def failed_outcome(file: RemoteFile, error: CatchmentError) -> Outcome:
    """Return the outcome of a file that did not come: quarantined if the answer was no image at all, else failed."""
    by_content = error.reason in {Reason.HTML_PAGE, Reason.NOT_AN_IMAGE, Reason.TOO_LARGE}
    verdict = Verdict.QUARANTINED if by_content and isinstance(error, SourceRefused) else Verdict.FAILED
    return Outcome(file, verdict, error.reason, str(error))


class _Fetching:
    """One pass over a batch that stops asking a source that has stopped answering, or asks to be left alone."""

    def __init__(self, source: ImageSource, staging: Path, came: Mapping[str, Fetched]) -> None:
        self._source = source
        self._staging = staging
        self._came = came
        self._unanswered = 0
        self._asked_to_wait: SourceBusy | None = None

    @property
    def why_stopped(self) -> str:
        """Return why not every file was tried."""
        why = str(self._asked_to_wait or f"{self._source.root} stopped answering.")
        return f"{why} What was not tried is left for the next run."

    def fetch_all(self, files: Sequence[RemoteFile]) -> list[StagedFile | tuple[RemoteFile, CatchmentError] | None]:
        """Return each file staged or with its error, in order; None for those that were not tried."""
        if len(files) == 1:
            return [self._fetch(files[0])]
        with ThreadPoolExecutor(min(self._source.connections, len(files)), thread_name_prefix="download") as pool:
            return list(pool.map(self._fetch, files))

    def _fetch(self, file: RemoteFile) -> StagedFile | tuple[RemoteFile, CatchmentError] | None:
        if file.key in self._came:
            return StagedFile(file, self._came[file.key])
        if self._unanswered >= SILENCE or self._asked_to_wait or self._source.is_stopped:
            return None
        try:
            with self._source.slot():
                fetched = self._source.download(file, staging_path(self._staging, file.key))
        except OSError as error:
            raise translate_disk(error, "a download") from error
        except (LibraryUnavailable, LibraryRefused):
            raise  # it is our disk, and no fault of the file's
        except SourceBusy as error:
            self._asked_to_wait = error
            return None
        except CatchmentError as error:
            self._unanswered = self._unanswered + 1 if is_silence(error.reason) else 0
            return file, error
        self._unanswered = 0
        return StagedFile(file, fetched)
