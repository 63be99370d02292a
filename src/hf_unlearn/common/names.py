"""Names of models and data sets: whether one is an id of the Hub, and what of a path may be published."""

from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id


def is_hub_id(name: str) -> bool:
    """Whether `name` is an id of the Hub; a folder of that name comes first, as in `from_pretrained`."""
    if Path(name).exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def public_name(name: str) -> str:
    """A Hub id as it is, of a folder the last part: the rest of a path tells of a machine, not of a model."""
    return name if is_hub_id(name) else Path(name).resolve().name
