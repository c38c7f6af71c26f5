"""Promotions on a real MLflow server: the ledger, aliases that follow from it, and races with one winner."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from ichigo.cli import main as cli
from ichigo.errors import IntegrityError, UserError
from ichigo.recipe.schema import Rule
from ichigo.registry.gate import Evidence
from ichigo.registry.ledger import Entry, Ledger, Taken, entries, new_entry
from ichigo.registry.models import EVIDENCE, VERDICT, Record, incumbent, opinion_of, register
from ichigo.registry.promotion import Overtaken, current, drift, move, move_back, place, repair
from tests.promotion_race import races, table

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RIGHT = "spoken.exact_match"
RULES = (Rule(metric=RIGHT, at_least=0.5),)

pytestmark = pytest.mark.usefixtures("platform_environment")


@pytest.fixture
def name() -> str:
    """A model that the registry does not hold yet."""
    return f"tiny-{secrets.token_hex(4)}"


def judged(right: float, items: str = "i" * 64) -> Record:
    metrics = {RIGHT: right, f"{RIGHT}.low": right - 0.1, f"{RIGHT}.high": right + 0.1}
    return Record(Evidence(metrics, {"": items}), RULES)


def put(name: str, record: Record, verdict: str = "promote", alias: str | None = "candidate") -> str:
    """Register a new version as a pipeline run does; returns its number."""
    tags = {VERDICT: verdict, EVIDENCE: record.tag()}
    digest = secrets.token_hex(32)
    uri = f"s3://ichigo/store/model-enhance/{digest[:32]}/1"
    return register(name, uri, digest, mlflow_run=None, tags=tags, alias=alias, reason="run tiny-1").version


def promote(name: str, version: str, target: str | None = None, **about: object) -> Entry:
    return move(name, version, target, opinion_of(name, version), **about)  # type: ignore[arg-type]


def shown(mlflow: MlflowClient, name: str) -> Mapping[str, str]:
    return {alias: str(version) for alias, version in mlflow.get_registered_model(name).aliases.items()}


def test_a_version_goes_from_candidate_to_champion_and_the_one_before_comes_back(
    mlflow: MlflowClient, name: str
) -> None:
    """Every change is an entry with who, what, on which numbers and whose place it takes; MLflow shows the result."""
    first, second = put(name, judged(0.6)), None
    for _ in range(2):
        promote(name, first)
    second = put(name, judged(0.7))
    assert shown(mlflow, name) == {"champion": "1", "candidate": "2"}
    promote(name, second, reason="heard by three people")
    last = promote(name, second)
    assert shown(mlflow, name) == {"champion": "2"}
    assert (last.source, last.target, last.previous, last.verdict, last.forced) == (
        "staging",
        "champion",
        "1",
        "promote",
        False,
    )
    assert last.numbers == {RIGHT: (0.7, 0.6, 0.8)}
    rolled = move_back(name, reason="too slow")
    assert shown(mlflow, name) == {"champion": "1"}
    assert (rolled.action, rolled.version, rolled.previous) == ("rollback", "1", "2")
    written = entries(name)
    assert [(one.number, one.version, one.target) for one in written] == [
        (1, "1", "candidate"),
        (2, "1", "staging"),
        (3, "1", "champion"),
        (4, "2", "candidate"),
        (5, "2", "staging"),
        (6, "2", "champion"),
        (7, "1", "champion"),
    ]
    assert [one.reason for one in written] == [
        "run tiny-1",
        "",
        "",
        "run tiny-1",
        "heard by three people",
        "",
        "too slow",
    ]
    assert all("@" in one.who and one.digest for one in written)
    assert [dict(one.numbers) for one in written[:-1]] == [{RIGHT: (0.6, 0.5, 0.7)}] * 3 + [
        {RIGHT: (0.7, 0.6, 0.8)}
    ] * 3
    with pytest.raises(UserError, match="no earlier champion to go back to: by its ledger version 1 is champion"):
        move_back(name)


def test_a_promotion_leaves_the_list_of_models_as_it_is(mlflow: MlflowClient, name: str) -> None:
    version = put(name, judged(0.6))
    before = {model.name for model in mlflow.search_registered_models()}
    promote(name, version)
    promote(name, version)
    assert {model.name for model in mlflow.search_registered_models()} == before
    assert sum(one.name == f"ichigo/ledger/{name}" for one in mlflow.search_experiments()) == 1


def test_an_entry_can_neither_be_written_twice_nor_changed(name: str) -> None:
    ledger = Ledger(name)
    mine, theirs = (new_entry(1, "promote", version, "staging") for version in "12")
    ledger.write(mine)
    ledger.write(mine)  # an answer that was lost on the way: the same entry again is no other one
    with pytest.raises(Taken) as taken:
        Ledger(name).write(theirs)
    assert taken.value.entry == mine
    assert entries(name) == [mine]


def test_what_was_decided_on_an_older_ledger_changes_nothing_and_is_told_who_was_faster(
    mlflow: MlflowClient, name: str
) -> None:
    one, other = put(name, judged(0.6)), put(name, judged(0.7))
    faster = promote(name, other, "staging", reason="for the fair")
    with pytest.raises(Overtaken) as told:
        promote(name, one, "staging", force=True, reason="mine", after=2)
    assert told.value.entry == faster
    assert f"{faster.who} has just put version 2 to staging (entry 3" in str(told.value)
    assert "for the fair" in str(told.value)
    assert shown(mlflow, name) == {"staging": "2"}
    assert len(entries(name)) == 3


def test_of_deployers_who_promote_at_once_one_wins_and_the_others_are_told() -> None:
    found = races(5, 2)
    assert [race.fair for race in found] == [True] * 5, table(found)


def test_aliases_are_set_back_to_what_the_ledger_says(mlflow: MlflowClient, name: str) -> None:
    """By hand, or by a promoter that was killed between its entry and the alias."""
    first, second = put(name, judged(0.6)), put(name, judged(0.7))
    promote(name, second, "staging")
    mlflow.set_registered_model_alias(name, "staging", first)
    mlflow.set_registered_model_alias(name, "candidate", first)
    mlflow.set_registered_model_alias(name, "demo", first)
    assert current(name) == {"staging": "2", "demo": "1"}
    assert [str(one) for one in drift(name)] == [
        "alias candidate showed version 1; by the ledger nobody has it",
        "alias staging showed version 1; by the ledger version 2 has it",
    ]
    assert len(repair(name)) == 2
    assert shown(mlflow, name) == {"staging": "2", "demo": "1"}
    assert repair(name) == []


def test_an_alias_whose_version_was_deleted_does_not_stop_the_next_run(mlflow: MlflowClient, name: str) -> None:
    put(name, judged(0.6))
    promote(name, "1")
    mlflow.delete_model_version(name, "1")
    put(name, judged(0.7))
    assert shown(mlflow, name) == {"candidate": "2"}
    assert [one.alias for one in drift(name)] == ["staging"]


def test_a_champion_that_was_deleted_is_no_incumbent(mlflow: MlflowClient, name: str) -> None:
    put(name, judged(0.9))
    place(name, "1", "champion")
    mlflow.delete_model_version(name, "1")
    assert incumbent(name) is None
    version = put(name, judged(0.6))
    promote(name, version)
    assert promote(name, version).verdict == "promote"
    with pytest.raises(UserError, match="version 1, the champion before, is no longer in the registry"):
        move_back(name)


def test_a_run_that_is_repeated_writes_no_second_entry(name: str) -> None:
    record = judged(0.6)
    about = {"mlflow_run": None, "tags": {VERDICT: "promote", EVIDENCE: record.tag()}, "alias": "candidate"}
    for _ in range(2):
        register(name, "s3://ichigo/store/model/a/1", "d" * 64, **about)  # type: ignore[arg-type]
    promote(name, "1")
    register(name, "s3://ichigo/store/model/a/1", "d" * 64, **about)  # type: ignore[arg-type]
    assert [one.target for one in entries(name)] == ["candidate", "staging"]


def test_a_version_that_the_gate_held_needs_force_and_force_a_reason(name: str) -> None:
    version = put(name, judged(0.6), verdict="hold", alias=None)
    with pytest.raises(UserError) as refused:
        promote(name, version)
    assert "holds no alias: the gate held it back" in str(refused.value)
    assert "the gate's verdict was hold" in str(refused.value)
    assert "--force --reason TEXT" in str(refused.value)
    with pytest.raises(UserError, match="--force needs a --reason"):
        promote(name, version, force=True, reason=" \n")
    assert entries(name) == []
    entry = promote(name, version, force=True, reason="the demo is on Monday")
    assert (entry.forced, entry.verdict, entry.reason) == (True, "hold", "the demo is on Monday")


def test_the_gate_judges_again_on_the_way_to_champion(name: str) -> None:
    """Both were promoted when there was no champion; the better one has become it since."""
    worse, better = put(name, judged(0.6)), put(name, judged(0.7))
    for _ in range(2):
        promote(name, better)
    promote(name, worse, force=True, reason="to compare them")
    with pytest.raises(UserError, match=r"hold: 1 of 1 rules kept, worse than the incumbent on 1") as refused:
        promote(name, worse)
    assert "worse than the incumbent's 0.7" in str(refused.value)


def test_a_champion_asked_other_items_is_not_compared_in_silence(name: str) -> None:
    champion, version = put(name, judged(0.6)), None
    for _ in range(2):
        promote(name, champion)
    version = put(name, judged(0.9, items="j" * 64))
    promote(name, version)
    with pytest.raises(UserError, match=r"not comparable: the incumbent's 0\.6 is of other items"):
        promote(name, version)


def test_a_step_is_not_skipped_without_force(name: str) -> None:
    version = put(name, judged(0.6))
    with pytest.raises(UserError, match="is not in staging \\(it holds candidate\\)"):
        promote(name, version, "champion")
    assert promote(name, version, "champion", force=True, reason="first of its kind").source == "candidate"
    with pytest.raises(UserError, match="is champion already"):
        promote(name, version, "champion")


def test_the_incumbent_is_the_champion_of_the_ledger(mlflow: MlflowClient, name: str) -> None:
    assert incumbent(name) is None
    put(name, judged(0.6))
    assert incumbent(name) is None
    place(name, "1", "champion")
    put(name, judged(0.7))
    mlflow.set_registered_model_alias(name, "champion", "2")  # somebody's hand, which no entry vouches for
    assert incumbent(name) == judged(0.6).evidence


def test_a_ledger_that_was_deleted_is_missed(mlflow: MlflowClient, name: str) -> None:
    put(name, judged(0.6))
    found = mlflow.get_experiment_by_name(f"ichigo/ledger/{name}")
    assert found
    mlflow.delete_experiment(found.experiment_id)
    with pytest.raises(IntegrityError, match=f"restore --experiment-id {found.experiment_id}"):
        entries(name)


class TestCommandLine:
    """What a person types and reads."""

    def test_models_promote_and_rollback(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        for right in (0.6, 0.7):
            version = put(name, judged(right))
            assert cli.main(["promote", f"{name}@{version}"]) == 0
            assert cli.main(["promote", f"{name}@staging", "--reason", "no complaints"]) == 0
        assert cli.main(["rollback", name, "--reason", "complaints"]) == 0
        capsys.readouterr()
        assert cli.main(["models", name]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0] == f"{name}, ledger of 7 entries"
        assert said[1].split()[:2] == ["2", "promote"]
        assert said[2].split()[:3] == ["1", "@champion", "promote"]
        assert said[2].endswith(f"{RIGHT} 0.6 [0.5, 0.7]")
        assert said[-1].endswith("put version 1 back to champion, before it version 2: complaints")

    def test_json_holds_the_ledger(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        put(name, judged(0.6))
        assert cli.main(["models", name, "--json"]) == 0
        (model,) = json.loads(capsys.readouterr().out)
        assert model["versions"][0]["aliases"] == ["candidate"]
        assert model["versions"][0]["numbers"] == {RIGHT: [0.6, 0.5, 0.7]}
        assert [entry["target"] for entry in model["ledger"]] == ["candidate"]

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["promote", "{name}"], "name a version to promote: {name}@VERSION"),
            (["promote", "{name}@9"], "the registry has no '{name}@9'; it has {name}@candidate, {name}@1"),
            (["promote", "{name}@1", "--force"], "--force needs a --reason"),
            (["promote", "{name}@1", "--after", "7"], "--after 7: the ledger of {name} has 1 entries"),
            (["rollback", "{name}"], "has no earlier champion to go back to: by its ledger nobody is champion"),
            (["models", "{name}-not"], "the registry has no version of '{name}-not'; it has "),
        ],
    )
    def test_what_cannot_be_is_said(
        self, name: str, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        put(name, judged(0.6))
        assert cli.main([word.format(name=name) for word in words]) == 2
        assert says.format(name=name) in capsys.readouterr().err
