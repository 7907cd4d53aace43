"""The description of a job, which all runs into one folder share."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moulin.bulk.output.formats import FORMATS, Format, FormatName
from moulin.errors import OptionsError
from moulin.quoting import quoted

FOLDER = "_moulin"
"""The folder within a job's folder that is no output; readers of parquet pass over names that begin like this."""

_JOB = "job.json"
_READ_AT_ONCE = 1 << 22
_NOT_FOR_US = (errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of folders that this user may not write to."""


@dataclass(frozen=True, slots=True)
class Job:
    """What gives the same transcripts: runs that differ in it do not share a folder."""

    format: FormatName
    model: str
    """The model's name, for messages."""
    model_sha256: str
    """Of the contents of its files."""
    engine: Mapping[str, Any]
    decoding: Mapping[str, Any]
    selection: Mapping[str, Any]

    @property
    def digest(self) -> bytes:
        """A hash of everything in it but the model's name, of which the names of parts are made."""
        facts = {name: value for name, value in self.to_dict().items() if name != "model"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "format": self.format,
            "model": self.model,
            "model_sha256": self.model_sha256,
            "engine": dict(self.engine),
            "decoding": dict(self.decoding),
            "selection": dict(self.selection),
        }

    def part_name(self, ids: Sequence[str]) -> str:
        """The name of the part with these recordings, in whatever order."""
        digest = hashlib.sha256(self.digest)
        for id in sorted(ids):
            digest.update(id.encode() + b"\0")
        return f"part-{digest.hexdigest()[:24]}{FORMATS[self.format].suffix}"


def begin(folder: Path, job: Job) -> None:
    """Write `job` into `folder`, which is made. Raises OptionsError where another job is there, and OSError."""
    inside = folder / FOLDER
    try:
        inside.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError) as error:
        raise OptionsError(f"Expected a folder for parts, got {folder}, which is or lies in a file") from error
    except OSError as error:
        if error.errno not in _NOT_FOR_US:
            raise
        raise OptionsError(f"{folder} cannot be written to: {error.strerror}") from error
    new = inside / f"{_JOB}.{secrets.token_hex(4)}.tmp"
    try:
        new.write_text(json.dumps(job.to_dict(), indent=2) + "\n", encoding="utf-8")
        os.link(new, inside / _JOB)  # of several that start at once one is first
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not (inside / _JOB).exists():
            new.replace(inside / _JOB)
    finally:
        new.unlink(missing_ok=True)
    check(folder, job)


def check(folder: Path, job: Job) -> None:
    """Raises OptionsError where `folder` holds another job, or is no folder. Writes nothing."""
    if folder.exists() and not folder.is_dir():
        raise OptionsError(f"Expected a folder for parts, got {folder}, which is or lies in a file")
    if not (folder / FOLDER / _JOB).exists():
        return
    there = read(folder)
    wanted = json.loads(json.dumps(job.to_dict()))
    for name, value in there.items():
        if wanted.get(name) != value and name != "model":
            raise OptionsError(
                f"{folder} holds a job with another {name.replace('model_sha256', 'model')}: "
                f"{_said(there, name, wanted)}, and not {_said(wanted, name, there)}",
                hint="write into another folder, or go on with the same model and options",
            )


def _said(job: Mapping[str, Any], name: str, other: Mapping[str, Any]) -> str:
    """The value of `name`; of options those that are others in the `other` job."""
    if name == "model_sha256":
        return f"{job['model']} ({job[name][:12]})"
    here, there = job.get(name), other.get(name)
    if not isinstance(here, dict) or not isinstance(there, dict):
        return quoted(here)
    differing = (key for key in sorted({*here, *there}) if here.get(key) != there.get(key))
    said = (f"no {key}" if here.get(key) is None else f"{key} {quoted(here[key])}" for key in differing)
    return ", ".join(said) or quoted(here)


def read(folder: Path) -> dict[str, Any]:
    """The description of the job in `folder`. Raises OptionsError where there is none."""
    file = folder / FOLDER / _JOB
    try:
        job: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        FORMATS[job["format"]]
    except OSError as error:
        raise OptionsError(
            f"There is no job of moulin bulk in {folder}", hint="name the folder given as --to"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OptionsError(f"{file} is no description of a job", hint="remove it if you know what it was") from error
    return job


def format_of(folder: Path) -> Format:
    """The format of the job in `folder`. Raises OptionsError."""
    return FORMATS[read(folder)["format"]]


def digest_of(files: Sequence[Path]) -> str:
    """The SHA-256 of files' contents, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while block := content.read(_READ_AT_ONCE):
                digest.update(block)
        digest.update(b"\0")
    return digest.hexdigest()


def begun_at(folder: Path) -> float:
    """When the job's first run began, in seconds since 1970. Raises OptionsError where there is no job."""
    read(folder)
    return (folder / FOLDER / _JOB).stat().st_mtime
