"""What is taken for granted of the compiler, and what the user may still choose."""

import pytest
from torch._inductor import config

from ctde_kit.graph.toolchain import trusted


def test_vector_instructions_are_not_tried_out_unless_the_user_wants_it() -> None:
    with config.patch({"cpp.vec_isa_ok": None}):
        assert trusted() == {"cpp.vec_isa_ok": True}


@pytest.mark.parametrize("choice", [True, False])
def test_a_choice_of_the_user_stays(choice: bool) -> None:
    with config.patch({"cpp.vec_isa_ok": choice}):
        assert trusted() == {}
