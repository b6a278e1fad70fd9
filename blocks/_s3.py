"""S3 and what speaks like it: the client, what its errors mean, and a bucket's folder as a place to take files from.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._records import RemoteFile, is_safe_key
from blocks._remote import Remote, is_passed_over

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

S3_ERRORS = (BotoCoreError, ClientError)

_DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden"}
_WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"}
_BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"}
_DAMAGED = {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}


def make_client(
    session: boto3.Session,
    overrides: Mapping[str, Any],
    *,
    region: str | None = None,
    endpoint_url: str | None = None,
    timeout_seconds: float = 60,
    connections: int = 16,
) -> "S3Client":
    """Return a client that suits AWS and its imitations; what `overrides` (client arguments, `config`) say wins.

    Checksums are sent only where we ask for them (MinIO, rclone and others stumble over the newer defaults), endpoints
    other than AWS are addressed by path, requests are unsigned when no credentials are to be had (a public bucket).
    """
    arguments = dict(overrides)
    own_url = arguments.pop("endpoint_url", None)
    endpoint_url = endpoint_url or own_url
    config = Config(
        connect_timeout=min(timeout_seconds, 10),
        read_timeout=timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=connections,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        signature_version="s3v4",  # else addresses are signed the old way, which newer regions and servers refuse
        s3={"addressing_style": "path" if endpoint_url else "auto"},
    )
    if session.get_credentials() is None:
        config = config.merge(Config(signature_version=UNSIGNED))
    if own := arguments.pop("config", None):
        config = config.merge(own)
    arguments["region_name"] = arguments.get("region_name") or region or session.region_name or "us-east-1"
    client: S3Client = session.client("s3", endpoint_url=endpoint_url, config=config, **arguments)
    return client


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an error of S3 means: whether it heals by waiting, its reason, and a sentence that says what to do."""

    heals: bool
    reason: Reason
    message: str


def explain_error(error: BotoCoreError | ClientError, what: str) -> Trouble:
    """Return what `error` means; `what` names the object or bucket. No credential and no server text is in it."""
    if isinstance(error, ClientError):
        return _explain_answer(error, what)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return Trouble(False, Reason.UNAUTHORIZED, f"{what} wants credentials; put an AWS Credentials Block in.")
    if isinstance(error, SSLError):
        return Trouble(False, Reason.REFUSED, f"The S3 server of {what} shows a certificate that is not trusted.")
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return Trouble(True, Reason.TIMEOUT, f"The S3 server of {what} did not answer in time; try again later.")
    if isinstance(error, IncompleteReadError | ResponseStreamingError):
        return Trouble(True, Reason.CUT_SHORT, f"The S3 server cut {what} short; try again.")
    if isinstance(error, HTTPClientError | BotoConnectionError):
        return Trouble(
            True, Reason.CONNECTION, f"The S3 server of {what} can not be reached; check endpoint and network."
        )
    kind = type(error).__name__
    return Trouble(False, Reason.REFUSED, f"{what} can not be used as configured ({kind}); check bucket and region.")


def _explain_answer(error: ClientError, what: str) -> Trouble:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _BUSY or status == 429:
        return Trouble(True, Reason.RATE_LIMITED, f"The S3 server asks to go slower at {what}; try again later.")
    if code in _DAMAGED:
        return Trouble(True, Reason.DIGEST_MISMATCH, f"{what} was damaged on its way to S3; try again.")
    if code in _WRONG_KEY or status == 401:
        return Trouble(False, Reason.UNAUTHORIZED, f"S3 refused the credentials for {what} ({code}); renew them.")
    if code in _DENIED or status == 403:
        return Trouble(False, Reason.FORBIDDEN, f"S3 denies access to {what}; allow it to these credentials.")
    if code == "NoSuchBucket":
        return Trouble(False, Reason.NOT_FOUND, f"There is no bucket for {what}; check its name and region.")
    if status == 404:
        return Trouble(False, Reason.NOT_FOUND, f"{what} is not there any more.")
    if status == 412:
        return Trouble(True, Reason.CHANGED_MIDWAY, f"{what} changed since it was listed; the next run takes it.")
    if status in {301, 307, 400} and "Redirect" in code:
        return Trouble(False, Reason.REFUSED, f"The bucket of {what} is in another region; set it in the credentials.")
    if status in {408, 409} or status >= 500 or code == "RequestTimeout":
        return Trouble(
            True, Reason.SERVER_ERROR, f"The S3 server failed at {what} ({code or status}); try again later."
        )
    return Trouble(False, Reason.REFUSED, f"S3 refused {what} ({code or status}); check the bucket's settings.")


class S3Remote(Remote):
    """The objects of a bucket under one folder; objects appear whole, so all of them are settled."""

    appears_whole = True

    def __init__(self, client: "S3Client", bucket: str, folder: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""

    def walk(self, depth: int | None) -> Iterator[RemoteFile]:
        """Yield every object at most `depth` folders down, by as many list requests as there are thousands of them."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        try:
            for page in pages:
                for found in page.get("Contents", []):
                    key = found["Key"].removeprefix(self._prefix)
                    if not is_safe_key(key) or (depth is not None and key.count("/") > depth):
                        continue
                    if not any(map(is_passed_over, key.split("/"))):
                        yield RemoteFile(key, found["Size"], found["LastModified"], found.get("ETag"))
        except S3_ERRORS as error:
            raise translate_source_error(error, f"s3://{self._bucket}/{self._prefix}") from error

    def read(self, file: RemoteFile, write: Callable[[bytes], None]) -> None:
        """Hand the object's bytes to `write`; an object that changed since it was listed is refused by S3 itself."""
        condition: dict[str, Any] = {"IfMatch": file.validator} if file.validator else {}
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + file.key, **condition)
            with closing(answer["Body"]) as body:
                for chunk in body.iter_chunks(1 << 18):
                    write(chunk)
        except S3_ERRORS as error:
            raise translate_source_error(error, file.key) from error

    def close(self) -> None:
        """Let the client's connections go."""
        self._client.close()


def translate_source_error(error: BotoCoreError | ClientError, what: str) -> SourceUnavailable | SourceRefused:
    """Return what an error of S3 means to the one who takes files from it."""
    trouble = explain_error(error, what)
    kind = SourceUnavailable if trouble.heals else SourceRefused
    return kind(trouble.message, reason=trouble.reason)
