"""A secret does not print, is not written down by accident, and can be wiped."""

import copy
import json
import os
import pickle
import pprint
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from nbdserver.admin.operations import decode_operation, encode_operation
from nbdserver.admin.password_operations import ChangePassword
from storage.crypto.data_key import DataKey
from storage.secret import Secret, taken, without_passwords, without_secrets
from tests.support.planted import found_in, unique
from tests.support.requirements import require

PLAIN = unique()


@pytest.mark.parametrize("show", [repr, str, format, pprint.pformat])
def test_it_does_not_print(show: Callable[[object], str]) -> None:
    secret = Secret(PLAIN)
    assert "hidden" in f"{secret:>9}"
    for holder in (secret, [secret], DataKey(bytes(16), secret), ChangePassword(secret, secret), {"a": secret}):
        shown = show(holder)
        assert "hidden" in shown
        assert found_in(shown.encode(), {"it": PLAIN}) == []


@pytest.mark.parametrize("write", [pickle.dumps, json.dumps, msgspec.json.encode, msgspec.msgpack.encode, copy.copy])
def test_it_is_not_written_down(write: Callable[[object], object]) -> None:
    for holder in (Secret(PLAIN), ChangePassword(Secret(PLAIN), Secret(PLAIN))):
        if write is not copy.copy or isinstance(holder, Secret):
            with pytest.raises(TypeError):
                write(holder)


def test_it_is_wiped() -> None:
    with Secret(PLAIN) as secret:
        view = memoryview(secret)
        assert bytes(secret) == PLAIN
    assert bytes(view) == bytes(len(PLAIN))


def test_it_travels_only_in_an_operation() -> None:
    again = decode_operation(encode_operation(ChangePassword(Secret(PLAIN), Secret(b"new"))))
    assert again == ChangePassword(Secret(PLAIN), Secret(b"new"))
    for wrong in (b'"%"', b"7", b'"YQ"'):
        with pytest.raises(msgspec.MsgspecError) as refused:
            decode_operation(b'{"type":"change-password","old":%s,"new":"YQ=="}' % wrong)
        assert wrong.strip(b'"') not in str(refused.value).encode() or wrong == b"7"


def test_a_variable_is_taken_where_the_kernel_keeps_it_too() -> None:
    """Of a process that knows it from its start, as /proc shows to root."""
    require("root")
    program = """if True:
        import os
        from storage.secret import taken
        before = open("/proc/self/environ", "rb").read()
        secret = taken(os.environ, "PLANTED")
        assert bytes(secret) in before
        assert "PLANTED" not in os.environ
        assert bytes(secret) not in open("/proc/self/environ", "rb").read()
        assert os.environ["BESIDE"] == os.getenv("BESIDE") == "stays"
    """
    environ = {**os.environ, "PLANTED": "a unique secret", "BESIDE": "stays"}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=60)
    with pytest.raises(KeyError):
        taken({}, "PLANTED")


def test_what_children_get() -> None:
    environ = {
        "HOME": "/",
        "NBDSERVER_PASSWORD": "1",
        "NBDSERVER_NEW_PASSWORD_FILE": "2",
        "NBDSERVER_TO_PASSWORD_COMMAND": "6",
        "NBDSERVER_STORE": "s3://b/p",
        "AWS_PROFILE": "p",
        "AWS_SECRET_ACCESS_KEY": "3",
        "AWS_SESSION_TOKEN": "4",
        "CREDENTIALS_DIRECTORY": "5",
    }
    plain = {"HOME", "NBDSERVER_STORE", "AWS_PROFILE"}
    credentials = {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "CREDENTIALS_DIRECTORY"}
    assert set(without_secrets(environ)) == plain
    assert set(without_passwords(environ)) == plain | credentials
