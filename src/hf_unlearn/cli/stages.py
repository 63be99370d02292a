"""The stages of a script: which one runs, and which finished one need not run again."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..common.files import write_text
from ..common.identity import file_digest
from ..common.keys import content_key
from ..common.untrusted import read_json

AGAIN = "so this stage runs again"


class Stages:
    """Announces stages as "[2/5] masks" and keeps in `folder`/stages.json what finished ones were made from and wrote.

    A stage counts as finished while its content is the same and every file that it wrote is as it wrote it.
    """

    def __init__(self, folder: str | Path, names: list[str], show: bool = True):
        self.folder, self.names, self.show = Path(folder), names, show
        self.path = self.folder / "stages.json"

    def begin(self, name: str, note: str = "") -> None:
        if self.show:
            number = self.names.index(name) + 1
            print(f"[{number}/{len(self.names)}] {name}{' (' + note + ')' if note else ''}", flush=True)

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
            done = {**self._read()[0], name: {"content": _digest(content), "files": facts}}
            write_text(self.path, json.dumps(done, indent=1))

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
