"""A generated assistant world in text: questions of a small household with one answer each, pure and seeded.

One sentence in, one sentence out, lower case, letters and single spaces only. Thirteen topics of three sorts::

    device colour timer reminder shopping repeat          what is asked is a combination of words
    arithmetic compare count opposite capital animal      what is asked must be known: a fact
    memory                                                what is asked was said earlier in the conversation

What is kept from training, drawn by a seeded hash:

- ``held_out`` of the combinations, in every phrasing and as answers, spoken and written;
- of these combinations one in :data:`RESERVED_ONE_IN`, from every suite as well: for a look at a finished model;
- ``text_only_facts`` of each topic's facts, in speech: they are taught in writing alone;
- ``held_out`` of the values of each memory slot, in memory statements: no slot ever takes such a word.

Answers say the asked thing before they say what is to be known ("the opposite of hot is cold"), and every word that a
fact turns on is also said in other questions: so hearing it can be learned without being told the fact.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, count, islice, pairwise, permutations, product
from typing import Literal, TypeVar

from ichigo.corpus.rows import held_out
from ichigo.errors import DataError
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import World as Settings

Side = Literal["train", "held_out", "reserved", "text_only"]

REFUSAL = "sorry i did not catch that"
"""The answer to sound that is no speech."""

RESERVED_ONE_IN = 3
"""Of the held-out combinations: of 600 questions of a suite 564 stay distinct, of 300 reserved ones 282; the others are
single words to repeat."""

FACT_VOICES = 8
"""Different voices that ask each text-only fact."""


def _list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


ROOMS = _list("kitchen bedroom bathroom garage office hallway garden basement balcony attic")
DEVICES = _list("light lamp fan heater radio speaker television camera")
OPENINGS = _list("door window curtain gate")
COLOURS = _list("red blue green yellow orange purple pink white black brown")
ITEMS = _list("apples eggs lemons tomatoes potatoes carrots onions bananas cookies mushrooms beans candles")
NAMES = _list("anna tom peter maria david laura james emma oscar nina paul sophie victor alice daniel helen")
TIMERS = _list("kitchen tea pasta rice bread soup cake")
DAYS = _list("monday tuesday wednesday thursday friday saturday sunday")
WHEN = ("now", "today", "tonight", "tomorrow")
UNITS = ("seconds", "minutes", "hours")
NUMBERS = _list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
TENS = ("thirty", "forty", "fifty")
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("up", "down"), ("open", "closed"), ("happy", "sad"),
    ("young", "old"), ("day", "night"), ("hard", "soft"), ("full", "empty"), ("rich", "poor"), ("early", "late"),
    ("wet", "dry"), ("loud", "quiet"), ("strong", "weak"), ("long", "short"), ("clean", "dirty"), ("left", "right"),
    ("near", "far"), ("first", "last"),
)  # fmt: skip
CAPITALS = {
    "france": "paris", "spain": "madrid", "italy": "rome", "germany": "berlin", "england": "london", "japan": "tokyo",
    "china": "beijing", "russia": "moscow", "greece": "athens", "egypt": "cairo", "norway": "oslo",
    "portugal": "lisbon", "austria": "vienna", "poland": "warsaw",
}  # fmt: skip
SOUNDS = {
    "bee": "buzz", "mouse": "squeak", "frog": "croak", "duck": "quack", "cat": "meow", "wolf": "howl", "sheep": "baa",
    "pig": "oink", "lion": "roar", "cow": "moo", "horse": "neigh", "elephant": "trumpet",
}  # fmt: skip
BY_SIZE = _list("bee mouse duck cat wolf pig lion cow elephant whale")
"""From small to big."""

CONTENT = (
    *(word for pair in OPPOSITES for word in pair),
    *CAPITALS,
    *SOUNDS,
    "whale",
    *COLOURS,
    *ITEMS,
    *NAMES,
    *ROOMS,
)
"""The words that are repeated, alone or in twos and threes."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is said and the one right answer."""

    topic: str
    text: str
    answer: str
    side: Side


Conversation = tuple[Question, ...]
"""Turns of one speaker; a single question is a conversation of one."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One combination or fact and everything that asks for it: each answer with its phrasings."""

    key: str
    asked: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Slot:
    """Something about the speaker: how it is said and asked for; ``{}`` is its value."""

    statements: tuple[str, ...]
    question: str
    answer: str
    values: tuple[str, ...]


