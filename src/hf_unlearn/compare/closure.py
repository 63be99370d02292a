"""The source that a cell depends on: the modules that it runs, found by following their imports.

The reference models depend on what trains them. A cell depends on that, on how it is measured, and on the file of its
own method: a change in ESD leaves the cells of SFR-on as they are. What a cell never runs (command lines, reports) is
not in its key, and neither are comments, docstrings and layout, which cannot change a result.
"""

import functools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import hf_unlearn

from ..common.imports import Sources
from ..families import Classification
from ..methods import METHODS, FineTune, Method

PACKAGE = Sources(Path(hf_unlearn.__file__).parent, hf_unlearn.__name__)
MODELS, CELLS = "compare.models", "compare.cells"  # what trains the reference models, and what computes a cell
# They name a cell or look its method up, and leave what is in it as it is.
NAMING = {"compare.closure", "common.imports", "methods.registry"}


def own_name(module: str) -> str | None:
    """A module's name below this package, or None for a module of another one."""
    below = module.removeprefix(f"{PACKAGE.name}.")
    return None if below == module else below


def names_of(*classes: type) -> set[str]:
    """The modules of this package in which `classes` are defined."""
    return {name for cls in classes if (name := own_name(cls.__module__)) is not None}


@functools.cache
def registries(sources: Sources = PACKAGE) -> set[str]:
    """The modules that import every method, or something of every family."""
    methods = names_of(*METHODS.values())
    families = {name.split(".")[1] for name in sources.paths if name.startswith("families.") and name.count(".") == 2}
    found = set()
    for module in sources.paths:
        imported = sources.modules_imported(module)
        folders = {name.split(".")[1] for name in imported if name.startswith("families.")}
        if methods <= imported or families <= folders:
            found.add(module)
    return found


def modules_run(method: type[Method] | None = None, start: str = CELLS, sources: Sources = PACKAGE) -> set[str]:
    """The modules of the package that run for a cell of `method`, or without one for what `start` computes.

    Registries are passed over: they import all methods or families, and a run uses the one that they choose. Methods
    that the own one does not build on are left out too, although the trainer imports its default; only FineTune trains
    the reference models and learns again for every cell.
    """
    passed_over = registries(sources)
    own = names_of(*method.__mro__) if method is not None else set()
    needed = sources.closure(own, passed_over) | names_of(FineTune)
    others = names_of(*METHODS.values()) - needed
    return sources.closure({start, *names_of(Classification), *own}, {*passed_over, *others, *NAMING})


def source_of(method: Method | None = None, start: str = CELLS, sources: Sources = PACKAGE) -> str:
    """Digest of the code that `modules_run` names, and of a method's own package if it comes from another one."""
    chosen: Any = None if method is None else type(method)
    return _digest(chosen, start, sources)


@functools.cache
def _digest(method: Any, start: str, sources: Sources) -> str:
    modules = dict.fromkeys(cls.__module__ for cls in method.__mro__) if method is not None else {}
    others = [sys.modules[name] for name in modules if own_name(name) is None and not _of_python(name)]
    found = sources.digest(modules_run(method, start, sources))
    return "-".join([found, *map(outside, others)])


def outside(module: ModuleType) -> str:
    """Digest of a module of another package and of what it imports from that package."""
    top, _, below = module.__name__.partition(".")
    path = Path(str(sys.modules[top].__file__))
    if path.name != "__init__.py":  # a single file
        return Sources(path.parent, "").digest([path.stem])
    package = Sources(path.parent, top)
    return package.digest(package.closure([below]) if below else [""])


def _of_python(module: str) -> bool:
    """Whether a module is Python's own, as that of `object` is."""
    return module.partition(".")[0] in sys.stdlib_module_names
