"""One model out of several that were trained apart: the weighted mean of their weights.

Local SGD (Stich, "Local SGD Converges Fast and Communicates Little", ICLR 2019), with the weights of federated
averaging (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017):
each worker counts by the samples it has trained on since the last merge.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def merge_shares(samples: Sequence[int], usable: Sequence[bool] | None = None) -> list[float]:
    """What each worker counts in the merge: proportional to its `samples`, 0 where not `usable`; sums to 1.

    Workers that are usable but have all trained on nothing count alike.

    Raises:
        ValueError: when no worker is usable.
    """
    usable = [True] * len(samples) if usable is None else usable
    counted = [count if good else 0 for count, good in zip(samples, usable, strict=True)]
    if not any(counted):
        counted = [int(good) for good in usable]
    total = sum(counted)
    if not total:
        raise ValueError("no worker has weights that can be merged")
    return [count / total for count in counted]


def weighted_mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The mean of `tensors` (one per worker, equal shapes and types) by `shares` that sum to 1; type as theirs.

    Computed in double precision as the first one plus the shares of the distances from it, so that equal tensors
    give exactly themselves. Workers with share 0 are not looked at: their numbers may be anything. Tensors that are
    not floating point (counters) are taken from the first worker that counts.
    """
    counting = [(tensor, share) for tensor, share in zip(tensors, shares, strict=True) if share > 0]
    origin = counting[0][0]
    if not origin.is_floating_point():
        return origin.clone()
    base = origin.double()
    mean = base.clone()
    for tensor, share in counting[1:]:
        mean += share * (tensor.double() - base)
    return mean.to(origin.dtype)