_SLOTS = (
    _Slot(("my name is {}", "please call me {}"), "what is my name", "your name is {}", NAMES),
    _Slot(("my friend is {}", "i have a friend called {}"), "who is my friend", "your friend is {}", NAMES),
    _Slot(("i live in {}", "my home is in {}"), "where do i live", "you live in {}", tuple(CAPITALS.values())),
    _Slot(
        ("my favourite colour is {}", "the colour i like is {}"),
        "what is my favourite colour",
        "your favourite colour is {}",
        COLOURS,
    ),
    _Slot(("i have a pet {}", "my pet is a {}"), "what pet do i have", "you have a pet {}", tuple(SOUNDS)),
    _Slot(("i like {}", "my favourite food is {}"), "what food do i like", "you like {}", ITEMS[:-1]),
    _Slot(("my number is {}", "i have number {}"), "what is my number", "your number is {}", NUMBERS[1:]),
    _Slot(("my secret word is {}", "the secret word is {}"), "what is the secret word", "the word is {}", CONTENT),
)

_COMBINED = {
    "device": 0.115, "colour": 0.085, "timer": 0.125, "reminder": 0.135, "shopping": 0.09, "repeat": 0.26,
}  # fmt: skip
_KNOWN = {"arithmetic": 0.10, "compare": 0.075, "count": 0.05, "opposite": 0.05, "capital": 0.02, "animal": 0.02}
"""Shares of the single training questions. Facts are few, so each of theirs comes several times."""

_MEMORY_SHARE = 0.15  # of all training turns
_WRITTEN_PER_UTTERANCE = 1.5  # training turns; 24,000 beside the default 16,000 utterances
_WRITTEN_FACTS = 1.3  # as many as in speech: a combination can be copied, a fact has to be learned by heart
_TURN_BETWEEN = 0.5  # of the conversations ask something else before the question
_FEWEST_HELD_OUT = 0.01  # below, there is too little to ask
_REPEAT = ("repeat after me {}", "say {}")
_LONGEST_REPEAT = 3  # words

T = TypeVar("T")


