"""`nbdserver compact` and `gc`: maintenance now, and more thoroughly than a server does by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.backend import perform, perform_in_turn, way_to
from nbdserver.cli.shared.exit_status import PROBLEMS
from nbdserver.cli.shared.parameters import NAME, Place, json_option, option, store_argument, store_option
from nbdserver.config import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from nbdserver.admin.asked import Answer
    from nbdserver.admin.operations import Operation

dry_run_option = option("--dry-run", is_flag=True, help="Only say what would be done; nothing at all is written.")


@click.command()
@click.argument("device", type=NAME, required=False)
@dry_run_option
@json_option
@store_option
def compact(place: Place, device: str | None, dry_run: bool, as_json: bool) -> int:
    """Make a store as small and its blocks as whole as can be, or those of one DEVICE.

    The same jobs as a server does by itself, to the end, at the strictest thresholds: SSTs with a tenth of dead bytes
    are copied, and every block in pieces is written as one. Says each job when it is done. It can be ended at any
    time: what was done is done. Status 3: something was left as it is, since it is damaged or withheld.
    """
    from nbdserver.admin.operations import PlanCompaction

    if dry_run:
        answer = perform(place, PlanCompaction(device))
        if as_json:
            output.document(answer)
        else:
            for sentence in _words(answer):
                output.line(sentence)
        return 0
    done = _Done(as_json=as_json)
    try:
        _compact(place, device, done.step)
    except KeyboardInterrupt:
        done.sum_up("ended")
        raise
    done.sum_up("done")
    return PROBLEMS if done.left else 0


class _Done:
    """What a compaction has done so far, said line by line."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._jobs = 0
        self._uploaded = 0
        self._stored: int | None = None
        self.left = 0

    def step(self, step: Answer) -> None:
        """Note what one step has done, and say it where somebody looks on."""
        self._stored, self.left = step["stored_bytes"], step["left"]
        self._uploaded += step["uploaded_bytes"]
        if step["job"] is None:
            return
        self._jobs += 1
        if self._as_json:
            output.document({"message_type": "status", **step})
        else:
            output.line(f"{step['what']}; {format_size(step['stored_bytes'])} are stored now")

    def sum_up(self, how: str) -> None:
        """The end, or that somebody ended it."""
        facts = {"jobs": self._jobs, "stored_bytes": self._stored, "uploaded_bytes": self._uploaded, "left": self.left}
        if self._as_json:
            output.document({"message_type": "summary", "end": how, **facts})
            return
        stored = "" if self._stored is None else f", {format_size(self._stored)} are stored"
        output.line(f"{how}: {self._jobs} jobs, {format_size(self._uploaded)} uploaded{stored}")
        if self.left:
            output.line(f"{self.left} SSTs or blocks are left as they are: damaged, or withheld by the store", err=True)


def _compact(place: Place, device: str | None, say: Callable[[Answer], None]) -> None:
    """Step by step, until nothing is left to do."""
    from nbdserver.admin.operations import CompactStep

    def steps() -> Generator[Operation, Answer, None]:
        step: Answer = {}
        while not step or step["job"] is not None:
            step = yield CompactStep(device, first=not step)
            say(step)

    perform_in_turn(way_to(place), steps(), writes=True, shows_progress=True)


def _words(plan: Answer) -> Iterator[str]:
    """A plan of a compaction, in sentences."""
    size = format_size
    if plan["dropped"]:
        yield f"{plan['dropped']} SSTs that nothing refers to would be dropped"
    if plan["repacked"]:
        yield f"{plan['repacked']} SSTs would be repacked: what is live in them is copied"
    if plan["consolidated"]:
        most = size(plan["consolidated_bytes_max"])
        yield f"{plan['consolidated']} blocks in pieces would be written as one each: {most} up and down at most"
    if plan["defragmented"]:
        yield f"{plan['defragmented']} windows of neighbouring blocks would be written side by side"
    if plan["checkpoints"]:
        yield f"{plan['checkpoints']} checkpoints of the index would be written"
    if plan["fetched_bytes"] or plan["uploaded_bytes"]:
        yield f"about {size(plan['fetched_bytes'])} would be fetched, {size(plan['uploaded_bytes'])} uploaded"
    beside = ", beside what consolidation makes of its blocks" if plan["consolidated"] else ""
    yield f"stored: {size(plan['stored_before'])} now, {size(plan['stored_after'])} then{beside}"


@click.command()
@dry_run_option
@json_option
@store_argument
def gc(place: Place, dry_run: bool, as_json: bool) -> int:
    """Delete now what nothing needs any more, and say what is kept and why.

    That are SSTs no disk shows anything of, objects that maintenance replaced, and what earlier servers left behind a
    day ago or longer. Status 3: the store refuses to delete something.
    """
    from nbdserver.admin.operations import CollectGarbage, PlanCollection

    answer = perform(place, PlanCollection() if dry_run else CollectGarbage())
    if as_json:
        output.document(answer)
    else:
        for sentence in _collected(answer, dry_run=dry_run):
            output.line(sentence)
    return PROBLEMS if answer["refused"] else 0


def _collected(answer: Answer, *, dry_run: bool) -> Iterator[str]:
    would = "would be " if dry_run else ""
    size = format_size(answer["dropped_bytes"])
    yield f"{answer['dropped']} SSTs that no disk shows anything of {would}dropped: {size}"
    yield f"{answer['leftovers']} leftovers of earlier writers {would}deleted: {format_size(answer['leftover_bytes'])}"
    if dry_run:
        yield f"{answer['waiting']} objects wait to be deleted"
    else:
        yield f"{answer['deleted']} objects deleted since the store was opened, {answer['waiting']} wait"
    for kept in answer["kept"]:
        of = f", {format_size(kept['bytes'])}" if kept["bytes"] else ""
        yield f"kept: {kept['objects']} objects{of}: {kept['reason']}"
