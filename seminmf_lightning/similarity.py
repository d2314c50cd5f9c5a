"""How alike two dictionaries are.

Legend:  D1 (k1, d), D2 (k2, d) dictionaries, a row an atom
"""

from __future__ import annotations

from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize


def matched_share(D1: Tensor, D2: Tensor, cosine: float = 0.9) -> float:
    """Share of the larger dictionary's atoms whose partner in the other has a cosine above ``cosine``.

    Partners are one to one and make ``sum_j cos(D1_j, D2_partner(j))`` as large as can be (Kuhn, "The Hungarian method for
    the assignment problem", 1955).  An atom of zeros has no direction, so no match.

    Raises:
        ValueError: the two do not have the same number of features.
    """
    if D1.ndim != 2 or D2.ndim != 2 or D1.shape[1] != D2.shape[1]:
        raise ValueError(f"dictionaries of shapes {tuple(D1.shape)} and {tuple(D2.shape)}; expected (k1, d) and (k2, d)")
    cosines = (normalize(D1.double(), dim=1) @ normalize(D2.double(), dim=1).T).cpu().numpy()
    matched = cosines[linear_sum_assignment(cosines, maximize=True)] > cosine
    return float(matched.sum()) / max(cosines.shape)
