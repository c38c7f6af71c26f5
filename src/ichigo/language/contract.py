"""The token contract: which id means what, in data, checkpoints, exports and the server.

A base model's tokenizer is extended by 2 + 513 tokens in Ichigo's order: ``<|sound_start|>``, ``<|sound_end|>``,
``<|sound_0000|>`` ... ``<|sound_0512|>`` (arXiv 2410.15316, section 2, and the released tokenizers; on Llama-3.1 they
are 128256, 128257, 128258 ... 128770). A base that is itself a published Ichigo has them already and keeps its ids. The
ids depend on the base's text tokenizer, the meaning of the sound ids on the
speech tokenizer that produced the codes; the contract names both by digest. It is written as ``contract.json`` beside
everything that holds ids, and nothing that holds ids is used before :meth:`TokenContract.require_same` agreed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ichigo.errors import ContractError, DataError, IchigoError, ModelError
from ichigo.hashing import sha256_file, sha256_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SOUND_CODES = 513
"""WhisperVQ's 512 codes and code 512, its trained stand-in for padding, which is a legal output as well."""

CONTRACT_FILE = "contract.json"

SPECIAL_TOKENS = {
    "bos": "<|begin_of_text|>",
    "end_of_text": "<|end_of_text|>",
    "eot": "<|eot_id|>",
    "start_header": "<|start_header_id|>",
    "end_header": "<|end_header_id|>",
    "pad": "<|finetune_right_pad_id|>",
}
"""Contract field -> the Llama-3.1 token that a base must already have."""

SOUND_TOKENS = ("<|sound_start|>", "<|sound_end|>", *(f"<|sound_{code:04d}|>" for code in range(SOUND_CODES)))
"""The appended tokens in the order of their ids."""

_SOUND_TOKEN = re.compile(r"<\|sound_(start|end|\d+)\|>")
_SHOWN = 3  # faults named of an expansion that is not Ichigo's


@dataclass(frozen=True)
class TokenContract:
    """Ids of every token with a role, sizes, and the identities of both tokenizers."""

    bos: int
    end_of_text: int
    eot: int
    start_header: int
    end_header: int
    pad: int
    sound_start: int
    sound_end: int
    first_sound: int
    sound_codes: int
    text_vocabulary: int  # tokens of the base's text tokenizer
    vocabulary: int  # rows of the embedding after expansion
    text_tokenizer: str  # SHA-256 of the base's tokenizer.json
    speech_tokenizer: str  # identity of the WhisperVQ that wrote the codes

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 over all fields."""
        return sha256_json(asdict(self))

    @property
    def stop_ids(self) -> tuple[int, int]:
        """The ids that end a generated answer: ``<|eot_id|>`` and ``<|end_of_text|>``."""
        return self.eot, self.end_of_text

    def sound_ids(self, codes: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Token ids, int32 (n,), of speech-tokenizer codes (n,); a code outside 0..sound_codes-1 is a
        :class:`DataError`."""
        array = np.asarray(codes, dtype=np.int64)
        wrong = array[(array < 0) | (array >= self.sound_codes)]
        if wrong.size:
            raise DataError(
                f"sound code {wrong[0]} is outside 0..{self.sound_codes - 1}; the codes were not written by the speech "
                f"tokenizer of this contract ({self.speech_tokenizer})"
            )
        return (array + self.first_sound).astype(np.int32)

    def save(self, folder: Path) -> Path:
        """Write ``folder/contract.json`` (fields and digest, sorted keys) and return its path."""
        path = folder / CONTRACT_FILE
        text = json.dumps({**asdict(self), "digest": self.digest}, indent=2, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: Path) -> TokenContract:
        """Read ``folder/contract.json``; :class:`ContractError` if it is absent, incomplete or does not match its
        digest."""
        path = folder / CONTRACT_FILE
        values = read_object(path, ContractError, "folders with token ids carry their contract")
        digest = values.pop("digest", None)
        expected = {field.name for field in fields(cls)}
        if values.keys() != expected:
            odd = sorted(values.keys() ^ expected)
            raise ContractError(f"{path}: missing or unknown fields {', '.join(odd)}; write the file anew with `save`")
        contract = cls(**values)
        if contract.digest != digest:
            raise ContractError(
                f"{path}: the fields have digest {contract.digest} but the file says {digest}; it was edited or "
                "damaged, take it again from the artifact"
            )
        return contract

    def require_same(self, other: TokenContract, what: str) -> None:
        """Raise :class:`ContractError` naming each field in which ``other``, the contract of ``what``, differs."""
        mine, theirs = asdict(self), asdict(other)
        differing = [name for name in mine if mine[name] != theirs[name]]
        if differing:
            lines = [f"  - {name}: expected {mine[name]}, found {theirs[name]}" for name in differing]
            title = f"{what} is under another token contract; take one made from the same base and speech tokenizer"
            raise ContractError("\n".join([title, *lines]))


