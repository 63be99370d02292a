"""The stages of a script: which one runs, which finished one need not run again, and how long each took."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..common.bars import phase
from ..common.files import write_text
from ..common.identity import file_digest
from ..common.keys import content_key
from ..common.untrusted import read_json

AGAIN = "so this stage runs again"
SECONDS, CHOSEN = "seconds", "chosen"  # beside the stages in the file


class Stages:
    """Announces stages as "[2/5] masks" and keeps in `folder`/stages.json what finished ones were made from and wrote,
    how many seconds each took, and what the run chose for itself.

    A stage counts as finished while its content is the same and every file that it wrote is as it wrote it.

    Attributes:
        took: seconds of each stage, of the last run in this folder and then of this one.
    """

    def __init__(self, folder: str | Path, names: list[str], show: bool = True):
        self.folder, self.names, self.show = Path(folder), names, show
        self.path = self.folder / "stages.json"
        beside = self._beside()
        self.took: dict[str, float] = {k: v for k, v in beside.get(SECONDS, {}).items() if k in names and _is_time(v)}
        self._chosen: dict[str, Any] = beside.get(CHOSEN, {})
        self._running: tuple[str, float] | None = None

    def begin(self, name: str, note: str = "") -> None:
        """Announce a stage, which ends the one before.

        Args:
            note: why it does nothing; then its earlier time stays.
        """
        self._end()
        if self.show:
            number = self.names.index(name) + 1
            print(f"[{number}/{len(self.names)}] {name}{' (' + note + ')' if note else ''}", flush=True)
            phase(name, None if note else self.took.get(name))
        self._running = None if note else (name, time.perf_counter())

    def _end(self) -> None:
        if self._running is not None:
            name, start = self._running
            self.took[name], self._running = round(time.perf_counter() - start, 2), None

    def finished(self, name: str, content: Any) -> bool:
        """Whether `name` was finished from the same content, and what it wrote is there.

        What was finished and is damaged now is said in one line.
        """
        done, broken = self._read()
        stage = done.get(name)
        if broken or stage is None or stage["content"] != _digest(content):
            self._say(broken)
            return False
        lost = next((f for f, facts in stage["files"].items() if not _same(self.folder / f, facts)), None)
        self._say(f"{self.folder / lost} is missing or was changed" if lost else "")
        return lost is None

    def finish(self, name: str, content: Any, files: Iterable[str] = ()) -> None:
        """Note that `name` is finished.

        Args:
            content: all that its result depends on.
            files: what it wrote, relative to the folder.
        """
        if self.show:
            facts = {file: file_digest(self.folder / file) for file in sorted(files)}
            self._write({name: {"content": _digest(content), "files": facts}})

    def keep(self) -> None:
        """Write times and choices, once nothing of the input can be refused any more."""
        if self.show:
            self._write({})

    def close(self) -> None:
        """End the last stage and keep the times of all."""
        self._end()
        phase("writing the report")
        self.keep()

    def chosen(self, name: str, content: Any) -> Any:
        """What the run chose before for `name` from the same content; None if it did not."""
        found = self._chosen.get(name)
        if not isinstance(found, dict) or found.get("content") != _digest(content):
            return None
        return found.get("value")

    def choose(self, name: str, content: Any, value: Any) -> None:
        """Note a choice, so that the same command chooses the same when it is repeated or resumed (see `keep`)."""
        self._chosen = {**self._chosen, name: {"content": _digest(content), "value": value}}

    def _write(self, more: dict[str, Any]) -> None:
        beside = {SECONDS: self.took, **({CHOSEN: self._chosen} if self._chosen else {})}
        write_text(self.path, json.dumps({**self._read()[0], **more, **beside}, indent=1))

    def _say(self, why: str) -> None:
        if why and self.show:
            print(f"{why}, {AGAIN}", flush=True)

    def _read(self) -> tuple[dict[str, Any], str]:
        """Return what was finished, and why the file cannot be used, or "": then nothing counts as finished."""
        if not self.path.exists():
            return {}, ""
        try:
            done = read_json(self.path)
        except ValueError as error:
            return {}, str(error)
        return {name: stage for name, stage in done.items() if _is_stage(stage)}, ""

    def _beside(self) -> dict[str, dict[str, Any]]:
        """Return the times and choices of earlier runs; nothing of a broken file, which `finished` says."""
        try:
            kept = read_json(self.path) if self.path.exists() else {}
        except ValueError:
            return {}
        return {name: kept[name] for name in (SECONDS, CHOSEN) if isinstance(kept.get(name), dict)}


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _is_stage(stage: Any) -> bool:
    """Whether a stage's entry is of this version; earlier ones did not note the files."""
    return isinstance(stage, dict) and isinstance(stage.get("files"), dict) and "content" in stage


def _same(path: Path, facts: Any) -> bool:
    """Whether a file has the size and hash that were noted."""
    if not path.is_file() or not isinstance(facts, list) or len(facts) != 2 or path.stat().st_size != facts[0]:
        return False
    return file_digest(path) == facts


def _digest(content: Any) -> str:
    return content_key(content, default=str)
