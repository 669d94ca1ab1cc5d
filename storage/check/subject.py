"""What a check works on: a store, how to ask it, and what has been found so far."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from storage.bucket.missing import get_despite_missing
from storage.bucket.outage import REFUSALS
from storage.check.findings import Account, Finding, Kind, LayerRange
from storage.crypto.data_key import DataKey
from storage.env import Env
from storage.errors import Corrupt, Fenced, NotFound
from storage.format.manifest import Manifest
from storage.format.names import manifest_name
from storage.format.sst_list import SstList
from storage.format.trunks import TrunkRef
from storage.lsm.index.rows import Frozen
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.options import EngineOptions
from storage.lsm.recovery.anchor import Anchor
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.lsm.tree_state import TreeState
from storage.objects.base import ObjectStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """A running writer as it was at one moment: what its newest manifest said, and its index. Until the check has ended
    it deletes nothing that was there then.
    """

    number: int
    manifest: Manifest
    tag: bytes
    table: SstList
    frozen: Mapping[int, Frozen]
    """The index of each layer."""
    trunks: Sequence[TrunkRef]
    sst_numbers: SstNumbers


@dataclass(frozen=True, slots=True)
class Subject:
    """One store whose keys are known."""

    store: ObjectStore
    """It gives up after a while (Unavailable)."""
    key: DataKey
    keys_number: int
    env: Env
    make_tree: Callable[[], TreeState]
    """An empty tree of names."""
    anchor: Anchor | None = None
    """What this host remembers of the store."""
    moment: Moment | None = None
    """None: the store is at rest, or its writer is elsewhere."""
    options: EngineOptions = field(default_factory=EngineOptions)
    """Those of its writers: how many manifests they keep."""


@dataclass(slots=True)
class Findings:
    """What has been found, in order."""

    all: list[Finding] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    """By use: what lies in the store."""

    def add(
        self, kind: Kind, name: str, sentence: str, ranges: tuple[LayerRange, ...] = (), *, fault: bool = False
    ) -> None:
        """Note one finding: `sentence` says what is wrong with the object `name`, and where it shows. `fault`: it bears
        nothing now.
        """
        self.all.append(Finding(kind, name, sentence, ranges, fault))

    def corrupt(self, kind: Kind, error: Corrupt, *, fault: bool = False) -> None:
        """An object did not open."""
        self.add(kind, error.object_name, error.detail, fault=fault)

    def count(self, use: str, size: int) -> None:
        """One object more of this use."""
        self.accounts[use] = self.accounts.get(use, Account()).plus(size)


class PinnedManifests(Manifests):
    """The manifests of a writer in this process, as they were at one moment: newer ones explain nothing, since it keeps
    what there was.
    """

    async def look_for_newer(self) -> None:
        """There may be newer ones, of this process's own."""


class Asker:
    """Asks the store for objects that are named, and makes findings of those that it does not give."""

    def __init__(self, subject: Subject, findings: Findings) -> None:
        self.subject = subject
        self.findings = findings
        self.ciphers = Ciphers.derive(subject.key)
        kind = Manifests if subject.moment is None else PinnedManifests
        self.manifests = kind(
            store=subject.store,
            cipher=self.ciphers.manifest,
            checkpoint_cipher=self.ciphers.checkpoint,
            store_id=subject.key.store_id,
            env=subject.env,
            options=subject.options,
        )

    async def ask(self, name: str, ask: Callable[[], Awaitable[T]], who: str, *, fault: bool = False) -> T | None:
        """What `ask` gives of the object `name`, which `who` names. None: it is missing, damaged or withheld, and that
        is a finding now. Fenced: a newer manifest explains it. Corrupt, REFUSALS: the store gives nothing at all.
        """
        try:
            return await get_despite_missing(self.subject.store, ask, on_missing=self.manifests.look_for_newer)
        except NotFound:
            self.findings.add(Kind.MISSING, name, f"it is missing, though {who} names it", fault=fault)
        except Corrupt as error:
            self.findings.corrupt(Kind.SIZE, error, fault=fault)
        except REFUSALS as error:
            # It is the object's fault if the store gives another one.
            await self.subject.store.get(manifest_name(self.manifests.number), 0, 1)
            self.findings.add(Kind.UNREADABLE, name, f"the store does not give it: {error}", fault=fault)
        return None


async def is_changed(manifests: Manifests) -> bool:
    """Whether a newer manifest is there."""
    try:
        await manifests.look_for_newer()
    except Fenced:
        return True
    return False
