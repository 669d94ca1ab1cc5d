"""Jobs of maintenance: checkpoint, repack, consolidation, drop. One at a time, beside everything else; commit and
install of one are never in the midst of those of a flush.
"""

from tests.model.explore import Violation
from tests.model.layers.engine import Engine
from tests.model.layers.index import Index, push
from tests.model.layers.recovery import Recovery
from tests.model.layers.rules import FULL, Chain, Entry, Image, Job, Place, Sst, State


class Layers(Engine):
    """The whole model."""

    def jobs(self) -> None:
        state = self.state
        if state.job is None:
            if state.left.jobs and not state.locked:
                self.begin()
            self.look_for_dead()
        elif state.job.committed:
            self.install_job(state.job)
        elif not state.locked:
            getattr(self, f"commit_{state.job.kind}")(state.job)
        if state.job is None and state.left.jobs and state.locked and self.rules.freeze == "any":
            self.freeze()

    def begin(self) -> None:
        state = self.state
        if self.allowed("k"):
            self.freeze()
        if self.allowed("p"):
            for sst in state.manifest.ssts:
                if sst.merged or not self.rules.victims:
                    self.begin_repack(sst)
        if self.allowed("o"):
            index = self.index(state)
            for layer in sorted(index.heads()):
                for block in range(self.bounds.blocks):
                    self.begin_consolidation(index, layer, block)

    # --- checkpoints

    def freeze(self) -> None:
        state, manifest = self.state, self.state.manifest
        at = state.cut if self.rules.at == "cut" else state.numbers[0]
        if manifest.operations or at > manifest.image.at or not all(sst.merged for sst in manifest.ssts):
            job = Job(
                "checkpoint",
                image=Image(state.trunks, state.maps, at),
                names=tuple(sst.number for sst in manifest.ssts),
            )
            self.emit("checkpoint freezes", spend="jobs", job=job)

    def commit_checkpoint(self, job: Job) -> None:
        manifest, image, rules = self.state.manifest, job.image, self.rules
        assert image is not None
        ssts = tuple(
            sst._replace(merged=True, entries=(), moved=())
            if sst.merged or rules.merged == "commit" or sst.number in job.names
            else sst
            for sst in manifest.ssts
        )
        later = tuple(logged for logged in manifest.operations if logged.sequence > image.at)
        operations = {"held": later, "all": (), "none": manifest.operations}[rules.forget]
        self.emit(
            "checkpoint commits",
            job=None,
            manifest=manifest._replace(image=image, ssts=ssts, operations=operations),
        )

    # --- repacking

    def begin_repack(self, sst: Sst) -> None:
        state, index = self.state, self.index(self.state)
        used = sorted(
            {
                place
                for layer in (index.maps if self.rules.live == "all" else index.heads())
                for chain in index.maps[layer]
                for _, place in chain or ()
                if place and place[0] == sst.number
            }
        )
        if not used:
            return
        number = state.numbers[1] + 1
        moved: tuple[tuple[Place, Place], ...] = tuple((place, (number, n)) for n, place in enumerate(used))
        new = Sst(number, tuple(sst.frames[place[1]] for place in used), moved=moved)
        where = tuple(
            (layer, block)
            for layer, own in index.maps.items()
            for block, chain in enumerate(own)
            if any(place and place[0] == sst.number for _, place in chain or ())
        )
        job = Job("repack", new, names=(sst.number,), where=where)
        self.emit(
            f"repack of {sst.number} begins",
            spend="jobs",
            job=job,
            numbers=(state.numbers[0], number, state.numbers[2]),
        )

    def commit_repack(self, job: Job) -> None:
        manifest = self.state.manifest
        gone = next(sst for sst in manifest.ssts if sst.number in job.names)
        assert job.sst is not None
        ssts = (*(sst for sst in manifest.ssts if sst != gone), job.sst)
        self.emit("repack commits", job=job._replace(committed=True, gone=gone), manifest=manifest._replace(ssts=ssts))

    def install_repack(self, job: Job, index: Index) -> None:
        assert job.sst is not None
        rows = dict(job.sst.moved)
        for layer, own in index.maps.items():
            if self.rules.compare:
                index.maps[layer] = tuple(
                    None if chain is None else tuple((mask, rows.get(place, place)) for mask, place in chain)
                    for chain in own
                )
        for layer, block in () if self.rules.compare else job.where:
            index.put(layer, block, ((FULL, job.sst.moved[0][1]),))

    # --- consolidation

    def begin_consolidation(self, index: Index, layer: int, block: int) -> None:
        state, chain = self.state, index.maps[layer][block]
        if not chain:
            return
        content, _ = index.shown(layer, block, self.frames(state))
        if not any(content):
            return
        number = state.numbers[1] + 1
        sequence = {"cut": state.cut, "manifest": state.manifest.sequence, "fresh": state.numbers[0] + 1}[
            self.rules.sequence
        ]
        sst = Sst(number, (content,), (Entry(layer, block, FULL, sequence, 0),))
        job = Job("consolidation", sst, layer=layer, block=block, chain=chain)
        numbers = (max(state.numbers[0], sequence), number, state.numbers[2])
        self.emit(f"consolidation of layer {layer} begins", spend="jobs", job=job, numbers=numbers)

    def commit_consolidation(self, job: Job) -> None:
        state, manifest = self.state, self.state.manifest
        assert job.sst is not None
        if self.rules.heir == "none" and job.layer not in self.index(state).heads():
            self.emit("consolidation is given up", job=None)
            return
        self.emit(
            "consolidation commits",
            job=job._replace(committed=True),
            manifest=manifest._replace(ssts=(*manifest.ssts, job.sst)),
        )

    def install_consolidation(self, job: Job, index: Index) -> None:
        for trunk in index.trunks:
            if trunk[-1] == job.layer:
                self.rebase(job, index, trunk)
            elif self.rules.heir == "every":
                for layer in trunk:
                    if index.maps[layer][job.block] == job.chain:
                        self.rebase(job, index, (layer,))

    def rebase(self, job: Job, index: Index, trunk: tuple[int, ...]) -> None:
        assert job.sst is not None
        layer, block = trunk[-1], job.block
        chain: Chain = index.maps[layer][block] or ()
        if self.rules.above and not any(element in job.chain for element in chain):
            return
        if len(trunk) > 1 and self.rules.below:
            index.keep(trunk[-2], block, chain)
        above = [element for element in chain if element not in job.chain] if self.rules.above else []
        new: Chain = ((FULL, (job.sst.number, 0)),)
        for mask, place in above[::-1]:
            new = push(new, mask, place)
        index.put(layer, block, new)

    def install_job(self, job: Job) -> None:
        index = self.index(self.state)
        (self.install_repack if job.kind == "repack" else self.install_consolidation)(job, index)
        self.emit(f"{job.kind} is installed", job=None, maps=index.frozen())

    # --- drops

    def look_for_dead(self) -> None:
        """An SST to which no map refers leaves the manifest, now or later, and the store."""
        state, index = self.state, self.index(self.state)
        used = {
            place[0]
            for layer in (index.maps if self.rules.live == "all" else index.heads())
            for chain in index.maps[layer]
            for _, place in chain or ()
            if place
        }
        for sst in state.manifest.ssts if not state.locked else ():
            if sst.number not in used and (sst.merged or not self.rules.drops):
                self.emit(f"SST {sst.number} is dead", job=Job("drop", names=(sst.number,)))

    def commit_drop(self, job: Job) -> None:
        manifest = self.state.manifest
        ssts = tuple(sst for sst in manifest.ssts if sst.number not in job.names)
        self.emit("drop commits", job=None, manifest=manifest._replace(ssts=ssts))

    # --- garbage

    def tidy(self, state: State) -> None:
        """Finish what is under way, then maintenance: nothing may be left that no layer shows."""
        quiet = Layers(self.rules, self.bounds._replace(tidy=False, only=""))
        state = state._replace(left=state.left._replace(writes=0, trees=0, flushes=99, jobs=99, crashes=0))
        ends = tuple(f"{job} {what}" for job in ("repack", "consolidation") for what in ("commits", "is"))
        ends = (*ends, "flush commits", "install", "checkpoint commits", "drop commits")

        def go(state: State, *labels: str) -> State:
            while new := next((new for label, new in quiet.steps(state) if label.startswith(labels)), None):
                if isinstance(new, Violation):
                    raise new
                Recovery.check(quiet, new)
                state = new
            return state

        def once(state: State, label: str) -> State:
            for text, new in quiet.steps(state):
                if text.startswith(label) and isinstance(new, State):
                    return go(new, *ends)
            return state

        state = go(state, *ends)
        while state.active.blocks or state.active.operations:
            state = once(state, "seal")
        for _ in range(2):
            state = once(state, "checkpoint freezes")
            state = go(state, "SST", *ends)
            for number in sorted({number for number, _ in self.left_over(state)}):
                state = once(state, f"repack of {number} begins")
        self.check_tidy(go(state, "SST", *ends))

    def left_over(self, state: State) -> set[tuple[int, int]]:
        """The frames that are there, and no layer shows."""
        index, frames = self.index(state), self.frames(state)
        shown = {
            place
            for layer, blocks in state.truth
            for block in range(len(blocks))
            for place in index.shown(layer, block, frames)[1]
        }
        return {(sst.number, n) for sst in state.manifest.ssts for n in range(len(sst.frames))} - shown

    def check_tidy(self, state: State) -> None:
        left = self.left_over(state)
        unmerged = [sst.number for sst in state.manifest.ssts if not sst.merged]
        if left or unmerged or state.manifest.operations:
            raise Violation(f"frames {sorted(left)}, operations {state.manifest.operations}, {unmerged} stay for ever")
