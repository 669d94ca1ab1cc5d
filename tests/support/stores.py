"""The two kinds of store that the real program is tested on, and how to make an empty one of
each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.minio import BUCKET, RunningMinio


@dataclass(frozen=True)
class StoreUnderTest:
    """A store no one else uses: the URL to give to the program, and the variables it needs to reach it."""

    kind: str
    location: str
    environment: Mapping[str, str] = field(default_factory=dict)


def folder_store(folder: Path) -> StoreUnderTest:
    """A store in a local folder that the program is to create."""
    return StoreUnderTest("file", f"file://{folder / 'store'}")


def minio_store(minio: RunningMinio, prefix: str, *, endpoint: str | None = None) -> StoreUnderTest:
    """A store under a prefix of its own; `endpoint` where requests are to take a way around (a proxy)."""
    return StoreUnderTest("minio", f"s3://{BUCKET}/{prefix}", minio.environment(endpoint))


class Away:
    """A folder store that can be taken away and brought back."""

    def __init__(self, location: str) -> None:
        self._folder = Path(location.removeprefix("file://"))
        self._aside = self._folder.with_name("aside")

    def leave(self) -> None:
        self._folder.rename(self._aside)

    def come_back(self) -> None:
        self._aside.rename(self._folder)
