"""The set-up of the virtual environment: done when something changed, and only then."""

import sys
from pathlib import Path

import pytest

from scripts import set_up


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Something that looks like an environment."""
    made = tmp_path / "my venv"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").symlink_to(sys.executable)
    (made / "pyvenv.cfg").write_text("version = 3.11.7")
    return made


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own."""
    checkout = tmp_path / "checkout"
    (checkout / "requirements").mkdir(parents=True)
    for profile in ("base", "build", "lock"):
        (checkout / "requirements" / f"{profile}.txt").write_text(f"{profile}==1")
    (checkout / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[build-system]\nrequires = []\n[tool.x]\ny = 1\n'
    )
    monkeypatch.setattr(set_up, "ROOT", checkout)
    return checkout


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pip is asked to install, without doing it."""
    asked: list[str] = []
    monkeypatch.setattr(set_up, "pip", lambda _, *arguments: asked.append(Path(arguments[-1]).name))
    return asked


def test_it_is_done_once(venv: Path, root: Path, installs: list[str]) -> None:
    """The second time nothing is installed."""
    assert set_up.main(venv, "base") == 0
    assert installs == ["base.txt", "build.txt", root.name]
    assert set_up.main(venv, "base") == 0
    assert len(installs) == 3


def test_a_profile_without_the_project(venv: Path, root: Path, installs: list[str]) -> None:
    """The tool that pins needs nothing of ours."""
    assert set_up.main(venv, "lock") == 0
    assert installs == ["lock.txt"]


@pytest.mark.parametrize(
    ("file", "installed"),
    [
        ("requirements/base.txt", {"base.txt"}),
        ("requirements/build.txt", {"build.txt", "checkout"}),
        ("requirements/lock.txt", set()),
    ],
)
def test_a_change_is_noticed(
    file: str, installed: set[str], venv: Path, root: Path, installs: list[str]
) -> None:
    """Only what it concerns is installed again."""
    set_up.main(venv, "base")
    installs.clear()
    (root / file).write_text("other==2")
    set_up.main(venv, "base")
    assert set(installs) == installed


def test_only_the_project_part_counts(venv: Path, root: Path, installs: list[str]) -> None:
    """A linter's setting installs nothing; a dependency does."""
    set_up.main(venv, "base")
    installs.clear()
    project = root / "pyproject.toml"
    project.write_text(project.read_text().replace("y = 1", "y = 2"))
    set_up.main(venv, "base")
    assert installs == []
    project.write_text(project.read_text().replace('"x"', '"x"\ndependencies = ["y"]'))
    set_up.main(venv, "base")
    assert installs == ["build.txt", "checkout"]


def test_a_copy_is_set_up_anew(venv: Path, root: Path, installs: list[str], tmp_path: Path) -> None:
    """Scripts in the environment hold its path."""
    set_up.main(venv, "base")
    installs.clear()
    copy = venv.rename(tmp_path / "moved")
    set_up.main(copy, "base")
    assert len(installs) == 3


def test_an_interrupted_set_up_is_done_again(
    venv: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until all is installed nothing says that it is."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(set_up, "pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        set_up.main(venv, "base")
    assert not set_up.up_to_date(venv, "base")


def test_a_place_that_cannot_be_written_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root may write anywhere, so the refusal is planned."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "there")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert set_up.main(root / "venv", "base") == 2
    assert "cannot write there: Permission denied" in capsys.readouterr().err
