"""Atomic writes: a file is written under a temporary name, flushed to disk, then renamed."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

    The temporary name ends in `.partial`. If anything fails it is removed and `path` stays as it was.

    Raises:
        OSError: the disk is full or the folder cannot be written. The message is one line.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with writing(path):
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)
    except BaseException:
        _remove(partial)
        raise


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
    partial = folder / ".export.partial"
    try:
        with writing(folder):
            shutil.rmtree(partial, ignore_errors=True)  # left by a killed run
            partial.mkdir(parents=True)
        with writing(folder):
            yield partial
            sync_tree(partial)
            for part in [partial, *sorted(p for p in partial.rglob("*") if p.is_dir())]:
                final, new = folder / part.relative_to(partial), sorted(p for p in part.iterdir() if p.is_file())
                final.mkdir(parents=True, exist_ok=True)
                for path in new:
                    path.replace(final / path.name)
                remove_other_shards(final, {path.name for path in new})
                sync(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_other_shards(folder: Path, new: set[str]) -> None:
    """Remove weights from `folder` that share their stem with one of the files `new` but are not among them."""
    stems = {match[1] for name in new if (match := SHARD.fullmatch(name))}
    for path in folder.iterdir():
        match = SHARD.fullmatch(path.name)
        if match and match[1] in stems and path.name not in new:
            path.unlink()


def sync(path: str | Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush `folder` and everything in it to disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a read-only folder, whose error is already being raised
        pass
