"""One training stage on DeepSpeed: pre-train, instruct and enhance are this room run three times.

::

    run_stage (launch) ── torchrun ── worker x world size ── journal ── on_point
                                        │
              order, schedule (pure) ── loop ── model (attention, head, product) ── export
                                        │
              resume ── shelf ── keeper ── checkpoint

:mod:`~ichigo.training.base` trains the text model under it all by the same program, with Muon. :func:`run_stage` needs
no torch; the workers do. The batch and the learning rate of a step are pure functions of
(seed, step, rank, world), and the loss is the mean over the labelled tokens of the whole optimizer step.

The ranks save a :mod:`~ichigo.training.checkpoint` every so many steps; a thread of the launcher, the
:mod:`~ichigo.training.keeper`, seals it and puts it on the :mod:`~ichigo.training.shelf`, from which the next try takes
the newest one and goes on (:mod:`~ichigo.training.resume`). So a process may be killed at any moment.
"""

from __future__ import annotations

from ichigo.training.job import StageJob, StageResult
from ichigo.training.journal import Point
from ichigo.training.launch import run_stage

__all__ = ["Point", "StageJob", "StageResult", "run_stage"]
