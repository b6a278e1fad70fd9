"""A file of Drive's brought whole, and compared with the digest that Drive tells of it."""

import hashlib
from dataclasses import replace
from pathlib import Path

from blocks._drive_errors import explain_drive
from blocks._drive_items import DriveItem, Located
from blocks._drive_wire import DriveWire
from blocks._errors import CatchmentError, Reason, SourceUnavailable
from blocks._http_download import download_file
from blocks._records import Fetched


def fetch_file(wire: DriveWire, located: Located, destination: Path, *, max_bytes: int) -> Fetched:
    """Bring the file that `located` tells of whole to `destination`; what a cut left there is continued by Range.

    Drive promises no ETag with a file's bytes, so it is the digest of the joined whole that proves them one; where it
    does not, they are fetched anew. Bytes that came in one piece and still differ are kept with a warning: Drive serves
    some pictures processed, and tells the digest of what was uploaded.

    Raises:
        SourceUnavailable: the file may still come.
        SourceRefused: Drive does not hand it out, or it is larger than `max_bytes`.
    """
    return wire.patience().until_it_heals(lambda: _fetch_once(wire, located, destination, max_bytes))


def _fetch_once(wire: DriveWire, located: Located, destination: Path, max_bytes: int) -> Fetched:
    item = located.item
    if item.resource_key:
        wire.resource_keys[item.id] = item.resource_key
    is_continued = destination.with_name(f"{destination.name}.part").exists()
    try:
        fetched = download_file(
            wire.client,
            wire.media_url(item),
            destination,
            expected_size=item.size,
            max_bytes=max_bytes,
            pace=wire.pace,
            patience=replace(wire.patience(), attempts=1),
            resume=_has_digest(item),
            headers=wire.headers_for([item.id]),
            explain=explain_drive,
            find_version=lambda _: item.validator,
        )
    except CatchmentError as error:
        if error.reason is not Reason.HTML_PAGE:
            raise
        raise SourceUnavailable(
            f"Google Drive answered for {item.safe_name} with a web page in place of its bytes, as it does when a file "
            "was downloaded too often: it is tried again with the next run.",
            reason=Reason.HTML_PAGE,
        ) from error
    if _is_proven(item, fetched):
        warning = fetched.warning
    elif is_continued:
        destination.unlink()
        raise SourceUnavailable(
            f"The parts of {item.safe_name} do not make the file that Drive tells of; it is fetched anew.",
            reason=Reason.CHANGED_MIDWAY,
        )
    else:
        warning = "The bytes are not those whose digest Drive tells: served processed, or changed since."
    return replace(
        fetched,
        modified=located.modified or fetched.modified,
        warning=warning,
        claims=located.to_claims(),
    )


def _has_digest(item: DriveItem) -> bool:
    return bool(item.fields.get("sha256Checksum") or item.fields.get("md5Checksum"))


def _is_proven(item: DriveItem, fetched: Fetched) -> bool:
    """Tell whether the bytes have the digest that the listing tells of, or it tells none."""
    if sha256 := item.fields.get("sha256Checksum"):
        return fetched.sha256 == str(sha256).lower()
    if md5 := item.fields.get("md5Checksum"):
        with fetched.path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        return digest.hexdigest() == str(md5).lower()
    return True
