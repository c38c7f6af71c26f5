"""What every object store and the artifacts in it must keep: run on the fake by unit tests, on a real S3 server too.

A test file derives from both classes and gives a fixture ``objects``: an empty root of the store under test.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ichigo.errors import IntegrityError, UserError
from ichigo.hashing import sha256_bytes
from ichigo.store import Artifact, Draft, Identity, NoSuchObject, Objects, Reference, Store
from ichigo.store.objects import Stored, Upload
from ichigo.store.verification import Wanted, verify

FILES = {
    "model.bin": bytes(range(256)) * 40,
    "nested/deeper/notes with ünïcode.txt": b"sound tokens\n",
    "nested/empty": b"",
}
OTHER = {name: data[::-1] + b"other" for name, data in FILES.items()}
IDENTITY = Identity("model", {"steps": 10}, {"corpus": "c0ffee"}, "code-1")


class Killed(BaseException):
    """The writer's process died here."""


class Watched:
    """An object store that calls ``before_put`` with 1, 2, 3 … before each write."""

    def __init__(self, objects: Objects, before_put: Callable[[int], None]) -> None:
        self.uri = objects.uri
        self._objects, self._before_put, self._count = objects, before_put, itertools.count(1)

    def put(self, key: str, data: bytes) -> None:
        self._before_put(next(self._count))
        self._objects.put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        self._before_put(next(self._count))
        self._objects.put_file(key, path)

    def copy(self, source: str, key: str) -> None:
        self._before_put(next(self._count))
        self._objects.copy(source, key)

    def get(self, key: str) -> bytes:
        return self._objects.get(key)

    def get_file(self, key: str, path: Path) -> None:
        self._objects.get_file(key, path)

    def get_range(self, key: str, start: int, size: int) -> bytes:
        return self._objects.get_range(key, start, size)

    def sha256(self, key: str) -> str:
        return self._objects.sha256(key)

    def list(self, prefix: str, limit: int | None = None) -> Iterator[tuple[str, int]]:
        return self._objects.list(prefix, limit)

    def stored(self, prefix: str) -> Iterator[Stored]:
        return self._objects.stored(prefix)

    def delete(self, key: str) -> None:
        self._objects.delete(key)

    def uploads(self, prefix: str) -> Sequence[Upload]:
        return self._objects.uploads(prefix)

    def abort(self, upload: Upload) -> None:
        self._objects.abort(upload)


