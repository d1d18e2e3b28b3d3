"""OpenSpiel's games as PettingZoo environments, through shimmy."""

from __future__ import annotations

import difflib
from typing import Any

from pettingzoo import AECEnv

from ctde_kit.errors import UserError


def env(game: str, **kwargs: Any) -> AECEnv[str, Any, Any]:
    """A game of OpenSpiel, played turn by turn, for :func:`~ctde_kit.envs.workers.worker_env`.

    Args:
        game: as OpenSpiel calls it, e.g. ``tic_tac_toe``.
        kwargs: the game's own parameters.

    Raises ``UserError`` where ``shimmy`` or ``open_spiel`` is missing, and for unknown games.
    """
    try:
        import pyspiel  # pyright: ignore[reportMissingImports]
        from shimmy.openspiel_compatibility import (  # pyright: ignore[reportMissingImports]
            OpenSpielCompatibilityV0,
        )
    except ImportError as error:
        raise UserError('OpenSpiel\'s games need shimmy and open_spiel; pip install "ctde-kit[openspiel]"') from error
    known: list[str] = list(pyspiel.registered_names())
    if game not in known:
        close = ", ".join(difflib.get_close_matches(game, known)) or "tic_tac_toe"
        raise UserError(f"game: unknown game {game!r} of OpenSpiel; did you mean {close}?")
    return OpenSpielCompatibilityV0(game_name=game, render_mode=None, config=kwargs or None)
