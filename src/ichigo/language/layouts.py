"""How every kind of sample becomes token ids, and which of them carry loss.

One layout serves training and inference: :meth:`Layouts.prompt_for` is the beginning of :meth:`Layouts.example`. The
layouts are those of arXiv 2410.15316 v0.3 as its training code builds them; ``H(x)`` is
``<|start_header_id|>x<|end_header_id|>`` and two newlines, ``S`` is ``<|sound_start|>[k]...<|sound_end|>``::

    sound          <|begin_of_text|> S <|end_of_text|>
    speech, noise  <|begin_of_text|> H(user) S <|eot_id|> H(assistant) answer <|eot_id|> <|end_of_text|>
    transcription  <|begin_of_text|> H(user) prompt S <|eot_id|> H(assistant) transcript <|eot_id|> <|end_of_text|>
    text           <|begin_of_text|> (H(user) question <|eot_id|> H(assistant) answer <|eot_id|>)+ <|end_of_text|>
    multi_turn     as text with two or more turns, every question being S

There is no system message, and the transcription prompt touches the speech without white space. Text is stripped at
both ends and is never parsed for special tokens: a row that spells ``<|eot_id|>`` stays plain text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ichigo.errors import ContractError, DataError
from ichigo.hashing import sha256_file, sha256_json
from ichigo.language.contract import CONTRACT_FILE, SPECIAL_TOKENS, TokenContract, read_tokenizer
from ichigo.recipe.schema import SampleType

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = npt.NDArray[np.int32]
Codes = npt.NDArray[np.int16]
LossOn = Literal["all", "answers"]
Segment = tuple[list[int], bool]  # ids, and whether they carry loss

IGNORE = -100
"""Label of a token without loss, as in PyTorch's cross entropy."""

TRANSCRIPTION_PROMPTS = (
    "Transcribe the following audio clip:",
    "Convert the spoken words to text:",
    "What is being said in this audio clip:",
    "Transcribe the speech in this audio sample:",
    "Please write down what is being said in the audio clip:",
    "Generate a transcript from this sound file:",
    "Recognize the speech in this audio clip:",
    "Produce a text version of this audio recording:",
)
"""The eight prompts of the training code and of the v0.3 appendix (paper and blog text speak of six)."""

CHAT_TEMPLATE = (
    "{{ '<|begin_of_text|>' }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% else %}{{ '<|end_of_text|>' }}{% endif %}"
)
"""The same chat layout as a Hugging Face template; Llama-3.1's own adds a dated system block that training never
has."""


@dataclass(frozen=True, eq=False)
class Turn:
    """One exchange: the user's text or sound codes, int16 (n,), and the assistant's text ("" where it is still asked
    for)."""

    user: str | Codes
    assistant: str = ""


@dataclass(frozen=True, eq=False)
class Sample:
    """What is to be laid out: its kind, its turns and, for transcription, the prompt."""

    kind: SampleType
    turns: tuple[Turn, ...]
    prompt: str = ""


@dataclass(frozen=True, eq=False)
class Example:
    """``input_ids`` and ``labels``, int32 (n,) each; unshifted, label -100 = no loss, the first label always -100."""

    input_ids: Ids
    labels: Ids


@dataclass(frozen=True)
class LaidOut:
    """Examples in the order of their samples, how many were refused as too long by kind, how many ``sound`` were
    cut."""

    examples: tuple[Example, ...]
    refused: Mapping[SampleType, int]
    cut: int


def transcription_prompt(*key: str | int) -> str:
    """One of :data:`TRANSCRIPTION_PROMPTS`, fixed by the hash of ``key`` (a seed, a row's id ...)."""
    return TRANSCRIPTION_PROMPTS[int(sha256_json(key)[:8], 16) % len(TRANSCRIPTION_PROMPTS)]


