"""Atomic writes: a file is written under a temporary name, flushed to disk, then renamed.

Temporary names are random and are made exclusively, so that neither another process that writes the same file nor a
link that somebody put there is ever written through. Processes that write the same content can share a folder.
"""

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WINDOWS = os.name == "nt"
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None  # Windows has none
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.partial")
FORGOTTEN = 24 * 3600.0  # seconds after which a temporary file counts as left over where folders cannot be locked
SHARD = re.compile(r"(.+?)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
# safetensors and torch report a full disk in their own exceptions, which are not OSErrors.
WRITERS = ("SafetensorError", "PytorchStreamWriter", "unexpected pos", "Parent directory")


@contextmanager
def writing(what: str | Path) -> Iterator[None]:
    """Turn a failing write inside into an OSError of one line that names `what` and the reason."""
    try:
        yield
    except OSError as error:
        raise _unwritten(what, error.strerror or str(error)) from error
    except Exception as error:
        if not any(word in f"{type(error).__name__} {error}" for word in WRITERS):
            raise
        raise _unwritten(what, str(error)) from error


def _unwritten(what: str | Path, reason: str) -> OSError:
    if reason.endswith("; what was there before is as it was"):  # said by an inner `writing`
        return OSError(reason)
    full = "No space left" in reason or "PytorchStreamWriter" in reason or "unexpected pos" in reason
    reason = "the disk is full: make room or name a folder elsewhere" if full else " ".join(reason.split())
    return OSError(f"{what} could not be written ({reason}); what was there before is as it was")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; afterwards flush it to disk and rename it to `path`.

    The temporary file lies beside `path` under a random name that ends in `.partial`. If anything fails it is removed
    and `path` stays as it was. The file gets the permissions that the process gives to new files, whatever a library
    sets that writes it. Several processes may write `path` at the same time: the last one to finish wins.

    Raises:
        OSError: the disk is full or the folder cannot be written. The message is one line.
    """
    path = Path(path)
    with writing(path), _temporary(path.parent) as partial:
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | _flag("O_NOFOLLOW"), 0o666)
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        os.close(handle)
        yield partial
        sync(partial, mode)
        partial.replace(path)
        sync(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically. Raises OSError as `atomic` does."""
    with atomic(path) as partial:
        partial.write_bytes(text.encode())


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder inside `folder`; afterwards move its files to the same places in `folder` by renames.

    Nothing in `folder` changes before all new files are complete and on disk. Other files there stay, except weights
    of the same name in another number of shards, which a loader would prefer to the new ones.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with writing(folder), _temporary(folder) as partial:
        partial.mkdir()
        mode = stat.S_IMODE(partial.stat().st_mode) & 0o666
        yield partial
        sync_tree(partial, mode)
        for part in [partial, *sorted(p for p in partial.rglob("*") if p.is_dir())]:
            final, new = folder / part.relative_to(partial), sorted(p for p in part.iterdir() if p.is_file())
            final.mkdir(parents=True, exist_ok=True)
            for path in new:
                path.replace(final / path.name)
            remove_other_shards(final, {path.name for path in new})
            sync(final)


def check_apart(output: str | Path, other: str | Path, what: str, holding: bool = True, inside: bool = True) -> None:
    """Raise ValueError if what is written to the folder `output` could overwrite `other`, or get among its files.

    Args:
        other: a folder that is read. One that does not exist, such as a Hub id, is never in the way.
        what: the name of `other` for the message.
        holding, inside: also refuse an `output` that holds `other`, or lies in it.
    """
    ours, theirs = Path(output).resolve(), Path(other).resolve()
    if not theirs.is_dir():
        return
    same = ours.is_dir() and ours.samefile(theirs)
    if same or (inside and _within(ours, theirs)) or (holding and _within(theirs, ours)):
        relation = "is" if same else "lies in" if _within(ours, theirs) else "holds"
        raise ValueError(f"output_dir {output} {relation} {what} {other}, which is read: name a folder elsewhere")


def _within(inner: Path, outer: Path) -> bool:
    return outer.is_dir() and any(parent.is_dir() and parent.samefile(outer) for parent in inner.parents)


def remove_other_shards(folder: Path, new: set[str]) -> None:
    """Remove weights from `folder` that share their stem with one of the files `new` but are not among them."""
    stems = {match[1] for name in new if (match := SHARD.fullmatch(name))}
    for path in folder.iterdir():
        match = SHARD.fullmatch(path.name)
        if match and match[1] in stems and path.name not in new:
            path.unlink()


def sync(path: str | Path, mode: int | None = None) -> None:
    """Flush a file's content, or a folder's entries, to disk.

    Windows flushes files through writable handles only, and no folders.

    Args:
        mode: permissions to give the file; None leaves those that it has.
    """
    if Path(path).is_dir():
        if not WINDOWS:
            _sync_folder(path)
        return
    try:
        handle = os.open(path, os.O_RDWR | _flag("O_BINARY") | (_flag("O_NOFOLLOW") if mode is not None else 0))
    except PermissionError:  # a read-only file, as a library copies them from its cache
        if WINDOWS:
            return
        handle = os.open(path, os.O_RDONLY)
    try:
        if mode is not None and hasattr(os, "fchmod") and stat.S_IMODE(os.fstat(handle).st_mode) != mode:
            os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path, mode: int | None = None) -> None:
    """Flush `folder` and everything in it to disk, and give its files the permissions `mode`, unless it is None."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path, mode)
    sync(folder)


def _sync_folder(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network file systems that flush no folders
            raise
    finally:
        os.close(handle)


def _flag(name: str) -> int:
    """A flag of os.open, or 0 where the system lacks it."""
    return getattr(os, name, 0)


# ---- temporary names ---------------------------------------------------------------------------
@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Yield a new name in `folder`. Whatever is there afterwards under that name is removed.

    What killed processes left in `folder` is removed first. A lock on the folder tells it from what is being written:
    whoever writes shares the lock, so who gets it alone is alone.
    """
    handle = _open_folder(folder)
    path = folder / f".{secrets.token_hex(8)}.partial"
    try:
        alone = _lock(handle)
        if alone is not False:
            _remove_left(folder, 0.0 if alone else FORGOTTEN)
        if alone:
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield path
    finally:
        _remove(path)
        if handle is not None:
            os.close(handle)  # and with it goes the lock


def _open_folder(folder: Path) -> int | None:
    """A handle of the folder to lock, or None where that cannot be done."""
    if fcntl is None:
        return None
    try:
        return os.open(folder, os.O_RDONLY)
    except OSError:  # it is not there, which the write itself says, or must not be listed
        return None


def _lock(handle: int | None) -> bool | None:
    """Lock a folder: True for alone, False for shared with others who write, None where it cannot be locked."""
    if handle is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        fcntl.flock(handle, fcntl.LOCK_SH)  # the one who is alone removes what is left over, and shares
        return False
    except OSError:  # a file system without locks
        return None


def _remove_left(folder: Path, age: float) -> None:
    """Remove temporary files and folders that were not touched for `age` seconds."""
    now = time.time()
    with suppress(OSError), os.scandir(folder) as entries:  # a folder that is not there or must not be listed
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name) and now - entry.stat(follow_symlinks=False).st_mtime >= age:
                _remove(Path(entry.path))


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:  # a read-only folder, whose error is already being raised
        pass
