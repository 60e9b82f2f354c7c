"""Adds to each image of docker-compose.yml the digest that its registry has for its tag now.

    python3 scripts/pin_images.py REGISTRY [FILE]

REGISTRY is the address of the registry, or of a mirror of it, that has all images.

Without a registry that answers for all of them the file stays as it is. A digest that is there
already is replaced. No digest is taken on trust: each is that of the manifest that was read.

https://distribution.github.io/distribution/spec/api/
"""

import argparse
import hashlib
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

COMPOSE: Final = Path(__file__).parents[1] / "docker-compose.yml"
TIMEOUT_SECONDS: Final = 20.0
MANIFEST_BYTES_MAX: Final = 4 << 20
"""As registries limit it."""

_IMAGE: Final = re.compile(
    r"^(?P<before> *image: )(?P<image>(?P<name>[a-z0-9./_-]+):(?P<tag>[\w.-]+))"
    r"(?:@sha256:[0-9a-f]{64})?(?= |$)",
    re.MULTILINE,
)
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')
# First the lists of manifests for all processors: of one alone, the others could not be started.
_ACCEPTED: Final = (
    "application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)


class NoDigestError(Exception):
    """A registry does not answer, or not with a manifest of this image."""


class Registry:
    """A registry that is asked without an account."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def digest(self, name: str, tag: str) -> str:
        """Return the digest of the manifest that a tag stands for now.

        Raises:
            NoDigestError: there is none to be had.
        """
        repository = name if "/" in name else f"library/{name}"
        url = f"{self._url}/v2/{repository}/manifests/{tag}"
        headers = {"Accept": _ACCEPTED}
        try:
            try:
                content, told = _get(url, headers)
            except urllib.error.HTTPError as error:
                if error.code != 401:  # noqa: PLR2004  it asks for a token
                    raise
                token = self._token(error.headers.get("WWW-Authenticate") or "", repository)
                content, told = _get(url, {**headers, "Authorization": f"Bearer {token}"})
        except urllib.error.HTTPError as error:
            raise NoDigestError(f"{self._url} answers {error.code} for {name}:{tag}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise NoDigestError(f"{self._url} does not answer: {reason}") from error
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if told not in ("", digest):
            raise NoDigestError(f"{self._url} sends another manifest of {name}:{tag} than it says")
        try:
            json.loads(content)["schemaVersion"]
        except (ValueError, KeyError, TypeError) as error:
            raise NoDigestError(f"{self._url} sends no manifest for {name}:{tag}") from error
        return digest

    def _token(self, challenge: str, repository: str) -> str:
        parts = dict(_CHALLENGE.findall(challenge))
        query = {
            "service": parts.get("service", ""),
            "scope": parts.get("scope") or f"repository:{repository}:pull",
        }
        content, _ = _get(f"{parts['realm']}?{urllib.parse.urlencode(query)}", {})
        answer = json.loads(content)
        token: str = answer.get("token") or answer["access_token"]
        return token


def _get(url: str, headers: Mapping[str, str]) -> tuple[bytes, str]:
    """Return the content, and the digest that the registry says it has."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is no address of a registry")
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310  checked above
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        content: bytes = answer.read(MANIFEST_BYTES_MAX)
        return content, answer.headers.get("Docker-Content-Digest") or ""


def pinned(text: str, registry: Registry) -> str:
    """Return the file's text with a digest behind every image that has a tag.

    Raises:
        NoDigestError: of one of them there is none to be had.
    """
    digests = {
        match["image"]: registry.digest(match["name"], match["tag"])
        for match in _IMAGE.finditer(text)
    }
    return _IMAGE.sub(
        lambda match: f"{match['before']}{match['image']}@{digests[match['image']]}", text
    )


def main(arguments: Sequence[str]) -> int:
    """Pin, and say what was done; exit code 1 if nothing could be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("registry", help="https://...")
    parser.add_argument("file", nargs="?", type=Path, default=COMPOSE)
    given = parser.parse_args(arguments)
    before = given.file.read_text()
    try:
        after = pinned(before, Registry(given.registry))
    except NoDigestError as error:
        sys.stderr.write(f"pin_images: {error}; {given.file.name} stays as it is\n")
        return 1
    if after == before:
        sys.stdout.write(f"{given.file.name} is up to date\n")
        return 0
    new = given.file.with_suffix(".new")
    new.write_text(after)
    new.replace(given.file)
    sys.stdout.write(f"{given.file.name}: {len(_IMAGE.findall(after))} images have digests\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
