"""Bootstrap of nested data: whole clusters are drawn, then what is in them, level by level.

A cluster holds clusters, and at the bottom a `Group` holds values: paired differences, or the samples of both
arms. A resample draws as many clusters as there are at the top, with replacement; within each drawn one
as many of its clusters as it has, and so on; at the bottom as many values as the group has. In a group of
samples each arm's are drawn by themselves, so both arms share the drawn clusters and nothing below.
`stages` draws only that many levels, and keeps what is below as it is: 1 is the one-stage cluster bootstrap.

theta = treatment - control is, by `weights`,

- equal: the mean over the top clusters of the mean over their clusters ... of a group's mean;
- size: the mean over all values of the treatment minus that of the control, whatever cluster they are in.

percentile: p = (1 + #{theta* <= 0}) / (B + 1), bounds are quantiles of theta*. shift: p = (1 + #{theta* >=
2 theta}) / (B + 1), bounds are 2 theta minus quantiles of theta*. (For "greater"; order statistics at
floor((B + 1) tail), as in `paired_bootstrap`.) theta* is a ratio of integer sums, T* / N_T* - C* / N_C*, and
counts compare integers. The two-level bootstrap (unit, then sample) is a tree of groups of samples.

Draws: resamples come in blocks of max(1, BLOCK_VALUES / values); block k draws its top level, then the next,
then the treatment's and the control's values, each from the next whole words after word k 2^64 of the seed's
PCG64 stream, two 32-bit halves a word, each by multiply and shift (`resampling`).

A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, section 3.8 (drawing with
replacement at both levels overstates the variance by about one over the size of a cluster, so the test is
conservative; with few clusters at the top it is liberal, as every percentile bootstrap is); C. Field and
A. Welsh, Bootstrapping clustered data, Journal of the Royal Statistical Society B 69 (2007) 369-390. Neither scipy
nor statsmodels has it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import (
    FIXED_POINT_NOTE,
    Bounds,
    Estimate,
    InapplicableError,
    assemble,
    on_lattice,
    p_of,
    side_text,
)
from epc.runtime.statistics.resampling import Quantiles, as_float, halves_of

Weights = Literal["equal", "size"]
ClusterP = Literal["percentile", "shift"]
BLOCK_VALUES: Final = 1 << 16

_FORMULA: dict[ClusterP, str] = {
    "percentile": "p = (1 + #{theta* at or beyond 0}) / (B + 1), percentile bounds",
    "shift": "p = (1 + #{theta* - theta at or beyond theta}) / (B + 1), basic bounds",
}
_WEIGHTS: dict[Weights, str] = {
    "equal": "every cluster counts the same within its own",
    "size": "every value counts the same, so a cluster by its size",
}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The lowest level that may be drawn from, in an order that does not depend on the file's."""

    treatment: tuple[Fraction, ...]
    """The treatment's samples, or differences treatment - control of paired values."""
    control: tuple[Fraction, ...] | None = None
    """The control's samples; None where the treatment's are differences."""

    def theta(self) -> Fraction:
        mean = sum(self.treatment, Fraction(0)) / len(self.treatment)
        return mean if self.control is None else mean - sum(self.control, Fraction(0)) / len(self.control)


Tree = Mapping[str, "Tree | Group"]
"""Name -> what is in the cluster. Every path has the same length."""


def nested(rows: Iterable[tuple[Sequence[str], Fraction]]) -> Tree:
    """Paired differences by path, outermost name first and the value's own name last, as a tree of groups.

    The order of rows does not matter. Raises InapplicableError where a path comes twice, or paths differ in length.
    """
    values: dict[tuple[str, ...], Fraction] = {}
    for path, value in rows:
        if tuple(path) in values:
            raise InapplicableError(f"{' / '.join(path)} has two values")
        values[tuple(path)] = value
    if len({len(path) for path in values}) != 1 or len(next(iter(values))) < 2:
        raise InapplicableError("nested values need paths of one length, with a cluster and a name at least")
    groups: dict[tuple[str, ...], list[Fraction]] = {}
    for path in sorted(values):
        groups.setdefault(path[:-1], []).append(values[path])
    tree: dict[str, Any] = {}
    for path, differences in groups.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = Group(treatment=tuple(differences))
    return tree


def two_level_bootstrap(
    units: Mapping[str, Group], *, weights: Weights, p: ClusterP, side: Side, alpha: float, resamples: int, seed: int,
    limit: float, interval: float | None = None,
) -> Estimate:  # fmt: skip
    """Estimate a contrast from the samples of both arms in each unit: units are drawn, then samples within.

    The treatment and the control of a drawn unit are drawn by themselves; arguments as in `cluster_bootstrap`.
    """
    return cluster_bootstrap(
        units, levels=("unit", "sample"), weights=weights, p=p, side=side, alpha=alpha, resamples=resamples, seed=seed,
        limit=limit, interval=interval,
    )  # fmt: skip


