"""What the bundled models are for, in a line for people; imports nothing."""

from __future__ import annotations

from pathlib import Path

PURPOSES = {
    "digits-en": "English digits, a demo",
    "digits-en-streaming": "English digits, a demo",
}
"""By the name of the bundle."""

SAMPLE = Path(__file__).parent / "audio" / "phone-01.flac"
"""A recording that they hear well."""
