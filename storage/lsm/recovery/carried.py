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
from storage.lsm.recovery.turn import Terms

JOURNAL_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Carried:
    """The journal that a new writer named as its own before it took the store over.

    `found`: it is that of the last writer, which was this host's too, so nobody had the store in between; what it holds
    beyond the log is to be done again. Else it is to be begun. `missing`: the last writer was this host's and did not
    close the store, and its journal cannot be had. `another_life`: the store is older than this host remembers, or a
    copy, as somebody has agreed: journals of higher epochs may be of a life that it no longer has.
    """

    files: JournalFiles
    id: bytes
    found: bool
    missing: bool = False
    another_life: bool = False


def carry(files: JournalFiles, host: HostState, manifests: Manifests, env: Env, terms: Terms) -> Carried | None:
    """The journal to go on with if the newest manifest is the one that is followed. Blocks on the local disk.

    None: another process of this host has that of the last writer, which is gone: it is about to take the store over,
    and to do again what was answered. Not if the store is to be taken over all the same.
    """
    files.leave()
    closed = manifests.manifest.closed
    known = host.journal_of(manifests.manifest.epoch, manifests.tag)
    found = "gone" if known is None else files.take(known)
    if known is not None and found == "taken":
        return Carried(files, known, found=True, another_life=terms.breaks)
    if found == "held" and not closed and not terms.forces(manifests.tag):
        return None
    missing = known is not None and not closed
    drawn = env.random_bytes(JOURNAL_ID_BYTES)
    return Carried(files, drawn, found=False, missing=missing, another_life=terms.breaks)