def cluster_bootstrap(
    tree: Tree,
    *,
    levels: Sequence[str],
    weights: Weights,
    p: ClusterP,
    side: Side,
    alpha: float,
    resamples: int,
    seed: int,
    limit: float,
    stages: int | None = None,
    interval: float | None = None,
) -> Estimate:
    """Estimate a contrast of nested data.

    `levels` name the tree's levels from the top, the values' own last; `stages` is how many of them are drawn,
    None for all; `limit` is hi - lo of the metric's scale, `interval` the registered level of the displayed
    interval, None for the one that pairs with the test.

    Raises InapplicableError for an empty cluster, for paths that are not as long as `levels`, and where some groups
    have differences and others samples.
    """
    drawn = len(levels) if stages is None else stages
    if not 1 <= drawn <= len(levels):
        raise InapplicableError(f"{drawn} of {len(levels)} levels cannot be drawn")
    design = _Design(tree, depth=len(levels), drawn=drawn, weights=weights)
    parts = [design.ratio(design.drawn(block, rows)) for block, rows in _blocks(seed, resamples, design.size)]
    above, below = (np.concatenate(part) for part in zip(*parts, strict=True))
    thetas = as_float(above) / as_float(below)
    percentile = Quantiles(thetas, (-limit, limit))
    bounds = Bounds(low=percentile.low, high=percentile.high)
    theta = design.theta
    match p:
        case "percentile":
            greater, less = above <= 0, above >= 0
        case "shift":
            left = above.astype(object) * (2 * theta).denominator
            right = below.astype(object) * (2 * theta).numerator
            greater, less = left >= right, left <= right
            ends, centre = Quantiles(thetas, (-math.inf, math.inf)), 2 * float(theta)
            bounds = Bounds(low=lambda tail: centre - ends.high(tail), high=lambda tail: centre - ends.low(tail))
        case _:
            assert_never(p)
    shares = [Fraction(1 + int(np.count_nonzero(extreme)), resamples + 1) for extreme in (greater, less)]
    return assemble(
        differences=on_lattice([_theta(tree[name]) for name in sorted(tree)]),
        estimate=theta,
        side=side,
        alpha=alpha,
        interval=interval,
        p=p_of(side, shares[0], shares[1]),
        bounds=bounds,
        percentile=None if p == "percentile" else Bounds(low=percentile.low, high=percentile.high),
        limit=limit,
        definition=(
            f"Cluster bootstrap of {' > '.join(levels)} ({len(tree)} at the top, {design.size} values), drawn by"
            f" {', then '.join(levels[:drawn])}, {_WEIGHTS[weights]}, B = {resamples} resamples, PCG64 seed {seed}:"
            f" {_FORMULA[p]} (Davison and Hinkley 1997, section 3.8); {side_text(side)}."
            + (FIXED_POINT_NOTE if design.rounded else "")
        ),
    )


def _theta(node: Tree | Group) -> Fraction:
    """Of one cluster, with equal weights below."""
    if isinstance(node, Group):
        return node.theta()
    return sum((_theta(inner) for inner in node.values()), Fraction(0)) / len(node)


