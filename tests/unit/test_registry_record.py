"""What a version's verdict stands on, as the tag that carries it."""

from __future__ import annotations

from types import SimpleNamespace

from ichigo.recipe.schema import Rule
from ichigo.registry.gate import Evidence
from ichigo.registry.models import EVIDENCE, Record, record_of

RULES = (Rule(metric="a.wer", at_most=0.5, bound="high"), Rule(metric="b.right", at_least=0.1), Rule(metric="no"))
METRICS = {"a.wer": 0.25, "a.wer.low": 0.123456789, "a.wer.high": 0.375, "b.right": 0.5, "b.right.low": 0.4}


def read(record: Record) -> Record:
    return record_of(SimpleNamespace(tags={EVIDENCE: record.tag()}))


def test_it_comes_back_as_it_was() -> None:
    """A rounded number could turn a tie into a loss when the gate judges again."""
    record = Record(Evidence({**METRICS, "third": 1 / 3}, {"": "x", "a": "y"}), RULES, {"uri": "s3://b/e"})
    assert read(record) == record


def test_equal_records_have_equal_tags() -> None:
    turned = Evidence(dict(reversed(METRICS.items())), {})
    assert Record(turned, RULES).tag() == Record(Evidence(METRICS), RULES).tag()


def test_numbers_are_those_that_the_rules_ask_about() -> None:
    """An interval of which an end is missing is none."""
    assert Record(Evidence(METRICS), RULES).numbers() == {"a.wer": (0.25, 0.123457, 0.375), "b.right": (0.5,)}


def test_more_metrics_than_a_tag_takes_leave_those_of_the_rules() -> None:
    """MLflow refuses a tag of more than 100,000 characters, and with it the registration."""
    many = {f"suite_{number}.exact_match": 0.123456789012 for number in range(5000)}
    record = Record(Evidence({**many, **METRICS}, {"": "x"}), RULES)
    assert len(record.tag()) < 100_000
    assert read(record).numbers() == record.numbers()
    assert read(record).evidence.metrics["a.wer.high"] == 0.375
    assert read(record).evidence.items == {"": "x"}
