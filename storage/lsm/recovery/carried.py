"""The journal that a new writer goes on with, chosen before it takes the store over: that of the last writer, if it is
this host's and nobody had the store in between, or one that is to be begun.

It is named in the writer's lock before the take-over manifest is sent: a crash right behind that leaves a writer that
did nothing but take over, and the next one finds by its lock that the journal still follows the log.
"""

from dataclasses import dataclass

from storage.env import Env
from storage.journal.files import JournalFiles
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.recovery.anchor import HostState

JOURNAL_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Carried:
    """The journal that a new writer named as its own before it took the store over.

    `found`: it is that of the last writer, which was this host's too, so nobody had the store in between; what it holds
    beyond the log is to be done again. Else it is to be begun. `missing`: the last writer was this host's and did not
    close the store, and its journal cannot be had. `rolled_back`: somebody has agreed that the store is older than this
    host remembers, so that journals of higher epochs may be of a life that it no longer has.
    """

    files: JournalFiles
    id: bytes
    found: bool
    missing: bool = False
    rolled_back: bool = False


def carry(files: JournalFiles, host: HostState, manifests: Manifests, env: Env, *, rolled_back: bool) -> Carried:
    """The journal to go on with if the newest manifest is the one that is followed. Blocks on the local disk."""
    files.leave()
    known = host.journal_of(manifests.manifest.epoch, manifests.tag)
    if known is not None and files.take(known):
        return Carried(files, known, found=True, rolled_back=rolled_back)
    missing = known is not None
    return Carried(files, env.random_bytes(JOURNAL_ID_BYTES), found=False, missing=missing, rolled_back=rolled_back)
