"""The stages of a script: which one runs, and which finished one need not run again."""

import json
from pathlib import Path
from typing import Any

from ..common.files import write_text
from ..common.keys import content_key


class Stages:
    """Announces stages as "[2/5] masks" and keeps in `folder`/stages.json what finished ones were made from."""

    def __init__(self, folder: str | Path, names: list[str], show: bool = True):
        self.path, self.names, self.show = Path(folder) / "stages.json", names, show

    def begin(self, name: str, note: str = "") -> None:
        if self.show:
            number = self.names.index(name) + 1
            print(f"[{number}/{len(self.names)}] {name}{' (' + note + ')' if note else ''}", flush=True)

    def finished(self, name: str, content: Any) -> bool:
        """Whether `name` was finished from the same content."""
        return self._read().get(name) == _digest(content)

    def finish(self, name: str, content: Any) -> None:
        if self.show:
            done = {**self._read(), name: _digest(content)}
            write_text(self.path, json.dumps(done, indent=1))

    def _read(self) -> dict[str, str]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}


def _digest(content: Any) -> str:
    return content_key(content, default=str)
