"""Griffe extension: a field made with `flag(default, text)` or `field(..., metadata={"help": text})` has its help as
its description, and its default as its value."""

import ast
from typing import Any

import griffe


class Flags(griffe.Extension):
    """Reads the calls; nothing is imported."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **kwargs: Any) -> None:
        value = getattr(node, "value", None)
        if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name):
            return
        text = default = None
        if value.func.id == "flag" and len(value.args) == 2:
            default, text = value.args
        elif value.func.id == "field":
            named = {word.arg: word.value for word in value.keywords}
            default, metadata = named.get("default"), named.get("metadata")
            if isinstance(metadata, ast.Dict):
                words = {k.value: v for k, v in zip(metadata.keys, metadata.values) if isinstance(k, ast.Constant)}
                text = words.get("help")
        if isinstance(text, ast.Constant) and attr.docstring is None:
            attr.docstring = griffe.Docstring(str(text.value), parent=attr)
        if default is not None:
            attr.value = ast.unparse(default)
