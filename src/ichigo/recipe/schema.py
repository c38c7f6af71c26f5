"""What a run is: the typed, frozen form of a recipe.

One recipe is one YAML file (see ``recipes/``); :func:`ichigo.recipe.load` reads it into :class:`Recipe`. Every section
is immutable and refuses unknown keys. A field marked :data:`Local` says *where* something lies on one machine (a path:
a process count has no such mark: it changes numbers) and stays out of the fingerprint; the bytes found there are
identified by their own digest when a step reads them. So does a field marked :data:`Operational`, which says how a run
is kept safe.

Learning rates are per optimizer step, lengths in tokens unless a name says seconds.

A section checks itself field by field, so that every wrong field of a file is found at once; what spans sections (the
order of the stages, mixes that the data cannot feed, ...) is in :func:`disorder`, :func:`unfed`, :func:`cut`,
:func:`foreign` and
:func:`unbounded`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

SampleType = Literal["speech", "transcription", "text", "sound", "multi_turn", "noise", "mixed", "speak"]
"""The layouts of ``ichigo.language.layouts``: ``sound`` is pre-training on sound tokens alone (paper, section 2)."""

StageName = Literal["pretrain", "instruct", "enhance"]
FirstStep = StageName | Literal["evaluate"]
STAGE_ORDER: tuple[StageName, ...] = ("pretrain", "instruct", "enhance")

Place = tuple[str | int, ...]
"""Where something stands in a recipe: keys and list indices from the top."""

Finding = tuple[Place, str]
"""A place and what is wrong there, in words that end with what to do."""


class LocalMark:
    """Marks a field that names a place on one machine and is no part of a recipe's identity."""


Local = LocalMark()


class OperationalMark:
    """Marks a field that says how a run is kept safe: it changes no number, so it is no part of a recipe's identity."""


Operational = OperationalMark()


def _adds_up(mix: dict[SampleType, float]) -> dict[SampleType, float]:
    total = math.fsum(mix.values())
    if abs(total - 1) > 1e-6:
        terms = " + ".join(f"{kind} {share:g}" for kind, share in mix.items())
        raise ValueError(f"{terms} = {total:.12g}; the shares must add up to 1")
    return mix


def _rising(pair: tuple[int, int]) -> tuple[int, int]:
    if pair[0] > pair[1]:
        raise ValueError(f"lowest {pair[0]} is above highest {pair[1]}; give [lowest, highest]")
    return pair


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{', '.join(repeated)} is listed more than once; list each once")
    return names


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Mix = Annotated[dict[SampleType, Share], Field(min_length=1), AfterValidator(_adds_up)]
Names = Annotated[tuple[Text, ...], AfterValidator(_distinct)]
VoiceNames = Annotated[Names, Field(min_length=1)]
EspeakRate = Annotated[int, Field(ge=80, le=450)]  # espeak-ng's speak_lib.h: espeakRATE_MINIMUM, espeakRATE_MAXIMUM
EspeakPitch = Annotated[int, Field(ge=0, le=99)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Base of every section: frozen, strict, no extra keys; defaults are checked like given values."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True, protected_namespaces=()
    )


class Sentence(Section):
    """One question of the recipe's own world and, if it has one, its answer."""

    text: Text
    answer: Text | None = None


