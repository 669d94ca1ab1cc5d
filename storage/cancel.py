"""Cancellation: one that was asked for is told from one that came up from below.

A task that is cancelled from outside ends and says nothing. But a CancelledError also comes out of whatever was awaited
and was itself cancelled, by a library or by a mistake; taken for the first kind, work would go missing without a word.
"""

import asyncio


def was_asked_for() -> bool:
    """Whether somebody has cancelled the current task; for use where a CancelledError was caught."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