class Layouts:
    """Lays samples out under one contract with the text tokenizer that the contract names (:meth:`open`)."""

    def __init__(self, contract: TokenContract, tokenizer: Tokenizer) -> None:
        self.contract = contract
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # text that spells a special token must not become one
        self._tokenizer.no_truncation()  # either may be saved in a tokenizer.json and would change text silently
        self._tokenizer.no_padding()
        self._header = {role: self._header_ids(role) for role in ("user", "assistant")}

    @classmethod
    def open(cls, folder: Path, contract: TokenContract) -> Layouts:
        """Use the tokenizer of a base or an expanded model; :class:`ContractError` if it is not the contract's."""
        path = folder / "tokenizer.json"
        if (folder / CONTRACT_FILE).exists():
            contract.require_same(TokenContract.load(folder), f"the model in {folder}")
        elif sha256_file(path) != contract.text_tokenizer:
            raise ContractError(
                f"{path}: SHA-256 is not the contract's text_tokenizer {contract.text_tokenizer}; use the base that "
                "the contract was made from"
            )
        tokenizer = read_tokenizer(path)
        for field, name in SPECIAL_TOKENS.items():
            found, expected = tokenizer.token_to_id(name), getattr(contract, field)
            if found != expected:
                raise ContractError(f"{path}: {name} has id {found}, the contract says {field} = {expected}")
        return cls(contract, tokenizer)

    def example(self, sample: Sample, loss_on: LossOn = "all") -> Example:
        """The whole training example of ``sample``, of any length.

        ``all`` (the paper's ``train_on_input``) gives loss to every token but the first and a chat's final
        ``<|end_of_text|>``; ``answers`` only to each answer and its ``<|eot_id|>``. A ``sound`` sample has no question
        and carries loss everywhere under both. Raises :class:`DataError` for a sample that does not have its kind's
        shape.
        """
        _check(sample, answered=0 if sample.kind == "sound" else len(sample.turns))
        if sample.kind == "sound":
            body = [(self._sound(sample.turns[0].user), True)]
        else:
            body = self._turns(sample, loss_on == "all")
        end = ([self.contract.end_of_text], sample.kind == "sound")
        return _join([([self.contract.bos], False), *body, end])

    def prompt_for(self, sample: Sample) -> Ids:
        """Ids int32 (n,) from ``<|begin_of_text|>`` through the last assistant header; the last answer may be empty."""
        if sample.kind == "sound":
            raise DataError("a 'sound' sample has no answer to ask for; lay it out as 'speech' or 'transcription'")
        _check(sample, answered=len(sample.turns) - 1)
        return _join([([self.contract.bos], False), *self._turns(sample, False)[:-1]]).input_ids

    def answer_of(self, generated: Sequence[int] | Ids) -> str:
        """The text of generated ids up to the first stop id; sound and special tokens in between are left out."""
        ids = [int(token) for token in generated]
        end = next((place for place, token in enumerate(ids) if token in self.contract.stop_ids), len(ids))
        return str(self._tokenizer.decode(ids[:end], skip_special_tokens=True)).strip()

    def _turns(self, sample: Sample, on_input: bool) -> list[Segment]:
        segments: list[Segment] = []
        for turn in sample.turns:
            question = [*self._header["user"], *self._text(sample.prompt), *self._user(turn), self.contract.eot]
            segments.append(([*question, *self._header["assistant"]], on_input))
            segments.append(([*self._text(turn.assistant), self.contract.eot], True))
        return segments

    def _user(self, turn: Turn) -> list[int]:
        return self._text(turn.user) if isinstance(turn.user, str) else self._sound(turn.user)

    def _sound(self, codes: str | Codes) -> list[int]:
        return [self.contract.sound_start, *self.contract.sound_ids(codes).tolist(), self.contract.sound_end]

    def _text(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text.strip(), add_special_tokens=False).ids)

    def _header_ids(self, role: str) -> list[int]:
        newlines = list(self._tokenizer.encode("\n\n", add_special_tokens=False).ids)
        return [self.contract.start_header, *self._text(role), self.contract.end_header, *newlines]


def lay_out(samples: Iterable[Sample], layouts: Layouts, sequence_length: int, loss_on: LossOn) -> LaidOut:
    """Lay out ``samples``, keeping each within ``sequence_length`` tokens.

    A ``sound`` sample of ``sequence_length`` tokens or more is cut to ``sequence_length - 1`` without its
    ``<|end_of_text|>``, as the original does (511 of 512). A chat is never cut, since a half answer would be learned as
    a whole one: it is refused and counted. Raises :class:`DataError` if nothing remains.
    """
    examples: list[Example] = []
    refused: Counter[SampleType] = Counter()
    cut = 0
    for sample in samples:
        example = layouts.example(sample, loss_on)
        if sample.kind == "sound" and len(example.input_ids) >= sequence_length:
            example = Example(example.input_ids[: sequence_length - 1], example.labels[: sequence_length - 1])
            cut += 1
        if len(example.input_ids) > sequence_length:
            refused[sample.kind] += 1
        else:
            examples.append(example)
    if not examples:
        raise DataError(
            f"none of {sum(refused.values())} samples fits sequence_length {sequence_length}; raise sequence_length or "
            "lower data.max_seconds (one second of speech is 25 tokens)"
        )
    return LaidOut(tuple(examples), dict(refused), cut)


def _join(segments: Sequence[Segment]) -> Example:
    ids = np.concatenate([np.asarray(tokens, dtype=np.int32) for tokens, _ in segments])
    loss = np.repeat([carries for _, carries in segments], [len(tokens) for tokens, _ in segments])
    return Example(ids, np.where(loss, ids, np.int32(IGNORE)))


def _check(sample: Sample, answered: int) -> None:
    """Refuse a sample whose turns do not have the shape of its kind; its first ``answered`` turns need an answer."""
    problem = _turn_problem(sample) or _text_problem(sample, answered)
    if problem:
        raise DataError(f"a '{sample.kind}' sample {problem}")


def _turn_problem(sample: Sample) -> str | None:
    texts = [isinstance(turn.user, str) for turn in sample.turns]
    if not texts or (len(texts) > 1 and sample.kind not in ("text", "multi_turn")):
        return f"has {len(texts)} turns; only 'text' and 'multi_turn' have more than one, and none has zero"
    if any(is_text != (sample.kind == "text") for is_text in texts):
        return "needs text in every user turn" if sample.kind == "text" else "needs sound codes in every user turn"
    return None


def _text_problem(sample: Sample, answered: int) -> str | None:
    if any(len(turn.user.strip() if isinstance(turn.user, str) else turn.user) == 0 for turn in sample.turns):
        return "has an empty user turn; set the row aside"
    if not all(turn.assistant.strip() for turn in sample.turns[:answered]):
        return "has an empty answer; set the row aside"
    if bool(sample.prompt.strip()) != (sample.kind == "transcription"):
        return f"has the prompt {sample.prompt!r}; a prompt belongs to 'transcription' and to no other kind"
    return None
