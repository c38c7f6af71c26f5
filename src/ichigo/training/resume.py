"""From a verified checkpoint to what the workers load, also for another number of processes.

ZeRO cuts weights and optimizer state into as many parts as there are processes. Without ZeRO there is nothing to cut,
so any number loads it. Under ZeRO 1 and 2 DeepSpeed's universal checkpoint joins the parts; losses then agree to fp32
rounding, because sums over ranks are added in another order. Under ZeRO 3 DeepSpeed 0.19.8 converts without an error
and goes on wrongly (every parameter group gets the first one's weight decay, and Adam's step counts once per group), so
that is refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from ichigo.errors import StepError, UserError
from ichigo.recipe.schema import Launch
from ichigo.training.checkpoint import JOURNAL, STATE, Checkpoint
from ichigo.training.job import Resume
from ichigo.training.orphans import die_with

_UNIVERSAL = "universal"
_JOINED = {1, 2}  # ZeRO stages that universal checkpoints serve


def resume_from(checkpoint: Checkpoint, launch: Launch, workdir: Path) -> Resume:
    """How a stage under ``launch`` goes on from ``checkpoint``; what has to be converted is written to ``workdir``.

    Raises:
        UserError: it was saved by another number of processes, or another ZeRO stage, from which there is no way.
    """
    saved, journal = checkpoint.manifest, checkpoint.folder / JOURNAL
    world = launch.nodes * launch.processes
    if saved.zero == launch.zero and (saved.world == world or saved.zero == 0):
        return Resume(checkpoint.folder, STATE, saved.step, journal, exact=saved.world == world)
    if {saved.zero, launch.zero} <= _JOINED:
        _convert(checkpoint.folder / STATE, workdir / _UNIVERSAL)
        return Resume(workdir, _UNIVERSAL, saved.step, journal, universal=True, exact=False)
    raise UserError(
        f"the newest checkpoint of this stage, after step {saved.step}, was saved by {saved.world} processes under "
        f"ZeRO {saved.zero} and cannot be converted for {world} under ZeRO {launch.zero}; go on with "
        f"--set launch.processes={saved.world} --set launch.zero={saved.zero}, or begin the stage anew with "
        "--set launch.checkpoints.resume=false"
    )


def _convert(state: Path, output: Path) -> None:
    """Join the parts by DeepSpeed's converter, in one process of its own, which a kill of ours takes along."""
    output.mkdir(parents=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"),
            *("--input_folder", str(state), "--output_folder", str(output)),
            *("--num_extract_workers", "1", "--num_merge_workers", "1"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=partial(die_with, os.getpid()),
    )
    if done.returncode != 0:
        raise StepError("\n".join([f"DeepSpeed cannot convert {state}:", *done.stdout.splitlines()[-20:]]))
