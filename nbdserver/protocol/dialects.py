"""Dialects: which parser of requests and which encoder of replies belong to each."""

from nbdserver.protocol.agreement import Agreement, Dialect, ExportT
from nbdserver.protocol.compact import CompactTransmission
from nbdserver.protocol.extended import ExtendedTransmission
from nbdserver.protocol.replies import EXTENDED, STRUCTURED, ChunkedReplies, Replies, SimpleReplies
from nbdserver.protocol.transmission import Handler, Transmission


def replies_in(dialect: Dialect) -> Replies:
    """An encoder of replies in a dialect."""
    if dialect is Dialect.SIMPLE:
        return SimpleReplies()
    return ChunkedReplies(STRUCTURED if dialect is Dialect.STRUCTURED else EXTENDED)


def transmission_in(agreement: Agreement[ExportT], handler: Handler) -> Transmission:
    """A parser of requests in the dialect that was agreed on; `handler` carries them out."""
    export = agreement.export
    if agreement.dialect is Dialect.EXTENDED:
        numbers = frozenset(context.number for context in agreement.contexts)
        return ExtendedTransmission(handler, export, read_only=export.read_only, contexts=numbers)
    return CompactTransmission(
        handler,
        export,
        read_only=export.read_only,
        structured=agreement.structured,
        block_status=agreement.block_status,
    )
