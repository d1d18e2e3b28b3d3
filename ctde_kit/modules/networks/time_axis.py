"""Checks that what a recurrent network is asked to unroll really is a sequence."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.keys import Key, next_key


def check_continues(tensordict: TensorDictBase, key: Key, hidden: Tensor, is_init: Tensor) -> None:
    """Raise ``UserError`` for single steps ``[B]`` where the last batch dimension is time.

    ``[*B, T]`` is always taken as sequences. One dimension may be one sequence ``[T]`` or shuffled steps ``[B]``. The
    stored hidden states tell them apart: in a sequence each step starts from the state that the step before left under
    ``next``, or from zero where an episode begins. Steps without that entry are refused, and so are all in a graph,
    which cannot look at data; ``unsqueeze(0)`` turns steps into one sequence.
    """
    if tensordict.ndim != 1 or tensordict.shape[0] == 1:
        return
    length, advice = tensordict.shape[0], "give sequences [*B, T]; unsqueeze(0) makes one of consecutive steps [T]"
    following = None if torch.compiler.is_compiling() else tensordict.get(next_key(key), None)
    if following is None:
        raise UserError(f"a recurrent network learns sequences [*B, T], found single steps [{length}]: {advice}")
    expected = following[:-1].masked_fill(is_init[1:].unsqueeze(-1), 0)
    breaks = int(((hidden[1:] - expected).abs().flatten(1).amax(-1) > 1e-5).sum())
    if breaks:
        raise UserError(
            f"a recurrent network learns sequences [*B, T], found single steps [{length}], of which {breaks} do not go "
            f"on from the {key} that the step before left: {advice}"
        )
