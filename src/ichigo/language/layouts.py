"""How every kind of sample becomes token ids, and which of them carry loss.

One layout serves training and inference: :meth:`Layouts.prompt_for` is the beginning of :meth:`Layouts.example`. The
layouts are those of arXiv 2410.15316 v0.3 as its training code builds them; ``H(x)`` is
``<|start_header_id|>x<|end_header_id|>`` and two newlines, ``S`` is ``<|sound_start|>[k]...<|sound_end|>``::

    sound          <|begin_of_text|> S <|end_of_text|>
    speech, noise  <|begin_of_text|> H(user) S <|eot_id|> H(assistant) answer <|eot_id|> <|end_of_text|>
    transcription  <|begin_of_text|> H(user) prompt S <|eot_id|> H(assistant) transcript <|eot_id|> <|end_of_text|>
    text           <|begin_of_text|> (H(user) question <|eot_id|> H(assistant) answer <|eot_id|>)+ <|end_of_text|>
    multi_turn     as text with two or more turns, every question being S

Two more are ours::

    mixed          <|begin_of_text|> H(user) (text | S)+ <|eot_id|> H(assistant) answer <|eot_id|> <|end_of_text|>
    speak          <|begin_of_text|> H(user) prompt text <|eot_id|> H(assistant) S <|eot_id|> <|end_of_text|>

There is no system message. Text next to speech touches it without white space, be it a transcription prompt or the
written part of a mixed question; a speak prompt and its text are parted by a space. Text is stripped at both ends and
is never parsed for special tokens: a row that spells ``<|eot_id|>`` stays plain text.
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
from ichigo.language.contract import (
    CONTRACT_FILE,
    SOUND_TOKENS,
    SPECIAL_TOKENS,
    TokenContract,
    has_sound_tokens,
    read_tokenizer,
)
from ichigo.recipe.schema import SampleType

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = npt.NDArray[np.int32]
Codes = npt.NDArray[np.int16]
Part = str | Codes
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

SPEAK_PROMPTS = (
    "Say the following text:",
    "Read this sentence aloud:",
    "Speak these words:",
    "Please say out loud:",
)
"""How speech is asked for; they end like the transcription prompts and share no sentence with them."""

_ROLES = ("user", "assistant")

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
    """One exchange: the user's text, sound codes, int16 (n,), or several parts of either, and the assistant's text, or
    codes under ``speak`` ("" where it is still asked for)."""

    user: Part | tuple[Part, ...]
    assistant: Part = ""

    @property
    def question(self) -> tuple[Part, ...]:
        """The parts of the user's turn."""
        return self.user if isinstance(self.user, tuple) else (self.user,)


@dataclass(frozen=True, eq=False)
class Sample:
    """What is to be laid out: its kind, its turns and, for transcription and speak, the prompt; and the ids of the rows
    that it was made from, where there are any."""

    kind: SampleType
    turns: tuple[Turn, ...]
    prompt: str = ""
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Example:
    """``input_ids`` and ``labels``, int32 (n,) each; unshifted, label -100 = no loss, the first label always -100."""

    input_ids: Ids
    labels: Ids


@dataclass(frozen=True)
class LaidOut:
    """Examples beside their samples, how many were refused as too long by kind, how many ``sound`` were cut."""

    examples: tuple[Example, ...]
    samples: tuple[Sample, ...]
    refused: Mapping[SampleType, int]
    cut: int


def transcription_prompt(*key: str | int) -> str:
    """One of :data:`TRANSCRIPTION_PROMPTS`, fixed by the hash of ``key`` (a seed, a row's id ...)."""
    return _one_of(TRANSCRIPTION_PROMPTS, key)


def speak_prompt(*key: str | int) -> str:
    """One of :data:`SPEAK_PROMPTS`, fixed by the hash of ``key`` (a seed, a row's id ...)."""
    return _one_of(SPEAK_PROMPTS, key)


