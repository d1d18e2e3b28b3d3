"""Small vectorized games, each of which tests one ability: coordination, memory, communication."""

from ctde_kit.envs.games.cue import CueEnv
from ctde_kit.envs.games.matrix import MatrixGameEnv
from ctde_kit.envs.games.recall import RecallEnv

__all__ = ["CueEnv", "MatrixGameEnv", "RecallEnv"]
