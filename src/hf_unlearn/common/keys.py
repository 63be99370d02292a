"""Keys of caches: a hash of everything a cached result depends on."""

import functools
import hashlib
import json
import secrets
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from .imports import Sources

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("torch", "diffusers", "transformers", "peft")  # whose numbers may change with their version


def content_key(content: Any, digits: int = 16, default: Callable[[Any], Any] | None = None) -> str:
    """Return the first `digits` hex digits of the SHA-256 of `content` as JSON with sorted keys.

    Changing a byte of that JSON invalidates every cache on disk.

    Args:
        content: dicts, lists, strings, numbers, booleans and None.
        default: turns any other value into one of these; without it such a value raises TypeError.
    """
    text = json.dumps(content, sort_keys=True, default=default)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


@functools.cache
def code_key(*modules: str) -> str:
    """Return a hash of the code of `modules`, named below this package, of all that they import from it, and of the
    versions of the libraries that compute."""
    sources = Sources(PACKAGE, PACKAGE.name)
    lost = [name for name in modules if name not in sources.paths]
    if lost:
        raise ValueError(f"{lost[0]} is no module of {PACKAGE.name}")
    return content_key([sources.digest(sources.closure(modules)), [metadata.version(name) for name in LIBRARIES]])


def class_code(kind: type) -> list[str]:
    """Return hashes of the code that defines a class and its bases.

    A class that was defined in no file, as in a notebook, has another hash in every process: nothing says whether it
    is still the same.
    """
    modules = dict.fromkeys(base.__module__ for base in kind.__mro__)
    own = [name.partition(".")[2] for name in modules if name.partition(".")[0] == PACKAGE.name]
    others = [name for name in modules if name.partition(".")[0] not in {PACKAGE.name, *sys.stdlib_module_names}]
    if "__main__" in modules:
        others.append("__main__")
    return [code_key(*own), *(_file_hash(name) for name in others)]


@functools.cache
def _file_hash(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else secrets.token_hex(8)
