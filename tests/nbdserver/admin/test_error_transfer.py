"""An error of a server comes out of the admin socket as what it was, whatever its kind."""

import inspect

import msgspec
import pytest

from nbdserver.admin.error_transfer import Failure, from_error, to_error
from nbdserver.cli.shared.exit_status import sentence_of, status_of
from storage import errors
from storage.errors import Corrupt, KeyChanged, StorageError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, StorageError)]


def raised(kind: type[StorageError]) -> StorageError:
    if kind is KeyChanged:
        return KeyChanged("manifest/7", 2)
    return kind("manifest/7", "it is torn") if issubclass(kind, Corrupt) else kind("it is so")


def sent(error: StorageError) -> StorageError:
    return to_error(msgspec.json.decode(msgspec.json.encode(from_error(error)), type=Failure))


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_its_status_and_its_sentence(kind: type[StorageError]) -> None:
    error = raised(kind)
    assert (status_of(sent(error)), sentence_of(sent(error))) == (status_of(error), sentence_of(error))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, Corrupt)])
def test_of_damage_the_object_and_the_finding_come_out_too(kind: type[Corrupt]) -> None:
    error, out = raised(kind), sent(raised(kind))
    assert isinstance(error, Corrupt)
    assert isinstance(out, Corrupt)
    assert (out.object_name, out.detail) == (error.object_name, error.detail) != ("", "")


def test_a_kind_of_a_newer_server_is_an_error_all_the_same() -> None:
    """Of no kind that is known: each of those says what to do, and what that is nobody knows."""
    assert {type(to_error(Failure(kind, "it"))) for kind in ("Bewitched", "annotations")} == {StorageError}
    assert str(to_error(Failure("Bewitched", "it is cursed"))) == "it is cursed"
    assert str(to_error(Failure("annotations", "it is cursed"))) == "it is cursed"