class World:
    """The world of one seed; every method draws from a random stream of its own, so none changes another's draws."""

    def __init__(self, settings: Settings, seed: int) -> None:
        if settings.held_out < _FEWEST_HELD_OUT:
            raise DataError(f"data.world.held_out is {settings.held_out}; set it to {_FEWEST_HELD_OUT} or more")
        self.settings, self.seed = settings, seed
        self._items = {topic: tuple(make()) for topic, make in _TOPICS.items()}
        self._withheld = {topic: self._chosen(topic) for topic in self._items}
        self._withheld["repeat"] = held_out(CONTENT, settings.held_out, self._salt("keys", "repeat"))
        self._reserved = {topic: self._set_apart(topic) for topic in _COMBINED}
        self.new_values = frozenset(
            value for slot in _SLOTS for value in held_out(slot.values, settings.held_out, self._salt("value"))
        )
        """Words that no training statement gives a slot."""

    def questions(self, topic: str, side: Side) -> list[Question]:
        """Every question of ``topic`` on ``side``; repeat (1.5 million combinations) and memory cannot be listed."""
        return [
            Question(topic, text, answer, side)
            for item in self._items[topic]
            if side == self._side(topic, item.key)
            for answer, texts in item.asked
            for text in texts
        ]

    def spoken_training(self, number: int) -> list[Conversation]:
        """Conversations to be spoken for training, ``number`` turns in all: no text-only facts, nothing held out."""
        return self._training("spoken", number, _COMBINED | _KNOWN, ("train",))

    def written_training(self, number: int) -> list[Conversation]:
        """Conversations to be written for training, ``number`` turns in all: every fact, nothing held out."""
        shares = _COMBINED | {topic: _WRITTEN_FACTS * share for topic, share in _KNOWN.items()}
        return self._training("written", number, shares, ("train", "text_only"))

    @property
    def written(self) -> int:
        """How many written training turns go with the settings' spoken ones."""
        return round(_WRITTEN_PER_UTTERANCE * self.settings.utterances)

    def spoken_suites(self) -> dict[str, list[Conversation]]:
        """What each suite of speech asks, ``settings.items`` conversations or more.

        ``held_out``, ``seen_voices`` and ``odd_voices`` ask the same held-out questions, in the proportions of
        training; ``facts`` asks every text-only fact :data:`FACT_VOICES` times or more, in turn; ``recall_seen`` and
        ``recall_new`` ask for what was said before, values met in training and others.
        """
        items, facts, combined = self.settings.items, self._text_only(), self._asked()
        voices = max(FACT_VOICES, -(-items // len(facts)))
        return {
            "held_out": combined,
            "seen_voices": combined,
            "odd_voices": combined,
            "facts": [(phrasings[take % len(phrasings)],) for phrasings in facts for take in range(voices)],
            "recall_seen": self._memories("recall_seen", items, new=False),
            "recall_new": self._memories("recall_new", items, new=True),
        }

    def written_suites(self) -> dict[str, list[Conversation]]:
        """What each suite of text asks: the spoken held-out questions, and each text-only fact in all phrasings."""
        return {
            "text_held_out": self._asked(),
            "text_facts": [(question,) for phrasings in self._text_only() for question in phrasings],
        }

    def reserved(self, number: int, seed: int) -> list[Conversation]:
        """``number`` questions, drawn by ``seed``, that neither training nor any suite has, in any phrasing.

        In the proportions of the suite ``held_out``. Raises :class:`~ichigo.errors.DataError` if a topic has too few
        held-out combinations to reserve one.
        """
        if none := [topic for topic, keys in self._reserved.items() if not keys]:
            raise DataError(
                f"data.world.held_out is {self.settings.held_out}: too few combinations of {', '.join(none)} are held "
                "out to reserve any; hold out more"
            )
        return self._combined("reserved", number, f"reserved {seed}")

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word of the world, in speech and in writing."""
        asked = (item.asked for items in self._items.values() for item in items)
        texts = [text for pairs in asked for answer, texts in pairs for text in (answer, *texts)]
        slots = [text for slot in _SLOTS for text in (*slot.statements, slot.question, slot.answer, *slot.values)]
        return frozenset(" ".join([*texts, *slots, *_REPEAT, *CONTENT, REFUSAL, "ok"]).replace("{}", "").split())

    def _salt(self, *purpose: str | int) -> int:
        return int(sha256_json([self.seed, *purpose])[:12], 16)

    def _random(self, *purpose: str | int) -> random.Random:
        return random.Random(self._salt(*purpose))

    def _chosen(self, topic: str) -> set[str]:
        """The keys of ``topic`` that are held out or known from text only."""
        share = self.settings.held_out if topic in _COMBINED else self.settings.text_only_facts
        return held_out((item.key for item in self._items[topic]), share, self._salt("keys", topic))

    def _set_apart(self, topic: str) -> set[str]:
        """The held-out keys of ``topic`` that no suite asks."""
        return held_out(self._withheld[topic], 1 / RESERVED_ONE_IN, self._salt("reserved", topic))

    def _side(self, topic: str, key: str) -> Side:
        if key not in self._withheld[topic]:
            return "train"
        if topic in _KNOWN:
            return "text_only"
        return "reserved" if key in self._reserved[topic] else "held_out"

    def _text_only(self) -> list[list[Question]]:
        """The phrasings of every text-only fact; what is asked both ways round ("cat or cow", "cow or cat") is two."""
        return [
            [Question(topic, text, answer, "text_only") for text in texts]
            for topic in _KNOWN
            for item in self._items[topic]
            if item.key in self._withheld[topic]
            for answer, texts in item.asked
        ]

    def _training(
        self, medium: str, number: int, shares: Mapping[str, float], sides: Sequence[Side]
    ) -> list[Conversation]:
        memory = self._memories(medium, number, new=False, turns=round(_MEMORY_SHARE * number))
        quotas = _quotas(shares, number - sum(map(len, memory)))
        asked = [self._drawn(topic, quota, sides, medium) for topic, quota in quotas.items()]
        return self._shuffled(medium, [*((question,) for questions in asked for question in questions), *memory])

    def _asked(self) -> list[Conversation]:
        """What the suites of held-out questions ask."""
        return self._combined("held_out", self.settings.items, "held_out")

    def _combined(self, side: Side, number: int, purpose: str) -> list[Conversation]:
        """``number`` questions of ``side`` in the proportions that combinations have in training."""
        quotas = _quotas(_COMBINED, number)
        asked = [self._drawn(topic, quota, (side,), purpose) for topic, quota in quotas.items()]
        return self._shuffled(purpose, [(question,) for questions in asked for question in questions])

    def _shuffled(self, purpose: str, conversations: list[Conversation]) -> list[Conversation]:
        self._random("order", purpose).shuffle(conversations)
        return conversations

    def _drawn(self, topic: str, number: int, sides: Sequence[Side], purpose: str) -> Iterator[Question]:
        """``number`` questions of ``topic``; where they are finite, each as often as the others, give or take one."""
        rng = self._random("draw", purpose, topic)
        if topic == "repeat":
            return islice(self._repeats(sides[0], rng), number)
        return islice(_passes([question for side in sides for question in self.questions(topic, side)], rng), number)

    def _repeats(self, side: Side, rng: random.Random) -> Iterator[Question]:
        """Endless words to repeat: one to three different ones, each number of words equally often."""
        for place in count():
            words = rng.sample(CONTENT, 1 + place % _LONGEST_REPEAT)
            while self._repeat_side(words) != side:
                words = rng.sample(CONTENT, len(words))
            said = " ".join(words)
            yield Question("repeat", rng.choice(_REPEAT).format(said), said, side)

    def _repeat_side(self, words: Sequence[str]) -> Side | None:
        """Training words hold no held-out pair in a row; held-out words may hold anything; None is neither."""
        if len(words) == 1:
            return self._side("repeat", words[0])
        if self._kept_from_training(words):
            return "held_out" if self._salt("reserved", "repeat", *words) % RESERVED_ONE_IN else "reserved"
        return None if any(map(self._kept_from_training, pairwise(words))) else "train"

    def _kept_from_training(self, words: Sequence[str]) -> bool:
        return self._salt("keys", "repeat", *words) % 10_000 < 10_000 * self.settings.held_out

    def _memories(self, purpose: str, number: int, *, new: bool, turns: int | None = None) -> list[Conversation]:
        """``number`` conversations that ask for what was said before, or as many of them as fit into ``turns``."""
        rng, between = self._random("memory", purpose), self._between(purpose)
        found: list[Conversation] = []
        left = turns if turns is not None else 3 * number
        for slot, value in islice(_passes(self._values(new), rng), number):
            other = next(between) if rng.random() < _TURN_BETWEEN else None
            conversation = _memory(slot, value, "held_out" if new else "train", other, rng)
            left -= len(conversation)
            if left < 0:
                break
            found.append(conversation)
        return found

    def _values(self, new: bool) -> list[tuple[_Slot, str]]:
        """Slots and their values; those of a slot with few come several times, so that it is not drowned."""
        most = max(len(slot.values) for slot in _SLOTS) // 2
        values = [(slot, [value for value in slot.values if (value in self.new_values) == new]) for slot in _SLOTS]
        return [(slot, value) for slot, own in values for value in own * max(1, most // len(slot.values))]

    def _between(self, purpose: str) -> Iterator[Question]:
        """Endless training questions to come between a statement and the question for it."""
        found = [question for topic in self._items for question in self.questions(topic, "train")]
        return _passes(found, self._random("between", purpose))


def _memory(slot: _Slot, value: str, side: Side, between: Question | None, rng: random.Random) -> Conversation:
    answer = slot.answer.format(value)
    told = Question("memory", rng.choice(slot.statements).format(value), f"ok {answer}", side)
    asked = Question("memory", slot.question, answer, side)
    return (told, between, asked) if between else (told, asked)


def _passes(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    """All ``items`` in random order, again and again in new orders."""
    while True:
        yield from rng.sample(items, len(items))


def _quotas(shares: Mapping[str, float], number: int) -> dict[str, int]:
    """Counts in the proportions of ``shares`` that add up to ``number``: what rounding leaves goes to the first."""
    total = sum(shares.values())
    quotas = {topic: int(number * share / total) for topic, share in shares.items()}
    for topic in islice(quotas, number - sum(quotas.values())):
        quotas[topic] += 1
    return quotas


def _device() -> Iterator[_Item]:
    for state, room, device in product(("on", "off"), ROOMS, DEVICES):
        orders = (f"turn {state} the {room} {device}", f"switch {state} the {room} {device}")
        yield _timed(f"{state} {room} {device}", f"turning {state} the {room} {device}", orders)
    for (order, doing), room, thing in product((("open", "opening"), ("close", "closing")), ROOMS, OPENINGS):
        orders = (f"{order} the {room} {thing}", f"please {order} the {room} {thing}")
        yield _timed(f"{order} {room} {thing}", f"{doing} the {room} {thing}", orders)


def _colour() -> Iterator[_Item]:
    for room, device, colour in product(ROOMS, DEVICES[:2], COLOURS):
        thing = f"the {room} {device}"
        orders = (f"make {thing} {colour}", f"change {thing} to {colour}")
        yield _timed(f"{room} {device} {colour}", f"making {thing} {colour}", orders)


def _timed(key: str, answer: str, orders: Sequence[str]) -> _Item:
    """An order as it is and for each of :data:`WHEN`; a combination is kept from training with all of them."""
    times = ("", *(f" {time}" for time in WHEN))
    return _Item(key, tuple((answer + time, tuple(order + time for order in orders)) for time in times))


def _timer() -> Iterator[_Item]:
    for number, unit, timer in product((*NUMBERS[2:], *TENS), UNITS, TIMERS):
        orders = ("set", "start", "please set", "please start")
        texts = (f"{order} a {timer} timer for {number} {unit}" for order in orders)
        yield _item(f"{number} {unit} {timer}", f"{timer} timer set for {number} {unit}", *texts)


def _reminder() -> Iterator[_Item]:
    deeds = [
        *(f"call {name}" for name in NAMES),
        *(f"feed the {animal}" for animal in ("cat", "duck", "horse", "sheep")),
        *(f"clean the {room}" for room in ROOMS),
        *(f"buy {item}" for item in ITEMS),
    ]
    times = [*(f"at {hour}" for hour in NUMBERS[1:13]), *(f"on {day}" for day in DAYS), *WHEN[1:]]
    for deed, time in product(deeds, times):
        texts = (f"remind me to {deed} {time}", f"{time} remind me to {deed}", f"please remind me to {deed} {time}")
        yield _item(f"{deed} {time}", f"i will remind you to {deed} {time}", *texts)


def _shopping() -> Iterator[_Item]:
    for number, item in product(("some", *NUMBERS[2:13]), ITEMS):
        yield _Item(f"{number} {item}", tuple(_bought(f"{number} {item}")))
    for one, other in combinations(ITEMS, 2):
        yield _Item(f"{one} {other}", (*_bought(f"{one} and {other}"), *_bought(f"{other} and {one}")))


def _bought(what: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{what} are on the list", (f"add {what} to the list", f"put {what} on the list", f"we need {what}")
    yield f"{what} are off the list", (f"take {what} off the list", f"remove {what} from the list")


def _arithmetic() -> Iterator[_Item]:
    for a, b in combinations(range(1, 11), 2):
        yield _Item(f"{a} + {b}", (_sum(a, b), _sum(b, a)))
    for a in range(1, 11):
        yield _Item(f"{a} + {a}", (_sum(a, a),))
        for b in range(1, a + 1):
            yield _Item(f"{a} - {b}", (_calculation(f"{NUMBERS[a]} minus {NUMBERS[b]}", a - b),))


def _sum(a: int, b: int) -> tuple[str, tuple[str, ...]]:
    return _calculation(f"{NUMBERS[a]} plus {NUMBERS[b]}", a + b)


def _calculation(term: str, result: int) -> tuple[str, tuple[str, ...]]:
    return f"{term} is {NUMBERS[result]}", (f"what is {term}", f"how much is {term}")


def _compare() -> Iterator[_Item]:
    for small, big in combinations(BY_SIZE, 2):
        yield _Item(
            f"{small} {big}",
            tuple(
                (f"of the {one} and the {other} the {found} is {what}", (f"which is {what} the {one} or the {other}",))
                for one, other in permutations((small, big))
                for what, found in (("bigger", big), ("smaller", small))
            ),
        )


def _counting() -> Iterator[_Item]:
    for number, following in pairwise(NUMBERS[1:]):
        after = (f"what comes after {number}", f"which number is after {number}")
        before = (f"what comes before {following}", f"which number is before {following}")
        yield _item(f"after {number}", f"after {number} comes {following}", *after)
        yield _item(f"before {following}", f"before {following} comes {number}", *before)


def _opposite() -> Iterator[_Item]:
    for pair in OPPOSITES:
        yield _Item(
            " ".join(pair),
            tuple(
                (f"the opposite of {one} is {other}", (f"what is the opposite of {one}", f"name the opposite of {one}"))
                for one, other in permutations(pair)
            ),
        )


def _capital() -> Iterator[_Item]:
    for country, city in CAPITALS.items():
        texts = (f"what is the capital of {country}", f"name the capital of {country}")
        yield _item(country, f"the capital of {country} is {city}", *texts)


def _animal() -> Iterator[_Item]:
    for animal, sound in SOUNDS.items():
        texts = (f"what does a {animal} say", f"what sound does a {animal} make")
        yield _item(animal, f"a {animal} says {sound}", *texts)


def _item(key: str, answer: str, *texts: str) -> _Item:
    """A combination or fact that has one answer."""
    return _Item(key, ((answer, texts),))


_TOPICS: Mapping[str, Callable[[], Iterator[_Item]]] = {
    "device": _device,
    "colour": _colour,
    "timer": _timer,
    "reminder": _reminder,
    "shopping": _shopping,
    "arithmetic": _arithmetic,
    "compare": _compare,
    "count": _counting,
    "opposite": _opposite,
    "capital": _capital,
    "animal": _animal,
}
"""All that can be listed."""
