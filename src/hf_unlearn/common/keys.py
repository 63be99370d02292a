"""Keys of caches: a hash of everything a cached result depends on."""

import hashlib
import json
from collections.abc import Callable
from typing import Any


def content_key(content: Any, digits: int = 16, default: Callable[[Any], Any] | None = None) -> str:
    """Return the first `digits` hex digits of the SHA-256 of `content` as JSON with sorted keys.

    Changing a byte of that JSON invalidates every cache on disk.

    Args:
        content: dicts, lists, strings, numbers, booleans and None.
        default: turns any other value into one of these; without it such a value raises TypeError.
    """
    text = json.dumps(content, sort_keys=True, default=default)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
