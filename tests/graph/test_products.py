"""Products with few columns are computed transposed where that is faster, and only there."""

import pytest
import torch
from torch import Tensor

from ctde_kit.graph import Graph, compile_graph, trace

# (shape of the first factor, columns of the second)
TRANSPOSED = [((64, 1200), 5), ((18, 200), 2), ((64, 400), 15)]
AS_THEY_ARE = [((1200, 64), 5), ((64, 1200), 1), ((64, 1200), 16), ((5, 1200), 5)]


def _product(shape: tuple[int, int], columns: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows, inner = shape
    # As the gradient of a weight, whose first factor is a layer's input, seen transposed.
    first = torch.rand(inner, rows, generator=generator, dtype=dtype).T
    return [first, torch.rand(inner, columns, generator=generator, dtype=dtype)]


def _first_factor(graph: Graph) -> object:
    """What made the first factor of the only product: ``placeholder``, or an operation."""
    (product,) = [node for node in graph.module.graph.nodes if node.target == torch.ops.aten.mm.default]
    factor = product.args[0]
    return factor.op if factor.op == "placeholder" else factor.target


def _traced(factors: list[Tensor], exact: bool = False) -> Graph:
    return trace(lambda inputs: [inputs[0] @ inputs[1]], factors, exact=exact)


@pytest.mark.parametrize(("shape", "columns"), TRANSPOSED)
def test_the_product_of_long_rows_with_few_columns_is_transposed(shape: tuple[int, int], columns: int) -> None:
    factors = _product(shape, columns)
    graph = _traced(factors)
    assert _first_factor(graph) == torch.ops.aten.permute.default
    (found,) = compile_graph(graph)(factors)
    expected = factors[0].double() @ factors[1].double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    assert found.stride() == expected.stride()


@pytest.mark.parametrize(("shape", "columns"), AS_THEY_ARE)
def test_other_products_stay(shape: tuple[int, int], columns: int) -> None:
    assert _first_factor(_traced(_product(shape, columns))) == "placeholder"


def test_products_that_must_round_as_they_did_stay() -> None:
    factors = _product(*TRANSPOSED[0])
    assert _first_factor(_traced(factors, exact=True)) == "placeholder"
    assert _first_factor(_traced(_product(*TRANSPOSED[0], dtype=torch.float64))) == "placeholder"
