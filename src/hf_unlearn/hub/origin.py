"""Describe the base model: its public name, whether it is on the Hub, and the licence in its card."""

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download, metadata_load

from ..common.names import is_hub_id, public_name

LICENCE_KEYS = ("license", "license_name", "license_link")


def describe_base(name: str | None, revision: str | None = None) -> dict[str, Any]:
    """Build a record's `base_model`: name, revision, on_hub, and the licence keys of its card."""
    return {
        "name": name and public_name(name),
        "revision": revision,
        "on_hub": name is not None and is_hub_id(name),
        "licence": inherited_licence(name, revision),
    }


def inherited_licence(name: str | None, revision: str | None = None) -> dict[str, Any]:
    """Read the licence keys in the card of a folder or Hub id. Without a readable card the result is empty.

    A finished run does not fail because a card is missing: the licence then counts as unknown.
    """
    if name is None:
        return {}
    try:
        card = hf_hub_download(name, "README.md", revision=revision) if is_hub_id(name) else Path(name, "README.md")
        found = metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError):  # no card, no network, or no front matter in it
        return {}
    return {key: found[key] for key in LICENCE_KEYS if found.get(key)}
