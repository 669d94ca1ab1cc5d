"""Writing a checkpoint: the index as it was at one moment, put into the store, and named by the manifest.

    1. freeze all maps in one step, with the list of SSTs whose rows they hold      (memory only)
    2. seal and upload it                                  (crash: an orphan, which a later writer sweeps;
                                                            failure: garbage)
    3. wait until all changes of the tree that the maps show are in the log
    4. a manifest names it in place of the older one, and those SSTs as merged       (the commit)
    5. the older one is garbage                            (crash: a leftover, swept)

Freezing never comes between the commit of a flush or job and the end of its install: then an SST would be listed
whose rows are not in the maps, or something that was done to trunks would be forgotten that they do not show. What was
done to trunks after the last flush the maps do not show, but that layers were made or dropped; that may be done twice.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from storage.cancel import when_ended
from storage.format.blocks import SstRef
from storage.format.checkpoint import CheckpointBuilder
from storage.format.manifest import Manifest, checkpointed
from storage.format.names import sst_name
from storage.format.sst_list import SstList
from storage.format.trunks import TrunkRef
from storage.lsm.compaction.job_context import JobContext
from storage.lsm.index.image import parts_of
from storage.lsm.index.rows import Frozen


async def write_checkpoint(context: JobContext) -> None:
    """Write the index as it is now. BrokenInvariant, RuntimeError: the index in memory is damaged."""
    manifests = context.manifests
    async with context.installing:
        frozen = {number: index.freeze() for number, index in context.maps().items()}
        trunks = context.layers.forest.refs()
        ssts = manifests.listed()
        sequence = context.cut()
    try:
        numbers = context.sst_numbers.numbers(ssts.ids)
        builder = context.ssts.checkpoint_builder()
        sealed = partial(_build, builder, frozen, trunks, ssts=ssts, numbers=numbers, sequence=sequence)
        ref, content = await when_ended(
            context.ssts.encode(partial(sealed, rows_per_part=context.options.maintenance.rows_per_part))
        )
    finally:
        for each in frozen.values():
            each.thaw()
    with context.uncommitted() as names:
        names.append(sst_name(ref.id))
        context.progress.uploaded_bytes += len(content)
        await context.ssts.create(ref.id, content)

    def successor() -> Manifest:
        return checkpointed(manifests.manifest, ref=ref, table=ssts, sequence=sequence)

    async def commit() -> None:
        older = manifests.manifest.checkpoint
        await context.commit_manifest(successor(), table=ssts)
        if older is not None:
            context.garbage.add([sst_name(older.id)])

    await context.commit(commit, names)


def _build(
    builder: CheckpointBuilder,
    frozen: Mapping[int, Frozen],
    trunks: list[TrunkRef],
    *,
    ssts: SstList,
    numbers: NDArray[np.int64],
    sequence: int,
    rows_per_part: int,
) -> tuple[SstRef, bytearray]:
    """Seal what was frozen of each layer; for a thread."""
    for layer, index in sorted(frozen.items()):
        for kind, rows in parts_of(index, numbers, rows_per_part):
            builder.add(layer, kind, rows)
    return builder.finish(sequence=sequence, ssts=ssts, trunks=trunks)
