"""Checks of optimisers' settings that the tasks have in common."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import ConfigError


def check_rate(name: str, *rates: float) -> None:
    """Raises ConfigError unless every learning rate is above 0 and under 1."""
    if not all(0 < rate < 1 for rate in rates):
        raise ConfigError(f"{name} must be above 0 and under 1: {rates[0] if len(rates) == 1 else rates}")


def check_betas(betas: Sequence[float]) -> None:
    """Raises ConfigError unless these are the two decay rates of Adam's moments."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"betas must be two numbers of 0 or more and under 1: {betas}")
