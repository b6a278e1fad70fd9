"""Moving dropped files to `accepted/` or `rejected/`: decided by the catalog, noted first, finished after a kill.

Each move is a note in the drop folder before its first rename, and the note goes last; whoever finds one finishes it. A
file that is not, byte for byte, what the verdict was given on is put back. Nothing is ever overwritten. Whoever may
drop files may write notes too: none is followed out of the folder, and one that is none of ours costs only itself.
"""

import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from blocks._catalog import Catalog
from blocks._catalog_requests import describe_files
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._records import RemoteFile, is_safe_key, iter_files
from blocks._remote import translate_local_error
from blocks._schema import FileState
from blocks._storage import hash_stream
from blocks.drop_folder import ACCEPTED, MOVING, REJECTED, DropFolder
from blocks.uploaded_files import read_state

CUT_PATIENCE_SECONDS = 120.0
"""A picture that is not whole stays so long after its last change: its writer may only be slow."""

_MAY_GROW = {Reason.TRUNCATED, Reason.CORRUPT, Reason.NOT_AN_IMAGE}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_LONGEST_NAME = 255
_LONGEST_NOTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Move:
    """One file on its way, with its sidecar; names are relative to the drop folder, as `os.fsencode` takes them.

    `state`, `sidecar_state`: how the files stood when the verdict was given. `sha256`: what an accepted file has to be.
    `why`: what becomes its `.reason.json`. `home`: where it goes, once it is out of its writer's reach.
    """

    name: str
    state: str
    place: str
    sidecar: str | None = None
    sidecar_state: str | None = None
    sha256: str | None = None
    why: dict[str, Any] | None = None
    home: str | None = None


def sort_files(source: DropFolder, catalog: Catalog, *, now: datetime, warn: Callable[[str], object]) -> dict[str, int]:
    """Finish what a killed run began, then move every listed file whose verdict the catalog has; count by place.

    Accepted is what the catalog says is stored; rejected what it has in quarantine, gave up, or can not use because of
    what its folder or sidecar says. Whatever else failed stays and is tried again. Call it holding the source.

    `warn` is told of every note that is none of ours; it and what lies beside it are left.

    Raises:
        SourceUnavailable, SourceRefused: the folder can not be listed or written to.
        LibraryUnavailable: the catalog did not answer.
    """
    counts = Counter({ACCEPTED: 0, REJECTED: 0})
    try:
        for move in _unfinished(source.folder, warn):
            counts.update(_finish(source.folder, move))
        listed = list(iter_files(source.list_files()))
        known = describe_files(catalog, source.source_name, [file.key for file in listed])
        for file in listed:
            if (decided := _decide(source, file, known.get(file.key), now)) is not None:
                counts.update(_finish(source.folder, decided))
    except OSError as error:
        raise translate_local_error(error, str(source.folder)) from error
    return dict(counts)


def _decide(source: DropFolder, file: RemoteFile, row: dict[str, Any] | None, now: datetime) -> Move | None:
    if row is None or row["validator"] != file.validator:
        return None
    path, sidecar = source.find_paths(file)
    state, _, sidecar_state = (file.validator or "").partition("+")
    move = Move(
        name=_relative(source, path),
        state=state,
        place=ACCEPTED,
        sidecar=None if sidecar is None else _relative(source, sidecar),
        sidecar_state=sidecar_state or None,
    )
    if row["state"] in {FileState.STORED, FileState.DUPLICATE}:
        return replace(move, sha256=row["sha256"])
    is_lasting = row["state"] in {FileState.QUARANTINED, FileState.PARKED} or (
        row["state"] == FileState.FAILED and row["reason"] == Reason.BAD_METADATA
    )
    age = CUT_PATIENCE_SECONDS if file.modified is None else (now - file.modified).total_seconds()
    may_grow = row["reason"] in _MAY_GROW and source.settle_seconds > 0 and abs(age) < CUT_PATIENCE_SECONDS
    if not is_lasting or may_grow:
        return None
    why = {"file": file.key} | {name: row[name] for name in ("state", "reason", "message", "attempts", "size")}
    return replace(move, place=REJECTED, why=why | {"attempted_at": row["attempted_at"].isoformat()})


