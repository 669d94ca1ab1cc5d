"""Credentials for an S3 store: from variables, the files of AWS, a program they name, or the role of the instance.

They are looked up again once a minute, so that a file or a program may hand out new ones while the server runs. What
was found stays in use while its source has nothing new to say and it has not expired. Their variables stay in the
environment of this process for that. What is held does not print; it is `str`, as the client wants it, and not wiped.
"""

import json
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from xml.etree.ElementTree import ParseError

import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import EnvAWSProvider, IamAwsProvider, Provider
from urllib3.exceptions import HTTPError

from storage.env import Env
from storage.errors import AccessDenied, StorageError, Unavailable
from storage.objects.aws import Profile, read_profile
from storage.secret import without_passwords

LOOK_AGAIN_SECONDS = 60.0
"""How long credentials are used before their source is asked again: a file may have been given new ones."""

ROLE_SECONDS = 2.0
"""The metadata service that knows an instance's role is on the same host, or there is none."""

PROCESS_SECONDS = 60.0
"""What a `credential_process` may take: it may ask a service of its own."""

ROLE_VARIABLES = (
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""With one of them there is a role, and who hands out its credentials may only be away for a moment."""

_NOT_UNDERSTOOD = ("role_arn", "sso_session", "sso_start_url", "credential_source", "web_identity_token_file")

Source = Callable[[], Credentials | None]
"""None: it has nothing to say. A StorageError: it should have, and failed."""


class _Quiet(Credentials):
    """Credentials that do not show their secrets in text."""

    def __repr__(self) -> str:
        return f"Credentials(access_key={self.access_key!r}, hidden)"

    @classmethod
    def of(cls, found: Credentials) -> Credentials:
        """Without the line breaks and spaces that files and variables may have around them; of the secret key, which is
        of any characters in some stores, without line breaks. AccessDenied: there are some within them, or nothing is
        left; the key and the token go into headers of HTTP, which can have none.
        """
        access, secret = found.access_key.strip(), found.secret_key.strip("\r\n")
        token = None if found.session_token is None else found.session_token.strip()
        for name, text in (("access key", access), ("session token", token or "")):
            if any(char.isspace() or not char.isprintable() for char in text):
                raise AccessDenied(f"the {name} of the credentials for the store has a line break or a space in it")
        if not secret or not access or "\n" in secret:
            raise AccessDenied("the keys of the credentials for the store are empty, or have a line break in them")
        return cls(access, secret, token, found.expiration)


class FoundCredentials(Provider):
    """What the first source that has credentials holds now. Used by the threads of a store."""

    def __init__(self, env: Env) -> None:
        self._http = urllib3.PoolManager(retries=False, timeout=ROLE_SECONDS)
        self._role: Provider | None = None
        self._sources: tuple[Source, ...] = (
            _of_variables,
            lambda: _of_profile(read_profile(os.environ), os.environ),
            self._of_role,
        )
        self._env = env
        self._lock = threading.Lock()
        self._known: Credentials | None = None
        self._look_again = 0.0

    def retrieve(self) -> Credentials:
        """AccessDenied: there are none. Unavailable: the ones there were have expired."""
        known = self._known
        if known is not None and self._env.monotonic() < self._look_again and not known.is_expired():
            return known
        with self._lock:
            if self._known is None or self._known is known:
                self._known = self._find(known)
                self._look_again = self._env.monotonic() + LOOK_AGAIN_SECONDS
            return self._known

    def look_again(self) -> None:
        """The store did not take these: the next request asks their source again, also a role's, which are known until
        they expire.
        """
        self._role = None
        self._look_again = 0.0

    def _of_role(self) -> Credentials | None:
        role = self._role
        if role is None:
            role = self._role = IamAwsProvider(http_client=self._http)
        try:
            return _ask(role)
        except Unavailable:
            self._role = None  # it keeps what it was given until that expires
            if any(os.environ.get(name) for name in ROLE_VARIABLES):
                raise
            return None  # most hosts have no such service

    def _find(self, known: Credentials | None) -> Credentials:
        failure: StorageError | None = None
        for source in self._sources:
            try:
                found = source()
                if found is not None:
                    return _Quiet.of(found)
            except StorageError as error:
                failure = error
                break  # this source was meant: another one's credentials would be somebody else's
        if known is None:
            raise failure or AccessDenied(
                "no credentials for the store were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or write them to ~/.aws/credentials"
            )
        if known.is_expired():
            reason = f": {failure}" if failure else ""
            raise Unavailable(f"the credentials for the store have expired, and there are no new ones yet{reason}")
        return known


def _of_variables() -> Credentials | None:
    try:
        return EnvAWSProvider().retrieve()
    except ValueError:
        return None


def _ask(role: Provider) -> Credentials:
    """Unavailable: it was not reached, or gave an answer of another shape, of which the client makes any error."""
    try:
        found = role.retrieve()
        token = "" if found.session_token is None else found.session_token
        if {type(found.access_key), type(found.secret_key), type(token)} != {str}:
            raise TypeError("a key is no string")
    except (ValueError, KeyError, OSError, HTTPError, TypeError, AttributeError, ParseError) as error:
        said = re.sub(r"\?\S*", "", str(error))  # a web identity's token stands in the query of a URL
        reason = f"{type(error).__name__}: {said}"[:200]
        raise Unavailable(
            f"the credentials of the role could not be read: {reason}; they are asked for again"
        ) from None
    return found


def _of_profile(profile: Profile, environ: Mapping[str, str]) -> Credentials | None:
    settings = profile.settings
    access, secret = settings.get("aws_access_key_id"), settings.get("aws_secret_access_key")
    if access and secret:
        return Credentials(access, secret, session_token=settings.get("aws_session_token"))
    if access or secret:
        missing = "aws_secret_access_key" if access else "aws_access_key_id"
        raise AccessDenied(f"the profile {profile.name!r} of AWS has no {missing}")
    if "credential_process" in settings:
        return _of_process(settings["credential_process"], environ)
    if unknown := [name for name in _NOT_UNDERSTOOD if name in settings]:
        raise AccessDenied(
            f"the profile {profile.name!r} of AWS gets its credentials by {unknown[0]}, which this program does not "
            "do: give it a credential_process (for example `aws configure export-credentials --format process`)"
        )
    return None


def _of_process(command: str, environ: Mapping[str, str]) -> Credentials:
    """What a `credential_process` prints. https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html"""
    # Its output holds secrets: no message quotes it.
    try:
        ran = subprocess.run(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=PROCESS_SECONDS,
            check=True,
            env=without_passwords(environ),
        )
        said = json.loads(ran.stdout)
        token = said.get("SessionToken")
        if said["Version"] != 1 or {type(said["AccessKeyId"]), type(said["SecretAccessKey"]), type(token or "")} != {
            str
        }:
            raise ValueError("its Version is not 1, or a key is no string")
        expiration = said.get("Expiration")
        return Credentials(
            said["AccessKeyId"],
            said["SecretAccessKey"],
            session_token=token,
            expiration=None if expiration is None else _time(expiration),
        )
    except subprocess.CalledProcessError as error:
        detail = f"it ended with status {error.returncode}"
    except subprocess.TimeoutExpired:
        detail = f"it took more than {PROCESS_SECONDS:g} s"
    except OSError as error:
        detail = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, AttributeError):
        detail = "it did not print credentials (JSON with Version 1, AccessKeyId and SecretAccessKey)"
    program = command.split(" ", 1)[0]
    raise AccessDenied(f"the credential_process {program} of the profile of AWS failed: {detail}")


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
