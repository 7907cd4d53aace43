#!/usr/bin/env python3
"""Makes a release in dist/: wheel and sdist, checked, and tried in a clean environment. Nothing is uploaded.

    python scripts/release.py               # the version is in src/moulin/__init__.py
    python scripts/release.py --rehearse    # whatever is uncommitted or unreleased: that it would come to its end

It ends with what is left to do by hand: the tag, and the names of the images. A release also looks whether
docs/first-session.md shows a first session as it is now, which takes Chromium.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
IMAGES = {"cpu.Dockerfile": "", "gpu.Dockerfile": "-gpu", "gateway.Dockerfile": "-gateway"}
"""Image files, and what stands behind the version in their tags."""


class NotReady(SystemExit):
    """What is missing for a release."""


def main() -> None:
    version = version_of(ROOT)
    if sys.argv[1:] != ["--rehearse"]:
        expect_changelog(ROOT, version)
        if changed := _output("git", "status", "--porcelain"):
            raise NotReady(f"Expected all to be committed, got\n{changed}")
        _run(sys.executable, ROOT / "scripts" / "first-session.py", "--check")
    shutil.rmtree(DIST, ignore_errors=True)
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, ROOT)
    _run(sys.executable, "-m", "twine", "check", "--strict", *DIST.iterdir())
    wheel, sdist = DIST / f"moulin-{version}-py3-none-any.whl", DIST / f"moulin-{version}.tar.gz"
    expect_contents(wheel, sdist)
    try_installed(wheel, version)
    print(f"\n{wheel.relative_to(ROOT)} and {sdist.relative_to(ROOT)} are ready. By hand:\n")
    print(f"  git tag -a v{version} -m 'moulin {version}'")
    for file, suffix in IMAGES.items():
        print(f"  docker build -f deploy/docker/{file} -t moulin:{version}{suffix} .")


def version_of(root: Path) -> str:
    """The version that the package says of itself."""
    found = re.search(r'^__version__ = "(.+)"$', (root / "src/moulin/__init__.py").read_text(), re.MULTILINE)
    assert found
    return found[1]


def expect_changelog(root: Path, version: str) -> None:
    """Raises NotReady where the changelog does not have the version, with its date, as the first section that is not
    empty."""
    text = (root / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", text, re.MULTILINE)
    filled = [title for title, body in sections if body.strip()]
    if not filled or not re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", filled[0]):
        raise NotReady(
            f"Expected CHANGELOG.md to begin with '## {version} - YYYY-MM-DD', got '## {filled[0] if filled else ''}' "
            "(hint: what is unreleased becomes this version's, or raise __version__)"
        )


def expect_contents(wheel: Path, sdist: Path) -> None:
    """Raises NotReady where something is missing that the package needs, or is in it that it does not."""
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
    for needed in ("moulin/py.typed", "moulin/gateway/page/index.html", "moulin/demo/digits-en/tokens.txt"):
        if needed not in inside:
            raise NotReady(f"{wheel.name} has no {needed}")
    if foreign := [name for name in inside if not re.match(r"moulin(-[\d.a-z]+\.dist-info)?/", name)]:
        raise NotReady(f"{wheel.name} also has {foreign[0]}")
    with tarfile.open(sdist) as archive:
        if not any(name.endswith("/LICENSE") for name in archive.getnames()):
            raise NotReady(f"{sdist.name} has no LICENSE")


def try_installed(wheel: Path, version: str) -> None:
    """Install the wheel where nothing else is, and transcribe a recording with it."""
    with tempfile.TemporaryDirectory(prefix="moulin-release-") as folder:
        _run(sys.executable, "-m", "venv", folder)
        python = Path(folder) / "bin" / "python"
        _run(python, ROOT / "scripts" / "pip-install.py", "--no-compile", f"{wheel}[engine]")
        said = _output(str(python.with_name("moulin")), "--version")
        if said != f"moulin {version}":
            raise NotReady(f"Expected the installed command to be moulin {version}, got {said!r}")
        demo = _output(str(python), "-c", "from moulin.demo.files import DEMO_MODEL; print(DEMO_MODEL)")
        recording = Path(demo).parent / "audio" / "phone-01.flac"
        text = _output(str(python.with_name("moulin")), "transcribe", str(recording), "--model", demo)
        if "ONE NINE TWO EIGHT" not in text:
            raise NotReady(f"The installed wheel heard {text!r} in {recording.name}")


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


if __name__ == "__main__":
    main()
