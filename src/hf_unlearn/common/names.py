"""Names of models and data sets: which are Hub ids, and which part of a path may be published."""

from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id


def is_hub_id(name: str) -> bool:
    """Return whether `name` is a Hub id. A folder of that name takes precedence, as in `from_pretrained`."""
    if Path(name).exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def public_name(name: str) -> str:
    """Return a Hub id as it is, and only the last part of a path: the rest describes a machine, not a model."""
    return name if is_hub_id(name) else Path(name).resolve().name
