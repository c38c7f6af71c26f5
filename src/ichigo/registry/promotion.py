"""Who holds which alias, and how it changes: every change is an entry in the ledger, aliases follow from it.

A version goes ``candidate`` -> ``staging`` -> ``champion``. The pipeline lets a version that the gate promotes take the
first one (:func:`place`); a person takes it further (:func:`move`), one step at a time, and back (:func:`move_back`).
Who changes something says how many entries the ledger had when the decision was made; if somebody else has written
since, nothing happens and :class:`Overtaken` says what they did. On the way to ``champion`` the gate judges again,
because the champion may be another than the one that the version was judged against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ichigo.errors import UserError
from ichigo.registry.ledger import (
    CANDIDATE,
    CHAMPION,
    STAGING,
    Entry,
    Ledger,
    Taken,
    champions,
    checked_reason,
    holders,
    new_entry,
)
from ichigo.registry.tags import DIGEST, VERDICT
from ichigo.tracking.runs import client

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient


class Overtaken(UserError):
    """Somebody else changed the model's aliases first; ``entry`` says who and how."""

    def __init__(self, name: str, wanted: str, entry: Entry) -> None:
        self.entry = entry
        super().__init__(
            f"{name}: you wanted to {wanted}, but {entry.who} has just {entry.words} (entry {entry.number} of the "
            f"ledger, {entry.time}{f': {entry.reason}' if entry.reason else ''}); nothing was changed. Look at "
            f"`ichigo models {name}` and decide again"
        )


@dataclass(frozen=True)
class Opinion:
    """What speaks of a version on its way to an alias.

    Attributes:
        verdict: the gate's; "" where there is nothing to judge by.
        objections: what speaks against it, one sentence each; they take force to overrule.
        numbers: what the gate's rules ask about, for the ledger.
        digest: of the version's bytes.
    """

    verdict: str
    objections: tuple[str, ...]
    numbers: Mapping[str, Sequence[float]]
    digest: str


@dataclass(frozen=True)
class Drift:
    """An alias that MLflow shows at another version than the ledger says; "" for none."""

    alias: str
    shown: str
    holder: str

    def __str__(self) -> str:
        shown = f"showed version {self.shown}" if self.shown else "was missing"
        return (
            f"alias {self.alias} {shown}; by the ledger {f'version {self.holder}' if self.holder else 'nobody'} has it"
        )


def current(name: str) -> dict[str, str]:
    """Alias -> version, as the ledger has it; aliases of which it knows nothing as MLflow shows them."""
    mlflow = client()
    return _current(_shown(mlflow, name), Ledger(name, mlflow).entries())


def drift(name: str) -> list[Drift]:
    """Aliases that are not what the ledger says, by name."""
    mlflow = client()
    return _drift(_shown(mlflow, name), Ledger(name, mlflow).entries())


def repair(name: str) -> list[Drift]:
    """Set MLflow's aliases to what the ledger says; returns what was not.

    Whoever wrote an entry calls this after it. It looks at the ledger again after its own last change, so that of two
    that run side by side the later one never leaves the earlier one's state behind.
    """
    mlflow, done = client(), list[Drift]()
    while wrong := [one for one in drift(name) if one not in done]:
        for one in wrong:
            _set(mlflow, name, one)
        done += wrong
    return done


def place(
    name: str, version: str, alias: str, *, reason: str = "", numbers: Mapping[str, Sequence[float]] | None = None
) -> None:
    """Let ``version`` take ``alias``, whoever has it and whoever else writes meanwhile: what a pipeline run does.

    ``reason`` and ``numbers``, what the gate's rules ask about, are kept in the ledger. A version that holds the alias,
    or has gone on from it to ``staging`` or ``champion``, stays where it is.
    """
    mlflow = client()
    ledger = Ledger(name, mlflow)
    found = mlflow.get_model_version(name, version)
    while True:
        written = ledger.entries()
        held = _current(_shown(mlflow, name), written)
        if version in (held.get(alias), held.get(STAGING), held.get(CHAMPION)):
            break
        entry = replace(
            new_entry(len(written) + 1, "promote", version, alias),
            previous=held.get(alias, ""),
            reason=checked_reason(reason),
            digest=found.tags.get(DIGEST, ""),
            verdict=found.tags.get(VERDICT, ""),
            numbers=numbers or {},
        )
        try:
            ledger.write(entry)
            break
        except Taken:
            continue
    repair(name)


