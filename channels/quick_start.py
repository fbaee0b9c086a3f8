"""Lets Rasa start in two thirds of the time where its model holds a classifier of scikit-learn's.

Such a classifier is read with skops, which at its import asks of each of numpy's and scipy's 765 functions in which
module it is. The answer is right and slow: where a module has no attribute of that name, skops composes an error with
the module's whole description, a million times once TensorFlow is loaded. Asked without errors, it is the same answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_ASKED = "skops.io._utils"
_NOTHING = object()
_NO_MODULES = ("__main__", "__mp_main__")


def hasten_skops() -> None:
    """Have skops find modules sooner, when it is imported; without effect where it has been."""
    if _ASKED not in sys.modules and not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Changes the one module, as soon as it is loaded: the package's own import asks already.

    It stays where it is when that is done: other threads may be walking along the finders.
    """

    def __init__(self) -> None:
        self._is_done = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _ASKED or self._is_done:
            return None
        self._is_done = True
        spec = find_spec(fullname)
        # A loader of another kind may serve other modules as well: then skops is left as it is.
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Changing(spec.loader.name, spec.loader.path)
        return spec


class _Changing(SourceFileLoader):
    """Loads the module, and has it find sooner."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        known = vars(module)
        if "whichmodule" in known:  # not in every version, perhaps
            known["whichmodule"] = _finding(known["whichmodule"])


def _finding(skops_finds: Callable[[Any, str], str]) -> Callable[[Any, str], str]:
    """The same search in the same order as skops', for names without dots of what does not know its module."""

    def find(wanted: Any, name: str) -> str:
        if "." in name or getattr(wanted, "__module__", None) is not None:
            return skops_finds(wanted, name)
        # A copy: some modules import others when they are asked for an attribute.
        for module_name, module in sys.modules.copy().items():
            if module_name not in _NO_MODULES and getattr(module, name, _NOTHING) is wanted:
                return module_name
        return "__main__"

    return find