def contract_for(base_folder: Path, speech_tokenizer: str) -> TokenContract:
    """The contract of a base model's folder (``tokenizer.json`` and ``config.json``) and a speech tokenizer's identity.

    New ids follow the largest id of the base's tokenizer. A base whose embedding already has more rows than its
    tokenizer has tokens keeps its surplus rows, so ``vocabulary`` is the larger of the two sizes. A base that has all
    of :data:`SOUND_TOKENS` in a row is adopted with their ids; that its codes were ``speech_tokenizer``'s is the
    caller's word. Raises :class:`ModelError` for a base without one of :data:`SPECIAL_TOKENS` or with other sound
    tokens.
    """
    tokenizer_file = base_folder / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise ModelError(f"{base_folder}: no tokenizer.json; export the base with its fast tokenizer")
    tokens = read_tokenizer(tokenizer_file).get_vocab(with_added_tokens=True)
    missing = [name for name in SPECIAL_TOKENS.values() if name not in tokens]
    if missing:
        raise ModelError(f"{tokenizer_file}: no token {', '.join(missing)}; a Llama-3.1 compatible tokenizer is needed")
    first = _sound_start(tokens, tokenizer_file)
    return TokenContract(
        **{field: tokens[name] for field, name in SPECIAL_TOKENS.items()},
        sound_start=first,
        sound_end=first + 1,
        first_sound=first + 2,
        sound_codes=SOUND_CODES,
        text_vocabulary=first,
        vocabulary=max(_embedding_rows(base_folder), first + len(SOUND_TOKENS)),
        text_tokenizer=sha256_file(tokenizer_file),
        speech_tokenizer=speech_tokenizer,
    )


def has_sound_tokens(tokenizer: Tokenizer) -> bool:
    """Whether a base's tokenizer is that of a published Ichigo, as :func:`contract_for` adopts it."""
    return tokenizer.token_to_id(SOUND_TOKENS[0]) is not None


def read_tokenizer(path: Path) -> Tokenizer:
    """Open a ``tokenizer.json``; :class:`ModelError` if the tokenizers library cannot read it."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every fault of the file
        raise ModelError(f"{path}: not a tokenizer file ({error}); export the base with its fast tokenizer") from error


def _sound_start(tokens: Mapping[str, int], source: Path) -> int:
    """The id of ``<|sound_start|>``: the base's own, or the next free one."""
    present = {name: token for name, token in tokens.items() if _SOUND_TOKEN.fullmatch(name)}
    if not present:
        return max(tokens.values()) + 1
    start = present.get(SOUND_TOKENS[0], min(present.values()))
    if faults := list(_faults(present, start)):
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ModelError(
            f"{source}: has sound tokens, but not Ichigo's 2 + {SOUND_CODES} in a row from id {start} on: "
            f"{', '.join(faults[:_SHOWN])}{more}; start from the text model, or from a complete Ichigo checkpoint"
        )
    return start


def _faults(present: Mapping[str, int], start: int) -> Iterator[str]:
    """Where sound tokens depart from :data:`SOUND_TOKENS` counted from ``start``."""
    for place, name in enumerate(SOUND_TOKENS, start):
        if present.get(name) != place:
            yield f"{name} has id {present[name]} instead of {place}" if name in present else f"no {name}"
    yield from (f"{name} is none of them" for name in sorted(present.keys() - set(SOUND_TOKENS)))


def _embedding_rows(folder: Path) -> int:
    path = folder / "config.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot read vocab_size ({error}); a Hugging Face config.json is needed") from error


def read_object(path: Path, fault: type[IchigoError], advice: str) -> dict[str, Any]:
    """The object in a JSON file of a model folder; raises ``fault``, which ends with ``advice``, if there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise fault(f"{path}: cannot be read ({error}); {advice}") from error
    if not isinstance(values, dict):
        raise fault(f"{path}: holds {type(values).__name__}, not an object; {advice}")
    return values
