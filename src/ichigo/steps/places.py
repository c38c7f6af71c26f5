"""Places that a recipe names: a path on this machine, or an ``s3://`` address that is brought here first."""

from __future__ import annotations

from pathlib import Path

from ichigo.errors import DataError
from ichigo.hashing import sha256_file, sha256_json
from ichigo.store import open_objects


def local_copy(place: str, scratch: Path) -> Path:
    """The file or folder at ``place``: itself when it is a path, a copy below ``scratch`` when it is ``s3://``."""
    if not place.startswith("s3://"):
        path = Path(place)
        if not path.exists():
            raise DataError(f"{place}: no such file or folder here; give one that exists or an s3:// address")
        return path
    parent, _, name = place.rstrip("/").rpartition("/")
    objects = open_objects(parent)
    keys = [key for key, _ in objects.list(name) if key == name or key.startswith(f"{name}/")]
    if not keys:
        raise DataError(f"{place}: nothing lies there")
    for key in keys:
        (scratch / key).parent.mkdir(parents=True, exist_ok=True)
        objects.get_file(key, scratch / key)
    return scratch / name


def place_digest(path: Path) -> str:
    """The digest of a file, or of every file in a folder by its relative path: where it lies does not matter."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return sha256_json({file.relative_to(path).as_posix(): sha256_file(file) for file in files})