def _relative(source: DropFolder, path: bytes) -> str:
    return os.fsdecode(path.removeprefix(os.fsencode(source.folder) + b"/"))


def _unfinished(root: Path, warn: Callable[[str], object]) -> Iterator[Move]:
    if (root / MOVING).is_symlink():
        raise SourceRefused(f"{root / MOVING} is a link, and files would be moved through it: remove it.")
    for note in sorted((root / MOVING).glob("*.json")):
        try:
            move = _read_note(root, note)
        except (ValueError, TypeError, OSError, RuntimeError):  # the last: links, or brackets, without end
            warn(f"{note} is no note of ours; put what lies beside it back into the drop folder and remove it.")
        else:
            yield move


def _read_note(root: Path, note: Path) -> Move:
    """Return the move that `note` tells of, whose every path lies inside the folder.

    Raises:
        ValueError, TypeError, OSError, RuntimeError: it is no note that we wrote.
    """
    if note.is_symlink() or not note.is_file() or note.stat().st_size > _LONGEST_NOTE:
        raise ValueError("no plain file of a note's size")
    move = Move(**json.loads(note.read_bytes()))
    texts = (move.name, move.state, move.place)
    words = (move.sidecar, move.sidecar_state, move.sha256, move.home)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(word, str | None) for word in words):
        raise TypeError("a field is no text")
    note_of, *held = _name_files(root, move.name)
    if note != note_of or any(path.is_symlink() for path in held) or not isinstance(move.why, dict | None):
        raise ValueError("another file's note")
    folder = move.name.rpartition("/")[0]
    home_folder = f"{move.place}/{move.name}".rpartition("/")[0]
    expected = ((move.name, folder), (move.sidecar, folder), (move.home, home_folder))
    if move.place not in {ACCEPTED, REJECTED} or not all(
        path is None or (is_safe_key(path) and path.rpartition("/")[0] == above) for path, above in expected
    ):
        raise ValueError("a path that we do not write")
    for above, path in ((root, folder), (root / move.place, home_folder)):
        if not (root / path).resolve().is_relative_to(above.resolve()):
            raise ValueError("a link leads out of the folder")
    return move


def _name_files(root: Path, name: str) -> list[Path]:
    """Return where the note on the move of `name` lies, and where the file and its sidecar lie meanwhile."""
    mark = hashlib.sha256(os.fsencode(name)).hexdigest()[:24]
    return [root / MOVING / f"{mark}.{kind}" for kind in ("json", "file", "sidecar")]


def _finish(root: Path, move: Move) -> list[str]:
    """Move one file to where it belongs, from wherever a kill left it; return its place, or nothing if it has changed.

    Raises:
        OSError: the folder could not be written to; the note stays, and the next run goes on from it.
    """
    note, held, held_sidecar = _name_files(root, move.name)
    note.parent.mkdir(exist_ok=True)
    _write_whole(note, asdict(move))
    if move.home is None and (held.exists() or _take(root / move.name, held, move.state)):
        if _stands(held, move.state) and move.sha256 in {None, _hash_if_asked(held, move)}:
            move = _choose_home(root, move, held, note)
        else:
            _settle_at(_free_name(held, root / move.name), held)
    while held.exists() and move.home is not None and not _settle_at(root / move.home, held):
        move = _choose_home(root, move, held, note)  # somebody has put another file there meanwhile
    if move.home is not None:
        home = root / move.home
        if move.why is not None and home.exists():
            _write_whole(_beside(home, ".reason.json"), move.why)
        _bring_sidecar(root, move, held_sidecar, home)
    note.unlink()
    with suppress(OSError):  # not empty: another move is under way
        note.parent.rmdir()
    return [] if move.home is None else [move.place]


def _bring_sidecar(root: Path, move: Move, held: Path, home: Path) -> None:
    if move.sidecar is None or move.sidecar_state is None:
        return
    path = root / move.sidecar
    if not held.exists() and (_is_shared(path) or not _take(path, held, move.sidecar_state)):
        return
    is_renamed = home.name != Path(move.name).name
    wanted = _beside(home, ".json") if is_renamed else home.with_name(path.name)
    while not _settle_at(_free_name(held, wanted), held):
        pass


