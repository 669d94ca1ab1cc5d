"""The handshake: what a client may say before it reads and writes, and what it is answered.

Promises: an export is looked up only when the client names it; an option that fails leaves no half-made state behind;
the data of an option is limited before it is stored; how the bytes were cut into segments makes no difference.

How it works. Two tables hold the rules. TRANSITIONS says which state follows on which event; an event that a state does
not list ends the connection. OPTIONS says for each option in which states it is allowed, whether it may carry data, and
which method answers it with an event. `option_stream` takes the bytes apart. Replies gather in `take_output()`, which
the caller empties; when a megabyte of them waits, options do too.

TLS. After STARTTLS the handshake stands still: the caller sends the acknowledgement, lets TLS take the bytes,
and calls `secured`. Nothing that was said in clear counts afterwards, and a byte that was sent in clear behind
STARTTLS ends the connection: it could pass for one that came through TLS (the class of CVE-2021-3716).
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
from nbdserver.protocol.option_stream import OPTION_BYTES_MAX, OptionStream
from nbdserver.protocol.states import TRANSITIONS, Event, HandshakeState
from nbdserver.protocol.wire import OptionRefused, ProtocolError

OPTIONS_MAX = 64
OPTIONS_PER_EXPORT_MAX = 4
"""Options of one client. A handful suffices; `qemu-nbd --list` sends two for each export it finds."""

OPTIONS_PER_TURN = 8
"""Answered in one call, so that other clients get their turn: to list 500 exports takes half a millisecond."""

OUTPUT_BYTES_MAX = 1 << 20
"""With this much unsent, no further option is answered."""

SERVER_GREETING = wire.GREETING.pack(wire.NBDMAGIC, wire.IHAVEOPT, wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES)
"""What the server says first."""


class TlsMode(Enum):
    """What a connection that is not encrypted is told when it asks for TLS, or does not."""

    OFF = "there is no TLS: STARTTLS is answered that it is not supported"
    OFFERED = "STARTTLS works, and so does everything without it"
    REQUIRED = "before STARTTLS nothing works but STARTTLS and ABORT"


class Handshake(Generic[ExportT]):
    """One client's handshake, as seen from the server."""

    def __init__(self, catalogue: Catalogue[ExportT], *, security: TlsMode = TlsMode.OFF) -> None:
        self.state = HandshakeState.GREETED
        self.agreement: Agreement[ExportT] | None = None
        """Set when `state` is TRANSMISSION."""
        self._catalogue = catalogue
        self._security = security
        self._encrypted = False
        self.refusals: list[str] = []
        """What was refused, for the log; whoever reads it empties it."""
        self._said = OptionStream()
        self._output: list[bytes] = [SERVER_GREETING]
        self._output_bytes = len(SERVER_GREETING)
        self._padding = wire.EXPORT_PADDING
        self._options = 0
        self._dialect = Dialect.SIMPLE
        self._contexts_of: str | None = None
        """The name of the export that `_contexts` were selected for."""
        self._contexts: tuple[MetaContext, ...] = ()

    def received(self, data: bytes | bytearray | memoryview) -> bool:
        """Take bytes from the client, answer every option that is complete.

        True: more bytes are needed, or the handshake is over (see `state`). False: enough was answered; send it,
        and call again with no bytes in another turn. ProtocolError: there is no way to go on. While the state is
        UPGRADING the bytes are for TLS, and none is taken.
        """
        if self.state is HandshakeState.UPGRADING:
            return True
        self._said.feed(data)
        enough = self._options + OPTIONS_PER_TURN
        while self.state not in _PAUSED:
            if self._output_bytes >= OUTPUT_BYTES_MAX or self._options == enough:
                return False
            if not self._step():
                break
        return True

    def secured(self, catalogue: Catalogue[ExportT]) -> None:
        """TLS is up, for a client that may see `catalogue`: what was negotiated in clear is forgotten."""
        self._move(Event.SECURED)
        self._encrypted = True
        self._catalogue = catalogue
        self._dialect = Dialect.SIMPLE
        self._contexts_of = None

    def take_output(self) -> list[bytes]:
        """What is to be sent, in order; forgotten here."""
        output, self._output, self._output_bytes = self._output, [], 0
        return output

    def take_rest(self) -> bytes:
        """The bytes behind the option that ended the handshake: they belong to the transmission phase."""
        return self._said.take_rest()

    def _step(self) -> bool:
        """Take one message of the client; False if it is not all there."""
        if self.state is HandshakeState.GREETED:
            flags = self._said.client_flags()
            if flags is None:
                return False
            self._move(self._client_flags(flags))
            return True
        option = self._said.option()
        if option is None:
            return False
        self._answer(*option)
        return True

    def _client_flags(self, flags: int) -> Event:
        known = wire.FLAG_C_FIXED_NEWSTYLE | wire.FLAG_C_NO_ZEROES
        if flags & ~known:
            raise ProtocolError(f"the client flags {flags:#x} are not known")
        if flags & wire.FLAG_C_NO_ZEROES:
            self._padding = b""
        if self._security is not TlsMode.REQUIRED:
            return Event.FIXED_CLIENT if flags & wire.FLAG_C_FIXED_NEWSTYLE else Event.PLAIN_CLIENT
        if not flags & wire.FLAG_C_FIXED_NEWSTYLE:
            raise ProtocolError("TLS is required, and the client does not speak fixed newstyle")
        return Event.TLS_FIRST

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    def _send(self, data: bytes) -> None:
        self._output.append(data)
        self._output_bytes += len(data)

    # Options

    def _answer(self, option: int, data: bytes | None) -> None:
        """Answer one option; `data` None: there was more of it than OPTION_BYTES_MAX, and it is gone."""
        self._options += 1
        if self._options > OPTIONS_MAX and self._options > self._options_max():
            raise ProtocolError(f"more than {self._options - 1} options")
        if option == wire.OPT_SET_META_CONTEXT:
            # Whatever comes of it, it replaces what was selected before.
            self._contexts_of = None
        rule = OPTIONS.get(option)
        allowed = rule.states if rule else _FIXED
        if self.state is HandshakeState.PLAIN and self.state not in allowed:
            raise ProtocolError(f"option {option} from a client that does not speak fixed newstyle")
        if self.state is HandshakeState.UNSECURED and option == wire.OPT_EXPORT_NAME:
            raise ProtocolError("TLS is required, and EXPORT_NAME came before STARTTLS")
        try:
            if self.state not in allowed:
                raise OptionRefused(wire.REP_ERR_TLS_REQD, "this server requires TLS: STARTTLS must come first")
            if rule is None:
                raise OptionRefused(wire.REP_ERR_UNSUP, f"option {option} is not known")
            if data is None:
                sentence = f"{rule.name} takes at most {OPTION_BYTES_MAX} bytes of data"
                raise OptionRefused(wire.REP_ERR_TOO_BIG, sentence)
            if data and not rule.data:
                raise OptionRefused(wire.REP_ERR_INVALID, f"{rule.name} takes no data")
            event = rule.answer(self, data)
        except OptionRefused as refused:
            event = Event.ANSWERED
            self._send(option_data.encode_reply(option, refused.reply, str(refused).encode()))
            if rule is not None:  # clients ask for what is new, and go on without it
                self.refusals.append(f"{rule.name}: {refused}")
        self._move(event)

    def _options_max(self) -> int:
        """How many options this client may send. One that has yet to start TLS does not learn from it how many exports
        there are.
        """
        if self.state is HandshakeState.UNSECURED:
            return OPTIONS_MAX
        return max(OPTIONS_MAX, OPTIONS_PER_EXPORT_MAX * len(self._catalogue.names()))

    def _export_name(self, data: bytes) -> Event:
        """The answer is bare: 64 bits size, 16 bits flags, 124 zeros unless NO_ZEROES; an error cannot be
        told."""
        if self._dialect is Dialect.EXTENDED:
            raise ProtocolError("EXPORT_NAME after EXTENDED_HEADERS, which forbids it")
        try:
            name = option_data.decode_string(data)
            export = self._attachable(self._find(name))
        except OptionRefused as refused:
            raise ProtocolError(str(refused)) from None
        self._send(wire.EXPORT.pack(export.size, self._flags(name, export)) + self._padding)
        return self._choose(name, export)

    def _abort(self, data: bytes) -> Event:
        self._acknowledge(wire.OPT_ABORT)
        return Event.ABORTED

    def _list(self, data: bytes) -> Event:
        for name in self._catalogue.names():
            self._send(option_data.encode_reply(wire.OPT_LIST, wire.REP_SERVER, option_data.encode_server(name)))
        return self._acknowledge(wire.OPT_LIST)

    def _info(self, data: bytes) -> Event:
        request = option_data.decode_info(data)
        self._inform(wire.OPT_INFO, request, self._find(request.name))
        return self._acknowledge(wire.OPT_INFO)

    def _go(self, data: bytes) -> Event:
        request = option_data.decode_info(data)
        export = self._attachable(self._find(request.name))
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
        self._send(option_data.encode_reply(option, wire.REP_ACK))
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
            self._send(option_data.encode_reply(option, wire.REP_INFO, answer))

    def _context_request(self, data: bytes) -> tuple[option_data.ContextRequest, list[MetaContext]]:
        """What is asked, and all contexts of the export that it is asked of."""
        if self._dialect is Dialect.SIMPLE:
            raise OptionRefused(wire.REP_ERR_INVALID, "structured replies or extended headers must be negotiated first")
        request = option_data.decode_contexts(data)
        return request, contexts_of(self._find(request.name), request.queries)

    def _send_context(self, option: int, number: int, context: MetaContext) -> None:
        encoded = option_data.encode_context(number, context.name)
        self._send(option_data.encode_reply(option, wire.REP_META_CONTEXT, encoded))

    def _find(self, name: str) -> ExportT:
        export = self._catalogue.find(name)
        if export is None:
            sentence = f"no export named {wire.quoted(name)}" if name else "there is no default export"
            raise OptionRefused(wire.REP_ERR_UNKNOWN, sentence)
        return export

    def _attachable(self, export: ExportT) -> ExportT:
        """The export, if it can be attached now."""
        refusal = self._catalogue.refusal(export)
        if refusal is not None:
            raise OptionRefused(wire.REP_ERR_POLICY, refusal)
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
    answer: "Callable[[Handshake[Any], bytes], Event]"
    data: bool
    states: frozenset[HandshakeState] = frozenset({HandshakeState.HAGGLING})


