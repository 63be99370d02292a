"""Read from a package's source which of its modules import which. Nothing is imported or run."""

import ast
import functools
import hashlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

Import = tuple[str, str]  # (module, name that is taken from it, or "" for the module itself)


class Sources:
    """The modules of the package `name` in the folder `root`, by dotted name below it; "" is the package's own file.

    `import_module` with a computed name is not seen.
    """

    def __init__(self, root: str | Path, name: str):
        self.root, self.name = Path(root), name
        self.paths: dict[str, Path] = {}
        for path in sorted(self.root.rglob("*.py")):
            parts = path.relative_to(self.root).with_suffix("").parts
            self.paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        self.tree = functools.cache(self._tree)
        self.imports = functools.cache(self._imports)
        self.code = functools.cache(self._code)

    def _tree(self, module: str) -> ast.Module:
        return ast.parse(self._text(module))

    def _code(self, module: str) -> str:
        return code_of(self._text(module))

    def _text(self, module: str) -> str:
        return self.paths[module].read_text(encoding="utf-8")

    def is_package(self, module: str) -> bool:
        return self.paths[module].name == "__init__.py"

    def _imports(self, module: str, type_checking: bool = True) -> set[Import]:
        """What a module imports from this package, in its functions too.

        Args:
            type_checking: also what stands under `if TYPE_CHECKING:`, which never runs.
        """
        return self.imports_of(module, self.tree(module), self.is_package(module), type_checking)

    def imports_of(self, own: str, tree: ast.AST, is_package: bool = False, type_checking: bool = True) -> set[Import]:
        """What a syntax tree imports if it is read as the module `own`."""
        found: set[Import] = set()
        for node in _nodes(tree, type_checking):
            if isinstance(node, ast.ImportFrom):
                home = self._home(own, node, is_package)
                if home is not None:
                    found |= {self._import(own, home, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    below = self._below(alias.name)
                    if below is not None and below in self.paths:
                        found.add((below, ""))
        return {(module, name) for module, name in found if module in self.paths and module != own}

    def _below(self, absolute: str) -> str | None:
        """The module's name below the package, or None for a module of another package."""
        first, _, rest = absolute.partition(".")
        return rest if first == self.name else None

    def _home(self, own: str, node: ast.ImportFrom, is_package: bool) -> str | None:
        if not node.level:
            return self._below(node.module or "")
        parts = own.split(".") if own else []
        parts = parts if is_package else parts[:-1]
        parts = parts[: len(parts) - (node.level - 1)]
        return ".".join([*parts, *(node.module.split(".") if node.module else [])])

    def _import(self, own: str, home: str, name: str) -> Import:
        """`from home import name`: the name may be a module. The root's names are looked up where they come from."""
        full = f"{home}.{name}".strip(".")
        if full in self.paths:
            return full, ""
        return (self.exports[name], name) if own and not home and name in self.exports else (home, name)

    @functools.cached_property
    def exports(self) -> dict[str, str]:
        """Names that the package's own file takes from a module: by an import, or by a table {module: names}."""
        if "" not in self.paths:
            return {}
        found = {name: module for module, name in self.imports("") if name}
        for node in ast.walk(self.tree("")):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values):
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple):
                        found |= {str(e.value): str(key.value) for e in value.elts if isinstance(e, ast.Constant)}
        return found

    def origin(self, module: str, name: str) -> str:
        """The module that defines a name which `module` may only pass on, as a package's `__init__` does."""
        while name and self.is_package(module):
            further = {n: m for m, n in self.imports(module) if n}.get(name)
            if further is None:
                break
            module = further
        return module

    def modules_imported(self, module: str) -> set[str]:
        """The modules that a module names in its imports, for type checkers only too."""
        return {found for found, _ in self.imports(module) if found}

    def closure(self, starts: Iterable[str], leave_out: Collection[str] = ()) -> set[str]:
        """`starts` and every module that they import, directly or not, without the root's file and `leave_out`.

        A name that a package's `__init__` passes on leads to the module that defines it, not to all that the
        `__init__` imports.
        """
        found: set[str] = set()
        waiting = list(starts)
        while waiting:
            module = waiting.pop()
            if module in found or module in leave_out or not module:
                continue
            found.add(module)
            waiting += [self.origin(*each) for each in self.imports(module, type_checking=False)]
        return found

    def digest(self, modules: Iterable[str]) -> str:
        """Digest of the code of `modules`; comments, docstrings and layout do not count."""
        digest = hashlib.sha256()
        for module in sorted(modules):
            digest.update(f"{module}\n{self.code(module)}\n".encode())
        return digest.hexdigest()[:16]


def code_of(source: str) -> str:
    """Source text as Python writes it, without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, _WITH_DOCSTRING) and _is_text(body[0]):
            node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)


_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _nodes(tree: ast.AST, type_checking: bool) -> Iterator[ast.AST]:
    """All nodes below `tree`, without those under `if TYPE_CHECKING:` unless they are asked for."""
    for node in ast.iter_child_nodes(tree):
        if not type_checking and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from _nodes(other, type_checking)
            continue
        yield node
        yield from _nodes(node, type_checking)
