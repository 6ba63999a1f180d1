"""The choice of triplets from a batch."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fastoptim import _core
from fastoptim._checks import positive

Indices: TypeAlias = npt.NDArray[np.int64]


def mine_triplets(
    embeddings: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    kind: Literal["semihard", "hard", "all"] = "semihard",
    margin: float = 0.2,
) -> tuple[Indices, Indices, Indices]:
    r"""Choose triplets for `TripletMarginLoss` from a batch.

    A triplet is an anchor, another row of its label (the positive) and a row of another label (the
    negative). With Euclidean distances d, in float64:

    - ``"semihard"``: for each anchor and positive the nearest negative that is farther than the
      positive by less than the margin, if there is one:
      :math:`d(a, p) < d(a, n) < d(a, p) + m`. The usual choice.
    - ``"hard"``: for each anchor its farthest positive and its nearest negative. Harder, and early
      in training all embeddings can collapse into one point.
    - ``"all"``: every triplet. There are about :math:`N^3` of them.

    Of equal distances the first row is chosen, and a distance of NaN is never chosen. Triplets are
    in the order of anchor, positive, negative. The distances of a few anchors are in memory at a
    time, not all :math:`N^2`.

    Parameters
    ----------
    embeddings
        One row per example: shape (N, D), of any float type. 16-bit numbers are converted to
        float32 as a whole.
    labels
        Shape (N,), of any integer type.
    kind
        The kind of triplets.
    margin
        The margin m of ``"semihard"``, > 0.

    Returns
    -------
    anchors, positives, negatives
        Three int64 arrays of row indices with one element per triplet. They may be empty.

    Raises
    ------
    ValueError
        An unknown kind, a margin out of range, or wrong shapes.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> x = np.array([[0.0], [1.0], [1.125], [5.0]])
    >>> a, p, n = fo.losses.mine_triplets(x, np.array([0, 0, 1, 2]))
    >>> a, p, n
    (array([0]), array([1]), array([2]))
    >>> round(fo.losses.TripletMarginLoss(margin=0.2)(x[a], x[p], x[n]), 6)
    0.075

    References
    ----------
    Schroff, Kalenichenko and Philbin, "FaceNet", 2015 (semi-hard); Hermans, Beyer and Leibe, "In
    Defense of the Triplet Loss for Person Re-Identification", 2017 (hard).
    """
    margin = positive("margin", margin)
    return _core.mine_triplets(embeddings, labels, kind, margin)