class Voices(Section):
    """How ``ichigo.speech.synthesis`` speaks the recipe's own sentences."""

    train: VoiceNames
    held_out: VoiceNames
    words_per_minute: Annotated[tuple[EspeakRate, EspeakRate], AfterValidator(_rising)] = (150, 220)  # lowest, highest
    pitch: Annotated[tuple[EspeakPitch, EspeakPitch], AfterValidator(_rising)] = (30, 70)  # espeak-ng's scale 0-99
    takes: Positive = 1  # utterances of each sentence by each voice, no two at the same speed and pitch

    @field_validator("held_out")
    @classmethod
    def _unheard(cls, held_out: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if shared := [voice for voice in held_out if voice in info.data.get("train", ())]:
            raise ValueError(f"{', '.join(shared)} is also in train; a held-out voice must not be heard in training")
        return held_out

    @field_validator("takes")
    @classmethod
    def _all_different(cls, takes: int, info: ValidationInfo) -> int:
        bounds = [info.data.get(name) for name in ("words_per_minute", "pitch")]
        pairs = math.prod(highest - lowest + 1 for lowest, highest in filter(None, bounds))
        if None not in bounds and takes > pairs:
            raise ValueError(
                f"found {takes}, but words_per_minute and pitch allow {pairs} pairs; widen them or take fewer"
            )
        return takes


class World(Section):
    """A generated assistant world: questions with answers, spoken by espeak-ng and written (see ``corpus.world``)."""

    utterances: Positive = 16000  # spoken training rows
    held_out: Annotated[float, Field(gt=0, lt=0.5)] = 0.12  # combinations that no training row has in any form
    text_only_facts: Annotated[float, Field(gt=0, lt=0.5)] = 0.2  # facts that training rows never speak
    held_out_voices: Positive = 11  # variants that neither tokenizer nor model hears in training
    reserved_voices: Positive = 5  # others that no suite hears either: what `ichigo look` speaks with
    noise: Annotated[int, Field(ge=0)] = 400  # non-speech training rows
    items: Positive = 600  # evaluation rows per suite, where the world has them


class Columns(Section):
    """Under which names a source keeps the parts of a row; what it does not have stays unknown."""

    audio: Text = "audio"
    text: Text = "text"  # what is said; of instructions the question, of token strings the sound
    answer: Text = "answer"
    messages: Text = "messages"  # conversations, as {role, content} or {from, value}
    speaker: Text = "speaker"
    split: Text = "split"
    language: Text = "language"
    license: Text = "license"


class _Source(Section):
    """What every source has: where it lies and what holds for rows that do not say it themselves."""

    path: Annotated[Text, Local, Field(description="a file, a folder or a pattern with *, here or on s3://")]
    columns: Columns = Columns()
    speaker: Text | None = None
    language: Text | None = None  # BCP 47
    license: Text | None = None
    split: Literal["train", "test", "validation"] | None = None


class Recordings(_Source):
    """Sound with its words: an AudioFolder, Parquet with the files' bytes, or WebDataset tar files."""

    kind: Literal["folder", "parquet", "webdataset"]


class TokenStrings(_Source):
    """Sound that is tokens already, as published for Ichigo, in JSON lines or Parquet."""

    kind: Literal["tokens"]
    tokenizer: Text  # the identity of the WhisperVQ that made them, or "published": the one that the recipe imports


class Instructions(_Source):
    """Questions and answers in writing, in JSON lines or Parquet, and who speaks the questions."""

    kind: Literal["instructions"]
    words: Annotated[tuple[Positive, Positive], AfterValidator(_rising)] = (1, 60)  # of a question: fewest, most
    languages: tuple[Text, ...] = ("en",)  # questions in another are set aside; empty takes any
    near_duplicates: Annotated[float, Field(gt=0, le=1)] = 0.8  # set aside from this Jaccard similarity on
    voices: Annotated[tuple[Text, ...], AfterValidator(_distinct)] = ()  # accent+variant of espeak-ng; none: text only
    words_per_minute: Annotated[tuple[EspeakRate, EspeakRate], AfterValidator(_rising)] = (150, 220)
    pitch: Annotated[tuple[EspeakPitch, EspeakPitch], AfterValidator(_rising)] = (30, 70)


Source = Annotated[Recordings | TokenStrings | Instructions, Field(discriminator="kind")]

PUBLISHED = "published"
"""What token strings call the tokenizer that the recipe imports."""


class Data(Section):
    """Where recordings and text come from, and how they are split."""

    folder: Annotated[str | None, Local, Field(description="the AudioFolder with metadata.jsonl: a path")] = None
    sources: tuple[Source, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    voices: Voices | None = None
    world: World | None = None
    held_out_speakers: Share = 0.25  # of the speakers in folder and sources whose rows carry no split
    leave_out: Names = ()  # speakers of folder and sources that are held out by name, instead of that share
    max_seconds: Annotated[float, Field(gt=0)] = 30.0  # longer rows are set aside
    shards: Positive = 2  # units of parallel tokenisation

    @field_validator("sentences")
    @classmethod
    def _asked_once(cls, sentences: tuple[Sentence, ...]) -> tuple[Sentence, ...]:
        repeated = [text for text, count in Counter(item.text for item in sentences).items() if count > 1]
        if repeated:
            raise ValueError(f"{repeated[0]!r} is listed more than once; list each sentence once")
        return sentences

    @field_validator("voices")
    @classmethod
    def _have_words(cls, voices: Voices | None, info: ValidationInfo) -> Voices | None:
        if voices and info.data.get("sentences") == ():
            raise ValueError("there are voices but no data.sentences for them to speak; add sentences or remove voices")
        return voices


class FitTokenizer(Section):
    """Fit a small WhisperVQ on the corpus; 50 Hz encoder frames, 25 Hz codes."""

    kind: Literal["fit"]
    width: Positive = 128
    layers: Positive = 2
    heads: Positive = 2
    codes: Annotated[int, Field(ge=1, le=512)] = 512  # the contract has a token for each, and one for padding
    codebook_dim: Positive = 64
    steps: Positive = 200
    batch: Positive = 8
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    causal_block: Annotated[int, Field(ge=0)] = 0  # sound tokens per block; 0 attends to the whole utterance

    @field_validator("heads")
    @classmethod
    def _heads_divide(cls, heads: int, info: ValidationInfo) -> int:
        return _divides(heads, "width", info)


class ImportTokenizer(Section):
    """Use a published WhisperVQ: whisperspeech's ``.model`` file and OpenAI's Whisper ``.pt`` file."""

    kind: Literal["import"]
    model: Annotated[str | None, Local, Field(description="whisperspeech's .model file: a path or s3://")] = None
    whisper: Annotated[str | None, Local, Field(description="OpenAI's Whisper .pt file: a path or s3://")] = None
    pad: Literal["whisper30", "exact"] = "whisper30"


class InitBase(Section):
    """A small Llama from random weights with a byte-level BPE tokenizer trained on the corpus's text."""

    kind: Literal["init"]
    width: Positive = 128
    layers: Positive = 2
    heads: Positive = 4
    kv_heads: Positive = 2
    feed_forward: Positive = 320
    vocabulary: Annotated[int, Field(ge=300)] = 512  # text tokens, specials included

    @field_validator("heads")
    @classmethod
    def _heads_divide(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width", 0)
        if width % heads == 0 and width // heads % 2:
            raise ValueError(f"a head of {width}/{heads} = {width // heads} is odd; rotary positions need an even one")
        return _divides(heads, "width", info)

    @field_validator("kv_heads")
    @classmethod
    def _kv_heads_divide(cls, kv_heads: int, info: ValidationInfo) -> int:
        return _divides(kv_heads, "heads", info)


class TrainBase(InitBase):
    """A small Llama trained on the world's text: it plays the part of the published text model."""

    kind: Literal["train"]  # type: ignore[assignment]
    steps: Positive = 1000
    batch_tokens: Positive = 768  # tokens per optimizer step
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 30


class FolderBase(Section):
    """A Hugging Face folder (safetensors, never remote code), by path or ``s3://``."""

    kind: Literal["folder"]
    model: Annotated[str | None, Local, Field(description="the Hugging Face folder: a path or s3://")] = None
    name: Text  # what the licence and the model card call it


class Expand(Section):
    """How the rows of the new tokens start (paper, section 2: the mean of the existing rows)."""

    init: Literal["mean", "mean_noise", "codebook"] = "mean_noise"
    noise: Annotated[float, Field(ge=0)] = 0.02  # relative to the spread of the existing rows; unused by "mean"


class Stage(Section):
    """One training stage: which examples, how many, and the optimizer's schedule."""

    name: StageName
    mix: Mix
    examples: Positive  # drawn by exact quota from the corpus, repeating it if need be
    steps: Positive
    sequence_length: Annotated[int, Field(ge=8)]
    micro_batch: Positive = 1  # sequences a process holds at once
    accumulation: Positive = 1  # micro-batches per optimizer step
    packing: bool = True
    loss_on: Literal["all", "answers"] = "all"
    replacement: Share = 0.0  # of the input's sound tokens, replaced by random ones while training
    enabled: bool = True  # False hands the model on untrained: with or without this stage is a claim to test
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon for the matrices, AdamW for the rest (training.muon)
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    gradient_clip: Annotated[float, Field(gt=0)] | None = None

    @field_validator("warmup_steps")
    @classmethod
    def _warms_up_in_time(cls, warmup_steps: int, info: ValidationInfo) -> int:
        steps = info.data.get("steps", warmup_steps)
        if warmup_steps > steps:
            raise ValueError(f"found {warmup_steps}, more than the {steps} steps of the stage; lower it or raise steps")
        return warmup_steps


class Checkpoints(Section):
    """How often a stage saves what it needs to go on after a failure, and which of these saves stay."""

    every: Annotated[int, Field(ge=0)] = 200  # optimizer steps; 0 saves nothing
    keep_last: Positive = 2
    keep_every: Annotated[int, Field(ge=0)] = 0  # steps; those at multiples of it stay for good, 0 keeps none so
    resume: bool = True  # False starts every stage anew


class Launch(Section):
    """How the stages run: processes, ZeRO stage and precision; how they are watched and kept safe."""

    nodes: Positive = 1
    processes: Positive = 2  # per node
    zero: Literal[0, 1, 2, 3] = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    checkpoints: Annotated[Checkpoints, Operational] = Checkpoints()
    hang_seconds: Annotated[float, Operational, Field(gt=0)] = 900.0  # without a step; longer than a save or an export

    @field_validator("precision")
    @classmethod
    def _keeps_updates(cls, precision: str, info: ValidationInfo) -> str:
        if precision == "bf16" and info.data.get("zero") == 0:
            raise ValueError("bf16 with zero 0 keeps no fp32 weights, so small updates round to nothing; set zero to 1")
        return precision


class Start(Section):
    """A model of another run, with which this one goes on in place of its own base; the steps before it are skipped."""

    step: FirstStep  # the first that works on the model
    model: Text  # its address in the store: s3://…/KIND/FINGERPRINT/ATTEMPT

    def skips(self, stage: StageName) -> bool:
        """Whether ``stage`` comes before the step with which the run begins."""
        return self.step == "evaluate" or STAGE_ORDER.index(stage) < STAGE_ORDER.index(self.step)


class Evaluation(Section):
    """What the trained model is asked."""

    items: Positive = 64  # held-out items per suite, at most
    max_new_tokens: Positive = 32
    batch: Positive = 16
    margin: Annotated[float, Field(gt=0, lt=100)] = 5.0
    """Percentage points of exact match in text that may be lost against the base model ("non-inferior"). The paper's
    model lost 5.2 points of the mean of MMLU, GPQA and GSM8K (61.4 to 56.3, arXiv 2410.15316, table 4)."""


class Probes(Section):
    """What a model has to show after each stage, or the run stops there; null switches one bound off.

    The defaults lie between what runs that went well showed, four of ``tiny`` (two of them of an early form that got
    63 and 66 % of spoken questions right) and one of ``smoke``, and what a model shows that learned nothing.
    """

    enabled: bool = True
    items: Positive = 96  # held-out rows of each kind
    loss_fall: float | None = 0.02
    """At least: the share of its first tenth's loss that the last tenth of a stage has lost; good: 0.18 to 0.77."""
    below_entropy: float | None = 0.1
    """At least: nats by which the loss ends below the entropy of the stage's labels, taken one by one; good: 3.0 to 4.9
    (tiny)."""
    sound_gain: float | None = 0.5
    """At least: nats per sound token by which order makes speech likelier; good: 3.6 to 5.1 (tiny), 1.0 to 1.3 (smoke);
    0 if the tokens have no order, 0.0 to 0.4 before training."""
    answer_gain: float | None = 0.1
    """At least: nats per token by which hearing the question makes its answer likelier; good: 4.3 to 5.8 (tiny), 0.15
    and 0.25 (smoke); 0 if nothing is heard."""
    text_rise: float | None = 0.5
    """At most: nats per token by which written answers became less likely; good: 0.00 to 0.05 (tiny), 1.3 to 3.3 after
    pre-training on sound alone, which is not judged by it."""
    false_refusals: Share | None = 0.15
    """At most: the share of clean spoken questions that get the answer for noise; good: up to 0.05."""


class Ablations(Section):
    """What is spoiled on purpose, to see what it was worth."""

    shuffle_sound: bool = False  # the sound tokens of every utterance in random order


class Rule(Section):
    """One line of the gate: a metric and the bound that it, or the named end of its 95 % interval, must keep."""

    metric: Text
    at_least: float | None = None
    at_most: float | None = None
    bound: Literal["point", "low", "high"] = "point"

    @field_validator("at_most")
    @classmethod
    def _above_at_least(cls, at_most: float | None, info: ValidationInfo) -> float | None:
        at_least = info.data.get("at_least")
        if at_most is not None and at_least is not None and at_most < at_least:
            raise ValueError(f"found {at_most:g}, below at_least {at_least:g}: no value keeps both; swap them")
        return at_most

    @field_validator("bound")
    @classmethod
    def _the_strict_end(cls, bound: str, info: ValidationInfo) -> str:
        """The other end would pass a model that was asked too few items to say anything."""
        lenient = {"low": "at_most", "high": "at_least"}.get(bound)
        if lenient and info.data.get(lenient) is not None:
            raise ValueError(f"found {bound} with {lenient}: fewer items would pass more easily; take the other end")
        return bound


class Registry(Section):
    """Under which name a model is registered and what the gate asks of it."""

    model_name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="a-z, 0-9, '.', '_' and '-'")]
    alias: Text = "candidate"
    rules: tuple[Rule, ...] = ()


class Recipe(Section):
    """Everything that identifies a run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="a-z, 0-9, '.' and '-'")]
    description: str
    seed: Annotated[int, Field(ge=0)] = 0
    data: Data
    tokenizer: Annotated[FitTokenizer | ImportTokenizer, Field(discriminator="kind")]
    base: Annotated[InitBase | TrainBase | FolderBase, Field(discriminator="kind")]
    expand: Expand = Expand()
    launch: Launch = Launch()
    start: Start | None = None
    ablations: Ablations = Ablations()
    probes: Annotated[Probes, Operational] = Probes()
    stages: tuple[Stage, Stage, Stage]
    evaluation: Evaluation = Evaluation()
    registry: Registry

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        findings = [
            *disorder([stage.name for stage in self.stages]),
            *unfed(self.data, dict(enumerate(self.stages))),
            *cut(self.launch, dict(enumerate(self.stages))),
            *foreign(self.data, self.tokenizer),
            *unbounded(dict(enumerate(self.registry.rules))),
        ]
        if findings:
            raise ValidationError.from_exception_data("Recipe", [_line_error(*finding) for finding in findings])
        return self

    def stage(self, name: StageName) -> Stage:
        """The stage called ``name``."""
        return self.stages[STAGE_ORDER.index(name)]


def disorder(names: Sequence[str]) -> list[Finding]:
    """A finding if ``names`` are not exactly :data:`STAGE_ORDER`."""
    if tuple(names) == STAGE_ORDER:
        return []
    found = ", ".join(names) or "no stages"
    return [(("stages",), f"found {found}; expected exactly {', '.join(STAGE_ORDER)}, in this order")]


def unfed(data: Data, stages: Mapping[int, Stage]) -> list[Finding]:
    """Sample types with a share that ``data`` cannot feed; ``stages`` by their index in the recipe.

    A folder or source may hold anything, so only the recipe's own sentences are judged. A recipe with neither is one
    whose folder is still to be named (:func:`ichigo.recipe.missing_places`).
    """
    if data.folder is not None or data.sources or data.world is not None or not data.sentences:
        return []
    lacks = {kind: _lacks(kind, data) for kind in get_args(SampleType)}
    return [
        (
            ("stages", index, "mix", kind),
            f"found {share:g}, but the recipe has no data for it: add {' and '.join(lacks[kind])}, "
            "set data.folder, or drop it from the mix",
        )
        for index, stage in stages.items()
        for kind, share in stage.mix.items()
        if share > 0 and lacks[kind]
    ]


def cut(launch: Launch, stages: Mapping[int, Stage]) -> list[Finding]:
    """Stages whose optimizer needs the whole matrices that ZeRO cuts; ``stages`` by their index in the recipe."""
    return [
        (
            ("stages", index, "optimizer"),
            f"muon needs whole matrices, and launch.zero is {launch.zero}, which cuts them; set it to 0 or take adamw",
        )
        for index, stage in stages.items()
        if stage.optimizer == "muon" and launch.zero
    ]


def foreign(data: Data, tokenizer: FitTokenizer | ImportTokenizer) -> list[Finding]:
    """Token strings in a recipe that fits a tokenizer of its own: its codes would mean other sounds."""
    if tokenizer.kind == "import":
        return []
    return [
        (
            ("data", "sources", index, "tokenizer"),
            f"found {source.tokenizer}, but the recipe fits a tokenizer of its own, whose codes mean other sounds; set "
            "tokenizer.kind to import and name the one that made these tokens",
        )
        for index, source in enumerate(data.sources)
        if isinstance(source, TokenStrings)
    ]


def unbounded(rules: Mapping[int, Rule]) -> list[Finding]:
    """Rules of the gate that bound nothing; ``rules`` by their index in the recipe."""
    return [
        (("registry", "rules", index), f"{rule.metric} has no bound; give at_least, at_most or both")
        for index, rule in rules.items()
        if rule.at_least is None and rule.at_most is None
    ]


_ANSWERS_NEEDED: dict[SampleType, int] = {"speech": 1, "text": 1, "multi_turn": 2, "mixed": 1}
"""Sentences with an answer below which a type cannot be made; a conversation asks at least two questions."""


def _lacks(kind: SampleType, data: Data) -> Iterable[str]:
    """What the recipe's own sentences need before ``kind`` can be made of them (noise takes lengths from speech)."""
    answered = sum(sentence.answer is not None for sentence in data.sentences)
    needed = _ANSWERS_NEEDED.get(kind, 0)
    voices = ["data.voices"] if kind != "text" and data.voices is None else []
    answers = [f"an answer to {needed} or more of data.sentences (found {answered})"] if answered < needed else []
    return [*voices, *answers]


def _divides(part: int, whole: str, info: ValidationInfo) -> int:
    total = info.data.get(whole, part)  # absent when it is itself wrong, and then reported there
    if total % part:
        raise ValueError(f"found {part}, which does not divide {whole} {total}; choose a divisor of {total}")
    return part


def _line_error(place: Place, message: str) -> InitErrorDetails:
    error = PydanticCustomError("inconsistent", "{message}", {"message": message})
    return InitErrorDetails(type=error, loc=place, input=None)