def _is_shared(sidecar: Path) -> bool:
    """Tell whether another picture beside `x.json` is called x too, and needs it still."""
    others = (path for path in sidecar.parent.iterdir() if path.name != sidecar.name)
    return any(path.stem == sidecar.stem and path.suffix.lower() != ".json" for path in others)


def _choose_home(root: Path, move: Move, held: Path, note: Path) -> Move:
    home = _free_name(held, root / move.place / move.name)
    chosen = replace(move, home=os.fsdecode(os.fsencode(home.relative_to(root))))
    _write_whole(note, asdict(chosen))
    return chosen


def _hash_if_asked(held: Path, move: Move) -> str | None:
    return None if move.sha256 is None else _hash(held)  # what is rejected need not be readable


def _take(path: Path, held: Path, state: str) -> bool:
    """Take the file at `path` out of its writer's reach, if it still stands as `state` says."""
    if not _stands(path, state):
        return False
    path.rename(held)
    if _stands(held, state):
        return True
    _settle_at(_free_name(held, path), held)
    return False


def _stands(path: Path, state: str) -> bool:
    try:
        return read_state(os.fsencode(path)).name == state
    except (SourceRefused, SourceUnavailable):
        return False


def _settle_at(home: Path, held: Path) -> bool:
    """Give the held file the name `home`; False where other bytes stand there, which are never overwritten."""
    home.parent.mkdir(parents=True, exist_ok=True)
    try:
        home.hardlink_to(held)
    except FileExistsError:
        if not _is_same(held, home):
            return False
    except OSError as error:
        if error.errno == errno.EXDEV:
            return _copy_to(home, held)
        if error.errno not in _NO_LINKS:
            raise
        if home.exists():
            return _is_same(held, home) and _let_go(held)
        held.rename(home)
        return True
    return _let_go(held)


def _copy_to(home: Path, held: Path) -> bool:
    if home.exists():
        return _is_same(held, home) and _let_go(held)
    part = home.with_name(f".{held.name}.part")
    with held.open("rb") as original, _create(part) as copied:
        shutil.copyfileobj(original, copied)
        copied.flush()
        os.fsync(copied.fileno())
    shutil.copystat(held, part)
    if _hash(part) != _hash(held):
        raise OSError(errno.EIO, "a copy has other bytes than its original")
    part.rename(home)
    return _let_go(held)


def _let_go(held: Path) -> bool:
    held.unlink()
    return True


def _free_name(held: Path, wanted: Path) -> Path:
    """Return `wanted`, or the first neighbour of it, that is free or holds the same bytes."""
    try:
        mark = _hash(held)
    except PermissionError:  # it may be moved all the same
        mark = hashlib.sha256(repr(held.stat()).encode()).hexdigest()
    names = [wanted, *(_marked(wanted, mark[:digits]) for digits in (8, 16, 64))]
    return next(name for name in names if not os.path.lexists(name) or _is_same(held, name))


def _is_same(held: Path, other: Path) -> bool:
    try:
        if held.samefile(other):
            return True
        return other.is_file() and held.stat().st_size == other.stat().st_size and _hash(held) == _hash(other)
    except (FileNotFoundError, PermissionError):
        return False


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hash_stream(file)


def _marked(path: Path, mark: str) -> Path:
    suffix = path.suffix if len(path.suffix) <= 16 else ""
    return path.with_name(_cut(path.name.removesuffix(suffix), f"~{mark}{suffix}"))


def _beside(path: Path, end: str) -> Path:
    if len(os.fsencode(path.name + end)) <= _LONGEST_NAME:
        return path.with_name(path.name + end)
    return path.with_name(_cut(path.name, f"~{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}{end}"))


def _cut(name: str, end: str) -> str:
    room = _LONGEST_NAME - len(os.fsencode(end))
    return os.fsencode(name)[:room].decode(errors="ignore") + end


def _write_whole(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:24]}.part")
    with _create(part) as file:
        file.write(json.dumps(content, indent=1).encode())
    part.replace(path)


def _create(part: Path) -> IO[bytes]:
    """Open a new file in place of what a killed run left there, never one that a link of this name leads to."""
    part.unlink(missing_ok=True)
    return part.open("xb")  # O_EXCL follows no link: POSIX.1-2017, open()
