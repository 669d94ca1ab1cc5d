"""The handshake: what a client may say before it reads and writes, and what it is answered.

Promises: the data of an option is limited before it is stored; how the bytes were cut into segments makes no
difference.

How it works. TRANSITIONS says which state follows on which event; an event that a state does not list ends the
connection. `option_answers` says what each option is answered, and with which event; `option_stream` takes the bytes
apart. Replies gather in `take_output()`, which the caller empties; when a megabyte of them waits, options do too.

TLS. After STARTTLS the handshake stands still: the caller sends the acknowledgement, lets TLS take the bytes,
and calls `secured`. Nothing that was said in clear counts afterwards, and a byte that was sent in clear behind
STARTTLS ends the connection: it could pass for one that came through TLS (the class of CVE-2021-3716).
"""

from typing import Generic

from nbdserver.protocol import option_data, wire
from nbdserver.protocol.agreement import Agreement, Catalogue, ExportT
from nbdserver.protocol.option_answers import OPTIONS, OptionAnswers, TlsMode
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

_FIXED = frozenset({HandshakeState.HAGGLING})
_PAUSED = frozenset({HandshakeState.UPGRADING, HandshakeState.TRANSMISSION, HandshakeState.CLOSED})


class Handshake(Generic[ExportT]):
    """One client's handshake, as seen from the server."""

    def __init__(self, catalogue: Catalogue[ExportT], *, security: TlsMode = TlsMode.OFF) -> None:
        self.state = HandshakeState.GREETED
        self.refusals: list[str] = []
        """What was refused, for the log; whoever reads it empties it."""
        self._catalogue = catalogue
        self._security = security
        self._said = OptionStream()
        self._answers = OptionAnswers(catalogue, security, self._said, SERVER_GREETING)
        self._options = 0

    @property
    def agreement(self) -> Agreement[ExportT] | None:
        """Set when `state` is TRANSMISSION."""
        return self._answers.agreement

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
            if self._answers.output_bytes >= OUTPUT_BYTES_MAX or self._options == enough:
                return False
            if not self._step():
                break
        return True

    def secured(self, catalogue: Catalogue[ExportT]) -> None:
        """TLS is up, for a client that may see `catalogue`: what was negotiated in clear is forgotten."""
        self._move(Event.SECURED)
        self._catalogue = catalogue
        self._answers.begin_encrypted(catalogue)

    def take_output(self) -> list[bytes]:
        """What is to be sent, in order; forgotten here."""
        return self._answers.take_output()

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
            self._answers.padding = b""
        if self._security is not TlsMode.REQUIRED:
            return Event.FIXED_CLIENT if flags & wire.FLAG_C_FIXED_NEWSTYLE else Event.PLAIN_CLIENT
        if not flags & wire.FLAG_C_FIXED_NEWSTYLE:
            raise ProtocolError("TLS is required, and the client does not speak fixed newstyle")
        return Event.TLS_FIRST

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    # Options

    def _answer(self, option: int, data: bytes | None) -> None:
        """Answer one option; `data` None: there was more of it than OPTION_BYTES_MAX, and it is gone."""
        self._options += 1
        if self._options > OPTIONS_MAX and self._options > self._options_max():
            raise ProtocolError(f"more than {self._options - 1} options")
        if option == wire.OPT_SET_META_CONTEXT:
            # Whatever comes of it, it replaces what was selected before.
            self._answers.forget_contexts()
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
            if data is None and option != wire.OPT_ABORT:
                sentence = f"{rule.name} takes at most {OPTION_BYTES_MAX} bytes of data"
                raise OptionRefused(wire.REP_ERR_TOO_BIG, sentence)
            if data and not rule.data:
                raise OptionRefused(wire.REP_ERR_INVALID, f"{rule.name} takes no data")
            event = rule.answer(self._answers, data or b"")
        except OptionRefused as refused:
            event = Event.ANSWERED
            self._answers.send(option_data.encode_reply(option, refused.reply, str(refused).encode()))
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
