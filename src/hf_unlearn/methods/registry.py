"""Methods by name: the package's own, and those of other packages, which register them as entry points."""

import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points

from .base import Method

GROUP = "hf_unlearn.methods"


class Registry(Mapping[str, type[Method]]):
    """The built-in methods, then those that installed packages register in the group `hf_unlearn.methods`.

    Other packages are imported when a name is asked for that is not built in, or all names are. One that cannot be
    used is left out with a warning that names it: it must not keep anybody from using the others.
    """

    def __init__(self, built_in: dict[str, type[Method]]):
        self.built_in = built_in
        self._others: dict[str, type[Method]] | None = None

    def __getitem__(self, name: str) -> type[Method]:
        return self.built_in[name] if name in self.built_in else self.others[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self.built_in, *self.others])

    def __len__(self) -> int:
        return len(self.built_in) + len(self.others)

    @property
    def others(self) -> dict[str, type[Method]]:
        """The methods of other packages."""
        if self._others is None:
            self._others = {}
            for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, _package(point))):
                wrong = self._take(point)
                if wrong:
                    text = f"method {point.name!r} of package {_package(point)} is left out: {wrong}"
                    warnings.warn(text, stacklevel=2)
        return self._others

    def _take(self, point: EntryPoint) -> str:
        """Add what an entry point names, or say why not."""
        assert self._others is not None
        if point.name in self.built_in or point.name in self._others:
            owner = "hf_unlearn" if point.name in self.built_in else "another package"
            return f"{owner} has a method of that name, choose another one"
        try:
            method = point.load()
        except Exception as error:  # whatever a foreign module does when it is imported
            return f"{point.value} does not import ({type(error).__name__}: {error})"
        if not (isinstance(method, type) and issubclass(method, Method)):
            return f"{point.value} is no subclass of hf_unlearn.methods.Method"
        if method.name != point.name:
            return f"its class says name = {method.name!r}, give both the same name"
        self._others[point.name] = method
        return ""


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"
