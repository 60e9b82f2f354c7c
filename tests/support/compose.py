"""Compose files as Compose reads them: a second one merged into the first, variables filled in."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from tests.support.documents import ROOT

FIRST, SECOND = ROOT / "docker-compose.yml", ROOT / "compose.ha.yml"
Service = dict[str, Any]

_INNERMOST = re.compile(r"\$\{(\w+):-([^${}]*)\}")
_REPLACED = ("command", "entrypoint", "test")
"""Lists of which the later one counts; others grow."""


class Tagged(NamedTuple):
    """A value that is not merged: `!override` replaces the earlier one, `!reset` removes it."""

    tag: str
    value: Any


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml is untyped
    """Reads Compose's two tags as well."""


def _tagged(loader: _Loader, node: yaml.Node) -> Tagged:
    if isinstance(node, yaml.MappingNode):
        value: Any = loader.construct_mapping(node, deep=True)
    else:
        assert isinstance(node, yaml.SequenceNode)
        value = loader.construct_sequence(node, deep=True)
    return Tagged(node.tag, value)


for _tag in ("!reset", "!override"):
    _Loader.add_constructor(_tag, _tagged)


def read_first() -> dict[str, Any]:
    """Return docker-compose.yml."""
    content = yaml.safe_load(FIRST.read_text())
    assert isinstance(content, dict)
    return content


def read_second() -> dict[str, Any]:
    """Return compose.ha.yml, with its tags."""
    content = yaml.load(SECOND.read_text(), _Loader)  # a safe one
    assert isinstance(content, dict)
    return content


def merged() -> dict[str, Any]:
    """Return what Compose makes of both files."""
    first, second = read_first(), read_second()
    services = dict(first["services"])
    for name, own in second["services"].items():
        extended = own.pop("extends", None)
        if extended is None:
            base = services[name]
        else:
            assert extended["file"] == FIRST.name
            base = {
                key: value
                for key, value in first["services"][extended["service"]].items()
                if key != "depends_on"
            }
        services[name] = _merge(base, own)
    parts = {
        part: {**first.get(part, {}), **second.get(part, {})}
        for part in ("secrets", "volumes", "networks")
    }
    return {"services": services, **parts}


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> Service:
    result = dict(base)
    for key, value in own.items():
        before = result.pop(key, None)
        if isinstance(value, Tagged):
            if value.tag == "!override":
                result[key] = value.value
        elif key == "networks":
            result[key] = {**dict.fromkeys(before or ()), **dict.fromkeys(value)}
        elif isinstance(value, dict):
            result[key] = _merge(before or {}, value)
        elif key == "volumes":
            mounts = {mount.split(":")[1]: mount for mount in (*(before or ()), *value)}
            result[key] = list(mounts.values())
        elif isinstance(value, list) and key not in _REPLACED:
            result[key] = [*(before or ()), *value]
        else:
            result[key] = value
    return result


def interpolated(value: object, variables: Mapping[str, str]) -> str:
    """Return the value with every `${NAME:-default}` replaced, as Compose does it."""
    text, found = str(value), 1
    while found:
        text, found = _INNERMOST.subn(lambda match: variables.get(match[1]) or match[2], text)
    assert "${" not in text
    return text.replace("$$", "$")


def check_bounds(service: Service) -> None:
    """Check that a service has limits of memory and log, and no privileges."""
    assert in_bytes(service["mem_limit"]) <= in_bytes("1536m")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def in_bytes(limit: str) -> int:
    """Return the bytes that Docker or Redis makes of `512m` or `512mb`."""
    match = re.fullmatch(r"(\d+)([mg])b?", limit)
    assert match
    return int(match[1]) * {"m": 1 << 20, "g": 1 << 30}[match[2]]


def seconds(text: str) -> int:
    """Return the seconds of `30s`."""
    return int(text.removesuffix("s"))
