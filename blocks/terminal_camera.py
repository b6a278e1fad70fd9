"""Pictures of the gates of a container terminal, found by date and stream."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, PrivateAttr, field_validator

from blocks._errors import Reason, SourceRefused
from blocks._http import HeldWire, HttpSettings
from blocks._http_download import download_file
from blocks._patience import Patience
from blocks._records import (
    CaptureTime,
    Claims,
    Fetched,
    Listing,
    Page,
    Quality,
    RemoteFile,
    TimeWitness,
    make_listing,
)
from blocks._terminal_addresses import (
    THUMBNAIL_SUFFIX,
    PictureAddress,
    check_template,
    find_instants,
    find_offset,
    is_same_address,
    is_stream,
    mark_second_pass,
    parse_picture_address,
    picture_key,
    picture_url,
    thumbnail_url,
)
from blocks._terminal_cdn import Manners, Sight, learn_manners, look_for
from blocks._terminal_page import HistoryPage, PageSettings, open_history
from blocks.source import ImageSource

SECOND_HOUR = "second-hour"
"""The locator of a picture that was taken after clocks were put back, as its place among the others shows."""

_PAGE_URL = "https://app.draydog.com/terminal_cameras/apm?streamName={stream}#camera-history"
_PICTURE_URL = "https://cdn.draydog.com/apm/{local:%Y-%m-%d}/{hour}/{local:%Y-%m-%dT%H:%M:%S}-{stream}.jpeg"
_LONG_AGO = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall clock
_STAND_INS = {Reason.NOT_FOUND, Reason.FORBIDDEN, Reason.HTML_PAGE}
_EARLIEST, _LATEST = timedelta(minutes=-5), timedelta(minutes=45)


class TerminalCamera(ImageSource):
    """A container terminal's gate cameras: a history page that shows a day's pictures, and a server that holds them.

    The defaults are those of the terminal APM as Dray Dog shows it. A picture's name tells the local time at which it
    was taken, to the second; names are read from the page, or computed and asked for.

    Example:
        Load saved cameras and see what the page shows of a day:
        ```python
        from datetime import date
        from blocks.terminal_camera import TerminalCamera

        camera = TerminalCamera.load("BLOCK_NAME")
        with camera.open_history() as history:
            keys = camera.read_page(history, "in_gate", date(2025, 9, 1))
        ```
    """

    _block_type_name = "Terminal Camera"
    _block_type_slug = "terminal-camera"  # saved documents hang on it: never rename

    streams: list[str] = Field(default=["in_gate", "out_gate"], min_length=1, description="Names of the cameras.")
    timezone: str = Field(default="America/Los_Angeles", description="Zone whose local time the pictures' names tell.")
    page_url: str = Field(
        default=_PAGE_URL,
        description="Address of the history page, with {stream}; what follows # is the id of its History section.",
    )
    picture_url: str = Field(
        default=_PICTURE_URL,
        description="Address of a full picture, with {local:%Y-%m-%d} and the like, {hour} (not padded) and {stream}.",
    )
    thumbnail_suffix: str = Field(
        default=THUMBNAIL_SUFFIX, min_length=1, description="What a thumbnail's name has before its extension."
    )
    browser_path: str | None = Field(
        default=None, description="The Chromium to read the history page with; empty: the system's."
    )
    page_timeout_seconds: float = Field(
        default=60.0, gt=0, le=600, description="Longest wait for the history page, and for each day on it."
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
    layout: str = Field(
        default="{key}",
        description="Place in the library, of {source}, {captured:%Y-%m-%d}, {name}, {key}, {camera}, {sha256}.",
    )

    is_live: ClassVar[bool] = True
    command: ClassVar[str] = "catchment download-range --source"

    _held: HeldWire = PrivateAttr(default_factory=HeldWire)

    @field_validator("streams")
    @classmethod
    def _usable_streams(cls, streams: list[str]) -> list[str]:
        if bad := [stream for stream in streams if not is_stream(stream)]:
            raise ValueError(f"{bad[0]!r} is no stream: write letters, digits, _ and -")
        return list(dict.fromkeys(streams))

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("timezone is no IANA zone; write it like America/Los_Angeles") from None
        return value

    @field_validator("page_url")
    @classmethod
    def _usable_page(cls, value: str) -> str:
        return check_template(value, ["stream"], ["stream"])

    @field_validator("picture_url")
    @classmethod
    def _usable_picture(cls, value: str) -> str:
        value = check_template(value, ["local", "hour", "stream"], ["local", "stream"])
        named = parse_picture_address(picture_url(value, datetime(2001, 2, 3, 14, 5, 6), "gate"))  # noqa: DTZ001
        if named != PictureAddress(datetime(2001, 2, 3, 14, 5, 6), "gate"):  # noqa: DTZ001 - a wall clock
            raise ValueError(
                "its last part must tell date, time and stream, as {local:%Y-%m-%dT%H:%M:%S}-{stream}.jpeg does"
            )
        return value

    @property
    def root(self) -> str:
        """Where the pictures are: their address as far as it is the same for all."""
        return self.picture_url.partition("{")[0]

    @property
    def zone(self) -> ZoneInfo:
        """The terminal's time zone."""
        return ZoneInfo(self.timezone)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Hold one pool of connections, and one pace, for the length of a run."""
        with super().connected(), self._held.use(self._settings):
            yield

    def list_page(self, mark: str | None) -> Page:
        """Return what `list_files` does; other days are none the less there."""
        del mark
        return Page(self.list_files(), is_start=False)

    def list_files(self) -> Listing:
        """Return the pictures of yesterday and today that the history page shows; other days are asked for by date.

        Raises:
            WrongUse: there is no browser to read it with.
            SourceUnavailable: the page could not be had now.
            SourceRefused: it is not the expected page.
        """
        today = datetime.now(self.zone).date()
        with self.open_history() as history:
            shown = [
                file
                for stream in self.streams
                for day in (today - timedelta(days=1), today)
                for file in self.read_page(history, stream, day)
            ]
        return make_listing(file for file in shown if self.is_wanted(file.key))

    def open_history(self) -> AbstractContextManager[HistoryPage]:
        """Run a browser on the history page for the length of a `with`.

        Raises:
            WrongUse: there is no browser.
            SourceUnavailable: it did not start.
        """
        return open_history(
            PageSettings(
                page_url_template=self.page_url,
                timeout_seconds=self.page_timeout_seconds,
                browser_path=self.browser_path,
                zone=self.zone,
                thumbnail_suffix=self.thumbnail_suffix,
            )
        )

    def read_page(self, history: HistoryPage, stream: str, day: date) -> list[RemoteFile]:
        """Return the pictures that the page shows of a stream's local `day`, in its order.

        Where clocks were put back on that day, the order tells the two hours of one name apart.

        Raises:
            SourceUnavailable: the page could not be had now.
            SourceRefused: it is not the expected page, or its pictures lie elsewhere than `picture_url` says.
        """
        locals_ = []
        for shown in history.pictures_on(stream, day):
            address = parse_picture_address(shown, self.thumbnail_suffix)
            if address is None or address.local.date() != day:
                continue
            if not is_same_address(shown, self._address_of(address)):
                raise SourceRefused(
                    f"The page shows a picture at {shown.partition('?')[0]} where picture_url makes "
                    f"{self._address_of(address)}: correct picture_url of the Block."
                )
            locals_.append(address.local)
        passes = mark_second_pass(locals_, self.zone)
        return [
            RemoteFile(picture_key(local, stream), locator=SECOND_HOUR if is_second else None)
            for local, is_second in zip(locals_, passes, strict=True)
        ]

    def learn_manners(self) -> Manners:
        """Return how the pictures' server answers for what it does not have; `look_for` wants to know.

        Raises:
            SourceUnavailable: no usable answer came.
            SourceRefused: it has an answer for everything, so that nothing can be concluded from it.
        """
        with self.slot(), self._held.use(self._settings) as (client, pace):
            impossible = picture_url(self.picture_url, _LONG_AGO, self.streams[0])
            return learn_manners(client, impossible, pace=pace, patience=self._patience())

    def look_for(self, address: PictureAddress, manners: Manners) -> Sight | None:
        """Return what the server says of a picture, or None where there is none: one request, no picture fetched.

        Raises:
            SourceUnavailable: no usable answer came.
            SourceRefused: the server denied it.
        """
        with self.slot(), self._held.use(self._settings) as (client, pace):
            url = self._address_of(address)
            return look_for(client, url, manners=manners, pace=pace, patience=self._patience())

    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        """Bring the full picture whole to `destination`, or its thumbnail where only that is there.

        Raises:
            SourceUnavailable: the file may still come.
            SourceRefused: it was denied, is gone, too large, or a web page.
        """
        address = parse_picture_address(file.key)
        if address is None:
            raise SourceRefused(f"{file.key} is no picture's key: it tells no time and stream.")
        try:
            fetched, quality = self._fetch(address, destination, file.size), Quality.FULL
        except SourceRefused as missing:
            if missing.reason not in _STAND_INS:
                raise
            fetched, quality = self._fetch_thumbnail(address, destination, missing), Quality.THUMBNAIL
        is_second = file.locator == SECOND_HOUR
        captured, extra = self._tell_time(address.local, fetched.modified, is_second=is_second)
        return replace(fetched, claims=Claims(captured=captured, camera=address.stream, quality=quality, extra=extra))

    def _fetch(self, address: PictureAddress, destination: Path, expected_size: int | None) -> Fetched:
        with self._held.use(self._settings) as (client, pace):
            return download_file(
                client,
                self._address_of(address),
                destination,
                expected_size=expected_size,
                max_bytes=self.max_file_bytes,
                pace=pace,
                patience=self._patience(),
            )

    def _fetch_thumbnail(self, address: PictureAddress, destination: Path, missing: SourceRefused) -> Fetched:
        try:
            return self._fetch(replace(address, is_thumbnail=True), destination, None)
        except SourceRefused as error:
            if error.reason not in _STAND_INS:
                raise
            raise missing from error

    def _tell_time(
        self, local: datetime, modified: datetime | None, *, is_second: bool
    ) -> tuple[CaptureTime, dict[str, str] | None]:
        """Return when a picture named `local` was taken; its name means two instants after clocks were put back.

        The first of the two is taken unless the page's order, or the time of the file at the server, tells otherwise;
        what told is kept with the image.
        """
        instants = find_instants(local, self.zone)
        if not instants:  # the hour that was left out
            return CaptureTime(local, None, TimeWitness.CAMERA), None
        instant, told = instants[0], None
        if len(instants) == 2:
            fitting = [i for i in instants if modified and _EARLIEST <= modified - i <= _LATEST]
            told = "order" if is_second else "server" if len(fitting) == 1 else "assumed"
            instant = instants[1] if is_second else fitting[0] if len(fitting) == 1 else instants[0]
        offset = find_offset(instant, self.zone)
        return CaptureTime(local, offset, TimeWitness.CAMERA), {"repeated_hour": told} if told else None

    def _address_of(self, address: PictureAddress) -> str:
        url = picture_url(self.picture_url, address.local, address.stream)
        return thumbnail_url(url, self.thumbnail_suffix) if address.is_thumbnail else url

    def _patience(self) -> Patience:
        return Patience(deadline_seconds=self.retry_deadline_seconds)

    def _settings(self) -> HttpSettings:
        return HttpSettings(
            url=self.root,
            connections=self.connections,
            timeout_seconds=self.timeout_seconds,
            requests_per_second=self.requests_per_second,
            bytes_per_second=self.bytes_per_second,
        )