def fill(draft: Draft, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = draft.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def taking(store: Store, identity: Identity, artifact: Artifact, own: Mapping[str, bytes]) -> Artifact:
    """Commit the files of ``artifact`` and ``own`` ones as one artifact."""
    with store.write(identity, parents={}, keep=True) as draft:
        draft.take(artifact)
        fill(draft, own)
    return draft.committed


def commit(
    objects: Objects,
    files: Mapping[str, bytes] = FILES,
    identity: Identity = IDENTITY,
    *,
    facts: Mapping[str, Any] | None = None,
    run: str = "",
) -> Artifact:
    """Write ``files`` as an artifact."""
    with Store(objects).write(identity, parents={}, run=run) as draft:
        fill(draft, files)
        draft.facts.update(facts or {})
    return draft.committed


def content(artifact: Artifact, folder: Path) -> dict[str, bytes]:
    """Every file of an artifact, fetched into a new folder below ``folder``."""
    target = folder / f"fetched-{len(list(folder.iterdir()))}"
    artifact.fetch(target)
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def key_of(objects: Objects, reference: Reference, name: str) -> str:
    """The key under which a file of an artifact lies."""
    return f"{reference.uri.removeprefix(objects.uri + '/')}/{name}"


def pointer_of(identity: Identity) -> str:
    return f"{identity.kind}/{identity.fingerprint}/COMMITTED.json"


def number_of_puts(objects: Objects) -> int:
    """How many writes one commit of :data:`FILES` takes."""
    seen: list[int] = []
    commit(Watched(objects, seen.append), identity=Identity("counted", {}, {}, ""))
    return max(seen)


def next_millisecond() -> None:
    """Return in another millisecond of the clock than the caller's last act."""
    now = int(time.time() * 1000)
    while int(time.time() * 1000) == now:
        pass


class ObjectsContract:
    """Named byte strings."""

    def test_bytes_and_files_come_back_as_they_were(self, objects: Objects, tmp_path: Path) -> None:
        data = bytes(range(256))
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(data * 2)
        target.write_bytes(b"something longer that was here before" * 99)
        objects.put("a/bytes ünï+%20", data)
        objects.put_file("a/file", source)
        objects.get_file("a/file", target)
        assert objects.get("a/bytes ünï+%20") == data
        assert objects.get("a/file") == target.read_bytes() == data * 2

    def test_a_put_replaces(self, objects: Objects) -> None:
        objects.put("key", b"a longer first value")
        objects.put("key", b"second")
        assert objects.get("key") == b"second"
        assert list(objects.list("key")) == [("key", 6)]

    def test_a_copy_is_the_same_bytes_and_stays_when_its_source_goes(self, objects: Objects) -> None:
        data = bytes(range(256)) * 40_000  # more than one part of a transfer
        objects.put("from/model.bin", data)
        objects.copy("from/model.bin", "to/ünï/model.bin")
        objects.delete("from/model.bin")
        assert objects.sha256("to/ünï/model.bin") == sha256_bytes(data)
        with pytest.raises(NoSuchObject, match=r"from/model\.bin"):
            objects.copy("from/model.bin", "elsewhere")
        assert list(objects.list("elsewhere")) == []

    def test_a_missing_key_is_named_and_leaves_no_file(self, objects: Objects, tmp_path: Path) -> None:
        with pytest.raises(NoSuchObject, match="nothing/here"):
            objects.get("nothing/here")
        with pytest.raises(NoSuchObject, match="nothing/here"):
            objects.get_file("nothing/here", tmp_path / "target")
        assert list(tmp_path.iterdir()) == []

    def test_listing_is_sorted_by_prefix_with_sizes_and_a_limit(self, objects: Objects) -> None:
        for name in ("b/10", "b/9", "b/1", "bb/1", "a/ünï", "b/sub/1"):
            objects.put(name, b"x" * len(name))
        assert list(objects.list("b/")) == [("b/1", 3), ("b/10", 4), ("b/9", 3), ("b/sub/1", 7)]
        assert [key for key, _ in objects.list("b")][-1] == "bb/1"
        assert [key for key, _ in objects.list("", limit=2)] == ["a/ünï", "b/1"]
        assert list(objects.list("c")) == []

    def test_a_part_and_the_digest_of_an_object_are_read_without_the_whole(self, objects: Objects) -> None:
        data = bytes(range(256)) * 9000  # two blocks of 1 MiB and a rest
        objects.put("key", data)
        assert objects.get_range("key", 255, 3) == b"\xff\x00\x01"
        assert objects.get_range("key", len(data) - 2, 2) == b"\xfe\xff"
        assert objects.sha256("key") == sha256_bytes(data)
        for ask in (objects.sha256, lambda key: objects.get_range(key, 0, 1)):
            with pytest.raises(NoSuchObject, match="nothing/here"):
                ask("nothing/here")

    def test_a_listing_with_ages_names_the_time_of_the_last_put(self, objects: Objects) -> None:
        before = time.time() - 1.5  # S3 counts whole seconds, and Swift rounds up
        objects.put("a/1", b"1")
        objects.put("a/2", b"22")
        found = list(objects.stored("a/"))
        assert [(one.key, one.size) for one in found] == [("a/1", 1), ("a/2", 2)]
        assert all(before <= one.modified <= time.time() + 1.5 for one in found)

    def test_a_deleted_key_is_gone_and_may_be_deleted_again(self, objects: Objects) -> None:
        objects.put("key", b"1")
        objects.delete("key")
        objects.delete("key")
        assert list(objects.list("")) == []
        with pytest.raises(NoSuchObject):
            objects.get("key")


class StoreContract:
    """Artifacts: whole or absent, and never other bytes than the committed ones."""

    def test_a_commit_is_found_opened_and_fetched_with_the_same_bytes(self, objects: Objects, tmp_path: Path) -> None:
        store = Store(objects)
        assert store.find(IDENTITY) is None
        made = commit(objects, facts={"rows": 3, "loss": 0.25}, run="run-1")
        made.reference.save(tmp_path / "kfp" / "reference.json")
        opened = store.open(Reference.load(tmp_path / "kfp" / "reference.json"))
        found = store.find(IDENTITY)
        assert made == opened == found
        assert (opened.identity, opened.run, opened.facts) == (IDENTITY, "run-1", {"rows": 3, "loss": 0.25})
        assert opened.reference.size == sum(map(len, FILES.values()))
        assert content(opened, tmp_path) == FILES

    def test_parents_are_recorded_by_address_and_digest(self, objects: Objects) -> None:
        parent = commit(objects)
        with Store(objects).write(Identity("child", {}, {}, ""), parents={"start": parent.reference}) as draft:
            (draft.folder / "file").write_bytes(b"1")
        child = Store(objects).open(draft.committed.reference)
        assert child.parents == {"start": parent.reference.uri}
        assert child.parent_manifests == {"start": parent.reference.manifest}

    def test_what_is_taken_from_another_artifact_is_part_of_this_one(self, objects: Objects, tmp_path: Path) -> None:
        parent, store = commit(objects), Store(objects)
        identity = Identity("package", {}, {"model": parent.digest}, "")
        with store.write(identity, parents={"model": parent.reference}) as draft:
            draft.take(parent)
            draft.take(parent, ["nested/empty"], below="apart")
            (draft.folder / "notes").write_bytes(b"own")
        expected = FILES | {"apart/nested/empty": b"", "notes": b"own"}
        made = store.open(draft.committed.reference)
        assert content(made, tmp_path) == expected
        assert [file.path for file in made.files] == sorted(expected)
        assert made.digest == commit(objects, expected, identity=Identity("other", {}, {}, "")).digest
        assert [finding.status for finding in verify(store, [Wanted(made.reference.uri)])] == ["ok", "ok"]

    def test_what_is_gone_or_there_twice_is_not_taken(self, objects: Objects) -> None:
        parent, store = commit(objects), Store(objects)
        identity = Identity("package", {}, {}, "")
        with pytest.raises(UserError, match=r"model\.bin is there twice"):
            taking(store, identity, parent, {"model.bin": b"own"})
        with pytest.raises(IntegrityError, match="holds no file 'absent'"), store.write(identity, parents={}) as draft:
            draft.take(parent, ["absent"])
        objects.delete(f"{parent.reference.uri.removeprefix(objects.uri + '/')}/model.bin")
        with pytest.raises(IntegrityError, match=r"model\.bin was committed but is gone"):
            taking(store, identity, parent, {})
        assert store.find(identity) is None

    def test_a_prefix_brings_only_the_files_below_it(self, objects: Objects, tmp_path: Path) -> None:
        artifact = commit(objects, FILES | {"config.json": b'{"layers": 2}'})
        artifact.fetch(tmp_path, "nested/")
        assert [path.name for path in tmp_path.iterdir()] == ["nested"]
        assert artifact.read_json("config.json") == {"layers": 2}
        with pytest.raises(IntegrityError, match=r"no file 'absent/'.*model\.bin"):
            artifact.fetch(tmp_path, "absent/")

    def test_nothing_is_written_when_the_work_fails(self, objects: Objects) -> None:
        drafts: list[Draft] = []

        def work() -> None:
            with Store(objects).write(IDENTITY, parents={}) as draft:
                drafts.append(draft)
                (draft.folder / "half").write_bytes(b"1")
                raise Killed

        with pytest.raises(Killed):
            work()
        assert list(objects.list("")) == []
        assert not drafts[0].folder.exists()
        with pytest.raises(IntegrityError, match="not committed"):
            _ = drafts[0].committed

    def test_a_writer_that_dies_at_any_write_leaves_nothing_or_everything(
        self, objects: Objects, tmp_path: Path
    ) -> None:
        """And the next writer, whose bytes differ, is whole in either case."""
        outcomes = []
        for last in range(1, number_of_puts(objects) + 1):

            def die(number: int, last: int = last) -> None:
                if number >= last:
                    raise Killed

            identity = Identity("model", {"dies at": last}, {}, "")
            with pytest.raises(Killed):
                commit(Watched(objects, die), FILES, identity)
            left = Store(objects).find(identity)
            outcomes.append(left is not None)
            assert left is None or content(left, tmp_path) == FILES
            again = commit(objects, OTHER, identity)
            assert Store(objects).find(identity) == again
            assert content(again, tmp_path) == OTHER
        assert outcomes == [False] * (len(FILES) + 2) + [True]  # files, manifest, pointer; then only the hint is lost

    def test_a_writer_that_dies_takes_nothing_away_that_was_committed(self, objects: Objects, tmp_path: Path) -> None:
        for last in range(1, number_of_puts(objects) + 1):

            def die(number: int, last: int = last) -> None:
                if number >= last:
                    raise Killed

            identity, store = Identity("model", {"dies at": last}, {}, ""), Store(objects)
            before = commit(objects, OTHER, identity)
            with pytest.raises(Killed):
                commit(Watched(objects, die), FILES, identity)
            after = store.find(identity)
            assert after is not None
            assert content(after, tmp_path) == (OTHER if last <= len(FILES) + 2 else FILES)
            assert content(store.open(before.reference), tmp_path) == OTHER

    def test_two_writers_of_one_fingerprint_never_mix(self, objects: Objects, tmp_path: Path) -> None:
        """The second one commits between any two writes of the first; both references go on opening their own bytes."""
        for moment in range(1, number_of_puts(objects) + 1):
            identity = Identity("model", {"meet at": moment}, {}, "")
            others: list[Artifact] = []

            def meet(
                number: int, moment: int = moment, identity: Identity = identity, others: list[Artifact] = others
            ) -> None:
                if number == moment:
                    others.append(commit(objects, OTHER, identity))

            mine, store = commit(Watched(objects, meet), FILES, identity), Store(objects)
            assert content(store.open(mine.reference), tmp_path) == FILES
            assert content(store.open(others[0].reference), tmp_path) == OTHER
            winner = mine if moment <= len(FILES) + 2 else others[0]  # whose pointer was written last
            assert store.find(identity) == winner

    def test_a_reference_without_pointer_is_refused(self, objects: Objects) -> None:
        artifact = commit(objects)
        objects.delete(pointer_of(IDENTITY))
        with pytest.raises(IntegrityError, match="never committed"):
            Store(objects).open(artifact.reference)
        assert Store(objects).find(IDENTITY) is None

    def test_a_changed_manifest_is_refused(self, objects: Objects) -> None:
        artifact = commit(objects)
        key = key_of(objects, artifact.reference, "manifest.json")
        body = json.loads(objects.get(key))
        body["files"][0]["sha256"] = "0" * 64
        objects.put(key, json.dumps(body).encode())
        with pytest.raises(IntegrityError, match="not the manifest that was committed"):
            Store(objects).open(artifact.reference)
        with pytest.raises(IntegrityError, match="not the manifest that was committed"):
            Store(objects).find(IDENTITY)

    @pytest.mark.parametrize("name", [name for name, data in FILES.items() if data])
    def test_one_flipped_bit_is_refused_and_does_not_reach_the_reader(
        self, objects: Objects, tmp_path: Path, name: str
    ) -> None:
        artifact = commit(objects)
        data = bytearray(FILES[name])
        data[len(data) // 2] ^= 1
        objects.put(key_of(objects, artifact.reference, name), bytes(data))
        with pytest.raises(IntegrityError, match=f"{Path(name).name}: SHA-256 is"):
            artifact.fetch(tmp_path)
        assert not (tmp_path / name).exists()

    @pytest.mark.parametrize("name", FILES)
    def test_a_lost_file_is_refused_and_the_step_is_done_anew(
        self, objects: Objects, tmp_path: Path, name: str
    ) -> None:
        artifact, store = commit(objects), Store(objects)
        objects.delete(key_of(objects, artifact.reference, name))
        with pytest.raises(IntegrityError, match="committed but is gone"):
            store.open(artifact.reference).fetch(tmp_path)
        assert store.find(IDENTITY) is None
        again = commit(objects)
        assert store.find(IDENTITY) == again
        assert again.digest == artifact.digest

    def test_deleting_an_attempt_makes_the_step_be_done_anew(self, objects: Objects) -> None:
        """The way out that the message about wrong bytes names."""
        artifact, store = commit(objects), Store(objects)
        for key, _ in list(objects.list(key_of(objects, artifact.reference, ""))):
            objects.delete(key)
        assert store.find(IDENTITY) is None
        with pytest.raises(IntegrityError, match=r"has no manifest\.json"):
            store.open(artifact.reference)
        assert commit(objects) == store.find(IDENTITY)

    def test_a_reference_to_another_store_or_of_another_shape_is_refused(self, objects: Objects) -> None:
        reference = commit(objects).reference
        for uri in (reference.uri.replace("s3://", "s3://another-"), f"{objects.uri}/recipes/1.json", objects.uri):
            with pytest.raises(IntegrityError, match=uri):
                Store(objects).open(Reference(reference.kind, uri, reference.digest, reference.manifest, 1))

    def test_a_file_may_not_take_the_name_of_the_manifest(self, objects: Objects) -> None:
        """Uploaded, it would be overwritten; below a folder the name is free."""
        with pytest.raises(UserError, match=r"manifest\.json"):
            commit(objects, {"model.bin": b"1", "manifest.json": b"{}"})
        assert list(objects.list("")) == []
        below = commit(objects, {"below/manifest.json": b"{}", "COMMITTED.json": b"[]"})
        assert (below.read_json("below/manifest.json"), below.read_json("COMMITTED.json")) == ({}, [])

    def test_recent_identities_come_newest_first(self, objects: Objects) -> None:
        identities = [Identity("model", {"steps": number}, {}, "") for number in (3, 1, 2)]
        for identity in identities:
            commit(objects, {"file": b"1"}, identity)
            next_millisecond()
        commit(objects, {"file": b"1"}, Identity("corpus", {}, {}, ""))
        assert Store(objects).recent("model") == identities[::-1]
        assert Store(objects).recent("nothing") == []
