"""What a command says of the events that a server would log: of each one sentence, what it is and what to do.

Whoever runs a command has no log. From its first moment on (a store's keys are read before most of the program is
loaded) what is logged comes to standard error as a sentence of this command: warnings on a terminal, to somebody who
waits; a script is told of errors only. A command that serves sets up a log of its own in place of this.
"""

import logging
import os
import sys

from nbdserver.printable import printable, printable_lines
from nbdserver.service.log_flood import FloodFilter

NOTHING_TO_DO = "nothing has to be done"

SENTENCES = {
    "callback_crashed": "a mistake in this program ({error}): please report it; NBDSERVER_DEBUG=1 shows where",
    "consolidation_left": f"block {{block}} was left in several pieces ({{error}}): {NOTHING_TO_DO}, a later "
    "compaction tries it again",
    "engine_failed": "a mistake in this program stopped the store: nothing more is written; please report it, and "
    "check the store with nbdserver check; NBDSERVER_DEBUG=1 shows where",
    "following_failed": "a mistake in this program stopped the following of the store: please report it; "
    "NBDSERVER_DEBUG=1 shows where",
    "foreign_history": "{object} is of a later history than this store ({acknowledged} log objects): somebody copies "
    "into the store; stop that, and then check it with nbdserver check",
    "garbage_deleted": f"the store deletes again what is not needed any more: {NOTHING_TO_DO}",
    "garbage_kept": "the store does not delete {objects} objects that are not needed any more ({error}): allow it to "
    "delete, since they cost space; nothing is lost",
    "garbage_left": f"{{objects}} objects that are not needed any more are not deleted yet: {NOTHING_TO_DO}, whoever "
    "opens the store next deletes them",
    "import_not_undone": "an import that was cut short could not be undone ({reason}): it takes space until the next "
    "server has undone it",
    "import_undone": "an import that was cut short was undone: begin it again",
    "journal_left": "the journal's files could not be taken away ({reason}): delete them once no server runs here",
    "journal_off": "the journal cannot be written ({reason}): make room for it, since without it what was answered and "
    "not flushed is lost if this process is killed",
    "keys_mended": "{object} was {finding}, and was made anew: find out what did that; nothing else has to be done",
    "keys_not_mended": "the keys are there only once, since they could not be written a second time ({error}): allow "
    "the store to be written below keys/ and spare/; it is tried again",
    "keys_read_from_copy": "{object} was read from its copy {copy} ({reason}): nothing is lost; have a server open the "
    "store, which mends it, and then check the store with nbdserver check",
    "maintenance_failed": f"the compaction could not go on ({{error}}): {NOTHING_TO_DO}, it is tried again",
    "manifest_found_damaged": "{object} is not as it was written ({finding}; its copy: {copy}): another manifest is "
    "written now; find out what damaged it",
    "manifest_put_back": "{object} was gone, and was written again from its copy: check the store with nbdserver "
    "check, and find out who deleted it",
    "manifest_read_from_copy": "{object} was read from its copy {copy} ({reason}): nothing is lost; have a server take "
    "the store, which then needs it no more, and check the store with nbdserver check",
    "object_failing": "the store refuses {object} alone ({request}: {error}): it is asked again; see whether that "
    "object may be read and written there",
    "object_readable": f"{{object}} can be read again: {NOTHING_TO_DO}",
    "object_recovered": f"the store gives and takes {{object}} again: {NOTHING_TO_DO}",
    "object_unreadable": "{object} cannot be read, while the store gives others ({error}): it is asked again; see "
    "whether that object may be read there",
    "objects_lost": "{count} objects that the store needs are gone or have another length ({objects}): put them back "
    "from a copy of the store, and find out who changed them",
    "pieces_over_unreadable_kept": "parts of blocks were written to the log again, since what lies below them "
    f"cannot be read: {NOTHING_TO_DO} for them, but see why an object cannot be read",
    "repack_left": "{object} is damaged and was left where it is ({error}): check the store with "
    "nbdserver check --read-data, and put that object back from a copy",
    "request_budget_used_up": "the month's {budget} requests are used up ({month} so far): what can wait is slowed "
    "down; raise --request-budget, or write less",
    "request_budget_will_not_do": "the month's {budget} requests will not do ({month} so far, {projected} expected): "
    "what can wait is slowed down; raise --request-budget, or write less",
    "scheduled_snapshot_not_taken": "the snapshot {snapshot} of {device} was not taken ({reason}): take it yourself if "
    "it is needed; the next one comes by its schedule",
    "scrub_found": "{object} is damaged ({finding}): put it back from a copy of the store, and check it with "
    "nbdserver check --read-data",
    "sign_not_given": "a server that stands by is not told that the store is in use ({reason}): allow the store to be "
    "written below writer/, and see that it keeps few versions of what is there",
    "signs_failed": "a mistake in this program keeps it from telling servers that stand by that the store is in use: "
    "please report it; NBDSERVER_DEBUG=1 shows where",
    "snapshot_not_deleted": "the snapshot {snapshot}, whose time is over, could not be deleted ({reason}): it stays "
    "until that is otherwise; it is tried again",
    "spare_copy_damaged": "{object} is not as it was written ({finding}): it is written again now; find out what "
    "damaged it",
    "spare_copy_failed": "{object}, the copy of an object without which the store does not open, could not be written "
    "({error}): allow the store to be written below spare/; it is tried again",
    "spare_copy_written": f"{{object}} was written now: {NOTHING_TO_DO}",
    "state_kept": f"this host can keep {{state}} again: {NOTHING_TO_DO}",
    "state_not_kept": "this host cannot keep {state} ({error}): see that the disk of the state folder answers, make "
    "room, or let this user write there; the store is well",
    "store_does_not_delete": "the store at {url} does not let this program delete ({error}): allow it to, since what "
    "is not needed any more costs space; nothing is lost",
    "store_failing": "the store at {url} does not do what it is asked ({request} of {object}: {error}): it is asked "
    "again; see that it runs, can be reached from here and lets this host in",
    "store_recovered": f"the store at {{url}} answers again: {NOTHING_TO_DO}",
    "view_not_loaded": "no newer view of the store could be loaded ({reason}): it is tried again",
    "word_not_given": "servers that stand by could not be told what this one does ({word}): they find it out by "
    f"themselves, {NOTHING_TO_DO}",
    "wrong_answer": "the store gave wrong bytes of {object} and then the right ones ({error}): find out what lies "
    "between this host and the store, since it changes data on its way",
}
"""By the name of the event; in braces its fields."""


