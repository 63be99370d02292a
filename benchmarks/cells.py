"""Compute the cells of a table in processes of one thread; each is kept in a JSON file and computed once."""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm


@functools.cache
def digest_of(*paths: Path) -> str:
    """Digest of the files' content, for the name of a cell."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def ranking(select: str) -> dict[str, str]:
    """The code that chooses an adapter's ranks, for the key of its cell: cells of other ranks have another key."""
    from hf_unlearn.common.imports import code_of
    from hf_unlearn.saliency.ranks import allot_ranks, layer_scores

    if select != "saliency":
        return {}
    code = "".join(code_of(inspect.getsource(part)) for part in (layer_scores, allot_ranks))
    return {"ranks": hashlib.sha256(code.encode()).hexdigest()[:12]}


def method_at(name: str, options: dict[str, Any], rate: float | None) -> Any:
    """A Method as it is run at a learning rate; without one it finds its strength."""
    from hf_unlearn import METHODS

    method = METHODS[name](**options)
    return method if rate is None else method.at_rate()


def computed(
    path: str | Path, wanted: Sequence[tuple], key: Callable[..., str], cell: Callable[..., dict], jobs: int
) -> dict[str, Any]:
    """Compute `cell(*arguments)` for those of `wanted` that `path` does not hold yet, and return all cells by key."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = json.loads(path.read_text()) if path.exists() else {}
    missing = [arguments for arguments in dict.fromkeys(wanted) if key(*arguments) not in cells]
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(cell, *arguments): arguments for arguments in missing}
        for done in tqdm(as_completed(running), total=len(missing), desc="cells", disable=not missing):
            cells[key(*running[done])] = done.result()
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(cells, indent=1, sort_keys=True) + "\n")
            partial.replace(path)
    return cells
