"""The exports that variants are made of."""

from tests.export.conftest import Exported, exported

__all__ = ["Exported", "exported"]
