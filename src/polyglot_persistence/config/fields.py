"""The kinds of settings: how a text is parsed and shown.

Invariant: an error of a setting that holds a secret does not repeat it.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class IgnoredError(ValueError):
    """A value that was not meant for this program; the default is used, with a warning."""


_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://[^/]*:[0-9]+")
"""What Kubernetes puts into NAME_PORT for each Service NAME (enableServiceLinks)."""


def refuse_service_link(text: str) -> None:
    """Raise `IgnoredError` if Kubernetes set the variable, and not an operator."""
    if _SERVICE_LINK.fullmatch(text):
        raise IgnoredError(
            "is set by Kubernetes for a Service of that name and is ignored; "
            "enableServiceLinks: false keeps it out"
        )


class Spec(NamedTuple):
    """The definition of a setting."""

    default: str
    parse: Callable[[str], Any]
    doc: str
    allowed: str
    masked: Callable[[str], str] | None
    """Masks the secret in its text, if it holds one; then it may also come from a file."""


def setting(
    default: str,
    parse: Callable[[str], Any],
    doc: str,
    allowed: str,
    *,
    masked: Callable[[str], str] | None = None,
) -> Any:
    """Return a field of the settings; the default is a text for `parse`."""
    return dataclasses.field(metadata={"spec": Spec(default, parse, doc, allowed, masked)})


def section(kind: type[Any]) -> Any:
    """Return a field for some of the settings, which belong to one part of the program."""
    return dataclasses.field(metadata={"section": kind})


def values_of(kind: type[Any], value: Callable[[str, Spec], Any]) -> dict[str, Any]:
    """Return a value for each field of the settings, or of a section, by `value(variable, spec)`.

    The variable is the field's name in upper case, behind the section's `PREFIX` if it has one.
    """
    values = {}
    for field in dataclasses.fields(kind):
        if "section" in field.metadata:
            part = field.metadata["section"]
            values[field.name] = part(**values_of(part, value))
        elif "spec" in field.metadata:
            name = getattr(kind, "PREFIX", "") + field.name.upper()
            values[field.name] = value(name, field.metadata["spec"])
    return values


def hidden(text: str) -> str:
    """Return a text that only shows whether a secret is set."""
    return text if text == "none" else "***"


def count(default: int, bounds: tuple[int, int], doc: str) -> Any:
    """Return a field for a whole number."""
    low, high = bounds

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return setting(str(default), parse, doc, f"{low} to {high}")


def seconds(default: float, bounds: tuple[float, float], doc: str) -> Any:
    """Return a field for a time."""
    low, high = bounds

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # also false for nan
            raise ValueError(f"{text!r} is not a number of seconds from {low:g} to {high:g}")
        return value

    return setting(f"{default:g}", parse, doc, f"{low:g} to {high:g}")


def choice(
    default: str,
    choices: Mapping[str, object],
    doc: str,
    *,
    aliases: Mapping[str, str] | None = None,
    shared: bool = False,
) -> Any:
    """Return a field for one of some words, each with the value that it stands for.

    `aliases` are further words, each with the one that it means. A `shared` variable is read by
    other programs, too: an unknown word is ignored.
    """

    def parse(text: str) -> object:
        word = text.lower()
        word = (aliases or {}).get(word, word)
        if word in choices:
            return choices[word]
        if shared:
            raise IgnoredError(
                f"{text!r} is none of {', '.join(choices)} and is ignored; {default} counts"
            )
        raise ValueError(f"{text!r} is none of {', '.join(choices)}")

    return setting(default, parse, doc, " | ".join(choices))


def ca_file(doc: str) -> Any:
    """Return a field for the file of a certificate authority, which has to be there."""

    def parse(text: str) -> Path | None:
        if text == "none":
            return None
        if not Path(text).is_file():
            raise ValueError(f"{text} is not a file; e.g. /etc/ssl/certs/ca-certificates.crt")
        return Path(text)

    return setting("none", parse, doc, "path of a PEM file, or none: the machine's own")
