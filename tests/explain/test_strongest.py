"""The strongest rows, sums and neighbours of concepts equal naive references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seminmf_lightning.explain.code_sample import CodeSample
from seminmf_lightning.explain.strongest import ConceptSums, TopExamples, nearest


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5), st.integers(1, 15), st.integers(0, 10**6))
def test_top_examples_are_the_strongest_row_of_each_example(
    n: int, k: int, wanted: int, batch: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(n, k, generator=generator) * (torch.rand(n, k, generator=generator) < 0.6)
    groups = torch.randint(0, 3, (n,), generator=generator).cumsum(0)
    top = TopExamples(k, wanted)
    for rows in torch.arange(n).split(batch):
        top.update(Z[rows], rows, groups[rows])
    for sign, found in zip((1, -1), top.signs(), strict=True):
        for concept in range(k):
            best: dict[int, tuple[float, int]] = {}
            for row in range(n):  # the naive way
                value, group = float(sign * Z[row, concept]), int(groups[row])
                if value > 0 and value > best.get(group, (0.0, 0))[0]:
                    best[group] = (value, row)
            expected = sorted(best.values(), reverse=True)[:wanted]
            rows = [row for row in found.row_ids[concept].tolist() if row >= 0]
            assert rows == [row for _, row in expected]
            assert found.values[concept, : len(rows)].tolist() == pytest.approx(
                [value for value, _ in expected]
            )


def test_sums_and_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    Z = torch.randn(50, 7, generator=generator) * (torch.rand(50, 7, generator=generator) < 0.5)
    sums, sample = ConceptSums(7), CodeSample(7, 50)
    for rows in torch.arange(50).split(13):
        sums.update(Z[rows])
        sample.update(Z[rows], rows)
    assert torch.allclose(sums.density, (Z != 0).double().mean(dim=0))
    assert torch.allclose(sums.squares, Z.double().square().sum(dim=0), atol=1e-5)
    expected = np.corrcoef(Z.abs().numpy().T) - 3 * np.eye(7)
    values, columns = nearest(sample.vectors(), 3, block=2)
    for concept in range(7):
        order = np.argsort(-expected[concept])[:3]
        assert columns[concept].tolist() == order.tolist()
        assert values[concept].tolist() == pytest.approx(expected[concept, order].tolist(), abs=1e-5)


def test_a_sample_of_codes_is_bounded() -> None:
    sample = CodeSample(100, 10**6, limit=10**5)
    for start in range(0, 10**6, 10**5):
        rows = torch.arange(start, start + 10**5)
        sample.update(torch.ones(1, 1).expand(len(rows), 100), rows)
    assert 0 < sum(part.numel() for part in sample.parts) <= 10**5
