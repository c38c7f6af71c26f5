"""The ledger of a registered model: who promoted which version to which alias, when and why; append-only.

It lies in the tracking database as one MLflow run, in the experiment ``ichigo/ledger/<name>``; an entry is a
*parameter* of this run, its name the entry's number (``000001``), its value the entry as JSON. Of all that can be
created in MLflow 3.17 this is what two people can never both create and nobody can change afterwards. Measured on the
real server with sqlite, four clients at once, ten times:

===========================  ==========  ===========================================================================
created                      succeeded   what the others get
===========================  ==========  ===========================================================================
parameter of a run           1 of 4      INVALID_PARAMETER_VALUE (key: name and run); the same value again is no error
registered model             1 of 4      RESOURCE_ALREADY_EXISTS; a line in the list of models for each promotion
experiment, new or renamed   1 of 4      RESOURCE_ALREADY_EXISTS, BAD_REQUEST; a line in the list of experiments
model version                4 of 4      numbers in a row: nobody is refused
tag of a model or version    4 of 4      the last one stands
alias                        4 of 4      the last one stands
===========================  ==========  ===========================================================================

The run is found by its experiment's tag. It is made in an experiment with a name of its own, which is then renamed:
whoever comes second is refused the name and takes the first one's. Who may write to this experiment may promote the
model, where MLflow has permissions.

Aliases are a view of the ledger: :func:`holders` says who holds which, and whatever MLflow shows is set to that
(:func:`ichigo.registry.promotion.repair`). An alias that no entry names is nobody's business here.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from ichigo.errors import IntegrityError, UserError
from ichigo.hashing import canonical_json
from ichigo.tracking.runs import KIND, client

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

CANDIDATE, STAGING, CHAMPION = "candidate", "staging", "champion"

LEDGER_RUN = "ichigo.ledger"
"""Tag of the experiment: the id of the run whose parameters are the entries."""

LONGEST_REASON = 1000  # characters
_LONGEST = 5900  # characters; MLflow cuts a parameter's value at 6,000
_ATTEMPTS = 5
_NOTE = "Promotions of {name}, one parameter each; written by `ichigo promote`, `ichigo rollback` and by pipeline runs."


@dataclass(frozen=True)
class Entry:
    """One line of a ledger.

    Attributes:
        number: from 1, without gaps.
        time: of the writer's clock, UTC, in seconds: ``2026-11-22T10:00:00+00:00``.
        who: ``user@host``.
        action: ``promote`` or ``rollback``.
        version: the version that takes the alias.
        digest: of the version's bytes; "" where somebody registered it by hand.
        source: the alias that the version leaves; "" none.
        target: the alias that it takes.
        previous: the version that held ``target`` before; "" nobody.
        verdict: the gate's, at this moment; "" where there is nothing to judge by.
        forced: whether somebody overruled what spoke against it.
        reason: in the words of who did it.
        numbers: metric -> value, or value, low and high: what the gate's rules ask about.
        left_out: how many of these did not fit.
        mark: tells two writers apart who say the same.
    """

    number: int
    time: str
    who: str
    action: Literal["promote", "rollback"]
    version: str
    target: str
    source: str = ""
    previous: str = ""
    digest: str = ""
    verdict: str = ""
    forced: bool = False
    reason: str = ""
    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    left_out: int = 0
    mark: str = ""

    def __str__(self) -> str:
        before = f", before it version {self.previous}" if self.previous else ""
        forced = ", forced" if self.forced else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.number} {self.time} {self.who} {self.words}{before}{forced}{why}"

    @property
    def words(self) -> str:
        """What was done, in a few words."""
        back = "back " if self.action == "rollback" else ""
        return f"put version {self.version} {back}to {self.target}"

    def text(self) -> str:
        """As the parameter's value: canonical JSON of at most 5,900 characters; numbers that do not fit go."""
        entry, numbers = self, list(self.numbers.items())
        while len(text := canonical_json(asdict(entry)).decode()) > _LONGEST and numbers:
            numbers.pop()
            entry = replace(self, numbers=dict(numbers), left_out=len(self.numbers) - len(numbers))
        return text


