"""The options of the handshake: which there are, and what each is answered. A new one is a number in `wire`, a layout
in `option_data`, and a row here.

The table OPTIONS says for each in which states it is allowed, whether it may carry data, and which method of
`OptionAnswers` answers it with an event. That holds what the options of one client negotiate.

Promises: an export is looked up only when the client names it; an option that fails leaves no half-made state behind;
a context counts only for the export whose name it was selected for, and what is attached under that name has it;
nothing that was said in clear counts under TLS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic

from nbdserver.protocol import option_data, wire
from nbdserver.protocol.agreement import (
    Agreement,
    Catalogue,
    Dialect,
    ExportT,
    MetaContext,
    contexts_of,
    listed,
    selected,
    transmission_flags,
)
from nbdserver.protocol.option_stream import OptionStream
from nbdserver.protocol.states import Event, HandshakeState
from nbdserver.protocol.wire import OptionRefused, ProtocolError


class TlsMode(Enum):
    """What a connection that is not encrypted is told when it asks for TLS, or does not."""

    OFF = "there is no TLS: STARTTLS is answered that it is not supported"
    OFFERED = "STARTTLS works, and so does everything without it"
    REQUIRED = "before STARTTLS nothing works but STARTTLS and ABORT"


class OptionAnswers(Generic[ExportT]):
    """What one client negotiates, option by option."""

    def __init__(self, catalogue: Catalogue[ExportT], security: TlsMode, said: OptionStream, first: bytes) -> None:
        """`said` is where the options come from; `first` is sent ahead of all answers."""
        self.agreement: Agreement[ExportT] | None = None
        """Set when an export was chosen."""
        self.padding = wire.EXPORT_PADDING
        """What follows the answer to EXPORT_NAME."""
        self._catalogue = catalogue
        self._security = security
        self._said = said
        self._output = [first]
        self.output_bytes = len(first)
        """How much waits to be sent."""
        self._encrypted = False
        self._dialect = Dialect.SIMPLE
        self._contexts_of: str | None = None
        """The name of the export that `_contexts` were selected for."""
        self._contexts: tuple[MetaContext, ...] = ()

    def begin_encrypted(self, catalogue: Catalogue[ExportT]) -> None:
        """TLS is up, for a client that may see `catalogue`: what was negotiated in clear is forgotten."""
        self._encrypted = True
        self._catalogue = catalogue
        self._dialect = Dialect.SIMPLE
        self.forget_contexts()

    def forget_contexts(self) -> None:
        """None is selected."""
        self._contexts_of = None

    def send(self, data: bytes) -> None:
        """Add to what is to be sent."""
        self._output.append(data)
        self.output_bytes += len(data)

    def take_output(self) -> list[bytes]:
        """What is to be sent, in order; forgotten here."""
        output, self._output, self.output_bytes = self._output, [], 0
        return output

    # Answers, one for each option

    def _export_name(self, data: bytes) -> Event:
        """The answer is bare: 64 bits size, 16 bits flags, 124 zeros unless NO_ZEROES; an error cannot be
        told."""
        if self._dialect is Dialect.EXTENDED:
            raise ProtocolError("EXPORT_NAME after EXTENDED_HEADERS, which forbids it")
        try:
            name = option_data.decode_string(data)
            export = self._attachable(name)
        except OptionRefused as refused:
            raise ProtocolError(str(refused)) from None
        self.send(wire.EXPORT.pack(export.size, self._flags(name, export)) + self.padding)
        return self._choose(name, export)

    def _abort(self, data: bytes) -> Event:
        self._acknowledge(wire.OPT_ABORT)
        return Event.ABORTED

    def _list(self, data: bytes) -> Event:
        for name in self._catalogue.names():
            self.send(option_data.encode_reply(wire.OPT_LIST, wire.REP_SERVER, option_data.encode_server(name)))
        return self._acknowledge(wire.OPT_LIST)

    def _info(self, data: bytes) -> Event:
        request = option_data.decode_info(data)
        self._inform(wire.OPT_INFO, request, self._find(request.name))
        return self._acknowledge(wire.OPT_INFO)

    def _go(self, data: bytes) -> Event:
        request = option_data.decode_info(data)
        export = self._attachable(request.name)
        self._inform(wire.OPT_GO, request, export)
        self._acknowledge(wire.OPT_GO)
        return self._choose(request.name, export)

    def _structured_reply(self, data: bytes) -> Event:
        if self._dialect is Dialect.EXTENDED:
            raise OptionRefused(wire.REP_ERR_EXT_HEADER_REQD, "extended headers are in use, and include these replies")
        self._dialect = Dialect.STRUCTURED
        return self._acknowledge(wire.OPT_STRUCTURED_REPLY)

    def _extended_headers(self, data: bytes) -> Event:
        self._dialect = Dialect.EXTENDED
        return self._acknowledge(wire.OPT_EXTENDED_HEADERS)

    def _list_contexts(self, data: bytes) -> Event:
        request, known = self._context_request(data)
        for context in listed(known, request.queries):
            self._send_context(wire.OPT_LIST_META_CONTEXT, 0, context)
        return self._acknowledge(wire.OPT_LIST_META_CONTEXT)

    def _set_contexts(self, data: bytes) -> Event:
        request, known = self._context_request(data)
        self._contexts = selected(known, request.queries)
        self._contexts_of = request.name if self._contexts else None
        for context in self._contexts:
            self._send_context(wire.OPT_SET_META_CONTEXT, context.number, context)
        return self._acknowledge(wire.OPT_SET_META_CONTEXT)

    def _starttls(self, data: bytes) -> Event:
        if self._encrypted:
            raise OptionRefused(wire.REP_ERR_INVALID, "TLS is in use already")
        if self._security is TlsMode.OFF:
            raise OptionRefused(wire.REP_ERR_UNSUP, "this server does not offer TLS")
        if not self._said.is_empty:
            raise ProtocolError("bytes in clear follow STARTTLS")
        self._acknowledge(wire.OPT_STARTTLS)
        return Event.STARTED_TLS

    # Parts of answers

    def _acknowledge(self, option: int) -> Event:
        self.send(option_data.encode_reply(option, wire.REP_ACK))
        return Event.ANSWERED

    def _inform(self, option: int, request: option_data.InfoRequest, export: ExportT) -> None:
        """Send what INFO and GO ask for about an export, size and flags unasked."""
        answers = [option_data.encode_info_export(export.size, self._flags(request.name, export))]
        if wire.INFO_NAME in request.wanted:
            answers.append(option_data.encode_info_text(wire.INFO_NAME, export.name))
        if wire.INFO_DESCRIPTION in request.wanted:
            answers.append(option_data.encode_info_text(wire.INFO_DESCRIPTION, export.description))
        if wire.INFO_BLOCK_SIZE in request.wanted:
            answers.append(option_data.encode_info_block_size())
        for answer in answers:
            self.send(option_data.encode_reply(option, wire.REP_INFO, answer))

    def _context_request(self, data: bytes) -> tuple[option_data.ContextRequest, list[MetaContext]]:
        """What is asked, and all contexts of the export that it is asked of."""
        if self._dialect is Dialect.SIMPLE:
            raise OptionRefused(wire.REP_ERR_INVALID, "structured replies or extended headers must be negotiated first")
        request = option_data.decode_contexts(data)
        return request, contexts_of(self._find(request.name), request.queries)

    def _send_context(self, option: int, number: int, context: MetaContext) -> None:
        encoded = option_data.encode_context(number, context.name)
        self.send(option_data.encode_reply(option, wire.REP_META_CONTEXT, encoded))

    def _find(self, name: str) -> ExportT:
        export = self._catalogue.find(name)
        if export is None:
            sentence = f"no export named {wire.quoted(name)}" if name else "there is no default export"
            raise OptionRefused(wire.REP_ERR_UNKNOWN, sentence)
        return export

    def _attachable(self, name: str) -> ExportT:
        """The export of that name, if it can be attached now and has all contexts that were selected for the name."""
        export = self._find(name)
        refusal = self._catalogue.refusal(export)
        if refusal is not None:
            raise OptionRefused(wire.REP_ERR_POLICY, refusal)
        # By now the name may mean another disk, or a newer moment of it, than the one whose contexts were confirmed.
        chosen = {each.name for each in self._contexts} if self._contexts_of == name else set()
        if chosen and not chosen.issubset(each.name for each in contexts_of(export, list(chosen))):
            sentence = "the export has changed since contexts of it were selected, and lacks one of them: select again"
            raise OptionRefused(wire.REP_ERR_INVALID, sentence)
        return export

    def _flags(self, name: str, export: ExportT) -> int:
        return transmission_flags(export, self._dialect, block_status=self._contexts_of == name)

    def _choose(self, name: str, export: ExportT) -> Event:
        """A context counts only if it was selected for the name that is chosen."""
        contexts = self._contexts if self._contexts_of == name else ()
        self.agreement = Agreement(export, self._dialect, contexts)
        return Event.CHOSEN


@dataclass(frozen=True, slots=True)
class Rule:
    """How one option is treated: what answers it, whether it may carry data, in which states it is
    allowed."""

    name: str
    answer: "Callable[[OptionAnswers[Any], bytes], Event]"
    data: bool
    states: frozenset[HandshakeState] = frozenset({HandshakeState.HAGGLING})


_BEFORE_TLS = frozenset({HandshakeState.HAGGLING, HandshakeState.UNSECURED})

OPTIONS = {
    wire.OPT_EXPORT_NAME: Rule(
        "EXPORT_NAME",
        OptionAnswers._export_name,
        data=True,
        states=frozenset({HandshakeState.PLAIN, HandshakeState.HAGGLING}),
    ),
    wire.OPT_ABORT: Rule("ABORT", OptionAnswers._abort, data=True, states=_BEFORE_TLS),
    wire.OPT_LIST: Rule("LIST", OptionAnswers._list, data=False),
    wire.OPT_STARTTLS: Rule("STARTTLS", OptionAnswers._starttls, data=False, states=_BEFORE_TLS),
    wire.OPT_INFO: Rule("INFO", OptionAnswers._info, data=True),
    wire.OPT_GO: Rule("GO", OptionAnswers._go, data=True),
    wire.OPT_STRUCTURED_REPLY: Rule("STRUCTURED_REPLY", OptionAnswers._structured_reply, data=False),
    wire.OPT_LIST_META_CONTEXT: Rule("LIST_META_CONTEXT", OptionAnswers._list_contexts, data=True),
    wire.OPT_SET_META_CONTEXT: Rule("SET_META_CONTEXT", OptionAnswers._set_contexts, data=True),
    wire.OPT_EXTENDED_HEADERS: Rule("EXTENDED_HEADERS", OptionAnswers._extended_headers, data=False),
}
