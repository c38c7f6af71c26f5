"""Words from phones: the best path through known pronunciations, and a recogniser that lies beside its tokenizer."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ichigo.edits import edit_distance
from ichigo.errors import TokenizerError
from ichigo.recipe.schema import FitTokenizer
from ichigo.speech.fit import Fit, Spoken, fit
from ichigo.speech.lexicon import WORD_PENALTY, Lexicon, Recogniser, pronunciations
from ichigo.speech.synthesis import PAUSE, Phone, Word

PHONES = (PAUSE, "a", "b", "k")
WORDS: dict[str, list[tuple[str, ...]]] = {"ab": [("a", "b")], "back": [("b", "a", "k"), ("b", "k")], "a": [("a",)]}


def said(frames: str, sure: float = 6.0) -> NDArray[np.float32]:
    """Log likelihoods of frames that are the phones written in ``frames``, one letter each."""
    likelihoods = np.full((len(frames), len(PHONES)), -sure, np.float32)
    likelihoods[np.arange(len(frames)), [PHONES.index(symbol) for symbol in frames]] = 0
    return likelihoods


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ("__aabbb__", "ab"),
        ("bak", "back"),
        ("bbk_", "back"),
        ("ab_bak", "ab back"),
        ("aabbab", "ab ab"),  # no pause between
        ("_a__a_", "a a"),
        ("____", ""),
        ("", ""),
    ],
)
def test_words_are_found_in_clear_phones(frames: str, text: str) -> None:
    assert Lexicon(WORDS, PHONES).text(said(frames)) == text


TEXTS = [words for count in range(3) for words in itertools.product(WORDS, repeat=count)]


def best_by_hand(likelihoods: NDArray[np.float32], texts: list[tuple[str, ...]]) -> float:
    """The best score of ``texts`` over every pronunciation, every pause between and every length of each phone."""
    best = -np.inf
    for text in texts:
        for words in itertools.product(*(WORDS[word] for word in text)):
            for pauses in itertools.product(((), (PAUSE,)), repeat=len(text) + 1):
                row = [*pauses[0]]
                for word, pause in zip(words, pauses[1:], strict=True):
                    row += [*word, *pause]
                best = max(best, _aligned(row, likelihoods) - WORD_PENALTY * len(text))
    return best


def _aligned(row: list[str], likelihoods: NDArray[np.float32]) -> float:
    """The best way to spread the frames over the phones of ``row``, each at least one."""
    frames, best = len(likelihoods), -np.inf
    for cuts in itertools.combinations(range(1, frames), len(row) - 1) if row else ():
        edges = [0, *cuts, frames]
        pieces = zip(row, itertools.pairwise(edges), strict=True)
        best = max(best, sum(float(likelihoods[i:j, PHONES.index(symbol)].sum()) for symbol, (i, j) in pieces))
    return best


def test_no_other_words_fit_noisy_phones_better() -> None:
    lexicon, rng, found = Lexicon(WORDS, PHONES), np.random.default_rng(0), set()
    for _ in range(12):
        likelihoods = (3 * rng.standard_normal((6, len(PHONES)))).astype(np.float32)
        text = lexicon.text(likelihoods)
        found.add(text)
        if len(text.split()) > 2:
            continue
        best = best_by_hand(likelihoods, [tuple(text.split())])
        assert best == pytest.approx(best_by_hand(likelihoods, TEXTS), abs=1e-4)
    assert len(found) > 4


def test_pronunciations_are_what_was_said_between_the_words_edges() -> None:
    phones = [Phone(0, 0.1, PAUSE), Phone(0.1, 0.2, "a"), Phone(0.2, 0.32, "b"), Phone(0.32, 0.5, "k")]
    words = [Word(0.1, 0.3, "Ab"), Word(0.3, 0.5, "k")]
    once = (phones, words)
    rare = ([Phone(0, 0.5, "a")], [Word(0, 0.5, "ab")])
    assert pronunciations([once]) == {"ab": (("a", "b"),), "k": (("k",),)}
    assert pronunciations([once, once, rare])["ab"] == (("a", "b"), ("a",))
    assert pronunciations([*[once] * 30, rare])["ab"] == (("a", "b"),), "one slip in thirty is no pronunciation"
    assert pronunciations([([Phone(0, 1, PAUSE)], [Word(0, 1, "hush")])]) == {}


def test_a_lexicon_of_foreign_phones_is_refused() -> None:
    with pytest.raises(TokenizerError, match="'z'"):
        Lexicon({"zap": [("z", "a")]}, PHONES)
    with pytest.raises(TokenizerError, match="no words"):
        Lexicon({}, PHONES).text(said("ab"))


TONES = {"a": 300.0, "e": 700.0, "i": 1500.0, "o": 2600.0}
VOCABULARY = {"sea": "ie", "toe": "oa", "now": "aeo", "it": "ia"}


def sentence(seed: int, words: int = 3) -> Spoken:
    """Words of tones, 60 to 120 ms each, between pauses."""
    rng = np.random.default_rng(seed)
    chosen = [str(word) for word in rng.choice(list(VOCABULARY), words)]
    waves, phones, timed, at = [], [], [], 0.0
    for word in chosen:
        start = at
        for symbol in [*VOCABULARY[word], PAUSE]:
            samples = int(rng.integers(960, 1920))
            pitch = TONES.get(symbol, 0.0)
            waves.append(np.sin(2 * np.pi * pitch / 16_000 * np.arange(samples)))
            phones.append(Phone(at, at + samples / 16_000, symbol))
            at += samples / 16_000
        timed.append(Word(start, phones[-1].start_s, word))
    wave = 0.3 * np.concatenate(waves)
    return Spoken((wave + 0.01 * rng.standard_normal(wave.size)).astype(np.float32), phones, timed)


@pytest.fixture(scope="module")
def fitted() -> Fit:
    settings = FitTokenizer(
        kind="fit", width=32, layers=1, heads=2, codes=24, codebook_dim=8, steps=120, batch=4, learning_rate=6e-3,
        causal_block=5,
    )  # fmt: skip
    return fit((sentence(seed) for seed in range(60)), settings, seed=1)


def test_tokens_of_new_sentences_are_read_back_as_their_words(fitted: Fit) -> None:
    errors = total = 0
    for spoken in (sentence(seed) for seed in range(200, 220)):
        (codes,) = fitted.tokenizer.encode([spoken.waveform])
        text = " ".join(word.text for word in spoken.words)
        errors += edit_distance(text.split(), fitted.recogniser.words(codes).split())
        total += len(spoken.words)
    assert errors / total < 0.25
    shuffled = np.random.default_rng(0).permutation(codes)
    assert fitted.recogniser.words(shuffled) != fitted.recogniser.words(codes), "the order counts"


def test_phones_of_tokens_are_those_that_were_said(fitted: Fit) -> None:
    spoken = sentence(300)
    (codes,) = fitted.tokenizer.encode([spoken.waveform])
    wanted = [phone.symbol for phone in spoken.phones if phone.symbol != PAUSE]
    assert edit_distance(wanted, fitted.recogniser.phones(codes)) <= 0.35 * len(wanted)


def test_the_report_tells_what_quantisation_costs(fitted: Fit) -> None:
    report = fitted.report
    assert report["words"] == len(VOCABULARY)
    before, after = report["word_error_rate_encoder"], report["word_error_rate_tokens"]
    assert 0 <= before <= after + 0.2
    assert after < 0.5
    assert report["bottleneck_cost"] == pytest.approx(after - before, abs=2e-4)


def test_a_recogniser_opens_as_it_was(fitted: Fit, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    opened = Recogniser.open(tmp_path)
    (codes,) = fitted.tokenizer.encode([sentence(400).waveform])
    assert opened.words(codes) == fitted.recogniser.words(codes) != ""
    assert opened.phones(codes.tolist()) == fitted.recogniser.phones(codes)
    fitted.save(tmp_path / "again")
    for name in ("recogniser.pt", "lexicon.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_more_than_30_s_are_read_in_windows(fitted: Fit) -> None:
    (codes,) = fitted.tokenizer.encode([sentence(500, words=120).waveform])
    assert codes.size > 750
    recogniser = fitted.recogniser
    assert recogniser.words(codes) == f"{recogniser.words(codes[:750])} {recogniser.words(codes[750:])}".strip()
    assert recogniser.words([]) == ""


@pytest.mark.parametrize("code", [-1, 25])
def test_a_code_that_the_tokenizer_lacks_is_refused(fitted: Fit, code: int) -> None:
    with pytest.raises(TokenizerError, match=f"sound code {code}: this tokenizer has 0 to 24"):
        fitted.recogniser.words([3, code])


def test_a_recogniser_of_another_tokenizer_is_refused(fitted: Fit, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    path = tmp_path / "lexicon.json"
    lexicon = json.loads(path.read_bytes())
    path.write_text(json.dumps(lexicon | {"tokenizer": "0" * 64}))
    with pytest.raises(TokenizerError, match="belongs to tokenizer 0000"):
        Recogniser.open(tmp_path)
    (tmp_path / "recogniser.pt").unlink()
    with pytest.raises(TokenizerError, match="only tokenizers that were fitted"):
        Recogniser.open(tmp_path)
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "recogniser.pt")
    with pytest.raises(TokenizerError, match=r"recogniser\.pt"):
        Recogniser.open(tmp_path)


def test_without_words_there_are_phones_but_no_words() -> None:
    settings = FitTokenizer(
        kind="fit", width=32, layers=1, heads=2, codes=16, codebook_dim=8, steps=3, batch=4, learning_rate=4e-3
    )
    silent = fit((Spoken(spoken.waveform, spoken.phones) for spoken in map(sentence, range(12))), settings, seed=1)
    assert "bottleneck_cost" not in silent.report
    silent.recogniser.phones([1, 2, 3])
    with pytest.raises(TokenizerError, match="no words"):
        silent.recogniser.words([1, 2, 3])
    assert torch.equal(silent.recogniser.reader.codebook, silent.tokenizer.bottleneck.codebook)