def move(
    name: str,
    version: str,
    target: str | None,
    opinion: Callable[[str, str], Opinion],
    *,
    force: bool = False,
    reason: str = "",
    after: int | None = None,
) -> Entry:
    """Promote ``version`` to ``target``, by default one step; returns the ledger's entry.

    Args:
        name: the registered model.
        version: one that exists.
        target: ``staging`` or ``champion``.
        opinion: what speaks of the version: takes the target and the version that holds it now ("" nobody).
        force: overrule what speaks against it; needs a reason.
        reason: kept in the ledger.
        after: how many entries the ledger had when this was decided; None: as many as now.

    Raises:
        UserError: something speaks against it, or force has no reason.
        Overtaken: somebody else wrote first.
    """
    reason = _reason(force, reason)
    mlflow = client()
    ledger = Ledger(name, mlflow)
    written = ledger.entries()
    held = _current(_shown(mlflow, name), written)
    source = standing(version, held, written)
    target = target or (CHAMPION if source == STAGING else STAGING)
    _overtaken(name, f"put version {version} to {target}", written, after)
    if version == held.get(target):
        raise UserError(f"{name} version {version} is {target} already")
    found = opinion(target, held.get(target, ""))
    objections = (*_out_of_turn(version, source, target), *found.objections)
    if objections and not force:
        listed = "\n".join(f"  - {one}" for one in objections)
        raise UserError(
            f"{name} version {version} is not put to {target}:\n{listed}\nto do it all the same: --force --reason TEXT"
        )
    entry = replace(
        new_entry(len(written) + 1, "promote", version, target),
        source=source if source != CHAMPION else "",
        previous=held.get(target, ""),
        digest=found.digest,
        verdict=found.verdict,
        forced=bool(objections),
        reason=reason,
        numbers=found.numbers,
    )
    return _written(name, ledger, entry)


def move_back(name: str, *, reason: str = "", after: int | None = None) -> Entry:
    """Give ``champion`` back to the version that had it before; returns the ledger's entry.

    Raises:
        UserError: nobody was champion before, or that version is gone.
        Overtaken: somebody else wrote first.
    """
    mlflow = client()
    ledger = Ledger(name, mlflow)
    written = ledger.entries()
    stack = champions(written)
    _overtaken(name, "roll back", written, after)
    if len(stack) < 2:
        now = f"version {stack[-1]}" if stack else "nobody"
        raise UserError(f"{name} has no earlier champion to go back to: by its ledger {now} is champion")
    found = _there(mlflow, name, stack[-2])
    entry = replace(
        new_entry(len(written) + 1, "rollback", stack[-2], CHAMPION),
        previous=stack[-1],
        reason=checked_reason(reason),
        digest=found.tags.get(DIGEST, ""),
        verdict=found.tags.get(VERDICT, ""),
    )
    return _written(name, ledger, entry)


def _reason(force: bool, reason: str) -> str:
    checked = checked_reason(reason)
    if force and not checked:
        raise UserError("--force needs a --reason: it is kept in the ledger beside your name")
    return checked


def _overtaken(name: str, wanted: str, written: Sequence[Entry], after: int | None) -> None:
    if after is None or after == len(written):
        return
    if after > len(written):
        raise UserError(f"--after {after}: the ledger of {name} has {len(written)} entries")
    raise Overtaken(name, wanted, written[after])


def _written(name: str, ledger: Ledger, entry: Entry) -> Entry:
    try:
        ledger.write(entry)
    except Taken as taken:
        repair(name)
        wanted = "roll back" if entry.action == "rollback" else f"put version {entry.version} to {entry.target}"
        raise Overtaken(name, wanted, taken.entry) from None
    repair(name)
    return entry


def standing(version: str, held: Mapping[str, str], written: Sequence[Entry]) -> str:
    """The highest alias that the version holds on its way; "" for none. One that somebody set by hand, beside the
    ledger and under a name of their own, is no step of the way."""
    known = {CANDIDATE, STAGING, CHAMPION, *holders(written)}
    own = sorted(alias for alias, holder in held.items() if holder == version and alias in known)
    return next((alias for alias in (CHAMPION, STAGING) if alias in own), own[0] if own else "")


def _out_of_turn(version: str, source: str, target: str) -> list[str]:
    """What is wrong with the step from ``source`` to ``target``."""
    if target == CHAMPION and source != STAGING:
        return [f"version {version} is not in staging ({f'it holds {source}' if source else 'it holds no alias'})"]
    if target == STAGING and source == CHAMPION:
        return [f"version {version} is champion"]
    return [] if source else [f"version {version} holds no alias: the gate held it back, or a later one took its place"]


def _there(mlflow: MlflowClient, name: str, version: str) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(f"{name} version {version}, the champion before, is no longer in the registry") from None


def _shown(mlflow: MlflowClient, name: str) -> dict[str, str]:
    """MLflow's aliases; none where there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        found = mlflow.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(version) for alias, version in found.items()}


def _current(shown: Mapping[str, str], written: Sequence[Entry]) -> dict[str, str]:
    return {alias: version for alias, version in {**shown, **holders(written)}.items() if version}


def _drift(shown: Mapping[str, str], written: Sequence[Entry]) -> list[Drift]:
    held = sorted(holders(written).items())
    return [Drift(alias, shown.get(alias, ""), version) for alias, version in held if shown.get(alias, "") != version]


def _set(mlflow: MlflowClient, name: str, one: Drift) -> None:
    from mlflow.exceptions import MlflowException

    if not one.holder:
        mlflow.delete_registered_model_alias(name, one.alias)
        return
    try:
        mlflow.set_registered_model_alias(name, one.alias, one.holder)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # a version that somebody deleted cannot be shown
            raise
