"""Examples packed into sequences, as plain arrays that a trainer maps from disk.

With packing, best fit fills sequences of ``sequence_length`` tokens: 99.9 % of 4,096 for 30,000 examples of log-normal
lengths (mean 180, sigma 1), where one padded example per sequence fills 4.4 %, and 99.2 % of 640 for 20,000 short
questions (mean 53). Without, every example is a sequence of its own.

Examples are taken in the order in which they were drawn, not longest first. That would fill 99.6 % of the 640, but sort
the kinds by their lengths: of the steps of two sequences 40 % would hold no text at all where 15 % of the examples are
text, against 3 % in drawn order, and the labelled tokens of a step would vary three times as much.

Examples of one sequence never see each other: ``cu_seqlens`` and restarting ``position_ids`` mark their
borders for attention, and the first label of each is -100, so that after the causal shift no loss crosses a border.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ichigo.errors import ContractError, DataError, IntegrityError
from ichigo.language.contract import TokenContract
from ichigo.language.layouts import IGNORE, Example, Ids

Offsets = npt.NDArray[np.int64]

_SIZES_FILE = "packed.json"


class PackedSequence(NamedTuple):
    """``input_ids``, ``labels``, ``position_ids`` int32 (n,); ``cu_seqlens`` int32 (examples + 1,) from 0 to n."""

    input_ids: Ids
    labels: Ids
    cu_seqlens: Ids
    position_ids: Ids


class Fill(NamedTuple):
    """How full the sequences are: ``share`` = tokens / (sequences x sequence_length)."""

    sequences: int
    examples: int
    tokens: int
    labelled: int
    share: float


@dataclass(frozen=True, eq=False)
class Packed:
    """All sequences end to end.

    ``input_ids`` and ``labels`` are int32 (tokens,), labels unshifted. Example e is
    ``example_offsets[e]:example_offsets[e + 1]`` of them, and sequence i holds the examples
    ``sequence_offsets[i]:sequence_offsets[i + 1]``; both offsets are int64 and begin with 0.
    """

    input_ids: Ids
    labels: Ids
    example_offsets: Offsets
    sequence_offsets: Offsets
    sequence_length: int

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.sequence_offsets) - 1

    @property
    def fill(self) -> Fill:
        """Counts over all sequences; reads every label."""
        tokens, labelled = len(self.input_ids), int(np.count_nonzero(self.labels != IGNORE))
        share = tokens / (len(self) * self.sequence_length)
        return Fill(len(self), len(self.example_offsets) - 1, tokens, labelled, share)

    @property
    def label_entropy(self) -> float:
        """Nats per label, were each drawn by itself: the loss of a model that knows how common each is and no more."""
        counts = np.bincount(self.labels[self.labels != IGNORE])
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum())

    def sequence(self, index: int) -> PackedSequence:
        """Sequence ``index`` of ``len(self)``, without padding."""
        first, last = self.sequence_offsets[index], self.sequence_offsets[index + 1]
        borders = self.example_offsets[first : last + 1]
        whole = slice(int(borders[0]), int(borders[-1]))
        positions = np.concatenate([np.arange(length, dtype=np.int32) for length in np.diff(borders)])
        return PackedSequence(
            self.input_ids[whole], self.labels[whole], (borders - borders[0]).astype(np.int32), positions
        )

    def save(self, folder: Path, contract: TokenContract) -> None:
        """Write four ``.npy`` files, ``packed.json`` and ``contract.json`` into ``folder``, which is created.

        Raises :class:`ContractError` if an id lies outside the contract's vocabulary.
        """
        low, high = int(self.input_ids.min()), int(self.input_ids.max())
        if low < 0 or high >= contract.vocabulary:
            raise ContractError(f"ids {low}..{high} exceed the contract's 0..{contract.vocabulary - 1}; lay out anew")
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self._arrays().items():
            np.save(folder / f"{name}.npy", array)
        sizes = {"sequence_length": self.sequence_length, **self.fill._asdict()}
        (folder / _SIZES_FILE).write_text(json.dumps(sizes, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        contract.save(folder)

    @classmethod
    def load(cls, folder: Path, contract: TokenContract) -> Packed:
        """Map the arrays of ``folder`` read-only from disk.

        Raises :class:`ContractError` if they were laid out under another contract than ``contract`` and
        :class:`IntegrityError` if files are missing, cut short or do not belong together.
        """
        contract.require_same(TokenContract.load(folder), f"the packed data in {folder}")
        names = ("input_ids", "labels", "example_offsets", "sequence_offsets")
        try:
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
            sizes = json.loads((folder / _SIZES_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise IntegrityError(
                f"{folder}: not complete packed data ({error}); take it again from the artifact"
            ) from error
        packed = cls(**arrays, sequence_length=sizes["sequence_length"])
        ends = (packed.example_offsets[-1], packed.sequence_offsets[-1], len(packed.labels))
        if ends != (len(packed.input_ids), len(packed.example_offsets) - 1, len(packed.input_ids)):
            raise IntegrityError(f"{folder}: arrays do not belong together; take the folder again from the artifact")
        return packed

    def _arrays(self) -> dict[str, npt.NDArray[np.int32] | npt.NDArray[np.int64]]:
        return {
            "input_ids": self.input_ids,
            "labels": self.labels,
            "example_offsets": self.example_offsets,
            "sequence_offsets": self.sequence_offsets,
        }


def pack(examples: Sequence[Example], sequence_length: int, packing: bool) -> Packed:
    """Put every example into exactly one sequence of at most ``sequence_length`` tokens; same examples, same arrays.

    Packed sequences hold neighbours in the order of ``examples``, which should therefore be shuffled. Raises
    :class:`DataError` for no examples and for an example that is too long or whose first label would leak loss across
    its border.
    """
    _check(examples, sequence_length)
    lengths = [len(example.input_ids) for example in examples]
    bins = _best_fit(lengths, sequence_length) if packing else [[index] for index in range(len(examples))]
    order = [index for members in bins for index in members]
    return Packed(
        np.concatenate([examples[index].input_ids for index in order]),
        np.concatenate([examples[index].labels for index in order]),
        _offsets([lengths[index] for index in order]),
        _offsets([len(members) for members in bins]),
        sequence_length,
    )


def _best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best fit: each in its turn into the sequence that it leaves least room in (ties: the oldest)."""
    shortest = min(lengths)
    bins: list[list[int]] = []
    open_bins: list[tuple[int, int]] = []  # (room left, bin), sorted
    for index, length in enumerate(lengths):
        place = bisect_left(open_bins, (length, 0))
        if place < len(open_bins):
            room, chosen = open_bins.pop(place)
        else:
            room, chosen = capacity, len(bins)
            bins.append([])
        bins[chosen].append(index)
        if room - length >= shortest:
            insort(open_bins, (room - length, chosen))
    return bins


def _offsets(lengths: Sequence[int]) -> Offsets:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _check(examples: Sequence[Example], sequence_length: int) -> None:
    if not examples:
        raise DataError("there is no example to pack; the stage's corpus is empty")
    for index, example in enumerate(examples):
        if not 0 < len(example.input_ids) <= sequence_length:
            raise DataError(
                f"example {index} has {len(example.input_ids)} tokens; sequence_length is {sequence_length}"
            )
        if example.labels[0] != IGNORE:
            raise DataError(f"example {index} has a label on its first token; it must be {IGNORE}")
