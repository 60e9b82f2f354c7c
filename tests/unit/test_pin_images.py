"""`scripts/pin_images.py`, against a registry of the test's own on the loopback."""

import hashlib
import http.server
import importlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from scripts import pin_images
from tests.support.processes import free_port

TOKEN = "let-me-read"


class FakeRegistry(http.server.ThreadingHTTPServer):
    """Has a manifest for each tag that it is asked for; it may want a token, lie or refuse."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.wants_token = False
        self.lies = False
        self.page = b""
        self.lacks = ""
        self.asked: list[str] = []

    def manifest(self, path: str) -> bytes:
        return self.page or json.dumps({"schemaVersion": 2, "of": path}).encode()

    def digest(self, image: str) -> str:
        name, _, tag = image.partition(":")
        repository = name if "/" in name else f"library/{name}"
        path = f"/v2/{repository}/manifests/{tag}"
        return f"sha256:{hashlib.sha256(self.manifest(path)).hexdigest()}"


class _Answers(http.server.BaseHTTPRequestHandler):
    server: FakeRegistry

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.server.asked.append(self.path)
        if path == "/token":
            assert "scope=repository%3A" in query
            self._answer(200, json.dumps({"token": TOKEN}).encode())
        elif self.server.wants_token and self.headers["Authorization"] != f"Bearer {TOKEN}":
            repository = path.removeprefix("/v2/").partition("/manifests/")[0]
            scope = f"repository:{repository}:pull"
            challenge = f'realm="{self.server.url}/token",service="fake",scope="{scope}"'
            self._answer(401, b"", {"WWW-Authenticate": f"Bearer {challenge}"})
        elif self.server.lacks and self.server.lacks in path:
            self._answer(404, b"{}")
        else:
            assert "index.v1+json" in self.headers["Accept"]
            content = self.server.manifest(path)
            told = "0" * 64 if self.server.lies else hashlib.sha256(content).hexdigest()
            self._answer(200, content, {"Docker-Content-Digest": f"sha256:{told}"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep what pytest shows short."""


@contextmanager
def serving() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        thread = threading.Thread(target=registry.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            registry.shutdown()
            thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A copy of the compose file."""
    copy = tmp_path / "docker-compose.yml"
    copy.write_text(re.sub("@sha256:[0-9a-f]{64}", "", pin_images.COMPOSE.read_text()))
    return copy


def images(file: Path) -> dict[str, str]:
    services = yaml.safe_load(file.read_text())["services"]
    return {name: service["image"] for name, service in services.items()}


def is_ours(image: str) -> bool:
    """Whether it is built of this repository."""
    return image.startswith("polyglot-persistence-")


def pin(file: Path, registry: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, pin_images.__file__, registry, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={"NO_PROXY": "127.0.0.1"},
    )


@pytest.mark.parametrize("wants_token", [False, True])
def test_each_public_image_gets_its_digest(file: Path, *, wants_token: bool) -> None:
    """Ours, which are built, get none; nothing else of the file changes."""
    before, text = images(file), file.read_text()
    with serving() as registry:
        registry.wants_token = wants_token
        done = pin(file, registry.url)
        assert (done.returncode, done.stderr) == (0, "")
        for name, image in images(file).items():
            wanted = (
                before[name]
                if is_ours(image)
                else f"{before[name]}@{registry.digest(before[name])}"
            )
            assert image == wanted
        assert len([one for one in registry.asked if one.startswith("/v2/prom/")]) >= 1
    assert re.sub("@sha256:[0-9a-f]{64}", "", file.read_text()) == text


def test_a_tag_that_moved_gets_its_new_digest(file: Path) -> None:
    """The one that was there is replaced, and a second time nothing changes."""
    text = file.read_text()
    file.write_text(
        re.sub(r"^( +image: \S+:\S+)", rf"\1@sha256:{'1' * 64}", text, flags=re.MULTILINE)
    )
    with serving() as registry:
        assert "7 images" in pin(file, registry.url).stdout
        assert "1" * 64 not in file.read_text()
        assert "up to date" in pin(file, registry.url).stdout
    assert all(image.count("@") <= 1 for image in images(file).values())


def test_without_a_registry_nothing_changes(file: Path) -> None:
    """One sentence says so."""
    text = file.read_text()
    done = pin(file, f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert re.fullmatch(
        r"pin_images: http://\S+ does not answer: .*; docker-compose.yml stays as it is\n",
        done.stderr,
    )
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("fault", "value", "said"),
    [
        ("lacks", "grafana", "answers 404 for grafana/grafana:"),
        ("lacks", "redis", "answers 404 for redis:"),
        ("lies", True, "sends another manifest of redis:"),
        ("page", b"<html>log in first</html>", "sends no manifest for redis:"),
        ("page", b"[]", "sends no manifest for redis:"),
    ],
)
def test_one_without_a_digest_leaves_all_as_they_were(
    file: Path, fault: str, value: object, said: str
) -> None:
    """Also those that were answered for."""
    text = file.read_text()
    with serving() as registry:
        setattr(registry, fault, value)
        done = pin(file, registry.url)
    assert done.returncode == 1
    assert said in done.stderr
    assert file.read_text() == text


def test_stand_ins_need_no_digest(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`scripts/compose-test` goes on with a pinned file: it takes the digests out for its run."""
    monkeypatch.syspath_prepend(pin_images.COMPOSE.parent / "scripts")
    stand_ins = importlib.import_module("compose_test.images")
    (tmp_path / "Dockerfile").write_bytes((pin_images.COMPOSE.parent / "Dockerfile").read_bytes())
    monkeypatch.setattr(stand_ins, "REPOSITORY", tmp_path)
    before, wanted = images(file), stand_ins.public_images()
    assert stand_ins.without_digests() == ""
    with serving() as registry:
        assert pin(file, registry.url).returncode == 0
    override = yaml.safe_load(stand_ins.without_digests())["services"]
    assert {name: service["image"] for name, service in override.items()} == {
        name: image for name, image in before.items() if not is_ours(image)
    }
    assert stand_ins.public_images() == wanted
