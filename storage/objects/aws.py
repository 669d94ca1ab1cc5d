"""The settings of AWS: what its variables and files say of an endpoint, a region, certificates and credentials.

Variables go before files. Of the files, `~/.aws/credentials` holds sections `[NAME]` and `~/.aws/config` sections
`[profile NAME]`, `[default]` and `[services NAME]`; AWS_PROFILE chooses the name.
https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
"""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import certifi

from storage.errors import Invalid

AWS_ENDPOINT = "https://s3.amazonaws.com"
DEFAULT_REGION = "us-east-1"

Section = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Profile:
    """What the two files say under one name; the credentials file goes before the config file."""

    name: str
    chosen: bool
    """AWS_PROFILE named it: it must exist."""
    credentials_file: Path
    config_file: Path
    settings: Section = field(default_factory=dict, repr=False)
    """The settings of the profile by name; credentials are among them, so it is not shown."""
    services: Section = field(default_factory=dict, repr=False)
    """The settings of S3 in the section `[services ...]` that the profile refers to."""

    @property
    def exists(self) -> bool:
        """Whether any of the files knows the name."""
        return bool(self.settings)


def read_profile(environ: Mapping[str, str]) -> Profile:
    """The profile as the files say now; empty if they do not know it. Invalid: a file that cannot be read."""
    home = Path(environ.get("HOME") or "~").expanduser()
    chosen = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
    name = chosen or "default"
    credentials_file = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials").expanduser()
    config_file = Path(environ.get("AWS_CONFIG_FILE") or home / ".aws" / "config").expanduser()
    credentials, config = _read(credentials_file), _read(config_file)
    found = _section(config, f"profile {name}") or (_section(config, "default") if name == "default" else {})
    services = _section(config, f"services {found['services']}") if "services" in found else {}
    return Profile(
        name,
        bool(chosen),
        credentials_file,
        config_file,
        {**found, **_section(credentials, name)},
        _nested(services.get("s3", "")),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """How to reach S3. `ca_certificates` is a file."""

    endpoint: str
    region: str
    ca_certificates: str


def read_settings(environ: Mapping[str, str], *, endpoint: str | None) -> Settings:
    """What variables and files say; `endpoint` goes before both. Invalid: AWS_PROFILE names no profile."""
    profile = read_profile(environ)
    if profile.chosen and not profile.exists:
        raise Invalid(
            f"AWS_PROFILE names the profile {profile.name!r}, "
            f"which is neither in {profile.config_file} nor in {profile.credentials_file}"
        )
    configured = {} if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true" else profile.settings
    services = profile.services if configured else {}
    return Settings(
        endpoint=endpoint
        or environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL")
        or services.get("endpoint_url")
        or configured.get("endpoint_url")
        or AWS_ENDPOINT,
        region=environ.get("AWS_REGION")
        or environ.get("AWS_DEFAULT_REGION")
        or profile.settings.get("region")
        or DEFAULT_REGION,
        ca_certificates=environ.get("AWS_CA_BUNDLE")
        or profile.settings.get("ca_bundle")
        or environ.get("SSL_CERT_FILE")
        or certifi.where(),
    )


def _read(path: Path) -> configparser.RawConfigParser:
    # Raw, since a secret may hold a percent sign; and no section lends its settings to the others.
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=os.fspath(path))
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        detail = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
        raise Invalid(f"cannot use {path}: {detail}") from None
    return parser


def _section(parser: configparser.RawConfigParser, name: str) -> dict[str, str]:
    return dict(parser.items(name)) if parser.has_section(name) else {}


def _nested(text: str) -> dict[str, str]:
    """The indented lines `key = value` below a setting."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}