class Taken(Exception):
    """The number of an entry belongs to somebody else's."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(str(entry))
        self.entry = entry


def new_entry(number: int, action: Literal["promote", "rollback"], version: str, target: str) -> Entry:
    """An entry of this user on this machine, now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Entry(number, now, _who(), action, version, target, mark=secrets.token_hex(4))


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def checked_reason(text: str) -> str:
    """``text`` in one line of printable characters; :class:`UserError` if it is too long to be kept."""
    reason = "".join(letter if letter.isprintable() else " " for letter in text)
    reason = " ".join(reason.split())
    if len(reason) > LONGEST_REASON:
        raise UserError(f"--reason has {len(reason)} characters; {LONGEST_REASON} are kept at most, say it shorter")
    return reason


def entries(name: str) -> list[Entry]:
    """Every entry of the model called ``name``, in the order in which they were written; none without a ledger."""
    return Ledger(name).entries()


def holders(written: Iterable[Entry]) -> dict[str, str]:
    """Alias -> the version that holds it, "" where its last holder has left it; aliases that no entry names are out."""
    held: dict[str, str] = {}
    for entry in written:
        if entry.source and held.get(entry.source, entry.version) == entry.version:
            held[entry.source] = ""
        held[entry.target] = entry.version
    return held


def champions(written: Iterable[Entry]) -> list[str]:
    """The versions to which a rollback can lead, the present champion last: each one's predecessor is before it."""
    stack: list[str] = []
    for entry in written:
        if entry.target != CHAMPION:
            continue
        if entry.previous and stack[-1:] != [entry.previous]:  # somebody's who was champion before there was a ledger
            stack.append(entry.previous)
        if entry.action == "rollback":
            stack.pop()
        if stack[-1:] != [entry.version]:
            stack.append(entry.version)
    return stack


class Ledger:
    """The ledger of one registered model."""

    def __init__(self, name: str, mlflow: MlflowClient | None = None) -> None:
        self.name, self._client = name, mlflow or client()
        self._run = ""

    def entries(self) -> list[Entry]:
        """All entries; IntegrityError where one is missing or cannot be read."""
        if not (run := self._found()):
            return []
        params: Mapping[str, str] = self._client.get_run(run).data.params
        numbers = sorted(params)
        if numbers != [f"{number:06d}" for number in range(1, len(numbers) + 1)]:
            raise IntegrityError(f"the ledger of {self.name} has gaps: its entries are {numbers}")
        return [self._parsed(params[number]) for number in numbers]

    def write(self, entry: Entry) -> None:
        """Append ``entry``.

        Raises:
            Taken: its number is somebody else's.
        """
        from mlflow.exceptions import MlflowException

        run, text = self._found() or self._made(), entry.text()
        for attempt in range(_ATTEMPTS):
            try:
                self._client.log_param(run, f"{entry.number:06d}", text)
                return
            except MlflowException:  # whatever it says, what counts is what stands there
                there = {one.number: one for one in self.entries()}.get(entry.number)
                if there and there.mark != entry.mark:
                    raise Taken(there) from None
                if not there and attempt + 1 == _ATTEMPTS:
                    raise

    def _parsed(self, text: str) -> Entry:
        try:
            body = json.loads(text)
            numbers = {name: tuple(values) for name, values in body.pop("numbers").items()}
            return Entry(**body, numbers=numbers)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise IntegrityError(f"the ledger of {self.name} has an entry that cannot be read ({error})") from None

    def _found(self) -> str:
        """The id of the ledger's run, "" before there is one."""
        if not self._run and (found := self._experiment()):
            self._run = found.tags[LEDGER_RUN]
        return self._run

    def _experiment(self) -> Experiment | None:
        found = self._client.get_experiment_by_name(self._place)
        if found and found.lifecycle_stage == "deleted":
            restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            raise IntegrityError(f"the ledger of {self.name} was deleted in MLflow; bring it back with `{restore}`")
        return found

    @property
    def _place(self) -> str:
        return f"ichigo/ledger/{self.name}"

    def _made(self) -> str:
        """Make the ledger, or find the one that somebody else has just made."""
        from mlflow.exceptions import MlflowException

        note = {"mlflow.note.content": _NOTE.format(name=self.name)}
        place = self._client.create_experiment(f"{self._place} {secrets.token_hex(4)}", tags={**KIND, **note})
        run = self._client.create_run(place, run_name=f"ledger of {self.name}", tags=note).info.run_id
        self._client.set_terminated(run)
        self._client.set_experiment_tag(place, LEDGER_RUN, run)
        try:
            self._client.rename_experiment(place, self._place)
        except MlflowException:
            if not (found := self._found()):
                raise
            if found != run:  # and not a lost answer to our own success
                with suppress(MlflowException):
                    self._client.delete_experiment(place)
        return self._found()