def _blocks(seed: int, resamples: int, values: int) -> Iterator[tuple[np.random.PCG64, int]]:
    """The words of each block of resamples, and how many resamples it has."""
    height = max(1, BLOCK_VALUES // values)
    for k, start in enumerate(range(0, resamples, height)):
        generator = np.random.PCG64(seed)
        generator.advance(k << 64)
        yield generator, min(height, resamples - start)


Indices = NDArray[np.int64]
Entry = tuple[Fraction, int, Fraction, int]
"""What a drawn value adds to T, N_T, C and N_C."""


@dataclass(frozen=True, kw_only=True)
class _Children:
    """Of each node of a level, where its children begin in the next, and how many they are."""

    starts: Indices
    sizes: Indices

    @classmethod
    def of(cls, nodes: Sequence[tuple[int, int]]) -> _Children:
        starts, sizes = np.array(nodes, dtype=np.int64).T
        return cls(starts=starts, sizes=sizes)

    def drawn(self, generator: np.random.PCG64, nodes: Indices, rows: Indices) -> tuple[Indices, Indices]:
        """As many children of each node as it has; `rows` is where each resample begins, in nodes and in children."""
        sizes = self.sizes[nodes]
        children, each = np.repeat(self.starts[nodes], sizes), np.repeat(sizes, sizes).view(np.uint64)
        halves = halves_of(generator.random_raw((len(each) + 1) // 2)[None])[0, : len(each)]
        halves *= each
        halves >>= np.uint64(32)
        children += halves.view(np.int64)
        return children, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])[rows]


class _Design:
    """A tree as arrays: the levels that are drawn, and below them the entries, in one pool or in one for each arm."""

    def __init__(self, tree: Tree, *, depth: int, drawn: int, weights: Weights) -> None:
        self.size = 0
        self._weights = weights
        self._levels: list[list[tuple[int, int]]] = [[] for _ in range(drawn - 1)]
        self._holders: list[list[tuple[int, int]]] = [[], []]
        self._entries: list[list[Entry]] = [[], []]
        self._kinds: set[bool] = set()
        self._place(tree, level=0, below=depth, weight=Fraction(1))
        if len(self._kinds) > 1:
            raise InapplicableError("some groups hold differences and others the samples of both arms")
        pools = [pool for pool in self._entries if pool]
        self.theta = self._mean(*(sum(column, Fraction(0)) for column in zip(*itertools.chain(*pools), strict=True)))
        lattice = on_lattice([value for pool in pools for t, _, c, _ in pool for value in (t, c)])
        self.rounded, self._denominator = lattice.rounded, lattice.denominator
        numbers = iter(lattice.numerators)
        most = (max(abs(x) for x in lattice.numerators) + 1) * self.size**drawn
        kind = np.int64 if most < 2**62 else object
        width = 1 if weights == "equal" else 4
        self._columns = [
            np.array([(next(numbers), t, next(numbers), c)[:width] for _, t, _, c in pool], dtype=kind)
            for pool in pools
        ]
        self._tables = [_Children.of(level) for level in self._levels]
        self._pools = [_Children.of(holders) for holders in self._holders if holders]

    def drawn(self, generator: np.random.PCG64, resamples: int) -> NDArray[Any]:
        """T*, N_T*, C* and N_C* of each resample; with equal weights theta* alone, in units of 1 / denominator."""
        nodes, rows = np.zeros(resamples, dtype=np.int64), np.arange(resamples)
        for table in self._tables:
            nodes, rows = table.drawn(generator, nodes, rows)
        sums = []
        for pool, columns in zip(self._pools, self._columns, strict=True):
            children, begins = pool.drawn(generator, nodes, rows)
            sums.append(np.add.reduceat(columns[children], begins, axis=0))
        total: NDArray[Any] = sum(sums[1:], sums[0])
        return total

    def ratio(self, sums: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """theta* of each resample as two integers, the second one positive."""
        match self._weights:
            case "equal":
                return sums[:, 0], np.full(len(sums), self._denominator)
            case "size" if True in self._kinds:
                return sums[:, 0], sums[:, 1].astype(object) * self._denominator
            case "size":
                t, n_t, c, n_c = sums.astype(object).T
                return t * n_c - c * n_t, n_t * n_c * self._denominator
            case _:
                assert_never(self._weights)

    def _mean(self, t: Fraction, n_t: Fraction, c: Fraction, n_c: Fraction) -> Fraction:
        if self._weights == "equal":
            return t
        return t / n_t - (c / n_c if n_c else 0)

    def _place(self, node: Tree | Group, *, level: int, below: int, weight: Fraction) -> None:
        """Enter a node that is drawn, with its `below` levels, into the arrays."""
        if level < len(self._levels):
            inner = self._children(node, below)
            beneath = self._levels[level + 1] if level + 1 < len(self._levels) else self._holders[0]
            self._levels[level].append((len(beneath), len(inner)))
            for name in sorted(inner):
                self._place(inner[name], level=level + 1, below=below - 1, weight=weight / len(inner))
            return
        if below > 1:
            inner = self._children(node, below)
            self._hold(0, [self._whole(inner[name], below - 1, weight / len(inner)) for name in sorted(inner)])
            return
        group = self._group(node)
        self._hold(0, [self._value(value, weight / len(group.treatment), 0) for value in group.treatment])
        if group.control is not None:
            self._hold(1, [self._value(value, weight / len(group.control), 1) for value in group.control])

    def _hold(self, pool: int, entries: Sequence[Entry]) -> None:
        self._holders[pool].append((len(self._entries[pool]), len(entries)))
        self._entries[pool] += entries

    def _value(self, value: Fraction, weight: Fraction, arm: int) -> Entry:
        if self._weights == "equal":
            return (-value * weight if arm else value * weight, 0, Fraction(0), 0)
        return (Fraction(0), 0, value, 1) if arm else (value, 1, Fraction(0), 0)

    def _whole(self, node: Tree | Group, below: int, weight: Fraction) -> Entry:
        """What a node that is kept whole adds."""
        if below > 1:
            inner = self._children(node, below)
            parts = [self._whole(each, below - 1, weight / len(inner)) for each in inner.values()]
        else:
            group = self._group(node)
            arms = [group.treatment] + ([] if group.control is None else [group.control])
            parts = [self._value(x, weight / len(values), arm) for arm, values in enumerate(arms) for x in values]
        t, n_t, c, n_c = zip(*parts, strict=True)
        return sum(t, Fraction(0)), sum(n_t), sum(c, Fraction(0)), sum(n_c)

    def _children(self, node: Tree | Group, below: int) -> Tree:
        if isinstance(node, Group) or not node:
            raise InapplicableError(f"a cluster with {below} levels below it is empty or holds values itself")
        return node

    def _group(self, node: Tree | Group) -> Group:
        if not isinstance(node, Group) or not node.treatment or node.control == ():
            raise InapplicableError("the lowest cluster holds no values, or more clusters")
        self._kinds.add(node.control is None)
        self.size += len(node.treatment) + len(node.control or ())
        return node
