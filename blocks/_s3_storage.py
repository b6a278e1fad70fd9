"""A library in a bucket: every object is put once, proven by its hash, and never overwritten."""

import base64
import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from blocks._errors import CatchmentError, KeyRefused, LibraryRefused, LibraryUnavailable
from blocks._layout import is_hidden
from blocks._s3 import S3_ERRORS, explain_error
from blocks._storage import Incoming, Storage, Stored, possible_keys, require_safe_key, translate_disk

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_OBJECT_BYTES = 5 * 1024**3
"""Most that one PutObject takes, which S3 proves by SHA-256 and makes conditional as a whole; multipart it does not:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html"""

MAX_KEY_BYTES = 1024
"""Longest key of an object, in UTF-8: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html"""

_LONGEST_VALUE = 300
_VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")

# Threads of one process that put different bytes under one key wait for each other even where a server ignores
# If-None-Match. Many keys share a lock, so the table stays small.
_LOCKS = tuple(Lock() for _ in range(64))


class S3Storage(Storage):
    """A folder of a bucket.

    Puts are conditional (`If-None-Match: *`) and carry the SHA-256, which AWS checks before the object appears. Servers
    that ignore either are looked at before and after; only two processes that put different bytes under one key in the
    same instant could then collide, and the later look of each tells them.
    """

    def __init__(self, client: "S3Client", bucket: str, folder: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        self._is_conditional = True

    def put_files(self, batch: Sequence[Incoming]) -> list[str | CatchmentError]:
        """Store every file of `batch`, several at once; each ends as its key or, alone, as its error, in order."""
        if len(batch) == 1:
            return [self._place(batch[0])]
        with _threads() as threads:
            return list(threads.map(self._place, batch))

    def put_bytes(self, key: str, content: bytes) -> None:
        """Put `content` under `key`, in place of what is there."""
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=self._full(key), Body=content, ContentType=_guess_content_type(key)
            )
        except S3_ERRORS as error:
            raise translate_library_error(error, key) from error

    def put_many(self, made: Mapping[str, Path]) -> None:
        """Put the files under their keys, several at once; they stay in staging."""

        def put(key: str, source: Path) -> None:
            try:
                content = source.read_bytes()
            except OSError as error:
                raise translate_disk(error, source.name) from error
            self.put_bytes(key, content)

        with _threads() as threads:
            list(threads.map(put, made.keys(), made.values()))

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """Open the object under `key` for reading once, front to back."""
        try:
            with closing(self._client.get_object(Bucket=self._bucket, Key=self._full(key))["Body"]) as body:
                yield cast("BinaryIO", body)
        except S3_ERRORS as error:
            raise translate_library_error(error, key) from error

    def make_url(self, key: str, expires: timedelta) -> str:
        """Return a presigned address of the object under `key`; no request is made for it."""
        wanted = {"Bucket": self._bucket, "Key": self._full(key)}
        try:
            return self._client.generate_presigned_url(
                "get_object", Params=wanted, ExpiresIn=int(expires.total_seconds())
            )
        except S3_ERRORS as error:
            raise translate_library_error(error, key) from error

    def stat(self, key: str) -> Stored | None:
        """Return size and SHA-256 (S3's own or the one we noted) of the object under `key`, or None."""
        try:
            answer = self._client.head_object(Bucket=self._bucket, Key=self._full(key), ChecksumMode="ENABLED")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise translate_library_error(error, key) from error
        except BotoCoreError as error:
            raise translate_library_error(error, key) from error
        # rclone hands metadata back in title case; a multipart checksum ends in -N and is no hash of the bytes.
        noted = {name.lower(): value for name, value in answer["Metadata"].items()}.get("sha256")
        checksum = answer.get("ChecksumSHA256", "-")
        return Stored(answer["ContentLength"], noted if "-" in checksum else base64.b64decode(checksum).hex())

    def delete(self, key: str) -> None:
        """Remove the object under `key`."""
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._full(key))
        except S3_ERRORS as error:
            raise translate_library_error(error, key) from error

    def list_keys(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield key and size of every visible object, in the bucket's order."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        try:
            for page in pages:
                for found in page.get("Contents", []):
                    key = found["Key"].removeprefix(self._prefix)
                    if not is_hidden(key) and not key.endswith("/"):
                        yield key, found["Size"]
        except S3_ERRORS as error:
            raise translate_library_error(error, f"the list of {self._prefix}{prefix}") from error

    def _full(self, key: str) -> str:
        full = self._prefix + require_safe_key(key)
        if len(full.encode()) > MAX_KEY_BYTES:
            raise KeyRefused(f"The name {key} is too long for a bucket; choose a shorter layout or bucket folder.")
        return full

    def _place(self, file: Incoming) -> str | CatchmentError:
        try:
            for key in possible_keys(file.key, file.sha256):
                if self._place_at(key, file):
                    if file.move:
                        with suppress(OSError):
                            file.source.unlink()
                    return key
        except S3_ERRORS as error:
            return translate_library_error(error, file.key)
        except OSError as error:
            return translate_disk(error, file.source.name)
        except CatchmentError as error:
            return error
        return KeyRefused(f"Every name for {file.key} is taken by other bytes; look at the bucket.")

    def _place_at(self, key: str, file: Incoming) -> bool:
        with _LOCKS[hash((self._bucket, self._full(key))) % len(_LOCKS)]:
            if stored := self.stat(key):
                return self._holds(key, stored, file)
            self._put(key, file)
            stored = self.stat(key)
            if stored is None:
                raise LibraryUnavailable(f"S3 took {key} and does not show it; the next run tries again.")
            return self._holds(key, stored, file)

    def _holds(self, key: str, stored: Stored, file: Incoming) -> bool:
        return stored.size == file.size and (stored.sha256 or self.hash_object(key)) == file.sha256

    def _put(self, key: str, file: Incoming) -> None:
        """Put the object unless one is there; who came first shows afterwards."""
        if not file.source.is_file():
            raise LibraryUnavailable(f"The staged file for {key} is gone; the next run brings it again.")
        if file.size > MAX_OBJECT_BYTES:
            raise KeyRefused(f"{key} has {file.size:,} bytes, and one object takes 5 GiB; keep it elsewhere.")
        if (size := file.source.stat().st_size) != file.size:
            raise LibraryUnavailable(
                f"The staged file for {key} has {size:,} bytes where {file.size:,} came; the next run brings it again."
            )
        noted = {
            **{name: _fit_for_header(text) for name, text in (file.metadata or {}).items()},
            "sha256": file.sha256,
            **({"modified": file.modified.isoformat()} if file.modified else {}),
        }
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if self._is_conditional else {}
        try:
            with file.source.open("rb") as body:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._full(key),
                    Body=body,
                    ContentLength=file.size,
                    ContentType=file.content_type or _guess_content_type(key),
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(file.sha256)).decode(),
                    Metadata=noted,
                    **condition,
                )
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 501 and self._is_conditional:
                self._is_conditional = False
                self._put(key, file)
            elif status != 412:
                raise


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="s3-put")


def _fit_for_header(text: str) -> str:
    """Return the beginning of `text` as metadata takes it: percent-encoded where it is not visible ASCII.

    All of an object's metadata together may have 2 KB:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
    """
    fitting = ""
    for character in text:
        encoded = quote(character, safe=_VISIBLE, errors="replace")
        if len(fitting) + len(encoded) > _LONGEST_VALUE:
            break
        fitting += encoded
    return fitting


def _guess_content_type(key: str) -> str:
    return mimetypes.guess_type(key)[0] or "application/octet-stream"


def translate_library_error(error: BotoCoreError | ClientError, what: str) -> LibraryUnavailable | LibraryRefused:
    """Return what an error of S3 means to the one who keeps files in it."""
    trouble = explain_error(error, what)
    kind = LibraryUnavailable if trouble.heals else LibraryRefused
    return kind(trouble.message)
