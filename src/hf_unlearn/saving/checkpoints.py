"""Checkpoint integrity: write a manifest of sizes and SHA-256 last, and check it before resuming.

transformers' Trainer writes a checkpoint file by file under its final name. A killed process or a full disk leaves the
folder half written. Such a folder has no manifest, or other bytes than its manifest says.
"""

import json
import re
import shutil
import warnings
from pathlib import Path

from ..common.files import sync, sync_tree, write_text
from ..common.identity import file_digest

MANIFEST = "manifest.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def seal(folder: Path) -> None:
    """Mark `folder` as complete: flush it to disk, then write the manifest. Raises OSError in one line."""
    sync_tree(folder)
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(_files(folder))}
    write_text(folder / MANIFEST, json.dumps({"files": files}, indent=1))
    sync(folder.parent)


def damage(folder: Path) -> str | None:
    """Return why `folder` is not a complete checkpoint, in words, or None if it is one."""
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
        if file_digest(path)[1] != digest:
            return f"{name} has other content than was written"
    return None


def find_checkpoint(output_dir: str | Path, resume: str | bool | None) -> str | None:
    """Return the complete checkpoint to resume from, or None to start from scratch.

    A warning names each damaged checkpoint that is skipped.

    Args:
        resume: a folder; True or "latest" for the newest complete checkpoint in `output_dir`; or "auto", which also
            takes the newest one but starts from scratch if there is none.

    Raises:
        ValueError: there is no such checkpoint, or the named one is damaged. Only "auto" starts from scratch instead.
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
    """Return the folders checkpoint-N in `output_dir`, complete or not, in the order of their steps."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name.split("-")[1]))


def discard(folder: Path) -> None:
    """Remove a checkpoint, its manifest first, so that a half-removed one counts as damaged."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def rotate(output_dir: str | Path, limit: int | None, best: str | None) -> None:
    """Keep the `limit` newest complete checkpoints and `best`. Damaged ones do not count and are removed.

    Call this after the newest checkpoint was sealed, so that a complete one exists at every moment.
    """
    if not limit or limit < 1:
        return
    folders = in_order(output_dir)
    # By time of the manifest: a new run writes lower step numbers than those that an older run left.
    whole = sorted((f for f in folders if (f / MANIFEST).is_file()), key=lambda f: (f / MANIFEST).stat().st_mtime_ns)
    kept = {*whole[-1:], *(f for f in whole if best is not None and f.name == Path(best).name)}
    kept |= set([f for f in reversed(whole) if f not in kept][: max(limit - len(kept), 0)])
    for folder in folders:
        if folder not in kept:
            discard(folder)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
