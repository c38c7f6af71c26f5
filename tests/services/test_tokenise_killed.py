"""Tokenising with kill -9 in the middle of it, of its upload and of its commit: every row once, and the same bytes."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ichigo.corpus.tokens import read_tokens
from ichigo.engines.platform import Endpoints
from ichigo.store import Artifact, Reference, Store
from tests.measure_tokenising import SHARD, prepare

ROWS = 60  # 8 batches, each a write; then come two files, the manifest and the pointer


@pytest.mark.usefixtures("platform_environment")
def test_every_row_once_and_the_same_bytes_whenever_it_is_killed(
    platform: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICHIGO_HOME", str(tmp_path / "home"))
    root = f"{platform.store}/killed-{secrets.token_hex(4)}"

    def run(store: str, folder: Path, last: int) -> int:
        command = [sys.executable, "-m", "tests.services.tokenise_process", store, str(folder), str(last)]
        return subprocess.run(command, env=os.environ, check=False).returncode

    def made(name: str, *deaths: int) -> Artifact:
        """The tokens after runs that die before these writes, and one that does not."""
        folder, store = tmp_path / name, f"{root}/{name}"
        folder.mkdir()
        prepare(Store.at(store), folder, ROWS)
        assert [run(store, folder, last) for last in (*deaths, 0)] == [*[-signal.SIGKILL] * len(deaths), 0]
        return Store.at(store).open(Reference.load(folder / "tokens"))

    undisturbed = made("undisturbed")
    # Two batches are cached; then the other six, and the first file; then both files, the manifest, and no pointer.
    killed = made("killed", 3, 7, 4)
    assert killed.digest == undisturbed.digest
    assert undisturbed.facts["encoded"] == ROWS
    assert (killed.facts["rows"], killed.facts["cached"], killed.facts["encoded"]) == (ROWS, 16, ROWS - 16)
    ids = [row.id for row in read_tokens(killed.fetch(tmp_path / "tokens"))]
    assert len(ids) == len(set(ids)) == ROWS
    assert (tmp_path / "killed" / "shards" / SHARD).read_bytes() == (
        tmp_path / "undisturbed" / "shards" / SHARD
    ).read_bytes()
