"""Fixtures of trees under supervisors."""

from __future__ import annotations

from tests.tree.conftest import account, installation, login, tree

__all__ = ["account", "installation", "login", "tree"]
