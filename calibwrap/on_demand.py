"""Imports on demand: a package opens at the cost of what is used of it, not of all that it holds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

Found = TypeVar("Found")


def named(home: str) -> Any:
    """Return what a "module:name" names; the module is imported.

    >>> named("math:sqrt")(4.0)
    2.0
    """
    module, _, name = home.partition(":")
    return getattr(import_module(module), name)


def door(package: str, files: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package whose public names are imported when they are first used.

    A found name is kept in the package, so that it is looked for once. A name that is also a submodule's cannot be
    given on demand: importing the submodule would put the module in its place.

    Args:
        package: the package's `__name__`.
        files: names by the file that holds them, such as {"beta": ["Beta", "fit_beta"]}; a file without names is
            itself public.

    >>> find, _ = door("calibwrap.calibrators", {"identity": ["Identity"]})
    >>> find("Identity").kind
    'identity'
    """
    homes = {name: f"{package}.{file}:{name}" for file, names in files.items() for name in names}

    def find(name: str) -> Any:
        """Return a public name; its file is imported."""
        if name in homes:
            found = named(homes[name])
        elif name in files and not files[name]:
            found = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(import_module(package), name, found)
        return found

    def names() -> list[str]:
        """Return all names, those not imported yet included."""
        return sorted({*vars(import_module(package)), *homes, *files})

    return find, names


class OnDemand(Mapping[str, Found], Generic[Found]):
    """A mapping whose values are imported when they are looked up, from their "module:name"; asking for keys is free.

    >>> table = OnDemand({"root": "math:sqrt"})
    >>> list(table), "cosine" in table, table["root"](4.0)
    (['root'], False, 2.0)
    """

    def __init__(self, homes: Mapping[str, str]) -> None:
        """Keep where each value lives."""
        self.homes = dict(homes)

    def __getitem__(self, key: str) -> Found:
        return cast(Found, named(self.homes[key]))

    def __contains__(self, key: object) -> bool:
        return key in self.homes

    def __iter__(self) -> Iterator[str]:
        return iter(self.homes)

    def __len__(self) -> int:
        return len(self.homes)
