"""What can go wrong, as the caller has to handle it.

CatchmentError            a sentence for a person that says what to do
├── SourceUnavailable     the source may answer later: try again
├── SourceRefused         the source has answered: trying again changes nothing
├── LibraryUnavailable    the library's storage or catalog may answer later: try again
├── LibraryRefused        the library can not be used as configured
│   └── KeyRefused        the library is well, but this one file's place in it can not be had
└── WrongUse              the caller asked for something that can not be
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why one file was not stored; the value is what the catalog and the reports show."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    SERVER_ERROR = "server_error"
    RATE_LIMITED = "rate_limited"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    REFUSED = "refused"
    REDIRECTED_AWAY = "redirected_away"
    CUT_SHORT = "cut_short"
    SIZE_MISMATCH = "size_mismatch"
    DIGEST_MISMATCH = "digest_mismatch"
    CHANGED_MIDWAY = "changed_midway"
    TOO_LARGE = "too_large"
    HTML_PAGE = "html_page"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY = "too_many"
    BAD_METADATA = "bad_metadata"
    NO_VIDEO = "no_video"
    STALLED = "stalled"
    STORAGE = "storage"


class CatchmentError(Exception):
    """Anything catchment raises on purpose; its text is a sentence that says what to do."""

    default_reason = Reason.REFUSED

    def __init__(self, message: str, *, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason


class SourceUnavailable(CatchmentError):
    """The source did not answer as it should and may later: try again."""

    default_reason = Reason.CONNECTION


class SourceRefused(CatchmentError):
    """The source has answered no, or with something unusable: change the source or its Block."""


class LibraryUnavailable(CatchmentError):
    """The library's storage or catalog did not answer and may later: try again."""

    default_reason = Reason.STORAGE


class LibraryRefused(CatchmentError):
    """The library can not be used as configured: change its Block."""

    default_reason = Reason.STORAGE


class KeyRefused(LibraryRefused):
    """This one file's place in the library can not be had: change the layout, or what stands there."""


class WrongUse(CatchmentError):
    """The caller asked for something that can not be: the message says what would be."""
