"""Images behind a web server's directory index."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
import polars as pl
from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from blocks._errors import Reason, SourceRefused
from blocks._http import HeldWire, HttpSettings, ask, is_loopback, is_same_place
from blocks._http_download import download_file
from blocks._http_listing import walk_directory
from blocks._index import IndexPage, quote_key, read_index
from blocks._pace import Pace
from blocks._patience import Patience
from blocks._records import Fetched, Listing, RemoteFile
from blocks.source import ImageSource

_PAGE_NAME = re.compile(r"\.(?:[xs]?html?|php\d?|aspx?|jsp|cgi|json|xml)$", re.IGNORECASE)
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class HttpDirectory(ImageSource):
    """A web server's directory of images, as its index page lists them.

    Example:
        Load a saved directory and see what it lists:
        ```python
        from blocks.http_directory import HttpDirectory

        source = HttpDirectory.load("BLOCK_NAME")
        listing = source.list_files()
        ```
    """

    _block_type_name = "HTTP Directory"
    _block_type_slug = "http-directory"  # saved documents hang on it: never rename

    base_url: str = Field(
        description="Address of the directory's index page, such as https://cameras.example.org/garden/."
    )
    auth_type: Literal["none", "basic", "header"] = Field(
        default="none", description="How the server wants to know us: not at all, by user name, by a ready header."
    )
    auth_username: str | None = Field(default=None, description="User name for Basic authentication.")
    auth_password: SecretStr | None = Field(default=None, description="Password for Basic authentication.")
    auth_header: SecretStr | None = Field(
        default=None, description="Whole value of the Authorization header, such as `Bearer …`."
    )
    allow_insecure_auth: bool = Field(
        default=False, description="Send credentials over plain http too, readable for everyone on the way."
    )
    recurse_depth: int = Field(
        default=0, ge=0, le=32, description="How many levels of folders to enter; 0 takes the page itself only."
    )
    listing_timezone: str = Field(
        default="UTC", description="Zone in which the server prints times, such as Europe/Zurich."
    )
    requests_per_second: float | None = Field(
        default=None, gt=0, description="Most requests a second over all connections; empty for no limit."
    )
    bytes_per_second: int | None = Field(
        default=None, ge=1024, description="Most bytes a second over all connections; empty for no limit."
    )
    timeout_seconds: float = Field(
        default=30.0, gt=0, le=600, description="Longest wait for a connection and for the next bytes of an answer."
    )
    retry_deadline_seconds: float = Field(
        default=30.0, ge=0, le=3600, description="How long after its first try a request is still tried again at once."
    )
    max_listing_bytes: int = Field(default=250_000_000, ge=1, description="Largest index page to read, in bytes.")

    _held: HeldWire = PrivateAttr(default_factory=HeldWire)

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        try:
            url = httpx.URL(value.strip())
        except httpx.InvalidURL:
            raise ValueError("base_url is no address; write it like https://cameras.example.org/garden/") from None
        if url.userinfo:
            raise ValueError("base_url must not hold credentials; put them in auth_username and auth_password")
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError("base_url must begin with http:// or https:// and name a server")
        if "?" in value or "#" in value:
            raise ValueError("base_url must not have a query (?…) or fragment (#…); name the directory itself")
        return value.strip()

    @field_validator("listing_timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("listing_timezone is no IANA zone; write it like UTC or Europe/Zurich") from None
        return value

    @field_validator("auth_header")
    @classmethod
    def _one_line(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not _HEADER_VALUE.fullmatch(value.get_secret_value()):
            raise ValueError("auth_header must be one line of printable ASCII, without spaces around it")
        return value

    @model_validator(mode="after")
    def _matching_credentials(self) -> Self:
        # RFC 7617 §2: the first colon ends the user name.
        if self.auth_username and ":" in self.auth_username:
            raise ValueError("auth_username must not contain a colon")
        if self.auth_type == "basic" and (not self.auth_username or self.auth_password is None):
            raise ValueError("auth_type basic needs auth_username and auth_password")
        if self.auth_type == "header" and not self.auth_header:
            raise ValueError("auth_type header needs auth_header")
        if self.auth_type != "basic" and (self.auth_username or self.auth_password):
            raise ValueError(
                "auth_username and auth_password are only sent with auth_type basic: set it, or empty them"
            )
        if self.auth_type != "header" and self.auth_header:
            raise ValueError("auth_header is only sent with auth_type header: set it, or empty auth_header")
        url = httpx.URL(self.base_url)
        is_readable = url.scheme == "http" and not is_loopback(url.host)
        if self.auth_type != "none" and is_readable and not self.allow_insecure_auth:
            raise ValueError(
                "base_url with http:// would send the credentials readable for everyone on the way; use https://, or "
                "set allow_insecure_auth"
            )
        return self

    @property
    def root(self) -> str:
        """The directory itself, with a slash at its end: what files' addresses are relative to."""
        url = httpx.URL(self.base_url)
        folder, _, last = url.raw_path.decode("ascii").rpartition("/")
        path = f"{folder}/" if not last or _PAGE_NAME.search(last) else f"{folder}/{last}/"
        return str(url.copy_with(raw_path=path.encode("ascii")))

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Hold one pool of connections, and one pace, for the length of a run."""
        with super().connected(), self._held.use(self._settings):
            yield

    def list_files(self) -> Listing:
        """Return every wanted file that the index page lists, and those of its folders down to `recurse_depth`.

        One request a page. Links that leave the directory are not followed.

        Raises:
            SourceUnavailable: a page could not be had now.
            SourceRefused: a page was denied, is no listing, or lies elsewhere.
        """
        with self._held.use(self._settings) as (client, pace):
            found = walk_directory(
                self.base_url,
                lambda url: self._patience().until_it_heals(lambda: self._read_page(client, pace, url)),
                depth=self.recurse_depth,
                is_wanted=self.is_wanted,
                is_left_out=self._is_folder_left_out,
            )
        if found.root == self.root:
            return found.files
        # The server moved us: whole addresses, so that a download needs nothing but the listing and this Block.
        addresses = [
            found.root + (locator or quote_key(key))
            for key, locator in found.files.select("key", "locator").iter_rows()
        ]
        return found.files.with_columns(locator=pl.Series(addresses, dtype=pl.String))

    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        """Bring `file` whole to `destination`; an earlier try is resumed where the server proves it is the same file.

        Raises:
            SourceUnavailable: the file may still come.
            SourceRefused: it was denied, is gone, too large, a web page, or lies elsewhere.
        """
        with self._held.use(self._settings) as (client, pace):
            return download_file(
                client,
                self._find_address(file),
                destination,
                expected_size=file.size,
                max_bytes=self.max_file_bytes,
                pace=pace,
                patience=self._patience(),
            )

    def _find_address(self, file: RemoteFile) -> str:
        locator = file.locator or quote_key(file.key)
        if not locator.startswith(("http://", "https://")):
            return self.root + locator
        if not is_same_place(httpx.URL(self.root), httpx.URL(locator)):
            raise SourceRefused(
                f"{file.key} was listed at another server than {self.root}: list the files again.",
                reason=Reason.REDIRECTED_AWAY,
            )
        return locator

    def _read_page(self, client: httpx.Client, pace: Pace, url: str) -> tuple[str, IndexPage]:
        headers = {"Accept": "text/html, */*;q=0.8", "Accept-Encoding": "gzip"}
        with ask(client, url, pace=pace, headers=headers) as response:
            final_url = str(response.url)
            page = read_index(
                final_url,
                self._limited(response, pace),
                response.headers.get("content-type"),
                zone=ZoneInfo(self.listing_timezone),
            )
        return final_url, page

    def _limited(self, response: httpx.Response, pace: Pace) -> Iterator[bytes]:
        size = 0
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > self.max_listing_bytes:
                raise SourceRefused(
                    f"The index page of {self.root} is larger than {self.max_listing_bytes:,} bytes: raise "
                    "max_listing_bytes, or ask for fewer files in one folder.",
                    reason=Reason.TOO_LARGE,
                )
            pace.after_bytes(len(chunk))
            yield chunk

    def _is_folder_left_out(self, prefix: str) -> bool:
        # A glob that ends with * and matches "folder/" matches every key below it as well.
        return any(glob.endswith(("*", "/")) and fnmatchcase(prefix, glob) for glob in self.exclude)

    def _patience(self) -> Patience:
        return Patience(deadline_seconds=self.retry_deadline_seconds)

    def _settings(self) -> HttpSettings:
        return HttpSettings(
            url=self.base_url,
            connections=self.connections,
            timeout_seconds=self.timeout_seconds,
            requests_per_second=self.requests_per_second,
            bytes_per_second=self.bytes_per_second,
            headers=self._auth_headers(),
        )

    def _auth_headers(self) -> dict[str, str]:
        if self.auth_type == "header" and self.auth_header:
            return {"Authorization": self.auth_header.get_secret_value()}
        if self.auth_type == "basic" and self.auth_password is not None:
            pair = f"{self.auth_username}:{self.auth_password.get_secret_value()}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"}
        return {}
