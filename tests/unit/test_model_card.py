"""The model card: what it says follows from manifests and numbers, and nothing in it can break out of its line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ichigo.recipe.schema import Rule
from ichigo.registry.card import Facts, body, description, escaped, front_matter, gather, render
from ichigo.registry.gate import Evidence
from ichigo.registry.models import LONGEST_DESCRIPTION, Record
from ichigo.store import Artifact, Identity, MemoryObjects, Store

WER = "transcription.held_out.wer"
RULES = (Rule(metric=WER, at_most=0.2), Rule(metric="spoken.exact_match", at_least=0.5, bound="low"))
METRICS = {WER: 0.12345, f"{WER}.low": 0.1, f"{WER}.high": 0.15, "transcription.held_out.items": 600.0}
RECORD = Record(Evidence(METRICS, {"": "i" * 64}), RULES, {"uri": "s3://b/s/evaluation/f/a", "digest": "e" * 64})
NASTY = "<script>alert(1)</script> | [x](http://evil) `rm`\n\n# Heading"


@pytest.fixture
def store() -> Store:
    return Store(MemoryObjects())


def commit(store: Store, kind: str, files: dict[str, bytes], settings: object = None, **parents: Artifact) -> Artifact:
    identity = Identity(kind, {"base": settings} if settings else {}, {}, "")
    with store.write(identity, parents={name: one.reference for name, one in parents.items()}) as draft:
        for name, data in files.items():
            (draft.folder / name).write_bytes(data)
    return draft.committed


def corpus(store: Store, licenses: dict[str, int], tmp_path: Path, origins: tuple[str, ...] = ("world",)) -> Artifact:
    summary = {
        "licenses": licenses,
        "languages": {"en": sum(licenses.values())},
        "origins": dict.fromkeys(origins, 1),
        "speakers": {"anna": 1, "ben": 2},
        "seconds": 7200.0,
    }
    table = pa.table({"language": ["en", "de"], "license": ["CC0-1.0", ""]})
    pq.write_table(table, tmp_path / "texts.parquet")
    files = {"summary.json": json.dumps(summary).encode(), "texts.parquet": (tmp_path / "texts.parquet").read_bytes()}
    return commit(store, "corpus", files)


def chain(store: Store, licenses: dict[str, int], tmp_path: Path, origins: tuple[str, ...] = ("world",)) -> Facts:
    rows = corpus(store, licenses, tmp_path, origins)
    tokenizer = commit(store, "tokenizer", {"t": b"t"}, corpus=rows)
    base = commit(store, "base", {"b": b"b"}, {"kind": "folder", "name": "meta-llama/Llama-3.1-8B"})
    first = commit(store, "model-pretrain", {"m": b"1"}, base=base, tokenizer=tokenizer)
    model = commit(store, "model-instruct", {"m": b"2", "LICENSE.txt": b"terms"}, model=first)
    return gather(model, store, "ichigo-tiny", ("tiny", "a small Ichigo"), RECORD)


def head(facts: Facts) -> dict[str, object]:
    """The front matter, as the Hub reads it."""
    front: dict[str, object] = yaml.safe_load(render(facts).split("---\n")[1])
    return front


def test_everything_follows_from_the_chain(store: Store, tmp_path: Path) -> None:
    facts = chain(store, {"CC-BY-4.0": 10}, tmp_path)
    assert facts.spoken == {"CC-BY-4.0": 10}
    assert facts.written == {"": 1, "CC0-1.0": 1}
    assert facts.languages == {"de": 1, "en": 11}
    assert (facts.speakers, facts.seconds, facts.stages) == (2, 7200.0, ["model-pretrain", "model-instruct"])
    front = head(facts)
    assert front["base_model"] == "meta-llama/Llama-3.1-8B"
    assert front["language"] == ["de", "en"]
    assert front["datasets"] == ["world"]
    assert (front["license"], front["license_name"]) == ("other", "CC-BY-4.0; CC0-1.0")
    text = body(facts)
    assert "| CC\\-BY\\-4.0 | 10 | 0 |" in text
    assert "| none given | 0 | 1 |" in text
    assert "1 rows carry no licence" in text
    assert "10 spoken rows (2.00 hours, 2 speakers) and 2 written ones." in text
    assert "began with meta\\-llama/Llama\\-3.1\\-8B, and went through pretrain, instruct." in text
    assert "terms travel with the weights: LICENSE.txt" in text
    assert "anna" not in text


def test_numbers_stand_with_intervals_items_and_what_was_asked(store: Store, tmp_path: Path) -> None:
    text = body(chain(store, {"CC0-1.0": 1}, tmp_path))
    name = escaped(WER)
    assert f"| {name} | 0.1235 [0.1, 0.15] | 600 | at most 0.2 | kept |" in text
    assert "| spoken.exact\\_match | missing |  | at least 0.5 at the low end | not kept |" in text
    assert "- spoken.exact\\_match is asked for and was not measured." in text


def test_the_hub_is_told_one_known_licence_by_its_name(store: Store, tmp_path: Path) -> None:
    facts = replace(chain(store, {"CC0-1.0": 3}, tmp_path), written={"CC0-1.0": 1})
    assert front_matter(facts)["license"] == "cc0-1.0"
    assert "license_name" not in front_matter(facts)


def test_synthetic_voices_are_said_to_be_synthetic_and_people_are_not(store: Store, tmp_path: Path) -> None:
    assert "Every voice in it is synthetic" in body(chain(store, {"synthetic": 3}, tmp_path))
    mixed = chain(Store(MemoryObjects()), {"synthetic": 3}, tmp_path, ("world", "folder"))
    assert "Every voice in it is synthetic" not in body(mixed)


def test_nothing_from_data_is_markup(store: Store, tmp_path: Path) -> None:
    facts = chain(store, {NASTY: 3}, tmp_path, (NASTY,))
    facts = replace(facts, recipe=("tiny", NASTY), languages={NASTY: 1}, license_files=[NASTY])
    text = body(facts)
    assert "<script" not in text
    assert "](http" not in text
    assert not any(line.startswith("# Heading") for line in text.splitlines())
    row = next(line for line in text.splitlines() if line.startswith("| &lt;script"))
    assert row.replace("\\|", "").count("|") == 4
    assert head(facts)["license_name"] == f"{' '.join(NASTY.split())}; CC0-1.0"
    assert "language" not in head(facts)


def test_equal_facts_give_equal_bytes(tmp_path: Path) -> None:
    """Two stores, rows counted in another order; only the attempts' addresses differ."""
    one = chain(Store(MemoryObjects()), {"a": 1, "b": 2}, tmp_path)
    other = chain(Store(MemoryObjects()), {"b": 2, "a": 1}, tmp_path)
    assert render(one) == render(replace(other, model=one.model, tokenizer=one.tokenizer))


def test_a_long_card_is_cut_for_mlflow_between_lines(store: Store, tmp_path: Path) -> None:
    facts = chain(store, {f"licence {number}": 1 for number in range(300)}, tmp_path)
    text = description(facts, "s3://b/s/card/f/a/README.md")
    assert LONGEST_DESCRIPTION - 200 < len(text) <= LONGEST_DESCRIPTION
    assert text.endswith("\nThe rest: s3://b/s/card/f/a/README.md\n")
    kept = text.partition("\n\nThe rest")[0].splitlines()
    assert kept == body(facts).splitlines()[: len(kept)]


def test_a_model_without_a_corpus_has_a_card_that_says_what_is_not_known(store: Store) -> None:
    model = commit(store, "model-enhance", {"m": b"2"})
    facts = gather(model, store, "m", ("r", "d"), Record(Evidence({})))
    text = render(facts)
    assert head(facts)["license_name"] == "unknown"
    assert "Languages: not known." in text
    assert "No rule was asked of this model" in text
