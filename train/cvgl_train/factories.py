"""Calls a function or fills a dataclass with what a recipe says, or says what is wrong with the recipe."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cvgl.errors import CvglError

__all__ = ["checked_fields", "make"]

T = TypeVar("T")


def make(
    makers: Mapping[str, Callable[..., T]],
    name: Any,
    settings: Mapping[str, Any],
    error: type[CvglError],
    what: str,
    **given: Any,
) -> T:
    """What `makers[name]` makes of the settings.

    Args:
        makers: functions whose parameters are the settings, annotated with plain types.
        name, settings: from a recipe.
        error: the class of what is raised.
        what: is made, for the messages.
        given: arguments that are no settings; a maker gets those that it has parameters for.

    Raises:
        CvglError: no such name or setting, a setting of another kind, or one that is missing.
    """
    maker = makers.get(name) if isinstance(name, str) else None
    if maker is None:
        raise error(f"no such {what}", field=what, found=name, expected=" or ".join(makers))
    hints = get_type_hints(maker)
    parameters = inspect.signature(maker).parameters
    known = [key for key in parameters if key not in given]
    for key, value in settings.items():
        field = f"{what} {name}"
        if key not in known:
            raise error("no such setting", field=field, found=key, expected=", ".join(known) or "no setting")
        if not _fits(value, hints[key]):
            raise error("a setting that cannot be", field=f"{field}: {key}", found=value, expected=_words(hints[key]))
    for key in known:
        if key not in settings and parameters[key].default is inspect.Parameter.empty:
            raise error("a setting is missing", field=f"{what} {name}", expected=key)
    return maker(**settings, **{key: value for key, value in given.items() if key in parameters})


def checked_fields(kind: type[Any], values: Mapping[str, Any], error: type[CvglError], what: str) -> dict[str, Any]:
    """A recipe's values as arguments of a dataclass; lists become tuples, since YAML and JSON have no other word.

    Args:
        kind: the dataclass, its fields annotated with plain types.
        values: by field.
        error: the class of what is raised.
        what: the values belong to, for the messages.

    Raises:
        CvglError: no such field, or a value of another kind; whether it is in range, the dataclass itself checks.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for name, value in values.items():
        if name not in known:
            raise error(f"unknown field of {what}", field=name, found=value, expected=", ".join(known) or "none")
        if not _fits(value, hints[name]):
            raise error("a value of another kind", field=name, found=value, expected=_words(hints[name]))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in arguments
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return isinstance(value, (list, tuple)) and len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is Sequence or origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(str(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    # YAML 1.1 takes 1e-4 for text.
    words = {float: "a number, such as 0.5 or 1.0e-4", int: "a whole number", bool: "true or false", str: "text"}
    if hint is type(None):
        return "nothing"
    if origin is dict:
        return "a mapping"
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)} numbers"
    if arguments and get_origin(arguments[0]) is dict:
        return "a list of mappings"
    return words.get(hint, "a list of numbers")
