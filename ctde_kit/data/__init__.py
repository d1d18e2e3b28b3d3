"""Buffers."""

from ctde_kit.data.on_policy import OnPolicyBuffer

__all__ = ["OnPolicyBuffer"]
