"""What the last server of a store has left: what it answered and did not flush, and clients that may come back.

What a journal of it held is in the store again when this begins (`storage.lsm.recovery.journal_replay`); where
something may be lost all the same, the clients that were attached to it are refused (`nbdserver.attachments`).
"""

import logging
from functools import partial

from nbdserver.attachments import HERE, Attachment, Attachments, read_record, refused_after
from nbdserver.config import AfterLoss
from storage import Store
from storage.journal.files import boot

logger = logging.getLogger("nbdserver")


async def attachments_after(store: Store, after_loss: AfterLoss) -> Attachments:
    """The record of this server's clients, with those that are refused for what was lost. A crash before it is written
    leaves the record of before, of which the next start makes the same.
    """
    now, incarnation = boot(), store.incarnation
    kept = await incarnation.load_attached()
    records = [record for raw in kept.newest if (record := read_record(raw)) is not None]
    refused: set[Attachment] = set()
    if after_loss == "refuse":
        after = partial(refused_after, boot=now, is_unbroken_since=incarnation.is_unbroken_since)
        refused.update(*map(after, records))
        if all(record.boot != now for record in records):
            refused.update(each for each in after(read_record(kept.own)) if each.client == HERE)
    attachments = Attachments(incarnation.keep_attached, incarnation=incarnation.id, boot=now, refused=refused)
    if records:
        await attachments.write()
    return attachments


def tell(store: Store, attachments: Attachments) -> None:
    """Log that the store is served, and what became of what the last server had answered and not flushed."""
    logger.info("serving", extra={"store": store.url, "epoch": store.epoch})
    found = store.opening
    if found.restored:
        logger.info("journal_restored", extra={"operations": found.restored})
    if found.problem is not None:
        logger.warning("journal_not_used", extra={"reason": found.problem})
    if store.incarnation.is_broken:
        logger.warning("may_have_lost", extra={"incarnation": store.incarnation.id})
    for each in attachments.refused:
        logger.warning("client_to_be_accepted", extra={"export": each.export, "client": each.client})