class EventSentence(logging.Formatter):
    """A record as one line for whoever runs a command. What has no sentence here says its words and all its fields."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        fields = {name: _text(value) for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        try:
            sentence = SENTENCES[message].format_map(fields)
        except KeyError:
            facts = ", ".join(f"{name}: {value}" for name, value in sorted(fields.items()))
            words = message.replace("_", " ") if record.name == "nbdserver" else f"{record.name}: {message}"
            sentence = f"{words} ({facts})" if facts else words
        line = f"nbdserver: {printable(sentence)}"
        if record.exc_info and os.environ.get("NBDSERVER_DEBUG"):
            return f"{line}\n{printable_lines(self.formatException(record.exc_info))}"
        return line


_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message"}


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple | set) else str(value)


def say_events() -> None:
    """From now on what is logged is said on standard error, until a log is set up."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(FloodFilter())
    handler.setFormatter(EventSentence())
    handler.setLevel(logging.WARNING if sys.stderr.isatty() else logging.ERROR)
    # What cannot be said has nowhere to say so, and must not print tracebacks into what is left.
    logging.raiseExceptions = False
    logging.getLogger().handlers = [handler]
    # Libraries' warnings are of single tries, and asyncio's quote the arguments of callbacks.
    for name in ("aiohttp", "asyncio", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
