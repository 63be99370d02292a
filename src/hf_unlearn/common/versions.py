"""Faults of the installation: packages that are older than the declared floors, or missing.

The floors are those of pyproject.toml, read from the metadata of the installed package. pip enforces them only at the
moment of its own install; a later one may put an older package in place.
"""

from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Any


class VersionFault(ImportError):
    """A needed package is too old or missing. The message says which, and the command that mends it."""


def version_fault(error: BaseException | None = None) -> str:
    """Return one line about needed packages that are too old or missing, or "" if there are none.

    Args:
        error: what went wrong; an ImportError may name a module that is not there although its package is.
    """
    problems = [problem for problem in map(_problem, _needed()) if problem]
    if problems:
        names = " ".join(name for name, _ in problems)
        return f"{', '.join(said for _, said in problems)}, which hf_unlearn needs: pip install -U {names}"
    if isinstance(error, ImportError):
        return (
            f"a package is missing or of another version than hf_unlearn was made for: {' '.join(str(error).split())}"
        )
    return ""


def _needed() -> list[Any]:
    """Return the requirements of the package itself, without those of its extras; none where it is not installed."""
    from packaging.requirements import Requirement

    try:
        lines = metadata("hf-unlearn").get_all("Requires-Dist", [])
    except PackageNotFoundError:
        return []
    wanted = [Requirement(line) for line in lines]
    return [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]


def _problem(requirement: Any) -> tuple[str, str] | None:
    """Return (name, what is wrong with it), or None if what is installed is not too old."""
    from packaging.version import Version

    name = requirement.name
    floors = [each.version for each in requirement.specifier if each.operator in (">=", "==", "~=")]
    try:
        found = version(name)
    except PackageNotFoundError:
        return name, f"{name} is missing"
    # Without the local part: a CPU build calls itself 2.6.0+cpu.
    older = [floor for floor in floors if Version(Version(found).public) < Version(floor)]
    return (name, f"{name} {found} is older than {older[0]}") if older else None
