"""Sentences and worlds, spoken by synthetic voices.

*The recipe's own sentences* (:func:`speak_sentences`): train rows are every sentence by every train voice, ``takes``
times; test rows are every sentence by every held-out voice, once. So no voice is on both sides, while every sentence is
on both: the question asked is whether the model understands a new voice, not whether it knows an answer that it was
never told. Speeds and pitches are drawn by a seeded hash of voice and sentence, so adding one of either changes no
other row.

*A generated world* (:func:`speak_world`): voices are seven accents of English times the 73 variants that a person could
have. The held-out ones are heard in no accent before evaluation, and neither are the 16 whose formants no person has:
they ask a suite of their own. Reserved ones are not heard there either, only in a look at a finished model
(:func:`speak_reserved`). A conversation is said by one voice at one speed and pitch.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, product

from ichigo.corpus.rows import Origin, Row, Split, row_id, sound_digest
from ichigo.corpus.world import Conversation, World
from ichigo.errors import DataError
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import Sentence, Voices
from ichigo.speech.audio import SAMPLE_RATE, write_flac
from ichigo.speech.synthesis import Phone, Request, Utterance, Word, speak_blocks
from ichigo.speech.voices import oddities, people

LICENSE = "synthetic (espeak-ng)"

ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
WORLD_WORDS_PER_MINUTE = (150, 250)
WORLD_PITCH = (15, 85)


@dataclass(frozen=True, slots=True)
class _Take:
    """One utterance to be said, and all of its row that is known before."""

    request: Request
    answer: str | None
    split: Split
    origin: Origin
    topic: str = ""
    suite: str = ""
    dialogue: str = ""
    turn: int = 0


@dataclass(frozen=True, slots=True)
class _Sound:
    """What becomes of an utterance in the process that spoke it."""

    digest: str
    seconds: float
    flac: bytes
    phones: tuple[Phone, ...]
    words: tuple[Word, ...]


def speak_sentences(sentences: Sequence[Sentence], voices: Voices, seed: int, processes: int) -> list[Row]:
    """One row per sentence, voice and take; the same arguments give the same bytes, whatever ``processes``.

    Raises :class:`~ichigo.errors.DataError` for voices, speeds and pitches that espeak-ng does not have; what else can
    be wrong with ``sentences`` and ``voices`` the recipe refused.
    """
    return list(_rows([[take] for take in _takes(sentences, voices, seed)], processes))


def speak_world(world: World, processes: int) -> Iterator[Row]:
    """The spoken rows of ``world``, voice by voice; the same world gives the same bytes, whatever ``processes``.

    All that a voice says is one block of :func:`~ichigo.speech.synthesis.speak_blocks`, its training rows first. Raises
    :class:`~ichigo.errors.DataError` if there are too few variants to hold out.
    """
    settings = world.settings
    heard, unheard, _ = map(
        _in_all_accents, world_variants(settings.held_out_voices, settings.reserved_voices, world.seed)
    )
    takes = _cast(world.spoken_training(settings.utterances), heard, "train", "", world.seed)
    others = {"seen_voices": heard, "odd_voices": _in_all_accents(oddities())}
    for suite, conversations in world.spoken_suites().items():
        takes += _cast(conversations, others.get(suite, unheard), "test", suite, world.seed)
    return _rows(_by_voice(takes), processes)


def speak_reserved(world: World, questions: int, voices: int, seed: int, processes: int) -> Iterator[Row]:
    """Reserved questions in reserved variants, ``voices`` of them in every accent, as rows of the suite ``held_out``.

    ``seed`` draws both, beside the world's own. Raises :class:`~ichigo.errors.DataError` for more voices than are
    reserved.
    """
    settings = world.settings
    reserved = world_variants(settings.held_out_voices, settings.reserved_voices, world.seed)[2]
    if voices > len(reserved):
        raise DataError(f"{voices} voices are asked for, data.world.reserved_voices is {len(reserved)}; ask for fewer")
    chosen = random.Random(sha256_json([world.seed, "reserved", seed])).sample(reserved, voices)
    takes = _cast(world.reserved(questions, seed), _in_all_accents(chosen), "test", "held_out", seed)
    return _rows(_by_voice(takes), processes)


def _by_voice(takes: Iterable[_Take]) -> list[list[_Take]]:
    blocks: dict[str, list[_Take]] = defaultdict(list)
    for take in takes:
        blocks[take.request.voice].append(take)
    return list(blocks.values())


def _in_all_accents(variants: Sequence[str]) -> list[str]:
    return [f"{accent}+{variant}" for accent, variant in product(ACCENTS, variants)]


def world_variants(held_out: int, reserved: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """espeak-ng's variants of human kind for training, ``held_out`` others and ``reserved`` again others, by a hash.

    Which are held out does not depend on how many are reserved. Variants of one name (``iven``, ``iven2`` …) share
    their formants and stay on one side; no name has more than a third of the places, or it alone would be asked.
    """
    families: dict[str, list[str]] = defaultdict(list)
    for variant in people():
        families[_family(variant)].append(variant)
    known = sum(map(len, families.values()))
    unheard, unused = (_taken(families, number, seed) for number in (held_out, reserved))
    if (len(unheard), len(unused)) < (held_out, reserved) or not families:
        raise DataError(
            f"data.world.held_out_voices is {held_out} and reserved_voices {reserved}, espeak-ng has {known} variants "
            "of human kind; hold out fewer"
        )
    return [variant for family in families.values() for variant in family], unheard, unused


def _taken(families: dict[str, list[str]], number: int, seed: int) -> list[str]:
    """``number`` variants, or fewer, whose families are taken out of ``families`` in a seeded order."""
    taken: list[str] = []
    largest = -(-number // 3)
    for family in sorted(families, key=lambda family: sha256_json([seed, "voices", family])):
        if len(families[family]) <= min(largest, number - len(taken)):
            taken += families.pop(family)
    return taken


def _family(variant: str) -> str:
    """``f1`` … ``m8`` are people of their own; the others' numbers count versions of one, and Max has a second name."""
    name = variant.lower()
    return name if len(name) < 3 else name.rstrip("0123456789").removeprefix("ricishay")


