"""Events of the page as functions of settings objects.

Gradio calls the function of an event with one value for each component, and takes the names of the API's
parameters from its signature. The decorators here turn these values into `Settings`, `ClipSettings`, `Style`,
a head turn and ARKit coefficients.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.face.arkit import ARKIT_NAMES
from hellomeme.face.edit import TURNS, Turn
from hellomeme.releases.few_steps import OFF
from hellomeme.settings import ClipSettings, Settings

from .components import FIELDS
from .errors import visitor_errors
from .styles import NAMES as STYLE, style_of

CLIP_SETTINGS = tuple(field.name for field in dataclasses.fields(ClipSettings))
DRAWING = (
    "few_steps",
    *STYLE,
    "upscale",
    "reuse",
    "guidance_end",
)  # optional arguments of all events that draw
Components = Mapping[str, gr.components.Component]  # by the name of the setting or argument
Values = Mapping[str, Any]  # of components, by the same names


def event(*names: str, optional: tuple[str, ...] = ()) -> Callable:
    """Decorator: as `with_arguments`, for a function that takes settings objects.

    The function's parameters `settings`, `clip`, `style`, `turn` and `coefficients` get a Settings, a
    ClipSettings, a Style, a Turn and a dict of ARKit coefficients, made from the arguments with the names of
    their fields; `session` gets the session of the visitor; all others get the argument of their name.
    """
    makers = {
        "settings": settings_of,
        "clip": clip_settings_of,
        "style": style_of,
        "turn": lambda values: Turn(**_chosen(TURNS, values)),
        "coefficients": lambda values: _chosen(ARKIT_NAMES, values),
    }

    def decorate(function: Callable) -> Callable:
        parameters = inspect.signature(function).parameters

        @functools.wraps(function)
        def call(values: Values, session: str | None):
            made = {name: make(values) for name, make in makers.items() if name in parameters}
            given = {**values, "session": session, **made}
            return function(**{name: given[name] for name in parameters})

        return with_arguments(*names, optional=optional)(call)

    return decorate


def with_arguments(*names: str, optional: tuple[str, ...] = ()) -> Callable:
    """Decorator: a Gradio event with the arguments `names`, in this order, from a function of a dict of their
    values and of the visitor's session.

    optional: arguments that may be left out; they are then None. The event's attribute `names` holds the
    names, see `inputs_of`. Exceptions become gr.Error, see `visitor_errors`.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    defaults = {name: None if name in optional else inspect.Parameter.empty for name in names}
    parameters = [inspect.Parameter(name, kind, default=default) for name, default in defaults.items()]
    request = inspect.Parameter("request", kind, default=None, annotation=gr.Request)
    signature = inspect.Signature([*parameters, request])

    def decorate(function: Callable) -> Callable:
        def call(arguments: tuple, keywords: dict):
            bound = signature.bind(*arguments, **keywords)
            bound.apply_defaults()
            *values, request = bound.arguments.values()
            return function(dict(zip(names, values, strict=True)), request and request.session_hash)

        if inspect.isgeneratorfunction(inspect.unwrap(function)):  # Gradio asks whether it is one

            def run(*arguments, **keywords):
                with visitor_errors():
                    yield from call(arguments, keywords)

        else:

            def run(*arguments, **keywords):
                with visitor_errors():
                    return call(arguments, keywords)

        functools.update_wrapper(run, function)
        run.__signature__, run.__annotations__ = signature, {"request": gr.Request}
        run.names = names
        return run

    return decorate


def inputs_of(event: Callable, components: Components) -> list[gr.components.Component]:
    """The components for the arguments of an event made here."""
    return [components[name] for name in event.names]


def settings_of(values: Values) -> Settings:
    """The Settings in the values of components; HelloMemeError for one out of range."""
    chosen = _chosen((field.name for field in dataclasses.fields(Settings)), values)
    for name in ("few_steps", "upscale", "reuse", "guidance_end"):
        if chosen.get(name, OFF) is None:  # left out
            del chosen[name]
    return Settings(**chosen)


def clip_settings_of(values: Values) -> ClipSettings:
    """The ClipSettings in the values of components; HelloMemeError for one out of range."""
    return ClipSettings(**_chosen(CLIP_SETTINGS, values))


def parse_number(text: str | float | None) -> str | float | None:
    """The value of an `optional_number`: None if empty. Text that is no number is returned as it is, since
    the settings have an error for it."""
    try:
        return None if text in (None, "") else float(text)
    except (TypeError, ValueError):
        return text


def face_index(name: str, number: int | None) -> int | None:
    """The setting of this name, which counts from 0, for the value of a number input, which counts from 1.
    The first is the largest face, which is found faster if None is asked for."""
    if type(number) not in (int, float):
        return number
    facts = FIELDS[name]
    if not 0 <= number <= facts["max"] + 1:  # the error of the settings would count from 0
        most = facts["max"] + 1
        raise HelloMemeError(f"{facts['label']} must be a whole number from 1 to {most}, not {number}.")
    return None if number in (0, 1) else number - 1


def face_number(index: int | None) -> int:
    """The value of a number input for a setting: the reverse of `face_index`."""
    return (index or 0) + 1


_CONVERTERS = {
    "reference_face": functools.partial(face_index, "reference_face"),
    "driver_face": functools.partial(face_index, "driver_face"),
    "start": parse_number,
    "end": parse_number,
    "neutral": parse_number,
}


def _chosen(names: Iterable[str], values: Values) -> dict[str, Any]:
    """The values of these names, converted where a component shows None in another way."""
    chosen = {name: values[name] for name in names if name in values}
    return chosen | {name: _CONVERTERS[name](chosen[name]) for name in _CONVERTERS.keys() & chosen}
