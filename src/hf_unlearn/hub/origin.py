"""Where a model comes from: a name that may be published, whether the Hub has it, and the licence its card gives."""

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download, metadata_load

from ..common.names import is_hub_id, public_name

LICENCE_KEYS = ("license", "license_name", "license_link")


def describe_base(name: str | None, revision: str | None = None) -> dict[str, Any]:
    """`base_model` of a record: name, revision, on_hub, and the licence keys of its card."""
    return {
        "name": name and public_name(name),
        "revision": revision,
        "on_hub": name is not None and is_hub_id(name),
        "licence": inherited_licence(name, revision),
    }


def inherited_licence(name: str | None, revision: str | None = None) -> dict[str, Any]:
    """The licence keys in the card of a folder or Hub id; none where it has no card, or none that can be read now.

    A finished run does not fail for want of a card: an unknown licence is called unknown.
    """
    if name is None:
        return {}
    try:
        card = hf_hub_download(name, "README.md", revision=revision) if is_hub_id(name) else Path(name, "README.md")
        found = metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError):  # no card, no network, or no front matter in it
        return {}
    return {key: found[key] for key in LICENCE_KEYS if found.get(key)}
