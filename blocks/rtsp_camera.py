"""A live camera that is watched over RTSP."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from blocks._errors import WrongUse
from blocks._frame_spool import FrameSpool
from blocks._records import Fetched, Listing, RemoteFile
from blocks._rtsp import Frame, RtspSettings, open_stream
from blocks._rtsp_address import split_address
from blocks._upload_meta import CAMERA_ID
from blocks.source import ImageSource


class RtspCamera(ImageSource):
    """A camera that sends live video over RTSP; its files are the frames that a capture has spooled.

    Example:
        Load a saved camera and look at one frame:
        ```python
        import threading

        from blocks.rtsp_camera import RtspCamera

        camera = RtspCamera.load("BLOCK_NAME")
        with camera.open_stream(fps=1, stopped=threading.Event()) as frames:
            print(next(frames).pixels.shape)
        ```
    """

    _block_type_name = "RTSP Camera"
    _block_type_slug = "rtsp-camera"  # saved documents hang on it: never rename

    url: str = Field(
        description="Address of the stream, such as rtsp://camera.example.org:554/stream1, or rtsps:// (TLS). "
        "A user name and password in it are moved into their own fields."
    )
    username: SecretStr | None = Field(default=None, description="User name; empty: the camera asks for none.")
    password: SecretStr | None = Field(default=None, description="Password.")
    camera_id: str | None = Field(
        default=None, pattern=f"^{CAMERA_ID}$", description="Name of the camera in the library; empty: the Block's own."
    )
    transport: Literal["tcp", "udp"] = Field(
        default="tcp", description="How the pictures travel: tcp loses none; udp for cameras that can not do tcp."
    )
    fps: float = Field(
        default=1.0, gt=0, le=30, description="Frames to take each second, where a capture says nothing else."
    )
    open_timeout_seconds: float = Field(
        default=10.0, gt=0, le=300, description="Longest wait until the stream is open and sends its first picture."
    )
    read_timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        le=300,
        description="Longest wait from one picture to the next; more than the camera's own pace.",
    )
    verify_certificate: bool = Field(
        default=True, description="With rtsps:// refuse a camera whose certificate nobody vouches for."
    )
    frame_format: Literal["jpeg", "png"] = Field(default="jpeg", description="How frames are kept.")
    jpeg_quality: int = Field(default=90, ge=1, le=100, description="Quality of JPEG frames, 1-100.")
    layout: str = Field(
        default="{key}",
        description="Place in the library; a frame's key is frames/{year}/{month}/{day}/{camera}/{time}-{hash}.jpg.",
    )

    is_live: ClassVar[bool] = True
    command: ClassVar[str] = "catchment capture"
    files_together: ClassVar[int] = 50

    _spool: FrameSpool | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _credentials_apart(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or not isinstance(fields.get("url"), str):
            return fields
        address = split_address(fields["url"])
        fields = fields | {"url": address.url}
        for name, found in (("username", address.username), ("password", address.password)):
            own = fields.get(name)
            own = own.get_secret_value() if isinstance(own, SecretStr) else own
            if found and own and own != found:
                raise ValueError(f"url holds another {name} than the field {name}: leave it out of the url")
            if found:
                fields[name] = SecretStr(found)
        return fields

    @field_validator("username", "password")
    @classmethod
    def _nothing_is_none(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value and value.get_secret_value() else None

    @model_validator(mode="after")
    def _usable_credentials(self) -> Self:
        username = self.username.get_secret_value() if self.username else ""
        if ":" in username:  # RFC 7617 §2: the first colon ends the user name
            raise ValueError("username must not contain a colon")
        if any(not letter.isprintable() for letter in username + (self._secret(self.password) or "")):
            raise ValueError("username and password must not contain control characters")
        if self.transport == "udp" and self.url.startswith("rtsps://"):
            raise ValueError("rtsps:// travels by tcp only: set transport to tcp")
        return self

    @property
    def root(self) -> str:
        """Where the stream is: its address, which never holds credentials."""
        return self.url

    @property
    def camera(self) -> str:
        """The camera's name in the library: `camera_id`, or else the source's name as one safe path segment."""
        return self.camera_id or self.folder_name

    def with_spool(self, folder: Path) -> Self:
        """Return a copy whose files are the frames that wait in `folder`."""
        bound = self.model_copy()
        bound._spool = FrameSpool(folder)
        return bound

    def open_stream(self, *, fps: float | None, stopped: threading.Event) -> AbstractContextManager[Iterator[Frame]]:
        """Open the live stream and yield about `fps` frames a second (None: every one) until `stopped` is set.

        Raises:
            SourceUnavailable: the camera did not answer in time, fell silent, or ended the stream.
            SourceRefused: it has answered no, or sends no video.
        """
        return open_stream(self._settings(), fps=fps, stopped=stopped)

    def try_out(self) -> str:
        """Open the stream, wait for one picture and return its size.

        Raises:
            SourceUnavailable, SourceRefused: as `open_stream`.
        """
        with self.open_stream(fps=None, stopped=threading.Event()) as frames:
            height, width = next(frames).pixels.shape[:2]
        return f"sends pictures of {width} x {height}"

    def list_files(self) -> Listing:
        """Return every frame that waits in the spool.

        Raises:
            WrongUse: no spool is bound.
        """
        return self._bound_spool().list_files()

    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        """Bring one frame whole from the spool.

        Raises:
            SourceRefused: it is gone from the spool, or larger than `max_file_bytes`.
            WrongUse: no spool is bound.
        """
        return self._bound_spool().download(file, destination, self.max_file_bytes)

    def _bound_spool(self) -> FrameSpool:
        if self._spool is None:
            raise WrongUse(f"{self.source_name} is a live camera: take frames from it with {self.command}.")
        return self._spool

    @staticmethod
    def _secret(value: SecretStr | None) -> str | None:
        return value.get_secret_value() if value else None

    def _settings(self) -> RtspSettings:
        return RtspSettings(
            url=self.url,
            username=self._secret(self.username),
            password=self._secret(self.password),
            transport=self.transport,
            open_timeout_seconds=self.open_timeout_seconds,
            read_timeout_seconds=self.read_timeout_seconds,
            verify_certificate=self.verify_certificate,
        )
