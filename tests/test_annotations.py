"""Every annotation of the public interface names something that exists."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import condensation
import lossbuf


def modules() -> list[str]:
    packages = (lossbuf, condensation)
    return [
        module.name
        for package in packages
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]


def annotated(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any] | type]]:
    """The public functions and classes that a module defines, and the public methods and properties of the classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            yield name, value
            for method, attribute in vars(value).items():
                if method.startswith("_") and method not in ("__init__", "__call__"):
                    continue
                if method == "__init__" and dataclasses.is_dataclass(value):
                    continue  # written by dataclasses, from the annotations of the class and its bases
                function = attribute.fget if isinstance(attribute, property) else attribute
                function = function.__func__ if isinstance(function, classmethod | staticmethod) else function
                if inspect.isfunction(function):
                    yield f"{name}.{method}", function


def imported_for_types(module: ModuleType) -> dict[str, Any]:
    """What a module imports for its annotations alone, because the library is optional or slow to import."""
    names: dict[str, Any] = {}
    for statement in ast.parse(inspect.getsource(module)).body:
        if (
            isinstance(statement, ast.If)
            and isinstance(statement.test, ast.Name)
            and statement.test.id == "TYPE_CHECKING"
        ):
            exec(compile(ast.Module(statement.body, []), str(module.__file__), "exec"), names)
    return names


@pytest.mark.parametrize("name", modules())
def test_annotations_evaluate(name):
    module = importlib.import_module(name)
    names = imported_for_types(module)
    for where, value in annotated(module):
        try:
            typing.get_type_hints(value, localns=names, include_extras=True)
        except NameError as error:
            pytest.fail(f"{name}.{where}: {error}")
