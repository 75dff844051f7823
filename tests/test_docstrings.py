"""Every public name is documented completely, by numpydoc's own validation."""

import inspect

import pytest
from numpydoc.validate import validate

import agop

# numpydoc's codes that count. The rest concern layout, which ruff's D rules hold.
NEEDED = {
    "GL08": "has no docstring",
    "PR01": "parameters are missing",
    "PR02": "documents parameters that do not exist",
    "PR03": "documents the parameters in another order",
    "PR04": "a parameter has no type",
    "RT01": "has no Returns section",
    "SS01": "has no summary",
    "YD01": "has no Yields section",
}
NEEDED_WITH_EXAMPLE = {**NEEDED, "EX01": "has no Examples section"}


def public_objects(package):
    """Pairs (dotted name, needs an example) of what `package` makes public."""
    for name in package.__all__:
        thing = getattr(package, name)
        dotted = f"{package.__name__}.{name}"
        if inspect.ismodule(thing):
            yield from public_objects(thing)
        elif inspect.isclass(thing):
            abstract = inspect.isabstract(thing) or issubclass(thing, BaseException)
            yield dotted, not abstract
            yield from ((f"{dotted}.{method}", False) for method in methods(thing))
        elif callable(thing):
            yield dotted, True


def methods(cls):
    """Names of the public methods and properties that the library itself defines."""
    for name in dir(cls):
        member = inspect.unwrap(inspect.getattr_static(cls, name))
        function = getattr(member, "__func__", getattr(member, "fget", member))
        home = getattr(function, "__module__", None) or ""
        if not name.startswith("_") and callable(function) and home.startswith("agop"):
            yield name


def complaints(dotted, needs_example):
    needed = NEEDED_WITH_EXAMPLE if needs_example else NEEDED
    return [
        f"{dotted} {needed[code]}: {message}"
        for code, message in validate(dotted)["errors"]
        if code in needed
    ]


OBJECTS = sorted(set(public_objects(agop)))


def test_there_are_public_names():
    assert OBJECTS


@pytest.mark.parametrize(
    ("dotted", "needs_example"), OBJECTS, ids=[dotted for dotted, _ in OBJECTS]
)
def test_docstring_is_complete(dotted, needs_example):
    found = complaints(dotted, needs_example)
    assert not found, "\n".join(found)


class Undocumented:
    def method(self, x):
        """Say something about x."""
        return x


def test_the_check_can_complain():
    bare = " ".join(complaints(f"{__name__}.Undocumented", True))
    assert "no docstring" in bare
    method = " ".join(complaints(f"{__name__}.Undocumented.method", False))
    assert "parameters are missing" in method
    assert "no Returns" in method
