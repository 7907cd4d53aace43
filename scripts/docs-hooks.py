"""Hooks of mkdocs: pages of files outside docs/, and links to them.

README.md becomes the first page. A link to a file that is no page (source code, a script) becomes its name, since the
site has no copy of the repository.
"""

from __future__ import annotations

import importlib.util
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
}
"""Files of the repository's root, and the pages that they are."""

# Code first: what looks like a link in it is none, while a link's text may be code.
_CODE_OR_LINK = re.compile(r"```.*?```|`[^`\n]*`|\[(?P<text>[^\]\[]*)\]\((?P<target>[^()\s]+)\)", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    for name, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    for page, text in _reference().items():
        files.append(File.generated(config, page, content=text))
    return files


def _reference() -> dict[str, str]:
    """Pages that are written from the code as it is now, not as it was when the environment was made."""
    sys.path.insert(0, str(ROOT / "src"))
    spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "scripts" / "docs-reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    pages: dict[str, str] = module.built_pages()
    return pages


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """The page with its links as mkdocs resolves them."""
    del config
    src = page.file.src_uri
    source = next((name for name, made in OUTSIDE.items() if made == src), f"docs/{src}")
    folder = posixpath.dirname(source)

    def linked(match: re.Match[str]) -> str:
        if match["target"] is None:
            return match[0]
        target, hash_, anchor = match["target"].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        made = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if made is not None and files.get_file_from_path(made) is None and (ROOT / path / "README.md").exists():
            made = f"{made}/README.md"
        if made is None or (ROOT / path).is_dir():
            if not (ROOT / path).exists():
                raise ValueError(f"{source} links to {target}, which does not exist")
            return f"{match['text']} (`{path}`)" if match["text"].strip("`") != path else f"`{path}`"
        return f"[{match['text']}]({posixpath.relpath(made, posixpath.dirname(src) or '.')}{hash_}{anchor})"

    return _CODE_OR_LINK.sub(linked, markdown)
