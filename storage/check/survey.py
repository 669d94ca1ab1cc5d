"""The check of a whole store, step by step: everything its newest manifest names is looked at, and the index is made
again from it. A new check is a step here, and a kind in `findings`.

    1. list all that is there, and account for every byte
    2. the chains: manifests, and the log from the replay point; and the copies of the newest manifest and the keys
    3. each SST: is it there, of the right size, does its index open, does that speak of every byte
    4. the index of each layer, from checkpoint and SSTs, as a start makes it
    5. all that can be seen in it: is it what the SSTs' own indexes say, and the newest that they have
    6. the same of the index that a running server has in memory, and that it equals the other

It reads, and writes nothing. What it cannot read it reports, and goes on. A newer manifest of a writer elsewhere
explains what is missing, so then it begins again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from storage.bucket.create_once import pauses
from storage.cancel import when_ended
from storage.check.analysis import Analysis, LayerMaps, pages_of
from storage.check.chains import check_fences, check_manifests, read_log, read_newest
from storage.check.copies import check_copies
from storage.check.findings import Finding, Kind
from storage.check.layout import checkpoint_misfits, sst_misfits
from storage.check.objects import Listed, account, judge_unnamed, sorted_out
from storage.check.subject import Asker, Findings, Subject, is_changed
from storage.errors import BrokenInvariant, Corrupt, Fenced, Unavailable
from storage.format.blocks import SstRef
from storage.format.checkpoint import Trailer, open_trailer
from storage.format.envelope import HEADER_BYTES, Header, ObjectKind, decode_header, open_object
from storage.format.names import MANIFESTS, manifest_name, sst_name
from storage.format.sizes import TRAILER_BYTES_MAX, TREE_BYTES_MAX
from storage.format.sst import SstIndex, open_index
from storage.format.sst_list import ids_of
from storage.format.trunks import DropLayer
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.build import rebuild
from storage.lsm.index.forest import Forest
from storage.lsm.index.image import PlaceReader
from storage.lsm.index.load import load_checkpoint, moved_frames
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.recovery.turn import rolled_back
from storage.lsm.tree_state import TreeState
from storage.lsm.wal.log_object import Replay
from storage.objects.base import ANSWER_BYTES_MAX

SURVEY_SSTS_IN_FLIGHT = 16

_NOTHING_SHOWN = BlockMap().freeze()


@dataclass(slots=True)
class Surveyed:
    """What a survey found, and what it read for that."""

    findings: Findings
    manifests: Manifests
    tree: TreeState
    """As it is at the end of the log; of a running writer, as its last flush wrote it."""
    tree_image: bytes | None = None
    """As the manifest names it; None: it names none, or it could not be read."""
    replay: Replay | None = None
    forest: Forest = field(default_factory=Forest)
    """The index as a start would make it, of what could be read."""
    complete: bool = True
    """Whether all that belongs into `forest` could be read."""
    sst_numbers: SstNumbers = field(default_factory=SstNumbers)


async def survey(subject: Subject) -> Surveyed:
    """Look at all of a store. Unavailable: its writer commits faster than it can be read, or it does not answer."""
    for pause in pauses():
        await asyncio.sleep(pause)
        attempt = _Survey(subject)
        try:
            found = await attempt.run()
            if (
                attempt.manifests.number
                and found.findings.all
                and subject.moment is None
                and await is_changed(attempt.manifests)
            ):
                continue
        except Fenced:
            continue
        return found
    raise Unavailable(f"{subject.store.url} changes faster than it can be checked: ask the server that writes it")


class _Survey:
    """One try to survey the store, at one manifest: given up if a writer commits meanwhile."""

    def __init__(self, subject: Subject) -> None:
        moment = subject.moment
        self.subject = subject
        self.findings = Findings()
        self.asker = Asker(subject, self.findings)
        self.manifests = self.asker.manifests
        self.numbers = SstNumbers() if moment is None else moment.sst_numbers
        self.listed: Listed
        self.listed_ids: dict[str, bool] = {}
        """SSTs that the manifest and its checkpoint list, and whether the checkpoint holds their rows."""
        self.dropped: set[int] = set()
        """Layers that were dropped since, as the log says: nobody shows what they refer to."""
        self.indexes: dict[str, SstIndex] = {}
        """Of the SSTs whose own index opens, by id."""
        self.wrong_size: dict[str, int] = {}
        """SSTs that are cut short or missing (size 0) or altered: bytes that are there."""
        self.found = Surveyed(self.findings, self.manifests, subject.make_tree(), sst_numbers=self.numbers)

    async def run(self) -> Surveyed:
        """Check everything, in the order in which one thing rests on another."""
        if not await self._begin():
            return self.found
        own = {ref.id for ref in self.manifests.manifest.ssts}
        self.listed_ids = {ref.id: ref.id not in own for ref in self.manifests.listed()}
        self.listed = sorted_out(await self.subject.store.list(""))
        await check_manifests(self.asker, self.listed)
        await check_fences(self.asker)
        await check_copies(self.asker, self.listed)
        self.found.replay = await read_log(self.asker)
        await self._tree()
        refs = self._refs()
        await self._each(refs)
        trailer = await self._checkpoint()
        uses = {ref.id: "SSTs" for ref in refs}
        manifest = self.manifests.manifest
        for ref, use in (manifest.checkpoint, "checkpoint"), (manifest.tree, "tree of names"):
            uses |= {} if ref is None else {ref.id: use}
        unnamed = account(self.asker, self.listed, uses=uses, keys=self.subject.keys_number)
        await judge_unnamed(self.asker, unnamed, self.listed, self.found.replay)
        await self._rebuild(trailer)
        await self._analyse()
        return self.found

    async def _begin(self) -> bool:
        """Read the newest manifest, and what its checkpoint says of itself. False: they do not open, and without them
        nothing more can be known.
        """
        moment, manifests, subject = self.subject.moment, self.manifests, self.subject
        if moment is not None:
            manifests.number, manifests.manifest, manifests.tag = moment.number, moment.manifest, moment.tag
            manifests.merged_ssts = moment.table
            return True
        if not await read_newest(self.asker):
            return False
        if subject.anchor is not None and (reason := rolled_back(subject.anchor, subject.key.store_id, manifests)):
            self.findings.add(Kind.ROLLED_BACK, MANIFESTS, f"the store {reason}")
        return True

    def _refs(self) -> list[SstRef]:
        """Every data SST that manifest, checkpoint and log name."""
        manifests, replay = self.manifests, self.found.replay
        listed = {ref.id: ref for ref in manifests.listed()}
        done = manifests.manifest.sequence
        logged = [item.sst for item in (replay.ssts if replay is not None else ()) if item.sequence > done]
        return [*listed.values(), *{ref.id: ref for ref in logged if ref.id not in listed}.values()]

    async def _tree(self) -> None:
        ref, tree = self.manifests.manifest.tree, self.found.tree
        if ref is not None:
            name = sst_name(ref.id)
            raw = await self.asker.ask(
                name, lambda: self.subject.store.get(name, 0, ref.size, limit=TREE_BYTES_MAX), "the manifest"
            )
            try:
                if raw is None:
                    self.found.complete = False
                    return
                tree_cipher, store_id = self.asker.ciphers.tree, self.subject.key.store_id
                header, body, tag = open_object(tree_cipher, name, raw, store_id=store_id, kinds=(ObjectKind.METADATA,))
                if (header.key_id, tag) != (ref.key_id, ref.tag):
                    raise Corrupt(name, "it is not the object that the manifest names")
                tree.load(body)
                self.found.tree_image = body
            except Corrupt as error:
                self.findings.corrupt(Kind.INDEX, error)
                self.found.complete = False
                return
        try:
            for meta in self.found.replay.metas if self.found.replay is not None else ():
                if meta.sequence > self.manifests.manifest.sequence:
                    operations = tree.apply(meta.record).operations
                    self.dropped |= {one.layer for one in operations if isinstance(one, DropLayer)}
        except Corrupt as error:
            self.findings.corrupt(Kind.LOG, error)

    async def _each(self, refs: list[SstRef]) -> None:
        room = asyncio.Semaphore(SURVEY_SSTS_IN_FLIGHT)

        async def look(ref: SstRef) -> None:
            async with room:
                await self._sst(ref)

        await asyncio.gather(*map(look, refs))

    async def _there(self, ref: SstRef, who: str) -> bool:
        """Whether an object is there, with the size that names it. (A listing may be old: the name itself is asked.)"""
        name = sst_name(ref.id)
        info = self.listed.ssts.get(ref.id) or await self.asker.ask(name, lambda: self.subject.store.head(name), who)
        if info is not None and info.size == ref.size:
            return True
        self.wrong_size[ref.id] = 0 if info is None else info.size
        if info is not None:
            self.findings.add(Kind.SIZE, name, f"it has {info.size} bytes, and {who} names one of {ref.size}")
        return False

    async def _end(self, ref: SstRef, who: str, *, limit: int = ANSWER_BYTES_MAX) -> bytes | None:
        """The second header and what is behind it; the first header must be the same."""
        name, store, length = sst_name(ref.id), self.subject.store, ref.size - ref.index_offset
        end = await self.asker.ask(name, lambda: store.get(name, ref.index_offset, length, limit=limit), who)
        first = None if end is None else await self.asker.ask(name, lambda: store.get(name, 0, HEADER_BYTES), who)
        if end is None or first is None:
            self.wrong_size[ref.id] = 0
            return None
        if first != end[:HEADER_BYTES]:
            what = "its first header is not the second one: nothing rests on it, but somebody or something changed it"
            self.findings.add(Kind.HEADER, name, what, fault=True)
        return end

    async def _sst(self, ref: SstRef) -> None:
        who = "the manifest or the log"
        end = await self._end(ref, who) if await self._there(ref, who) else None
        if end is None:
            return
        name, store_id = sst_name(ref.id), self.subject.key.store_id
        sequence = self.manifests.manifest.sequence if ref.id in self.listed_ids else 2**64 - 1

        def look() -> tuple[SstIndex, list[str]]:
            index = open_index(self.asker.ciphers.index, ref, end, store_id=store_id)
            header = decode_header(name, end, store_id=store_id, kinds=(ObjectKind.DATA,))
            return index, list(sst_misfits(ref, header, index, sequence=sequence))

        try:
            self.indexes[ref.id], misfits = await self.subject.env.run("codec", look)
        except Corrupt as error:
            self.findings.corrupt(Kind.INDEX, error, fault=self.listed_ids.get(ref.id, False))
            return
        for misfit in misfits:
            self.findings.add(Kind.LAYOUT, name, misfit, fault=True)

    async def _checkpoint(self) -> tuple[Header, Trailer] | None:
        ref = self.manifests.manifest.checkpoint
        if ref is None:
            return None
        who = "the manifest"
        end = await self._end(ref, who, limit=TRAILER_BYTES_MAX) if await self._there(ref, who) else None
        store_id = self.subject.key.store_id

        def look() -> tuple[Header, Trailer, list[str]]:
            header, trailer = open_trailer(self.asker.ciphers.checkpoint, ref, end or b"", store_id=store_id)
            sequence = self.manifests.manifest.sequence
            return header, trailer, list(checkpoint_misfits(ref, header, trailer, sequence=sequence))

        try:
            if end is not None:
                header, trailer, misfits = await self.subject.env.run("codec", look)
                for misfit in misfits:
                    self.findings.add(Kind.LAYOUT, sst_name(ref.id), misfit)
                return header, trailer
        except Corrupt as error:
            self.findings.corrupt(Kind.INDEX, error)
        self.found.complete = False
        return None

    # --- the index

    async def _rebuild(self, opened: tuple[Header, Trailer] | None) -> None:
        """The index of each layer as a start would make it, with what could be read."""
        found, manifest = self.found, self.manifests.manifest
        unmerged = [(ref.id, self.indexes.get(ref.id)) for ref in manifest.ssts]
        numbered = [(self.numbers.number(sst), _copied(index)) for sst, index in unmerged if index is not None]
        found.complete = found.complete and len(numbered) == len(unmerged)
        if opened is not None and manifest.checkpoint is not None:
            header, trailer = opened
            found.forest = Forest.empty(trailer.trunks)
            table = self.numbers.numbers(trailer.ssts.ids)
            places: asyncio.Future[PlaceReader] = asyncio.get_running_loop().create_future()
            places.set_result(PlaceReader(table, moved_frames(numbered, self.numbers)))
            try:
                await load_checkpoint(
                    found.forest.maps(),
                    manifest.checkpoint,
                    header,
                    trailer,
                    places,
                    store=self.subject.store,
                    cipher=self.asker.ciphers.checkpoint,
                    env=self.subject.env,
                    on_missing=self.manifests.look_for_newer,
                )
            except Corrupt as error:
                self.findings.corrupt(Kind.INDEX, error)
                found.complete = False
        written = [(number, index) for number, index in numbered if not index.victims]
        # Not among the codecs, which a flush may be waiting for.
        operations = [logged.operation for logged in manifest.operations]
        try:
            await self.subject.env.run("store", rebuild, found.forest, written, operations)
            for layer in self.dropped:
                found.forest.drop(layer)
        except BrokenInvariant as error:
            self.findings.add(Kind.INDEX, manifest_name(self.manifests.number), str(error))
            found.complete = False

    async def _analyse(self) -> None:
        moment, run = self.subject.moment, self.subject.env.run
        given = self.numbers.numbers(ids_of(self.listed_ids)).tolist()  # here, since threads give none
        numbers, end = dict(zip(self.listed_ids, given, strict=True)), len(self.numbers)
        analysis = Analysis(numbers, end, self.indexes, self.wrong_size, self.found.complete)
        await run("store", analysis.begin)
        if moment is None:
            self._tell_unknown()
        maps, trunks = self.found.forest.maps(), self.found.forest.refs()
        rebuilt = {layer: part.freeze() for layer, part in maps.items()}
        places = {layer: (ref.layers, at) for ref in trunks for at, layer in enumerate(ref.layers)}
        for layers in [ref.layers for ref in (trunks if moment is None else moment.trunks)]:
            trunk = []
            for at, layer in enumerate(layers):
                if layer in self.dropped:
                    continue  # after the moment at which memory was looked at
                memory = None if moment is None else [moment.frozen[newer] for newer in layers[at:]]
                of, since = places.get(layer, ((), 0))
                # One that is not there shows nothing: see `complete`.
                again = [rebuilt[newer] for newer in of[since:]] or [_NOTHING_SHOWN]
                trunk.append(LayerMaps(layer, again, memory))
            for some in pages_of(trunk):
                await when_ended(run("store", analysis.look_at_trunk, trunk, some))
        analysis.tell(self.findings)

    def _tell_unknown(self) -> None:
        """Of an SST that no checkpoint holds only its own index says which blocks are in it."""
        unknown = {sst_name(ref.id) for ref in self.manifests.manifest.ssts if ref.id not in self.indexes}
        for at, one in enumerate(self.findings.all):
            if one.object in unknown:
                sentence = f"{one.sentence}; it is too new for a checkpoint, so nobody knows which blocks it held"
                self.findings.all[at] = Finding(one.kind, one.object, sentence)


def _copied(index: SstIndex) -> SstIndex:
    """The same columns in tables of their own: those are taken apart by who builds the index."""
    return SstIndex(dict(index.entries), dict(index.ranges), index.moved, index.victims)
