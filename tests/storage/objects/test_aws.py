"""What the variables and files of AWS say, and in which order they count."""

from pathlib import Path

import pytest

from storage.errors import Invalid
from storage.objects.aws import AWS_ENDPOINT, DEFAULT_REGION, Settings, read_settings

pytestmark = pytest.mark.fast


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".aws").mkdir()
    return tmp_path


def settings(home: Path, *, endpoint: str | None = None, **variables: str) -> Settings:
    return read_settings({"HOME": str(home), **variables}, endpoint=endpoint)


def test_without_anything_it_is_aws_itself(home: Path) -> None:
    found = settings(home)
    assert (found.endpoint, found.region) == (AWS_ENDPOINT, DEFAULT_REGION)
    assert Path(found.ca_certificates).is_file()


def test_the_config_file_counts_behind_the_variables(home: Path) -> None:
    (home / ".aws" / "config").write_text(
        "[default]\nregion = eu-west-1\n"
        "[profile work]\nregion = eu-south-2\nendpoint_url = http://all\nca_bundle = /certificates\n"
    )
    assert settings(home).region == "eu-west-1"
    assert settings(home).endpoint == AWS_ENDPOINT, "a setting of another profile"
    assert settings(home, AWS_PROFILE="work") == Settings("http://all", "eu-south-2", "/certificates")
    variables = {"AWS_PROFILE": "work", "AWS_REGION": "r", "AWS_ENDPOINT_URL": "http://v", "AWS_CA_BUNDLE": "/v"}
    assert settings(home, **variables) == Settings("http://v", "r", "/v")
    assert settings(home, endpoint="http://given", **variables).endpoint == "http://given"


def test_the_endpoint_of_s3_goes_before_that_of_all_services(home: Path) -> None:
    (home / ".aws" / "config").write_text(
        "[default]\nservices = ours\nendpoint_url = http://all\n"
        "[services ours]\nec2 =\n  endpoint_url = http://ec2\ns3 =\n  endpoint_url = http://s3\n"
    )
    assert settings(home).endpoint == "http://s3"
    assert settings(home, AWS_ENDPOINT_URL="http://v").endpoint == "http://v"
    assert settings(home, AWS_IGNORE_CONFIGURED_ENDPOINT_URLS="true").endpoint == AWS_ENDPOINT


def test_files_may_lie_elsewhere(home: Path) -> None:
    (home / "elsewhere").write_text("[default]\nregion = eu-west-1\n")
    assert settings(home, AWS_CONFIG_FILE=str(home / "elsewhere")).region == "eu-west-1"


def test_a_profile_that_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(Invalid, match=r"'typo'.*config.*credentials"):
        settings(home, AWS_PROFILE="typo")
    (home / ".aws" / "credentials").write_text("[typo]\naws_access_key_id = k\n")
    assert settings(home, AWS_PROFILE="typo").region == DEFAULT_REGION


@pytest.mark.parametrize("content", [b"no section\n", b"[default]\nregion\n", b"\xff\xfe"])
def test_a_file_that_is_no_such_file_is_named(home: Path, content: bytes) -> None:
    (home / ".aws" / "config").write_bytes(content)
    with pytest.raises(Invalid, match=r"cannot use .*config"):
        settings(home)
