"""FTP and FTP over TLS: MLSD where the server has it (RFC 3659 §7), else LIST as Unix and Windows servers write it.

Everything is sent and read as bytes: the control connection is Latin-1 to ftplib, which keeps each byte, and names are
UTF-8 to us (RFC 2640).
"""

import ftplib
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from ftplib import FTP, FTP_TLS

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._records import RemoteFile
from blocks._remote import Entry, FolderRemote, changed_midway, decode_name, find_path

FTP_ERRORS = (ftplib.Error, OSError, EOFError, ValueError)

_UNIX = re.compile(
    r"(?P<kind>[-dlbcps])[-rwxsStTl]{9}[.+@]?\s+\d+\s+\S+\s+(?:\S+\s+)?(?P<size>\d+)\s+"
    r"(?P<day>[A-Z][a-z]{2}\s+\d{1,2})\s+(?:\d{4}|\d{1,2}:\d{2}) (?P<name>.+)"
)
_WINDOWS = re.compile(
    r"(?P<day>\d{2}-\d{2}-\d{2,4}\s+\d{2}:\d{2}(?:[AP]M)?)\s+(?:(?P<kind><DIR>)|(?P<size>\d+)) +(?P<name>.+)"
)
_MISSING_COMMAND = {"500", "501", "502", "504"}


class FtpsClient(FTP_TLS):
    """FTP over TLS (RFC 4217) whose data connections resume the control connection's session, as many servers ask."""

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        """Open a data connection for `cmd`."""
        connection, size = FTP.ntransfercmd(self, cmd, rest)  # noqa: S321 - wrapped in TLS below
        session = self.sock.session if isinstance(self.sock, ssl.SSLSocket) else None
        return self.context.wrap_socket(connection, server_hostname=self.host, session=session), size


class FtpRemote(FolderRemote):
    """A folder on an FTP server.

    `folder` is relative to where a login begins, or absolute when it starts with two slashes (RFC 1738 §3.2.2).
    """

    def __init__(
        self,
        host: str,
        port: int,
        folder: str,
        *,
        user: str | None,
        password: str | None,
        is_tls: bool,
        timeout_seconds: float,
    ) -> None:
        self._host = host
        self._speaks_mlsd = True
        self._ftp: FTP = (
            FtpsClient(timeout=timeout_seconds, encoding="latin-1", context=ssl.create_default_context())
            if is_tls
            else FTP(timeout=timeout_seconds, encoding="latin-1")  # noqa: S321 - many cameras speak nothing else
        )
        try:
            self._ftp.connect(host, port)
            self._ftp.login(_to_wire((user or "").encode()), _to_wire((password or "").encode()))
            if isinstance(self._ftp, FTP_TLS):
                self._ftp.prot_p()
            self._ftp.voidcmd("TYPE I")
            wanted = _to_wire(folder.encode())
            home = self._ftp.pwd().rstrip("/")
            self._root = (wanted[1:] if wanted.startswith("//") else f"{home}/{wanted.strip('/')}").rstrip("/")
        except FTP_ERRORS as error:
            self.close()
            raise translate_ftp_error(error, host, "the server") from error

    def list_folder(self, path: bytes) -> Iterable[Entry]:
        """Return every entry of the folder at `path`; links are left, where the server tells them apart."""
        shown = decode_name(path) or self._root or "/"
        try:
            # Some servers answer a listing of no folder with an empty one; entering it first tells.
            self._ftp.cwd(self._full(path) or "/")
            if self._speaks_mlsd:
                try:
                    return list(self._read_mlsd())
                except ftplib.error_perm as error:
                    if str(error)[:3] not in _MISSING_COMMAND:
                        raise
                    self._speaks_mlsd = False
            return list(self._read_list(shown))
        except FTP_ERRORS as error:
            raise translate_ftp_error(error, self._host, shown) from error

    def _read_mlsd(self) -> Iterator[Entry]:
        for name, facts in self._ftp.mlsd():
            kind = facts.get("type", "").lower()
            if kind in {"file", "dir"}:
                changed = facts.get("modify")
                size = facts.get("size", "")
                yield Entry(
                    _from_wire(name),
                    is_folder=kind == "dir",
                    size=int(size) if size.isdigit() else None,
                    modified=parse_ftp_time(changed),
                    validator=changed,
                )

    def _read_list(self, shown: str) -> Iterator[Entry]:
        lines: list[str] = []
        answer = self._ftp.retrlines("LIST", lines.append)
        if "fail" in answer.lower():  # vsftpd: "226 Transfer done (but failed to open directory)."
            raise SourceRefused(
                f"{self._host} may not show {shown}; allow this user to read it.", reason=Reason.FORBIDDEN
            )
        for line in lines:
            entry = parse_list_line(line)
            if entry is not None:
                yield entry

    def read(self, file: RemoteFile, write: Callable[[bytes], None]) -> None:
        """Hand the file's bytes to `write`, and look whether it has grown meanwhile."""
        path = self._full(find_path(file))
        try:
            received = 0

            def count(chunk: bytes) -> None:
                nonlocal received
                received += len(chunk)
                write(chunk)

            self._ftp.retrbinary(f"RETR {path}", count, blocksize=1 << 16)
            with suppress(ftplib.error_perm):
                if (self._ftp.size(path) or received) != received:
                    raise changed_midway(file)
        except FTP_ERRORS as error:
            raise translate_ftp_error(error, self._host, file.key) from error

    def close(self) -> None:
        """Hang up, without waiting for the server's farewell."""
        with suppress(*FTP_ERRORS):
            self._ftp.close()

    def _full(self, path: bytes) -> str:
        return f"{self._root}/{_to_wire(path)}".rstrip("/")