_FIXED = frozenset({HandshakeState.HAGGLING})
_BEFORE_TLS = frozenset({HandshakeState.HAGGLING, HandshakeState.UNSECURED})
_PAUSED = frozenset({HandshakeState.UPGRADING, HandshakeState.TRANSMISSION, HandshakeState.CLOSED})

OPTIONS = {
    wire.OPT_EXPORT_NAME: Rule(
        "EXPORT_NAME",
        Handshake._export_name,
        data=True,
        states=frozenset({HandshakeState.PLAIN, HandshakeState.HAGGLING}),
    ),
    wire.OPT_ABORT: Rule("ABORT", Handshake._abort, data=True, states=_BEFORE_TLS),
    wire.OPT_LIST: Rule("LIST", Handshake._list, data=False),
    wire.OPT_STARTTLS: Rule("STARTTLS", Handshake._starttls, data=False, states=_BEFORE_TLS),
    wire.OPT_INFO: Rule("INFO", Handshake._info, data=True),
    wire.OPT_GO: Rule("GO", Handshake._go, data=True),
    wire.OPT_STRUCTURED_REPLY: Rule("STRUCTURED_REPLY", Handshake._structured_reply, data=False),
    wire.OPT_LIST_META_CONTEXT: Rule("LIST_META_CONTEXT", Handshake._list_contexts, data=True),
    wire.OPT_SET_META_CONTEXT: Rule("SET_META_CONTEXT", Handshake._set_contexts, data=True),
    wire.OPT_EXTENDED_HEADERS: Rule("EXTENDED_HEADERS", Handshake._extended_headers, data=False),
}
