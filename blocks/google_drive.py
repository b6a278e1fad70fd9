"""Images in a shared Google Drive folder, and how Google knows who asks."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self, cast

import httpx
from prefect.blocks.core import Block
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.types import SecretDict
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, field_validator, model_validator

from blocks._drive_auth import (
    API_KEY_HEADER,
    TOKEN_URL,
    check_service_account,
    fetch_with_refresh_token,
    fetch_with_service_account,
)
from blocks._drive_download import fetch_file
from blocks._drive_items import Located
from blocks._drive_links import (
    DriveLink,
    check_address,
    check_resource_key,
    is_drive_link,
    parse_folder_link,
    show_folder,
)
from blocks._drive_place import StartOver
from blocks._drive_walk import AGAIN, TreeWanted, Walk, refuse_end
from blocks._drive_wire import API_URL, DriveWire
from blocks._errors import SourceRefused, WrongUse
from blocks._http import HeldWire, HttpSettings
from blocks._pace import Pace
from blocks._patience import Patience
from blocks._records import Fetched, Listing, Page, RemoteFile
from blocks._tokens import TokenAuth
from blocks.source import ImageSource, list_all_pages

_DEFAULT_DOCUMENT = "default"
_ATTEMPTS = 6
_DAY_SECONDS = 86_400


class GoogleDriveCredentials(Block):
    """How Google knows who asks: an API key, a service account's key, or a user's refresh token; one of the three.

    Example:
        Save the key for folders that anyone with the link may see:
        ```python
        from blocks.google_drive import GoogleDriveCredentials

        GoogleDriveCredentials(api_key="…").save("default")
        ```
    """

    _block_type_name = "Google Drive Credentials"
    _block_type_slug = "google-drive-credentials"  # saved documents hang on it: never rename

    # A validation error quotes its input otherwise, and with it a secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    api_key: SecretStr | None = Field(
        default=None, description="API key, for folders shared with anyone who has the link."
    )
    service_account_info: SecretDict | None = Field(
        default=None,
        description="Content of a service account's JSON key file, for folders shared with the account's address.",
    )
    subject: str | None = Field(
        default=None, description="Address of the user the service account acts for, where a domain delegates to it."
    )
    client_id: str | None = Field(default=None, description="Client id that the refresh token was made with.")
    client_secret: SecretStr | None = Field(default=None, description="Secret of that client.")
    refresh_token: SecretStr | None = Field(
        default=None, description="Refresh token of a user, for all that this user may see; scope drive.readonly."
    )
    token_url: str = Field(default=TOKEN_URL, description="Where a refresh token is exchanged.")

    @field_validator("service_account_info", mode="before")
    @classmethod
    def _read_json(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("service_account_info is not the JSON file of a service account key") from None

    @field_validator("token_url")
    @classmethod
    def _safe_token_url(cls, value: str) -> str:
        return check_address("token_url", value)

    @field_validator("api_key", "client_secret", "refresh_token")
    @classmethod
    def _one_word(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value().strip() if value else ""
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("it holds more than one word; copy it again, without anything around it")
        return SecretStr(text) if text else None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        user = (self.client_id, self.client_secret, self.refresh_token)
        if any(user) and not all(user):
            raise ValueError("client_id, client_secret and refresh_token belong together: give all three")
        filled = [kind for kind in ("api_key", "service_account_info", "refresh_token") if getattr(self, kind)]
        if len(filled) != 1:
            told = f"; {' and '.join(filled)} are set: clear all but one of them" if filled else ""
            kinds = "api_key, service_account_info, or client_id with client_secret and refresh_token"
            raise ValueError(f"give one of {kinds}{told}")
        if self.subject and not self.service_account_info:
            raise ValueError("subject is for a service account only; empty it")
        if self.service_account_info:
            info = self.service_account_info.get_secret_value()
            check_service_account(info)
            check_address("token_uri", str(info["token_uri"]))
        return self

    @property
    def is_anonymous(self) -> bool:
        """Tell whether nobody stands behind a request: with an API key there is no account that changes are told to."""
        return self.api_key is not None

    def make_headers(self) -> dict[str, str]:
        """Return the header that an API key goes in; nothing for the others."""
        return {API_KEY_HEADER: self.api_key.get_secret_value()} if self.api_key else {}

    def make_auth(self, timeout_seconds: float) -> TokenAuth | None:
        """Return what sends requests with access tokens; None for an API key."""
        if self.service_account_info:
            info = self.service_account_info.get_secret_value()
            return TokenAuth(lambda: fetch_with_service_account(info, self.subject, timeout_seconds=timeout_seconds))
        if self.client_id and self.client_secret and self.refresh_token:
            user = (self.client_id, self.client_secret.get_secret_value(), self.refresh_token.get_secret_value())
            return TokenAuth(lambda: fetch_with_refresh_token(self.token_url, *user, timeout_seconds=timeout_seconds))
        return None


class GoogleDriveFolder(ImageSource):
    """A folder of Google Drive that somebody shared, with all that lies below it.

    Files are known by Drive's id, so that two of one name are kept apart and a moved one is not fetched again; globs
    match the path that people see (`2026/IMG_1.jpg`). Shortcuts are followed; Google's own documents have no bytes and
    are left. After the first walk only changes are asked for, where Drive tells all of them: to a service account or
    user that owns the folder, was given it by name, or is a member of its shared drive.

    Example:
        Load a saved folder and see what it lists:
        ```python
        from blocks.google_drive import GoogleDriveFolder

        source = GoogleDriveFolder.load("BLOCK_NAME")
        listing = source.list_files()
        ```
    """

    _block_type_name = "Google Drive Folder"
    _block_type_slug = "google-drive"  # saved documents hang on it: never rename

    folder_url: str = Field(
        description="Link to the folder, as Share → Copy link gives it: https://drive.google.com/drive/folders/…"
    )
    credentials: GoogleDriveCredentials = Field(description="Who asks: an API key, a service account or a user.")
    resource_key: SecretStr | None = Field(
        default=None, description="The `resourcekey` that some links hold; taken out of the link by itself."
    )
    recurse_depth: int | None = Field(
        default=None, ge=0, description="How many folders down to look; 0: this folder only, empty: all."
    )
    relist_days: float = Field(
        default=7.0, ge=0, description="After so many days everything is listed again, not only what changed."
    )
    requests_per_second: float | None = Field(
        default=None, gt=0, description="Most requests a second over all connections; empty for no limit."
    )
    bytes_per_second: int | None = Field(
        default=None, ge=1024, description="Most bytes a second over all connections; empty for no limit."
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, le=600, description="Longest wait for a connection and for the next bytes of an answer."
    )
    retry_deadline_seconds: float = Field(
        default=60.0, ge=0, le=3600, description="How long after its first try a request is still tried again at once."
    )
    api_url: str = Field(default=API_URL, description="Where the Drive API is; the vendor's unless you have a proxy.")

    _held: HeldWire = PrivateAttr(default_factory=HeldWire)
    _resource_keys: dict[str, str] = PrivateAttr(default_factory=dict)
    _unproven: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _without_key_in_the_link(cls, values: Any) -> Any:
        # A run's parameters and the UI show the link to everyone.
        if not isinstance(values, dict) or not isinstance(values.get("folder_url"), str):
            return values
        try:
            link = parse_folder_link(values["folder_url"])
        except ValueError:
            return values  # told by the field's own validator
        if link.resource_key is None:
            return values
        return {"resource_key": link.resource_key} | values | {"folder_url": show_folder(link)}

    @field_validator("folder_url")
    @classmethod
    def _a_folder(cls, value: str) -> str:
        parse_folder_link(value)
        return value.strip()

    @field_validator("resource_key")
    @classmethod
    def _a_resource_key(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value().strip() if value else ""
        return SecretStr(check_resource_key(text)) if text else None

    @field_validator("api_url")
    @classmethod
    def _safe_api_url(cls, value: str) -> str:
        return check_address("api_url", value)

    @classmethod
    def of_link(cls, link: str) -> Self | None:
        """Return the folder that a Drive link names, seen with the saved credentials `default`; None for other links.

        Raises:
            WrongUse: the link names no folder, or there are no such credentials; the message says what to do.
        """
        if not is_drive_link(link):
            return None
        try:
            parse_folder_link(link)
        except ValueError as error:
            raise WrongUse(f"The Google Drive link can not be used: {error}.") from None
        slug = GoogleDriveCredentials.get_block_type_slug()
        try:
            credentials = cast("GoogleDriveCredentials", GoogleDriveCredentials.load(_DEFAULT_DOCUMENT))
        except (ValueError, RuntimeError):  # the latter: what is saved is not valid any more, and its cause quotes it
            variable = f"CATCHMENT_{slug.upper().replace('-', '_')}__{_DEFAULT_DOCUMENT.upper()}__API_KEY"
            raise WrongUse(
                f"A Google Drive link needs usable saved credentials {slug}/{_DEFAULT_DOCUMENT}, and there are none: "
                f"make a Block of the type {GoogleDriveCredentials.get_block_type_name()} named {_DEFAULT_DOCUMENT} in "
                f"Prefect's UI (Blocks → +), or for an API key say: {variable}=… python -m deployments.register_blocks"
            ) from None
        return cls(folder_url=link, credentials=credentials)

    @classmethod
    def choose(
        cls,
        saved: Self | None,
        link: str | None,
        *,
        recurse_depth: int | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
    ) -> Self:
        """Return the folder to take from: the `saved` one, that of `link`, or the one saved as `default`.

        What else is given stands in place of what the folder says.

        Raises:
            WrongUse: both or none of them are there, or `link` opens no folder; the message says what to do.
        """
        if saved is not None and link is not None:
            raise WrongUse("Give either a saved Google Drive Folder or a link, not both.")
        chosen = saved if link is None else cls.of_link(link)
        if link is not None and chosen is None:
            raise WrongUse(
                "The link leads to no Google Drive folder; it begins with https://drive.google.com/drive/folders/…."
            )
        if chosen is None:
            try:
                chosen = cast("Self", cls.load(_DEFAULT_DOCUMENT))
            except (ValueError, RuntimeError):  # the latter: it is not valid any more, and its cause quotes it
                raise WrongUse(
                    "No folder is named: give a saved Google Drive Folder or a link, or save a folder as "
                    f"{_DEFAULT_DOCUMENT}."
                ) from None
        given = {"recurse_depth": recurse_depth, "include": include, "exclude": exclude}
        return chosen.model_copy(update={name: value for name, value in given.items() if value is not None})

    @property
    def root(self) -> str:
        """The folder's address, without the resource key that the link may hold."""
        return show_folder(self._link)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Hold one pool of connections, one pace and one access token for the length of a run."""
        with super().connected(), self._held.use(self._settings):
            yield

    def list_files(self) -> Listing:
        """Return every wanted file of the folder and of those below it.

        Raises:
            SourceUnavailable: a page could not be had now.
            SourceRefused: the folder is not there, not shared with these credentials, or no folder.
        """
        return list_all_pages(self)

    def list_page(self, mark: str | None) -> Page:
        """Return some thousand files after `mark`: of a walk through the folder, and once it is through of the changes.

        Raises:
            SourceUnavailable, SourceRefused: as `list_files`; and for a folder refused after a walk's first page, at
                the walk's end, where all that is not listed would count as gone.
        """
        if mark == AGAIN and self._unproven:
            paths, self._unproven = self._unproven, []
            raise refuse_end(paths)
        with self._held.use(self._settings) as (client, pace):
            wire, wanted = self._make_wire(client, pace), self._make_wanted()
            try:
                walk = Walk.begin(wire, wanted) if mark is None else Walk.resume(wire, wanted, mark)
                page = walk.take_page()
            except StartOver:
                walk = Walk.begin(wire, wanted)
                page = walk.take_page()
        if walk.documents:
            _get_logger().info("%d Google documents, which have no bytes to download, were left", walk.documents)
        for refusal in walk.refusals:
            _get_logger().warning("%s", refusal)
        self._unproven = walk.unproven
        return page

    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        """Bring `file` whole to `destination`; an earlier try is resumed, and the whole compared with Drive's digest.

        Raises:
            SourceUnavailable: the file may still come.
            SourceRefused: Drive does not hand it out (quota, abuse, permission), it is gone, or too large.
        """
        try:
            located = Located.of(file.locator or "")
        except ValueError as error:
            raise SourceRefused(f"{file.key} was not listed by Google Drive: list the folder again.") from error
        with self._held.use(self._settings) as (client, pace):
            return fetch_file(self._make_wire(client, pace), located, destination, max_bytes=self.max_file_bytes)

    @property
    def _link(self) -> DriveLink:
        return parse_folder_link(self.folder_url)

    def _make_wire(self, client: httpx.Client, pace: Pace) -> DriveWire:
        if self.resource_key:
            self._resource_keys[self._link.id] = self.resource_key.get_secret_value()
        return DriveWire(client, pace, self.api_url, self._patience, self._resource_keys)

    def _make_wanted(self) -> TreeWanted:
        asked = [self._link.id, self.recurse_depth, self.include, self.exclude, self.suffixes, self.api_url]
        asked.append(self.credentials.is_anonymous)
        return TreeWanted(
            root_id=self._link.id,
            purpose=hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16],
            depth=self.recurse_depth,
            is_wanted=self.is_wanted,
            is_left_out=self._is_folder_left_out,
            relist_seconds=self.relist_days * _DAY_SECONDS,
            tells_changes=not self.credentials.is_anonymous,
        )

    def _is_folder_left_out(self, prefix: str) -> bool:
        # A glob that ends with * and matches "folder/" matches everything below it as well.
        return any(glob.endswith(("*", "/")) and fnmatchcase(prefix, glob) for glob in self.exclude)

    def _patience(self) -> Patience:
        # Google's guide on errors asks for exponential backoff: 0.5 to 8 s here, and the task's retries after that.
        return Patience(attempts=_ATTEMPTS, deadline_seconds=self.retry_deadline_seconds)

    def _settings(self) -> HttpSettings:
        return HttpSettings(
            url=self.api_url,
            connections=self.connections,
            timeout_seconds=self.timeout_seconds,
            requests_per_second=self.requests_per_second,
            bytes_per_second=self.bytes_per_second,
            headers=self.credentials.make_headers(),
            auth=self.credentials.make_auth(self.timeout_seconds),
        )


def _get_logger() -> "logging.Logger | logging.LoggerAdapter[logging.Logger]":
    """Return the logger of the run that we are called in, or of this module."""
    try:
        return cast("logging.LoggerAdapter[logging.Logger]", get_run_logger())
    except MissingContextError:
        return get_logger(__name__)
