"""A host that gives no more threads, for a moment or for good: what is to be done waits for those that there are."""

import subprocess
import sys
import textwrap

from tests.support.program import REPOSITORY
from tests.support.requirements import require

SCRIPT = """
    import asyncio, os, resource, threading, time
    from storage.env import RealEnv
    from storage.errors import Conflict
    from storage.objects.deadlines import Call, Deadlines

    def no_more_threads() -> None:
        os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))

    def work(number: int) -> int:
        time.sleep(0.001)
        return number
"""


def run(script: str) -> str:
    """What a program says that may become another user: only of those the system counts the threads."""
    require("root")
    program = textwrap.dedent(SCRIPT) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_work_waits_for_the_threads_that_there_are() -> None:
    said = run("""
        async def main() -> None:
            env = RealEnv()
            await env.run("store", work, 0)
            no_more_threads()
            for pool in ("store", "codec", "log"):
                done = await asyncio.gather(*(env.run(pool, work, number) for number in range(100)))
                print(done == list(range(100)), threading.active_count())
            env.close()

        asyncio.run(main())
    """)
    assert said == 3 * "True 4\n", "the main thread, and one of each"


def test_without_any_thread_a_command_ends_with_a_sentence() -> None:
    said = run("""
        async def main() -> None:
            env = RealEnv()
            no_more_threads()
            try:
                await env.run("store", work, 0)
            except Conflict as error:
                print(error)

        asyncio.run(main())
    """)
    assert "TasksMax" in said


def test_a_request_to_a_store_goes_out_though_nobody_can_look_at_the_clock() -> None:
    said = run("""
        deadlines = Deadlines(time.monotonic, look_seconds=0.01, still_seconds=10.0)
        real = os.getuid()
        os.setresuid(65534, 65534, 0)
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
        with deadlines.watching(Call("get x")):
            print("asked")
        resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
        late = Call("get y")
        with deadlines.watching(late):
            deadlines.ask(0.0)
            while not late.is_late:
                time.sleep(0.001)
            print("looked")
    """)
    assert said == "asked\nlooked\n"