def parse_ftp_time(text: str | None) -> datetime | None:
    """Return the UTC time of `YYYYMMDDHHMMSS[.sss]` (RFC 3659 §2.3), or None where it is none."""
    if text is None or not re.fullmatch(r"\d{14}(\.\d+)?", text, re.ASCII):
        return None
    try:
        return datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def parse_list_line(line: str) -> Entry | None:
    """Return what one line of LIST says, or None for a link, a device, a total or an empty line.

    Its time has no zone, and loses its year or its hour as it ages: no modification time, and the day as validator.

    Raises:
        SourceRefused: the line is of no known form, so the listing can not be trusted to be whole.
    """
    text = line.rstrip("\r\n")
    match = _UNIX.fullmatch(text) or _WINDOWS.fullmatch(text)
    if match is None:
        if not text.strip() or re.fullmatch(r"total \d+", text.strip()):
            return None
        raise SourceRefused("The FTP server lists its files in a form that is not known; switch MLSD on there.")
    kind = match["kind"]
    if kind not in {None, "-", "d", "<DIR>"} or match["name"] in {".", ".."}:
        return None
    is_folder = kind in {"d", "<DIR>"}
    size = None if is_folder else int(match["size"])
    return Entry(_from_wire(match["name"]), is_folder, size, None, " ".join(match["day"].split()))


def translate_ftp_error(error: Exception, host: str, what: str) -> CatchmentError:
    """Return what an error on the FTP wire means; `what` names file or folder. The server's own text is left out."""
    code = str(error)[:3]
    if isinstance(error, ftplib.error_perm):
        if code in {"530", "331", "332"}:
            return SourceRefused(
                f"{host} refused user name or password; correct the Block.", reason=Reason.UNAUTHORIZED
            )
        if code in {"550", "551", "553"}:
            return SourceRefused(
                f"{host} has no {what}, or does not show it to this user; check path and rights.",
                reason=Reason.NOT_FOUND,
            )
        return SourceRefused(f"{host} refused {what} (FTP {code}); check what its server allows.")
    if isinstance(error, ftplib.error_temp):
        reason = Reason.RATE_LIMITED if code == "421" else Reason.SERVER_ERROR
        return SourceUnavailable(f"{host} is busy at {what} (FTP {code}); lower connections or wait.", reason=reason)
    if isinstance(error, ssl.SSLCertVerificationError):
        return SourceRefused(f"The certificate of {host} is not trusted; repair it, or name its CA in SSL_CERT_FILE.")
    if isinstance(error, TimeoutError):
        return SourceUnavailable(f"{host} did not answer in time at {what}; try again later.", reason=Reason.TIMEOUT)
    if isinstance(error, socket.gaierror):
        return SourceUnavailable(f"The name {host} is not known; check its spelling and this machine's DNS.")
    if isinstance(error, ConnectionRefusedError):
        return SourceUnavailable(f"{host} refused the connection; check the port and that its server runs.")
    if isinstance(error, OSError | EOFError):
        return SourceUnavailable(f"{host} broke the connection at {what}; try again later.")
    if isinstance(error, ftplib.Error):
        return SourceUnavailable(
            f"{host} answered with something that is not FTP at {what}; check the port.", reason=Reason.SERVER_ERROR
        )
    return SourceRefused(f"{what!r} can not be asked for over FTP; rename it.")


def _from_wire(name: str) -> bytes:
    return name.encode("latin-1")


def _to_wire(name: bytes) -> str:
    return name.decode("latin-1")
