"""A folder in Dropbox: one that somebody shares by a link, or one of your own."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self, cast

import httpx
from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator

from blocks._dropbox import API_URL, CONTENT_URL, DropboxWire, encode_header
from blocks._dropbox_errors import DropboxRefused
from blocks._dropbox_link import DropboxLink
from blocks._dropbox_listing import Selection, explain_link, list_link_page, list_own_page, make_fingerprint
from blocks._errors import WrongUse
from blocks._http import HeldWire, HttpSettings, is_loopback
from blocks._patience import Patience
from blocks._records import Fetched, Listing, Page, RemoteFile
from blocks._tokens import AccessToken, TokenAuth, request_token
from blocks.source import ImageSource, list_all_pages


class DropboxCredentials(Block):
    """Who we are to Dropbox: an app from its App Console, and for folders of your own its token for your account.

    The app's key and secret are enough for shared links. An access token from the console lasts four hours.

    Example:
        credentials = DropboxCredentials.load("BLOCK_NAME")
    """

    _block_type_name = "Dropbox Credentials"
    _block_type_slug = "dropbox-credentials"  # saved documents hang on it: never rename

    model_config = ConfigDict(hide_input_in_errors=True)

    app_key: str | None = Field(default=None, description="App key, from the Settings tab of the App Console.")
    app_secret: SecretStr | None = Field(
        default=None, description="App secret, from the same place; not needed with a refresh token made by PKCE."
    )
    refresh_token: SecretStr | None = Field(
        default=None, description="Refresh token of your account for this app: needed for folders of your own."
    )
    access_token: SecretStr | None = Field(
        default=None, description="A ready access token in place of all else; Dropbox's last four hours."
    )

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.refresh_token and not self.app_key:
            raise ValueError("refresh_token needs the app_key of the app it was made for")
        if not self.access_token and not self.refresh_token and not (self.app_key and self.app_secret):
            raise ValueError("give app_key and app_secret, with a refresh_token for folders of your own")
        return self

    @property
    def is_account(self) -> bool:
        """Tell whether these are an account's, which may see its own folders, and not an app's alone."""
        return bool(self.refresh_token or self.access_token)

    def make_auth(self, api_url: str, timeout_seconds: float) -> httpx.Auth:
        """Return what puts the credentials into requests: renewed in time where they can be."""
        if self.refresh_token and self.app_key:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self.refresh_token.get_secret_value(),
                "client_id": self.app_key,
            }
            if self.app_secret:
                form["client_secret"] = self.app_secret.get_secret_value()

            def fetch() -> AccessToken:
                return request_token(f"{api_url}/oauth2/token", form, timeout_seconds=timeout_seconds)

            return TokenAuth(fetch)
        if self.access_token:
            token = AccessToken(self.access_token.get_secret_value(), math.inf)
            return TokenAuth(lambda: token)
        return httpx.BasicAuth(self.app_key or "", self.app_secret.get_secret_value() if self.app_secret else "")


class DropboxFolder(ImageSource):
    """A folder in Dropbox, shared by a link or your own, and what lies below it.

    Example:
        Load a saved folder and see what it lists:
        ```python
        from blocks.dropbox_folder import DropboxFolder

        source = DropboxFolder.load("BLOCK_NAME")
        listing = source.list_files()
        ```
    """

    _block_type_name = "Dropbox Folder"
    _block_type_slug = "dropbox"  # saved documents hang on it: never rename

    folder_url: SecretStr | None = Field(
        default=None,
        description="Link of a shared folder, as its owner copied it: https://www.dropbox.com/scl/fo/…?rlkey=… or "
        "https://www.dropbox.com/sh/…. A secret: who has it can open the folder.",
    )
    path: str | None = Field(
        default=None, description="In place of a link, a folder of your own, such as /Camera Uploads; / for all."
    )
    credentials: DropboxCredentials = Field(description="Who we are to Dropbox.")
    link_password: SecretStr | None = Field(default=None, description="Password of the shared link, if it has one.")
    root_namespace: str | None = Field(
        default=None,
        pattern=r"^[0-9]+$",
        description="Number of the team space or team folder that path begins in; empty: your own Dropbox.",
    )
    recurse_depth: int | None = Field(
        default=None, ge=0, description="How many folders down to look; 0: this folder only, empty: all."
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
    api_url: str = Field(default=API_URL, description="Where Dropbox answers calls; only tests change it.")
    content_url: str = Field(default=CONTENT_URL, description="Where Dropbox hands out files; only tests change it.")

    _held: HeldWire = PrivateAttr(default_factory=HeldWire)

    @field_validator("folder_url")
    @classmethod
    def _shared_folder(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        link = DropboxLink.parse(value.get_secret_value())
        if link is None or link.url is None:
            raise ValueError("folder_url is no shared link of Dropbox; copy it there by Share → Copy link")
        return SecretStr(link.url)

    @field_validator("path")
    @classmethod
    def _from_the_top(cls, value: str | None) -> str | None:
        if value is None:
            return None
        path = value.strip().rstrip("/")
        if path and (not path.startswith("/") or "//" in path):
            raise ValueError("path is written from the top of your Dropbox, like /Camera Uploads; / for all of it")
        return path

    @field_validator("include", "exclude")
    @classmethod
    def _without_case(cls, globs: list[str]) -> list[str]:
        return [glob.lower() for glob in globs]  # as Dropbox compares paths

    @field_validator("api_url", "content_url")
    @classmethod
    def _safe_address(cls, value: str) -> str:
        url = httpx.URL(value)
        if url.userinfo or url.query or not (url.scheme == "https" or (url.scheme == "http" and is_loopback(url.host))):
            raise ValueError("api_url and content_url must be https:// addresses of a server")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_folder(self) -> Self:
        if (self.folder_url is None) == (self.path is None):
            raise ValueError("give either folder_url, a shared link, or path, a folder of your own")
        if self.path is not None and not self.credentials.is_account:
            raise ValueError("path is a folder of your own, so the credentials need a refresh_token")
        if self.path is None and (self.root_namespace or None):
            raise ValueError("root_namespace goes with path; a shared link needs none")
        if self.folder_url is None and self.link_password is not None:
            raise ValueError("link_password goes with folder_url; a folder of your own needs none")
        return self

    @classmethod
    def of_link(cls, link: str) -> Self | None:
        """Return the folder that `link` opens, with the saved credentials `default`; None for any other address.

        Raises:
            WrongUse: it leads to Dropbox and to no folder, or no usable credentials are saved; the message says what
                to do.
        """
        try:
            found = DropboxLink.parse(link)
        except ValueError as error:
            raise WrongUse(f"This is no folder of Dropbox: {error}.") from None
        if found is None:
            return None
        credentials = _load_default()
        try:
            if found.url is None:
                return cls(path=found.path, credentials=credentials)
            return cls(folder_url=SecretStr(found.url), credentials=credentials)
        except ValidationError as error:
            faults = "; ".join(
                fault["msg"].removeprefix("Value error, ") for fault in error.errors(include_input=False)
            )
            raise WrongUse(f"The folder can not be opened: {faults}.") from None

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
            raise WrongUse("Give either a saved Dropbox Folder or a link, not both.")
        chosen = saved if link is None else cls.of_link(link)
        if link is not None and chosen is None:
            raise WrongUse("The link leads to no Dropbox folder; it begins with https://www.dropbox.com/scl/fo/….")
        if chosen is None:
            try:
                chosen = cls.load("default")  # type: ignore[assignment] # in sync code it is no coroutine
            except (ValueError, RuntimeError):  # the latter: it is not valid any more, and its cause quotes it
                raise WrongUse(
                    "No folder is named: give a saved Dropbox Folder or a link, or save a folder as default."
                ) from None
        given = {"recurse_depth": recurse_depth, "include": include, "exclude": exclude}
        lowered = {
            name: [glob.lower() for glob in value] if isinstance(value, list) else value
            for name, value in given.items()
            if value is not None
        }
        return cast("Self", chosen).model_copy(update=lowered)

    @property
    def root(self) -> str:
        """The folder: its link without what lets people in, or its path."""
        link = self._link
        if link is not None:
            return link.name
        namespace = f"ns:{self.root_namespace}" if self.root_namespace else ""
        return f"dropbox:{namespace}{self.path or '/'}"

    def is_wanted(self, key: str) -> bool:
        """Tell whether `key` is an image by its suffix and passes the globs, in any case."""
        return super().is_wanted(key.lower())

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Hold one pool of connections, one pace and one access token for the length of a run."""
        with super().connected(), self._held.use(self._settings):
            yield

    def list_files(self) -> Listing:
        """Return every wanted file of the folder, or raise; never a part of them."""
        with self._held.use(self._settings):
            return list_all_pages(self)

    def list_page(self, mark: str | None) -> Page:
        """Return what comes after `mark`: of a walk the next files; later, in a folder of your own, what changed.

        Raises:
            SourceUnavailable: the page could not be had now.
            SourceRefused: Dropbox does not let us in, or the folder or link is gone.
        """
        with self._wire() as wire:
            try:
                if wire.link is None:
                    return list_own_page(wire, self._selection, mark)
                return list_link_page(wire, self._selection, mark)
            except DropboxRefused as refusal:
                raise explain_link(wire, refusal, now=datetime.now(UTC)) from refusal

    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        """Bring `file` whole to `destination`, proven by Dropbox's content hash; a cut one is continued.

        Raises:
            SourceUnavailable: the file may still come.
            SourceRefused: it is gone, withheld, too large, or no file to download.
        """
        with self._wire() as wire:
            return wire.fetch(file, destination, self.max_file_bytes)

    @property
    def _link(self) -> DropboxLink | None:
        return DropboxLink.parse(self.folder_url.get_secret_value()) if self.folder_url else None

    @property
    def _selection(self) -> Selection:
        link = self.folder_url.get_secret_value() if self.folder_url else None
        chosen = (self.include, self.exclude, self.suffixes, self.recurse_depth)
        return Selection(
            path=self.path or "",
            depth=self.recurse_depth,
            is_wanted=self.is_wanted,
            is_left_out=self._is_folder_left_out,
            fingerprint=make_fingerprint(link, self.path, self.root_namespace, *chosen),
        )

    def _is_folder_left_out(self, prefix: str) -> bool:
        # A glob that ends with * and matches "folder/" matches every key below it as well.
        return any(glob.endswith(("*", "/")) and fnmatchcase(prefix, glob) for glob in self.exclude)

    @contextmanager
    def _wire(self) -> Iterator[DropboxWire]:
        link = None
        if self.folder_url is not None:
            link = {"url": self.folder_url.get_secret_value()}
            if self.link_password is not None:
                link["password"] = self.link_password.get_secret_value()
        with self._held.use(self._settings) as (client, pace):
            patience = Patience(deadline_seconds=self.retry_deadline_seconds)
            yield DropboxWire(client, pace, patience, link, self.api_url, self.content_url)

    def _settings(self) -> HttpSettings:
        headers = {}
        if self.root_namespace:
            root = {".tag": "namespace_id", "namespace_id": self.root_namespace}
            headers["Dropbox-API-Path-Root"] = encode_header(root)
        return HttpSettings(
            url=self.api_url,
            connections=self.connections,
            timeout_seconds=self.timeout_seconds,
            requests_per_second=self.requests_per_second,
            bytes_per_second=self.bytes_per_second,
            headers=headers,
            auth=self.credentials.make_auth(self.api_url, self.timeout_seconds),
        )


def _load_default() -> DropboxCredentials:
    advice = (
        "save a Block of the kind Dropbox Credentials named default, with app_key and app_secret of an app from "
        "https://www.dropbox.com/developers/apps: in the UI (Blocks → +), or with "
        "CATCHMENT_DROPBOX_CREDENTIALS__DEFAULT__APP_KEY and …__APP_SECRET in the environment by "
        "python -m deployments.register_blocks. A folder of your own needs refresh_token too."
    )
    try:
        return DropboxCredentials.load("default")  # type: ignore[return-value] # in sync code it is no coroutine
    except ValueError:
        raise WrongUse(f"Dropbox lets no program in that does not say who it is: {advice}") from None
    except RuntimeError:  # what is saved is not valid any more, and its cause quotes it
        raise WrongUse(f"The saved dropbox-credentials/default are not valid any more: {advice}") from None
