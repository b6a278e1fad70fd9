"""A folder anywhere as a source: on this machine, in S3, behind FTP, SFTP or WebDAV, or where fsspec has a driver."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote, urlsplit

import boto3
from prefect.types import SecretDict
from prefect_aws import AwsCredentials, MinIOCredentials
from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator

from blocks._errors import SourceRefused
from blocks._fsspec import ARCHIVES, FsspecRemote, find_driver_schemes
from blocks._ftp import FtpRemote
from blocks._records import Fetched, Listing, RemoteFile, make_listing
from blocks._remote import LocalRemote, Remote, RemotePool, take_settled
from blocks._s3 import S3_ERRORS, S3Remote, make_client, translate_source_error
from blocks._webdav import WebdavRemote
from blocks.source import ImageSource

_PORTS = {"ftp": 21, "ftps": 21, "sftp": 22}
_WEBDAV = {
    "webdav": "http",
    "dav": "http",
    "webdav+http": "http",
    "webdavs": "https",
    "davs": "https",
    "webdav+https": "https",
}
_SCHEMES = ("file", "s3", "ftp", "ftps", "sftp", "webdav", "webdavs")
_OWN_SCHEMES = {*_SCHEMES, *_WEBDAV}
_AZURE = {"abfs", "az"}


class RemoteFolder(ImageSource):
    """A folder and what lies below it, wherever it is.

    Taken are files whose writer has finished (`settle_seconds`); hidden and temporary ones (`.part`, `.tmp`, `~`) are
    left. Links are followed on this machine, while they stay inside the folder, and nowhere else.

    Example:
        source = RemoteFolder.load("BLOCK_NAME")
    """

    _block_type_name = "Remote Folder"
    _block_type_slug = "remote-folder"  # saved documents hang on it: never rename

    url: str = Field(
        description="Where the folder is: a path, or `s3://bucket/folder`, `sftp://host/folder` (`/~/folder`: below "
        "the login's home), `ftp://host/folder` (below the login's folder; `//folder`: from the root), `ftps://` (FTP "
        "over TLS), `webdavs://host/folder` (`webdav://`: without TLS). Other addresses (`gs://`, `abfs://`, `smb://`, "
        "`zip://folder::/path/archive.zip`, …) are opened by fsspec's drivers."
    )
    username: str | None = Field(default=None, description="User name, or access key for S3; empty: anonymous.")
    password: SecretStr | None = Field(
        default=None, description="Password, secret key for S3, or passphrase of the private key."
    )
    private_key: SecretStr | None = Field(default=None, description="Private key for SFTP: the text of its file.")
    host_key: str | None = Field(
        default=None,
        description="Fingerprint of the SFTP server's key, `SHA256:…` as ssh-keygen -l prints it; empty: known_hosts.",
    )
    endpoint_url: str | None = Field(default=None, description="Address of an S3 server other than AWS.")
    credentials: AwsCredentials | MinIOCredentials | None = Field(
        default=None, description="Credentials for S3; empty: user name and password, or what this machine has."
    )
    recurse_depth: int | None = Field(
        default=None, ge=0, description="How many folders down to look; 0: this folder only, empty: all."
    )
    settle_seconds: float = Field(
        default=5.0,
        ge=0,
        description="Take a file only when it was last modified at least this long ago; where the server tells no "
        "time, when two listings this far apart agree. S3 needs no wait.",
    )
    timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Longest wait for the server, at every step; drivers of other addresses keep their own.",
    )
    options: SecretDict | None = Field(
        default=None,
        description="Options for the fsspec driver of other addresses (gs://, abfs://, smb://, …), such as "
        '{"token": …}.',
    )

    _pool: RemotePool = PrivateAttr(default_factory=RemotePool)

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        url = url.strip()
        scheme, separator, rest = url.partition("://")
        if not separator:
            if not url:
                raise ValueError("url is empty: give a path or an address")
            return url
        scheme = scheme.lower()
        host = rest.partition("/")[0]
        # Azure's own spelling is abfs://container@account.
        if "@" in host and (scheme not in _AZURE or ":" in host):
            raise ValueError("url holds a user name or password; put them into the fields username and password")
        if scheme in {"http", "https"}:
            raise ValueError(f"{scheme}:// is for the Block HTTP Directory; make one of that kind")
        if scheme not in _OWN_SCHEMES:
            _check_driver_url(scheme, rest)
            return f"{scheme}://{rest}"
        if scheme != "file" and not host:
            raise ValueError(f"url names no {'bucket' if scheme == 's3' else 'host'}: {scheme}://…/folder")
        _split_address(host, 0)
        return f"{scheme}://{rest}"

    @field_validator("credentials", mode="before")
    @classmethod
    def _told_apart(cls, value: object) -> object:
        # A saved Block comes back as its fields, and of MinIO's pydantic would make AWS credentials without a key.
        if not isinstance(value, dict):
            return value
        fields = {name: content for name, content in value.items() if name != "block_type_slug"}
        is_minio = value.get("block_type_slug") == MinIOCredentials.get_block_type_slug() or "minio_root_user" in value
        try:
            return (MinIOCredentials if is_minio else AwsCredentials)(**fields)
        except ValidationError as error:
            wrong = ", ".join(str(found["loc"][0]) for found in error.errors(include_input=False) if found["loc"])
            raise ValueError(f"the credentials do not fit: look at {wrong}") from None

    @model_validator(mode="after")
    def _whole_credentials(self) -> Self:
        if self.password is not None and self.username is None and self.private_key is None:
            raise ValueError("password without username: give both")
        if self.options and self._scheme in _OWN_SCHEMES:
            raise ValueError(f"options are for the drivers of other addresses than {self._scheme}://; empty them")
        return self

    @property
    def root(self) -> str:
        """Where the folder is: its URL, which never holds credentials."""
        if self._scheme == "file":
            return f"file://{quote(self._local_path.as_posix())}"
        return self.url.rstrip("/")

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Hold connections open for the length of a run."""
        with super().connected(), self._pool.held():
            yield

    def list_files(self) -> Listing:
        """Return every wanted file whose writer has finished, or raise; never a part of them."""
        with self._pool.use(self._connect) as remote:
            files = list(self._walk_wanted(remote))
            if self.settle_seconds and not remote.appears_whole:
                files = take_settled(
                    files,
                    lambda: self._walk_wanted(remote),
                    self.settle_seconds,
                    now=datetime.now(UTC),
                    sleep=time.sleep,
                )
        return make_listing(files)

    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        """Bring `file` whole to `destination`, through `destination.part`."""
        with self._pool.use(self._connect) as remote:
            return remote.fetch(file, destination, self.max_file_bytes)

    def _walk_wanted(self, remote: Remote) -> Iterator[RemoteFile]:
        return (file for file in remote.walk(self.recurse_depth) if self.is_wanted(file.key))

    @property
    def _scheme(self) -> str:
        return self.url.partition("://")[0] if "://" in self.url else "file"

    @property
    def _place(self) -> tuple[str, str]:
        """The host (or bucket) with its port, and the path from its slash on, as the URL spells them."""
        host, slash, path = self.url.partition("://")[2].partition("/")
        return host, slash + path

    @property
    def _local_path(self) -> Path:
        path = unquote(self._place[1]) if "://" in self.url else self.url
        return Path(path).expanduser().absolute()

    def _connect(self) -> Remote:
        if self._scheme == "file":
            return LocalRemote(self._local_path)
        if self._scheme == "s3":
            return self._connect_s3()
        if self._scheme not in _OWN_SCHEMES:
            return self._connect_driver()
        password = self.password.get_secret_value() if self.password else None
        address, path = self._place
        if self._scheme in _WEBDAV:
            url = f"{_WEBDAV[self._scheme]}://{address}{path}"
            return WebdavRemote(url, user=self.username, password=password, timeout_seconds=self.timeout_seconds)
        host, port = _split_address(address, _PORTS[self._scheme])
        if self._scheme == "sftp":
            from blocks._sftp import SftpRemote  # an extra: only who uses it needs it

            return SftpRemote(
                host,
                port,
                unquote(path),
                user=self.username,
                password=password,
                private_key=self.private_key.get_secret_value() if self.private_key else None,
                host_key=self.host_key,
                timeout_seconds=self.timeout_seconds,
            )
        return FtpRemote(
            host,
            port,
            unquote(path),
            user=self.username,
            password=password,
            is_tls=self._scheme == "ftps",
            timeout_seconds=self.timeout_seconds,
        )

    def _connect_driver(self) -> Remote:
        login = {"username": self.username, "password": self.password.get_secret_value() if self.password else None}
        given = self.options.get_secret_value() if self.options else {}
        return FsspecRemote(self.url, {name: value for name, value in login.items() if value is not None} | given)

    def _connect_s3(self) -> Remote:
        try:
            if self.credentials is not None:
                session = self.credentials.get_boto3_session()
                overrides = self.credentials.aws_client_parameters.get_params_override()
                region = self.credentials.region_name
            else:
                secret = self.password.get_secret_value() if self.password else None
                session, overrides, region = boto3.Session(self.username, secret), {}, None
            client = make_client(
                session,
                overrides,
                region=region,
                endpoint_url=self.endpoint_url,
                timeout_seconds=self.timeout_seconds,
                connections=self.connections,
            )
        except S3_ERRORS as error:
            raise translate_source_error(error, self.root) from error
        except ValueError as error:
            raise SourceRefused(f"The S3 server of {self.root} has no usable address; check endpoint_url.") from error
        bucket, folder = self._place
        return S3Remote(client, bucket, folder)


def _check_driver_url(scheme: str, rest: str) -> None:
    """Refuse what fsspec has no driver for, and chains of addresses, which would bring in the drivers we leave.

    Raises:
        ValueError: it is refused.
    """
    if scheme not in find_driver_schemes():
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ValueError(
            f"{scheme}:// is not known; there are a plain path, {known}, and what fsspec has drivers for, such as "
            "gs://, abfs://, smb://"
        )
    _, *archives = rest.split("::")
    if scheme in ARCHIVES and not (len(archives) == 1 and archives[0].startswith("/")):
        raise ValueError(f"url names no archive on this machine: {scheme}://folder::/path/archive.{scheme}")
    if scheme not in ARCHIVES and archives:
        raise ValueError(f"url chains addresses with ::, which {scheme}:// does not need; name one")


def _split_address(address: str, default_port: int) -> tuple[str, int]:
    """Return host and port of `host`, `host:port` or `[address]:port`.

    Raises:
        ValueError: the port is no number.
    """
    parts = urlsplit(f"//{address}")
    return parts.hostname or "", parts.port or default_port
