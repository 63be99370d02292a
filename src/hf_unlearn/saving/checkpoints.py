"""Checkpoints that are whole: a manifest of sizes and sha256, written last, and checked before one is resumed from.

Stock Trainer writes a checkpoint file by file under its final name. A process that is killed, or a disk that fills up,
leaves such a folder half written; it has no manifest then, or not the bytes that the manifest promises.
"""

import hashlib
import json
import re
import shutil
import warnings
from pathlib import Path

from ..common.files import sync, sync_tree, write_text

MANIFEST = "manifest.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def seal(folder: Path) -> None:
    """Say that `folder` is whole: flush it to the disk, then write the manifest. Raises OSError in one line."""
    sync_tree(folder)
    files = {path.relative_to(folder).as_posix(): _facts(path) for path in sorted(_files(folder))}
    write_text(folder / MANIFEST, json.dumps({"files": files}, indent=1))
    sync(folder.parent)


def damage(folder: Path) -> str | None:
    """Why `folder` is no whole checkpoint, in words, or None if it is one."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing: it was not written to its end"
    except (ValueError, TypeError, KeyError):
        return f"{MANIFEST} is torn"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if _facts(path)[1] != digest:
            return f"{name} has other content than was written"
    return None


def find_checkpoint(output_dir: str | Path, resume: str | bool | None) -> str | None:
    """The folder to resume from, whole; None to start.

    `resume` is that folder, or True or "latest" for the newest whole one in `output_dir`, or "auto" for the same
    where there is one and a start where there is none. Torn ones are named in a warning and skipped.

    Raises:
        ValueError: there is none (but for "auto" a run never starts afresh instead), or the named one is torn.
    """
    if not resume:
        return None
    if resume is True or resume in ("latest", "auto"):
        torn = []
        for folder in reversed(in_order(output_dir)):
            reason = damage(folder)
            if reason is None:
                return str(folder)
            torn.append(f"{folder.name} ({reason})")
            warnings.warn(f"checkpoint {folder} is skipped: {reason}", stacklevel=3)
        if resume == "auto":
            return None
        if torn:
            raise ValueError(
                f"no whole checkpoint in {output_dir}: {', '.join(torn)}; set resume_from_checkpoint=auto to start"
            )
        raise ValueError(f"no checkpoint in {output_dir}: set resume_from_checkpoint=auto, or leave it out, to start")
    if not (Path(resume) / "trainer_state.json").is_file() and not (Path(resume) / MANIFEST).is_file():
        raise ValueError(f"checkpoint {resume} does not exist or is not one (no trainer_state.json in it)")
    reason = damage(Path(resume))
    if reason is not None:
        raise ValueError(f"checkpoint {resume} is torn: {reason}; name another, or resume from 'latest'")
    return str(resume)


def in_order(output_dir: str | Path) -> list[Path]:
    """Folders called checkpoint-N in `output_dir`, whole or not, oldest first."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name.split("-")[1]))


def discard(folder: Path) -> None:
    """Remove a checkpoint; its manifest goes first, so that one that is half removed counts as torn."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def rotate(output_dir: str | Path, limit: int | None, best: str | None) -> None:
    """Keep the `limit` newest whole checkpoints, and `best`; torn ones do not count and go.

    Called after the newest one was sealed, so that there is a whole one at every moment.
    """
    if not limit or limit < 1:
        return
    folders = in_order(output_dir)
    # By time of the manifest: a run that was started anew writes lower numbers than those an older one left.
    whole = sorted((f for f in folders if (f / MANIFEST).is_file()), key=lambda f: (f / MANIFEST).stat().st_mtime_ns)
    kept = {*whole[-1:], *(f for f in whole if best is not None and f.name == Path(best).name)}
    kept |= set([f for f in reversed(whole) if f not in kept][: max(limit - len(kept), 0)])
    for folder in folders:
        if folder not in kept:
            discard(folder)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]


def _facts(path: Path) -> list[int | str]:
    """[bytes, sha256]"""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return [path.stat().st_size, digest.hexdigest()]
