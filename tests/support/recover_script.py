"""`scripts/recover` as a module, for tests that run it many times."""

import importlib.machinery
import importlib.util
import sys
from typing import Any

from tests.support.program import REPOSITORY


def load_recover() -> Any:
    """What the script defines."""
    loader = importlib.machinery.SourceFileLoader("recover", str(REPOSITORY / "scripts" / "recover"))
    spec = importlib.util.spec_from_loader("recover", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["recover"] = module
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # beside a script it has no place
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = bytecode
    return module


recover = load_recover()