def _cast(
    conversations: Sequence[Conversation], voices: Sequence[str], split: Split, suite: str, seed: int
) -> list[_Take]:
    """The turns of all conversations, which are dealt out to the voices in a seeded order."""
    rng = random.Random(sha256_json([seed, "cast", suite]))
    takes: list[_Take] = []
    said: set[Request] = set()
    order = cycle(rng.sample(voices, len(voices)))
    for number, (conversation, voice) in enumerate(zip(conversations, order, strict=False)):
        dialogue = sha256_json([seed, suite, number])[:16] if len(conversation) > 1 else ""
        requests = _new_requests([question.text for question in conversation], voice, said, rng)
        for turn, (question, request) in enumerate(zip(conversation, requests, strict=True)):
            takes.append(_Take(request, question.answer, split, "world", question.topic, suite, dialogue, turn))
    return takes


def _new_requests(texts: Sequence[str], voice: str, said: set[Request], rng: random.Random) -> list[Request]:
    """The texts at one speed and pitch, at which this voice did not yet say any of them; they are added to ``said``."""
    while True:
        speed, pitch = rng.randint(*WORLD_WORDS_PER_MINUTE), rng.randint(*WORLD_PITCH)
        requests = [Request(text, voice, speed, pitch) for text in texts]
        if said.isdisjoint(requests):
            said.update(requests)
            return requests


def _takes(sentences: Sequence[Sentence], voices: Voices, seed: int) -> Iterator[_Take]:
    sides: tuple[tuple[Split, tuple[str, ...], int], ...] = (
        ("train", voices.train, voices.takes),
        ("test", voices.held_out, 1),
    )
    for split, names, takes in sides:
        for voice in names:
            for sentence in sentences:
                for speed, pitch in _draw(sentence.text, voice, takes, voices, seed):
                    yield _Take(Request(sentence.text, voice, speed, pitch), sentence.answer, split, "spoken")


def _draw(text: str, voice: str, takes: int, voices: Voices, seed: int) -> list[tuple[int, int]]:
    """``takes`` different pairs of words per minute and pitch."""
    pairs = list(product(_inclusive(voices.words_per_minute), _inclusive(voices.pitch)))
    return random.Random(sha256_json([seed, voice, text])).sample(pairs, takes)


def _inclusive(bounds: tuple[int, int]) -> range:
    return range(bounds[0], bounds[1] + 1)


def _rows(blocks: Sequence[Sequence[_Take]], processes: int) -> Iterator[Row]:
    requests = [[take.request for take in block] for block in blocks]
    for block, sounds in zip(blocks, speak_blocks(requests, processes, _sound), strict=True):
        yield from map(_row, block, sounds)


def _sound(utterance: Utterance) -> _Sound:
    return _Sound(
        sound_digest(utterance.waveform),
        utterance.waveform.size / SAMPLE_RATE,
        write_flac(utterance.waveform),
        utterance.phones,
        utterance.words,
    )


def _row(take: _Take, sound: _Sound) -> Row:
    request = take.request
    place = (take.suite, take.dialogue, take.turn) if take.suite or take.dialogue else ()
    return Row(
        id=row_id(sound.digest, request.text, take.answer, *place),
        text=request.text,
        answer=take.answer,
        speaker=request.voice,
        split=take.split,
        language=request.voice.partition("+")[0].partition("-")[0],  # "en-us+f2" speaks "en"
        license=LICENSE,
        seconds=sound.seconds,
        audio=sound.flac,
        origin=take.origin,
        phones=sound.phones,
        words=sound.words,
        topic=take.topic,
        suite=take.suite,
        dialogue=take.dialogue,
        turn=take.turn,
    )
