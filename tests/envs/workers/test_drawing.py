"""Pictures that workers draw."""

from __future__ import annotations

import numpy as np
import pytest

from ctde_kit.errors import UserError
from tests.envs.toys import Make, ToyEnv, make_and_close

make = pytest.fixture(name="make")(make_and_close)


class Drawing(ToyEnv):
    """Draws one gray; says what its mode is only if it has one."""

    def __init__(self, mode: str | None = None, picture: object = None) -> None:
        super().__init__()
        self.picture = picture
        if mode is not None:
            self.render_mode = mode

    def render(self) -> object:
        if self.picture is None:
            raise NotImplementedError
        return self.picture


@pytest.mark.parametrize("mode", ["rgb_array", None])
def test_a_picture_comes_whether_or_not_the_env_says_its_mode(make: Make, mode: str | None) -> None:
    env = make(lambda: Drawing(mode, np.full((4, 5, 3), 77)))
    env.reset()
    frame = env.render_frame(1)
    assert (frame.shape, frame.dtype, frame.max()) == ((4, 5, 3), np.uint8, 77)


@pytest.mark.parametrize(("mode", "picture"), [(None, None), (None, "ascii"), ("human", np.zeros((4, 5, 3)))])
def test_an_env_without_pictures_is_said_to_draw_nothing(make: Make, mode: str | None, picture: object) -> None:
    env = make(lambda: Drawing(mode, picture))
    env.reset()
    with pytest.raises(UserError, match="draws nothing; expected one that is built with render_mode='rgb_array'"):
        env.render_frame()
