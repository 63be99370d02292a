"""hf-unlearn env: versions for a bug report, without paths, names of users or machines, or environment variables; and
where the accelerate configurations of the package are."""

import json
import platform
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any

from ... import __version__
from ..terminal import CommandParser

ACCELERATE = Path(__file__).parents[1] / "accelerate"
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "datasets", "huggingface_hub", "safetensors")


def env_command(argv: list[str]) -> None:
    """hf-unlearn env"""
    parser = CommandParser(
        prog="hf-unlearn env", description="Print versions for a bug report: nothing personal is in it."
    )
    parser.add_argument("--json", action="store_true", help="Print them as JSON.")
    names = sorted(path.stem for path in ACCELERATE.glob("*.yaml"))
    told = "Print the path of one of the package's files for `accelerate launch --config_file` instead."
    parser.add_argument("--accelerate_config", choices=names, help=told)
    options = parser.parse_args(argv)
    if options.accelerate_config:
        print(ACCELERATE / f"{options.accelerate_config}.yaml")
        return
    found = environment()
    if options.json:
        print(json.dumps(found))
        return
    rows = {**found, **found["packages"], **{f"extra {name}": state for name, state in found["extras"].items()}}
    for name in ("packages", "extras"):
        del rows[name]
    for name, value in rows.items():
        print(f"{name:24} {', '.join(value) if isinstance(value, list) else value}")


def environment() -> dict[str, Any]:
    """Return the versions of hf_unlearn, python and packages, the platform, torch's accelerators, and the extras."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "hf_unlearn": __version__,
        "python": platform.python_version(),
        "platform": " ".join([platform.system(), platform.machine(), *platform.libc_ver()]).strip(),
        "cuda": torch.version.cuda or torch.version.hip or "none in this build of torch",
        "gpu": gpus or "none",
        "threads": torch.get_num_threads(),
        "packages": {name: _installed(name) or "missing" for name in PACKAGES},
        "extras": extras(),
    }


def extras() -> dict[str, str]:
    """Return for each extra "present" or what it lacks; nothing where hf-unlearn itself is not installed."""
    from packaging.requirements import Requirement

    if _installed("hf-unlearn") is None:
        return {}
    about = metadata("hf-unlearn")
    wanted = [Requirement(line) for line in about.get_all("Requires-Dist", [])]
    found = {}
    for extra in sorted(about.get_all("Provides-Extra", [])):
        lacking = [r.name for r in _needed(extra, wanted) if not _fits(r)]
        found[extra] = f"lacks {', '.join(dict.fromkeys(lacking))}" if lacking else "present"
    return found


def _needed(extra: str, wanted: list[Any]) -> list[Any]:
    """Return the requirements of an extra, with those of the extras that it takes in."""
    found = []
    for each in wanted:
        if each.marker is None or not each.marker.evaluate({"extra": extra}):
            continue
        if each.name == "hf-unlearn":
            found += [r for other in sorted(each.extras) for r in _needed(other, wanted)]
        else:
            found.append(each)
    return found


def _fits(requirement: Any) -> bool:
    found = _installed(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
