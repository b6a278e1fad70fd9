"""Looking at a staged batch: every image proven whole, measured and given a thumbnail, each failing alone."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from blocks._errors import Reason
from blocks._records import ImageFacts, Outcome, RemoteFile, Rows, Verdict
from blocks._storage import translate_disk
from tasks._download import Staged, StagedFile
from tasks._image import BadImage, inspect_image


@dataclass(frozen=True, slots=True)
class AcceptedFile:
    """A staged file that is an image, with what it says of itself and a thumbnail beside it."""

    file: RemoteFile
    path: Path
    thumbnail: Path
    facts: ImageFacts
    modified: datetime | None
    warning: str | None


@dataclass(frozen=True, slots=True)
class RejectedFile:
    """A staged file that is no acceptable image; its bytes go to quarantine."""

    path: Path
    outcome: Outcome


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Processed:
    """A batch that was looked at: what to store, what to set aside, and what never came."""

    title: str
    accepted: Rows[AcceptedFile]
    rejected: Rows[RejectedFile]
    ended: Rows[Outcome]


def inspect_batch(staged: Staged, *, arrived: datetime) -> Processed:
    """Look at every file of `staged`; `arrived` (aware) is the capture time of last resort."""
    ends = [_inspect_one(item, arrived) for item in staged.files]
    return Processed(
        title=staged.title,
        accepted=Rows(end for end in ends if isinstance(end, AcceptedFile)),
        rejected=Rows(end for end in ends if isinstance(end, RejectedFile)),
        ended=staged.ended,
    )


def _inspect_one(item: StagedFile, arrived: datetime) -> AcceptedFile | RejectedFile:
    file, fetched = item.file, item.fetched
    modified = fetched.modified or file.modified
    thumbnail = fetched.path.with_name(fetched.path.name + ".thumb")
    try:
        content = fetched.path.read_bytes()
        if hashlib.sha256(content).hexdigest() != fetched.sha256:
            return _reject(item, Verdict.FAILED, Reason.DIGEST_MISMATCH, "It changed in staging; it is fetched again.")
        seen = inspect_image(
            content,
            key=file.key,
            sha256=fetched.sha256,
            modified=modified,
            arrived=arrived,
            claims=fetched.claims,
        )
        thumbnail.write_bytes(seen.thumbnail)
    except BadImage as error:
        return _reject(item, Verdict.QUARANTINED, error.reason, str(error))
    except OSError as error:
        raise translate_disk(error, "a staged file") from error
    except Exception as error:  # noqa: BLE001 - a decoder's surprise, or a lack of memory, must cost only its file
        message = f"Looking at the file ended in an unexpected {type(error).__name__}; it is tried again, then parked."
        return _reject(item, Verdict.FAILED, Reason.CORRUPT, message)
    return AcceptedFile(file, fetched.path, thumbnail, seen.facts, modified, fetched.warning)


def _reject(item: StagedFile, verdict: Verdict, reason: Reason, message: str) -> RejectedFile:
    fetched = item.fetched
    return RejectedFile(fetched.path, Outcome(item.file, verdict, reason, message, fetched.sha256, fetched.size))
