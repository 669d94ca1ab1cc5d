"""Standing by: a server that waits beside the writer of a store until its own turn has come.

It takes nothing while it waits, and writes nothing but what tries the store out, at its beginning. On the writer's own
host the lock tells whether that process lives: as long as it does, stopped or not, nobody takes its store. Elsewhere
its signs of life are looked at, twice a second, and `evidence` says what they mean. When the turn has come `wait` says
why, and whoever waits opens the store; another one may have been quicker, or the writer have come back, and then there
is no turn.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

import msgspec

from storage.bucket.listing import list_log
from storage.crypto import keys
from storage.crypto.data_key import DataKey
from storage.crypto.key_rotation import why_no_key
from storage.env import Env
from storage.errors import Corrupt, Fenced, KeyChanged, NotFound, StorageError, Unavailable
from storage.format.names import sign_name
from storage.format.sign import SIGN_BYTES_MAX, WRITER_PURPOSE, Sign, open_sign
from storage.fs.succession.evidence import Evidence, Sighting
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.options import EngineOptions
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.lsm.recovery.locks import LockHolder
from storage.objects.health import Health
from storage.objects.probe import probe
from storage.objects.retry import RetryingStore

SIGN_LOOK_SECONDS = 0.5
"""Between two looks at the sign of a writer: 5.2 million GETs a month."""

SUSPECT_SECONDS = 0.25
"""The same once half of its time is over; also between two looks at the lock of a writer on this host."""

CALLED_SECONDS = 0.1
"""The same once the writer has said that it hands over."""

QUESTION_SECONDS_MAX = 2.0
"""How long a question of a look may take; then it was not answered."""

MANIFEST_SECONDS_MAX = 30.0
"""The same for reading a manifest, which may be large."""

LIST_SECONDS = 60.0
"""So often manifests are listed, in the place of a question for the next one."""

REREAD_SECONDS = 10.0
"""So often it is asked whether a writer of this host, which holds its lock, is still the store's."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Why it is our turn. "closed": the writer has closed the store. "ended": it was this host's, and its process has
    ended. "silent": it was elsewhere, and its signs of life have ended; then the store may be taken from the writer of
    the manifest with this `tag`, and from nobody else."""

    why: Literal["closed", "ended", "silent"]
    epoch: int
    silent_seconds: float
    tag: bytes | None = None


class StandbyStatus(msgspec.Struct, frozen=True):
    """Beside which writer it stands by, and what it knows of that."""

    epoch: int
    """Of the writer; 0: not known yet."""
    basis: Literal["lock", "signs", "nothing"]
    """What it goes by: the lock of a process of this host, signs of life in the store, or neither, for there are none:
    then it takes over only when the store is closed."""
    writer_pid: int | None
    """The writer, if it is a process of this host."""
    sign_age_seconds: float | None
    """Since something new of it was seen."""
    silent_seconds: float
    """For so long it was watched since, without a gap."""
    patience_seconds: float | None
    """After so much of that the store is taken; None: never for silence."""
    looked_seconds: float | None
    """Since a look was answered."""
    reason: str
    """Why none is answered now; else nothing."""


class Standby:
    """One that waits. Owned by the event loop."""

    def __init__(self, objects: RetryingStore, key: DataKey, env: Env, host: HostState | None) -> None:
        self._objects, self._once = objects, objects.once()
        self._key = key
        self._env = env
        self._host = host
        ciphers = Ciphers.derive(key)
        self._sign_cipher = key.cipher(WRITER_PURPOSE)
        self._manifests = Manifests(
            store=self._once,
            cipher=ciphers.manifest,
            checkpoint_cipher=ciphers.checkpoint,
            store_id=key.store_id,
            env=env,
            options=EngineOptions(),
        )
        self._evidence = Evidence()
        self._holder = LockHolder("elsewhere")
        self._known_tag: bytes | None = None
        """Of the manifest whose holder that is; None: it is to be read, and asked for, again."""
        self._log_end: int | None = None
        """The end of the log when the writer became suspect; None: it is not."""
        self._looked_at: float | None = None
        self._reread_at = self._listed_at = env.monotonic()
        self._reason = ""

    async def rehearse(self) -> None:
        """Try the store out if this host does not know it, as a writer does before it takes one. Unsupported: it is not
        fit for a writer of this host."""
        if self._host is None or await self._env.run("store", self._host.load) is None:
            await probe(self._objects, self._env)

    async def wait(self) -> Turn:
        """Return when it is our turn, for this time: ask again if somebody else was quicker."""
        self._evidence, self._known_tag, self._log_end = Evidence(), None, None
        while True:
            began = self._env.monotonic()
            try:
                turn = await self._look(began)
            except KeyChanged as error:
                # What is written from now on cannot be read with the key that was asked for at the start.
                raise await why_no_key(self._objects, error, keys.DEFAULT_COST) from None
            except (TimeoutError, StorageError) as error:
                self._reason = str(error) or "no answer in time"
                self._evidence.unanswered()
                self._log_end = None
            else:
                self._looked_at, self._reason = began, ""
                if turn is not None:
                    return turn
            await asyncio.sleep(max(0.0, began + self._pause() - self._env.monotonic()))

    async def still_due(self) -> None:
        """The last look behind a silence, when all is read and before the store is taken: that may have lasted minutes,
        or this process may have been stopped. Fenced: the writer has given a sign of life. Unavailable: not known.
        """
        seen = self._evidence.seen
        try:
            alive = seen is None or await self._sign() != seen.sign or await self._end_of_log() != self._log_end
        except (TimeoutError, StorageError) as error:
            raise Unavailable(f"{self._objects.url} did not say whether its writer lives: {error}") from error
        if alive:
            raise Fenced(f"the writer of {self._objects.url} has given a sign of life: it is not taken from it")

    @property
    def health(self) -> Health:
        """Whether the store answers, as far as is known."""
        return self._objects.health

    async def result(self) -> tuple[DataKey, int]:
        """The key of the store, in the place of an attempt to open it, and the number of the keys object that is in
        force now: passwords may have changed while it was waited."""
        return self._key, await keys.vouched_number(self._objects, self._key, self._manifests.manifest.keys)

    async def close(self) -> None:
        """Give everything back."""
        await self._objects.close()

    def status(self) -> StandbyStatus:
        """Beside which writer, and how it is known that that lives."""
        now = self._env.monotonic()
        seen, held = self._evidence.seen, self._holder.state == "held"
        basis: Literal["lock", "signs", "nothing"] = "nothing"
        if held:
            basis = "lock"
        elif seen is not None and (seen.sign is not None or seen.closed):
            basis = "signs"
        fresh = self._evidence.fresh_at
        return StandbyStatus(
            epoch=self._manifests.manifest.epoch,
            basis=basis,
            writer_pid=self._holder.pid if held else None,
            sign_age_seconds=None if held or fresh is None else round(now - fresh, 3),
            silent_seconds=0.0 if held else round(self._evidence.silent_seconds, 3),
            patience_seconds=None if held else self._evidence.patience_seconds,
            looked_seconds=None if self._looked_at is None else round(now - self._looked_at, 3),
            reason=self._reason,
        )

    def _pause(self) -> float:
        """Between the beginnings of two looks."""
        if self._evidence.is_called:
            return CALLED_SECONDS
        return SUSPECT_SECONDS if self._holder.state == "held" or self._evidence.is_suspect else SIGN_LOOK_SECONDS

    async def _look(self, now: float) -> Turn | None:
        if self._known_tag is None:
            await self._read(now)
        elif self._holder.state == "held":
            await self._ask_holder()
            held = self._holder.state == "held"
            if held and (now - self._reread_at < REREAD_SECONDS or not await self._is_newer()):
                return None
            await self._read(now)
        manifest = self._manifests.manifest
        if self._holder.state == "held":
            return None
        if self._holder.state == "gone" and not manifest.closed:
            return Turn("ended", manifest.epoch, 0.0)
        return await self._look_at_signs(now)

    async def _look_at_signs(self, now: float) -> Turn | None:
        sign = await self._sign()
        before = self._evidence.seen
        if sign is None or before is None or sign == before.sign:
            behind = sign is not None and sign.manifest > self._manifests.number  # the next ones may be deleted
            if behind or await self._is_newer():
                await self._read(now)
                sign = await self._sign()
        manifest, number = self._manifests.manifest, self._manifests.number
        if sign is not None:
            number = max(number, sign.manifest)
        sighting = Sighting(number, manifest.epoch, manifest.closed, sign)
        self._evidence.answered(sighting, now, self._env.monotonic())
        if not self._evidence.is_suspect or manifest.closed:
            self._log_end = None
        elif self._log_end is None:
            self._log_end = await self._end_of_log()
        verdict, silent = self._evidence.verdict(), self._evidence.silent_seconds
        if verdict == "wait":
            return None
        await self._ask_holder()  # it may be a process of this host's after all, which has begun meanwhile
        if self._holder.state == "held":
            return None
        if verdict == "closed":
            return Turn("closed", manifest.epoch, silent)
        if await self._end_of_log() != self._log_end:
            self._evidence.moved(now)
            self._log_end = None
            return None
        return Turn("silent", manifest.epoch, silent, self._manifests.tag)

    async def _read(self, now: float) -> None:
        """The newest manifest, and who on this host holds it."""
        async with asyncio.timeout(MANIFEST_SECONDS_MAX):
            await self._manifests.read_newest()
        self._reread_at = self._listed_at = now
        await self._ask_holder()
        self._known_tag = self._manifests.tag

    async def _ask_holder(self) -> None:
        if self._host is not None:
            epoch, tag = self._manifests.manifest.epoch, self._manifests.tag
            self._holder = await self._env.run("store", self._host.holder, epoch, tag)

    async def _is_newer(self) -> bool:
        """Whether there is a newer manifest than the one that was read. Mostly that is asked of the next number;
        but who has slept for long may be so far behind that it is deleted, so all are listed now and then."""
        now = self._reread_at = self._env.monotonic()
        try:
            async with asyncio.timeout(QUESTION_SECONDS_MAX):
                if now - self._listed_at < LIST_SECONDS:
                    await self._manifests.probe_newer()
                else:
                    await self._manifests.look_for_newer()
                    self._listed_at = now
        except Fenced:
            return True
        return False

    async def _sign(self) -> Sign | None:
        """That of the newest writer; None: it gives none, or what lies there is none of its."""
        epoch = self._manifests.manifest.epoch
        try:
            async with asyncio.timeout(QUESTION_SECONDS_MAX):
                raw = await self._once.get(sign_name(epoch), limit=SIGN_BYTES_MAX)
            return open_sign(self._sign_cipher, raw, epoch, self._key.store_id)
        except (NotFound, Corrupt):
            return None

    async def _end_of_log(self) -> int:
        """The highest number in the log."""
        above = max(self._manifests.manifest.replay, 1) - 1 if self._log_end is None else self._log_end
        async with asyncio.timeout(MANIFEST_SECONDS_MAX):
            return max(await list_log(self._once, above=above), default=above)