def layout_texts(examples: int) -> list[str]:
    """What the layouts write around ``examples`` questions and answers, as often as they do: what a text tokenizer
    should learn from beside the rows.

    Without it a BPE of 1,024 tokens spells the headers of an example in 16 tokens instead of 8, a transcription prompt
    in 22 instead of 8, and a short spoken question in a seventh more. A fifth of the examples have a prompt, the
    paper's share of transcription.
    """
    prompts = [*TRANSCRIPTION_PROMPTS, *SPEAK_PROMPTS]
    return [*(*_ROLES, "\n\n", "\n\n") * examples, *prompts * -(-examples // (5 * len(prompts)))]


class Layouts:
    """Lays samples out under one contract with the text tokenizer that the contract names (:meth:`open`)."""

    def __init__(self, contract: TokenContract, tokenizer: Tokenizer) -> None:
        self.contract = contract
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # text that spells a special token must not become one
        self._tokenizer.no_truncation()  # either may be saved in a tokenizer.json and would change text silently
        self._tokenizer.no_padding()
        self._header = {role: self._header_ids(role) for role in _ROLES}

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
        if has_sound_tokens(tokenizer):  # an adopted base may hold them as words, which text could then spell
            tokenizer.add_special_tokens(list(SOUND_TOKENS))
        return cls(contract, tokenizer)

    def example(self, sample: Sample, loss_on: LossOn = "all") -> Example:
        """The whole training example of ``sample``, of any length.

        ``all`` (the paper's ``train_on_input``) gives loss to every token but the first and a chat's final
        ``<|end_of_text|>``; ``answers`` only to each answer, be it text or speech, and its ``<|eot_id|>``. A
        ``sound`` sample has no question and carries loss everywhere under both. Raises :class:`DataError` for a sample
        that does not have its kind's shape.
        """
        _check(sample, answered=0 if sample.kind == "sound" else len(sample.turns))
        if sample.kind == "sound":
            body = [(self._parts(sample.turns[0].question), True)]
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

    def spell(self, text: str) -> list[int]:
        """The ids of ``text`` as it stands, white space at its ends included, without any special token."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def answer_of(self, generated: Sequence[int] | Ids) -> str:
        """The text of generated ids up to the first stop id; sound and special tokens in between are left out."""
        ids = [int(token) for token in generated]
        end = next((place for place, token in enumerate(ids) if token in self.contract.stop_ids), len(ids))
        return str(self._tokenizer.decode(ids[:end], skip_special_tokens=True)).strip()

    def codes_of(self, generated: Sequence[int] | Ids) -> Codes:
        """The sound codes, int16 (n,), of generated ids up to the first stop id or ``<|sound_end|>``: what ``speak``
        says."""
        ids = np.asarray(generated, dtype=np.int64)
        ends = np.flatnonzero(np.isin(ids, (*self.contract.stop_ids, self.contract.sound_end)))
        codes = ids[: ends[0] if ends.size else len(ids)] - self.contract.first_sound
        return codes[(codes >= 0) & (codes < self.contract.sound_codes)].astype(np.int16)

    def _turns(self, sample: Sample, on_input: bool) -> list[Segment]:
        segments: list[Segment] = []
        for turn in sample.turns:
            parts = self._parts(_asked(sample, turn))
            segments.append(([*self._header["user"], *parts, self.contract.eot, *self._header["assistant"]], on_input))
            segments.append(([*self._parts((turn.assistant,)), self.contract.eot], True))
        return segments

    def _parts(self, parts: Iterable[Part]) -> list[int]:
        spelled = (self._text(part) if isinstance(part, str) else self._sound(part) for part in parts)
        return [token for ids in spelled for token in ids]

    def _sound(self, codes: Codes) -> list[int]:
        return [self.contract.sound_start, *self.contract.sound_ids(codes).tolist(), self.contract.sound_end]

    def _text(self, text: str) -> list[int]:
        return self.spell(text.strip())

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
    kept: list[Sample] = []
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
            kept.append(sample)
    if not examples:
        raise DataError(
            f"none of {sum(refused.values())} samples fits sequence_length {sequence_length}; raise sequence_length or "
            "lower data.max_seconds (one second of speech is 25 tokens)"
        )
    return LaidOut(tuple(examples), tuple(kept), dict(refused), cut)


def _join(segments: Sequence[Segment]) -> Example:
    ids = np.concatenate([np.asarray(tokens, dtype=np.int32) for tokens, _ in segments])
    loss = np.repeat([carries for _, carries in segments], [len(tokens) for tokens, _ in segments])
    return Example(ids, np.where(loss, ids, np.int32(IGNORE)))


def _one_of(prompts: Sequence[str], key: Sequence[str | int]) -> str:
    return prompts[int(sha256_json(list(key))[:8], 16) % len(prompts)]


def _asked(sample: Sample, turn: Turn) -> tuple[Part, ...]:
    """The parts of a user's turn as they are laid out, with the sample's prompt."""
    if sample.kind == "speak":
        return (" ".join([sample.prompt.strip(), *(str(part).strip() for part in turn.question)]),)
    return (sample.prompt, *turn.question) if sample.prompt else turn.question


def _check(sample: Sample, answered: int) -> None:
    """Refuse a sample whose turns do not have the shape of its kind; its first ``answered`` turns need an answer."""
    problem = _turn_problem(sample) or _text_problem(sample, answered)
    if problem:
        raise DataError(f"a '{sample.kind}' sample {problem}")


def _turn_problem(sample: Sample) -> str | None:
    count = len(sample.turns)
    if not count or (count > 1 and sample.kind not in ("text", "multi_turn")):
        return f"has {count} turns; only 'text' and 'multi_turn' have more than one, and none has zero"
    if sample.kind == "mixed":
        written = {isinstance(part, str) for part in sample.turns[0].question}
        return None if written == {True, False} else "needs both text and sound codes in its user turn"
    needed = "text" if sample.kind in ("text", "speak") else "sound codes"
    if any(isinstance(turn.user, tuple) or isinstance(turn.user, str) != (needed == "text") for turn in sample.turns):
        return f"needs {needed} in every user turn"
    return None


def _text_problem(sample: Sample, answered: int) -> str | None:
    if any(_is_empty(part) for turn in sample.turns for part in turn.question):
        return "has an empty user turn; set the row aside"
    if any(_is_empty(turn.assistant) for turn in sample.turns[:answered]):
        return "has an empty answer; set the row aside"
    if any(isinstance(turn.assistant, str) == (sample.kind == "speak") for turn in sample.turns[:answered]):
        return f"needs {'sound codes' if sample.kind == 'speak' else 'text'} in every answer"
    if bool(sample.prompt.strip()) != (sample.kind in ("transcription", "speak")):
        return f"has the prompt {sample.prompt!r}; a prompt belongs to 'transcription' and 'speak' and to no other kind"
    return None


def _is_empty(part: Part) -> bool:
    return len(part.strip() if isinstance(part, str) else part) == 0
