"""SFTP by paramiko: only servers someone has vouched for, every wait bounded."""

import io
import socket
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._records import RemoteFile
from blocks._remote import Entry, FolderRemote, changed_midway, decode_name, find_path

try:
    import paramiko
except ImportError as error:
    raise SourceRefused("SFTP needs a further package: pip install 'catchment[sftp]'.") from error

if TYPE_CHECKING:
    from paramiko import PKey, SSHClient

SFTP_ERRORS = (paramiko.SSHException, paramiko.ssh_exception.NoValidConnectionsError, OSError, EOFError, ValueError)


class UnknownHostRefused(paramiko.MissingHostKeyPolicy):
    """Let a server in by its key's fingerprint, and by nothing else."""

    def __init__(self, fingerprint: str | None) -> None:
        self._fingerprint = fingerprint

    def missing_host_key(self, client: "SSHClient", hostname: str, key: "PKey") -> None:
        """Raise unless `key` has the wanted fingerprint."""
        if key.fingerprint != self._fingerprint:
            wanted = "is not the one in the Block" if self._fingerprint else "is not known here"
            raise SourceRefused(
                f"The key of {hostname}, {key.fingerprint}, {wanted}; if its owner confirms it, put it in host_key.",
                reason=Reason.UNAUTHORIZED,
            )


class SftpRemote(FolderRemote):
    """A folder on an SFTP server; `folder` is absolute, or relative to the login's home when it starts with `/~/`.

    Links are left: the protocol does not tell where they lead before they are followed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        folder: str,
        *,
        user: str | None,
        password: str | None,
        private_key: str | None,
        host_key: str | None,
        timeout_seconds: float,
    ) -> None:
        self._host = host
        self._root = b"." + folder[2:].encode() if folder.startswith("/~") else folder.encode() or b"/"
        self._client = paramiko.SSHClient()
        if host_key is None:
            self._client.load_system_host_keys()
        self._client.set_missing_host_key_policy(UnknownHostRefused(host_key))
        own = password is not None or private_key is not None
        try:
            self._client.connect(
                host,
                port,
                username=user,
                password=password,
                pkey=parse_private_key(private_key, password) if private_key else None,
                allow_agent=not own,
                look_for_keys=not own,
                timeout=timeout_seconds,
                banner_timeout=timeout_seconds,
                auth_timeout=timeout_seconds,
                channel_timeout=timeout_seconds,
            )
            self._sftp = self._client.open_sftp()
            if channel := self._sftp.get_channel():
                channel.settimeout(timeout_seconds)
        except BaseException as error:
            self.close()
            if isinstance(error, SFTP_ERRORS):
                raise translate_sftp_error(error, host, "the server") from error
            raise

    def list_folder(self, path: bytes) -> Iterable[Entry]:
        """Return every file and folder in the folder at `path`; modification times are whole seconds, UTC."""
        shown = decode_name(path or self._root)
        try:
            found = self._sftp.listdir_attr(self._full(path))  # type: ignore[arg-type] # paramiko takes bytes too
        except SFTP_ERRORS as error:
            raise translate_sftp_error(error, self._host, shown) from error
        return [entry for facts in found if (entry := _make_entry(facts)) is not None]

    def read(self, file: RemoteFile, write: Callable[[bytes], None]) -> None:
        """Hand the file's bytes to `write`, and look whether it was written to meanwhile."""
        try:
            with self._sftp.open(self._full(find_path(file)), "rb") as source:
                before = source.stat()
                if before.st_size:
                    # 64 requests of 32 KiB in flight: fast over long distances, 2 MB of memory.
                    source.prefetch(before.st_size, max_concurrent_requests=64)
                while chunk := source.read(1 << 18):
                    write(chunk)
                after = source.stat()
        except SFTP_ERRORS as error:
            raise translate_sftp_error(error, self._host, file.key) from error
        if (before.st_size, before.st_mtime) != (after.st_size, after.st_mtime):
            raise changed_midway(file)

    def close(self) -> None:
        """Hang up."""
        with suppress(*SFTP_ERRORS):
            self._client.close()

    def _full(self, path: bytes) -> bytes:
        return self._root.rstrip(b"/") + b"/" + path if path else self._root


def _make_entry(facts: paramiko.SFTPAttributes) -> Entry | None:
    mode = facts.st_mode or 0
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return None
    name = facts.filename.encode()
    if stat.S_ISDIR(mode):
        return Entry(name, is_folder=True)
    if facts.st_mtime is None:
        return Entry(name, False, facts.st_size)
    return Entry(name, False, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC), str(facts.st_mtime))


def parse_private_key(text: str, passphrase: str | None) -> "PKey":
    """Return the private key in `text` (OpenSSH or PEM), opened by `passphrase` where it is locked.

    Raises:
        SourceRefused: it is none, or the passphrase is wrong.
    """
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text), passphrase)
        except (paramiko.SSHException, ValueError, IndexError, TypeError):
            continue
    raise SourceRefused(
        "private_key is no Ed25519, ECDSA or RSA key, or the password does not open it; paste the whole key file.",
        reason=Reason.UNAUTHORIZED,
    )


def translate_sftp_error(error: Exception, host: str, what: str) -> CatchmentError:
    """Return what an error on the SFTP wire means; `what` names file or folder. The server's own text is left out."""
    if isinstance(error, paramiko.BadHostKeyException):
        return SourceRefused(
            f"{host} shows another key than known_hosts has; find out why before you change it there.",
            reason=Reason.UNAUTHORIZED,
        )
    if isinstance(error, paramiko.AuthenticationException | paramiko.PasswordRequiredException):
        return SourceRefused(
            f"{host} refused user name, password or key; correct the Block.", reason=Reason.UNAUTHORIZED
        )
    if isinstance(error, FileNotFoundError):
        return SourceRefused(f"{host} has no {what}; check the path.", reason=Reason.NOT_FOUND)
    if isinstance(error, PermissionError):
        return SourceRefused(f"{host} does not let this user read {what}; allow it there.", reason=Reason.FORBIDDEN)
    if isinstance(error, TimeoutError):
        return SourceUnavailable(f"{host} did not answer in time at {what}; try again later.", reason=Reason.TIMEOUT)
    if isinstance(error, socket.gaierror):
        return SourceUnavailable(f"The name {host} is not known; check its spelling and this machine's DNS.")
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError | ConnectionRefusedError):
        return SourceUnavailable(f"{host} refused the connection; check the port and that its server runs.")
    if isinstance(error, UnicodeDecodeError):
        return SourceRefused(f"A name in {what} on {host} is not UTF-8, which SFTP wants; rename that file.")
    if isinstance(error, ValueError):
        return SourceRefused(f"{what!r} can not be asked for over SFTP; check the Block's url and user name.")
    return SourceUnavailable(f"{host} broke the connection at {what}; try again later.")
