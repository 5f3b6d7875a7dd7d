"""Doubles of classes of a pybind11 module, held to what the module itself says of them.

``unittest.mock.create_autospec`` refuses names that do not exist, but knows nothing of arguments: compiled methods have
no signature. pybind11 writes it into their docstrings, and that is what calls are compared with.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any
from unittest import mock

_WHOLE = re.compile(r"^(?:\d+\. )?(\w*)\((.*)\) -> (.+)$")
_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "typing.SupportsInt": (int,),
    "bool": (bool,),
    "str": (str,),
    "tuple": (tuple,),
    "list": (list,),
    "buffer": (bytes, bytearray, memoryview),
    "typing_extensions.Buffer": (bytes, bytearray, memoryview),
}


class Strict:
    """A double of one class: what is not in it raises AttributeError, a wrong call TypeError.

    Args:
        module: that the class is of.
        cls: the genuine class.
        calls: where each call and assignment is recorded, as (class, name, arguments).
        answers: by name, the value of a property, or what a method returns, or a function that computes that.
    """

    def __init__(self, module: Any, cls: type, calls: list[tuple[Any, ...]], **answers: Any) -> None:
        hidden = {"module": module, "cls": cls, "calls": calls, "answers": answers}
        object.__setattr__(self, "_hidden", hidden)
        autospec = _autospec(cls)
        object.__setattr__(self, "_autospec", autospec)
        for name in answers:
            getattr(autospec, name)  # an answer to a question nobody can ask

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return self._hidden["cls"]

    def __getattr__(self, name: str) -> Any:
        module, cls, calls, answers = self._hidden.values()
        spied = getattr(self._autospec, name)
        attribute = inspect.getattr_static(cls, name)
        if isinstance(attribute, property):
            return answers.get(name, spied)

        def call(*positional: Any, **named: Any) -> Any:
            result_kind = check_call(module, getattr(cls, name).__doc__, name, (self, *positional), named)
            calls.append((cls.__name__, name, *positional, *named.values()))
            answer = answers.get(name, spied(*positional, **named))
            if callable(answer) and not isinstance(answer, mock.NonCallableMock):
                answer = answer(*positional, **named)
            if name in answers and answer is not None:
                _check_kind(module, answer, result_kind, f"the double's answer to {name}")
            return answer

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        module, cls, calls, answers = self._hidden.values()
        setattr(self._autospec, name, value)
        attribute = inspect.getattr_static(cls, name)
        if not isinstance(attribute, property) or attribute.fset is None:
            raise AttributeError(f"{cls.__name__}.{name} cannot be assigned")
        check_call(module, attribute.fset.__doc__, name, (self, value), {})
        calls.append((cls.__name__, name, value))
        answers[name] = value


@cache
def _autospec(cls: type) -> Any:
    """Shared by all doubles of a class: it is only asked what exists."""
    return mock.create_autospec(cls, instance=True, spec_set=True)


def constructor(module: Any, cls: type, make: Any, calls: list[tuple[Any, ...]]) -> Any:
    """What stands for the class itself: called as it, it gives ``make(*arguments)``."""

    def construct(*positional: Any, **named: Any) -> Any:
        check_call(module, cls.__init__.__doc__, "__init__", (_Any(cls), *positional), named)
        calls.append((cls.__name__, "__init__", *positional))
        return make(*positional, **named)

    return construct


class _Any:
    """Passes for an instance of a class."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return self._cls


def check_call(module: Any, doc: str | None, name: str, positional: tuple[Any, ...], named: dict[str, Any]) -> str:
    """Compare a call with the signatures in a docstring, ``self`` included.

    Returns:
        The kind of what it returns.

    Raises:
        TypeError: no signature takes these arguments.
    """
    refused = []
    for line in (doc or "").splitlines():
        match = _WHOLE.match(line.strip())
        if match is None or "*args" in match[2] or match[1] not in (name, ""):
            continue
        signature, kinds = _signature(match[2])
        try:
            bound = signature.bind(*positional, **named)
            for argument, value in bound.arguments.items():
                _check_kind(module, value, kinds[argument], f"{name}: {argument}")
        except TypeError as reason:
            refused.append(f"{line.strip()}: {reason}")
        else:
            return match[3]
    raise TypeError("; ".join(refused) or f"{name}: no signature is known")


def _signature(text: str) -> tuple[inspect.Signature, dict[str, str]]:
    parameters, kinds = [], {}
    for part in _split(text):
        declared, _, default = part.partition(" = ")
        argument, _, kind = declared.partition(": ")
        kinds[argument] = kind
        parameters.append(
            inspect.Parameter(
                argument,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=default if default else inspect.Parameter.empty,
            )
        )
    return inspect.Signature(parameters), kinds


def _split(text: str) -> list[str]:
    """At the commas that are not inside brackets."""
    parts, level = [""], 0
    for letter in text:
        level += (letter in "[(<") - (letter in "])>")
        if letter == "," and level == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _check_kind(module: Any, value: Any, kind: str, where: str) -> None:
    """Only kinds that are known here are looked at: plain ones and the module's own classes."""
    expected = _PLAIN.get(kind)
    last = kind.rsplit(".", 1)[-1]
    if last == "Dims":
        # pybind11 makes them of tuples and lists.
        expected = (module.Dims, tuple, list)
    elif expected is None and re.fullmatch(r"[\w.]+", kind) and isinstance(getattr(module, last, None), type):
        expected = (getattr(module, last),)
    if expected is not None and not (isinstance(value, expected) and (bool in expected or not isinstance(value, bool))):
        raise TypeError(f"{where} is {value!r}, not {kind}")
