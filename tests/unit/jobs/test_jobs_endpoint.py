"""jobs.endpoint: which server is asked with which key, and that no key is shown."""

from pathlib import Path

import pytest

from overnight.errors import JobError
from overnight.jobs.endpoint import HOSTED, Address, address, endpoints_file
from overnight.jobs.jobfile import Endpoint

SECRET = "sk-ant-very-secret"
SDK = {"ANTHROPIC_API_KEY": SECRET}
LOOPBACK = "http://127.0.0.1:8642"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a person with a file of endpoints."""
    file = tmp_path / ".config" / "overnight" / "endpoints.toml"
    file.parent.mkdir(parents=True)
    file.write_text(
        '[endpoints.office]\nbase_url = "https://batch.example.org"\nkey = "env:OFFICE"\nbetas = ["a"]\n'
        f'[endpoints.careless]\nbase_url = "https://batch.example.org"\nkey = "{SECRET}"\n'
        '[endpoints.typo]\nurl = "https://batch.example.org"\n'
    )
    return {"HOME": str(tmp_path), "OFFICE": SECRET}


@pytest.mark.parametrize(
    ("endpoint", "environment", "expected"),
    [
        pytest.param(Endpoint(), SDK, (HOSTED, SECRET, ()), id="the SDK's key"),
        pytest.param(
            Endpoint(),
            {**SDK, "ANTHROPIC_BASE_URL": "https://b.example"},
            ("https://b.example", SECRET, ()),
            id="SDK",
        ),
        pytest.param(
            Endpoint(base_url="https://a.example", key="env:MINE", betas=["x"]),
            {**SDK, "ANTHROPIC_BASE_URL": "https://b.example", "MINE": "mine"},
            ("https://a.example", "mine", ("x",)),
            id="the job's own words come first",
        ),
        pytest.param(Endpoint(base_url="https://a.example/v1/"), SDK, ("https://a.example", SECRET, ()), id="/v1/"),
        pytest.param(Endpoint(base_url=LOOPBACK), {}, (LOOPBACK, "", ()), id="loopback needs no key"),
        pytest.param(Endpoint(base_url="http://localhost:1/"), {}, ("http://localhost:1", "", ()), id="localhost"),
        pytest.param(Endpoint(base_url="http://[::1]:1"), {}, ("http://[::1]:1", "", ()), id="IPv6"),
        pytest.param(Endpoint(use="local"), {"HOME": "/nowhere"}, (LOOPBACK, "", ()), id="local needs no file"),
    ],
)
def test_a_job_asks_the_server_that_is_nearest_to_it(
    endpoint: Endpoint, environment: dict[str, str], expected: tuple[str, str, tuple[str, ...]]
) -> None:
    assert address(endpoint, environment=environment) == Address(*expected)


def test_an_endpoint_by_name_comes_from_the_users_file(home: dict[str, str]) -> None:
    found = address(Endpoint(use="office"), environment=home)
    assert found == Address("https://batch.example.org", SECRET, ("a",))
    assert address(Endpoint(use="local"), environment=home).base_url == LOOPBACK
    own = address(Endpoint(use="office", base_url="https://other.example"), environment=home)
    assert own == Address("https://other.example", SECRET, ("a",))


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"HOME": "/people/me"}, "/people/me/.config/overnight/endpoints.toml"),
        ({"HOME": "/people/me", "XDG_CONFIG_HOME": "/etc/xdg"}, "/etc/xdg/overnight/endpoints.toml"),
    ],
)
def test_the_users_file_lies_where_configuration_lies(environment: dict[str, str], path: str) -> None:
    assert endpoints_file(environment) == Path(path)


def refusal(endpoint: Endpoint, environment: dict[str, str]) -> str:
    """What is said; never a secret."""
    with pytest.raises(JobError) as error:
        address(endpoint, environment=environment)
    assert SECRET not in str(error.value)
    return str(error.value)


def test_a_name_that_is_not_there_lists_those_that_are(home: dict[str, str]) -> None:
    found = refusal(Endpoint(use="offise"), home)
    assert found.endswith("has no [endpoints.offise]; it has careless, local, office, typo")


def test_a_key_in_a_file_is_refused_and_not_repeated(home: dict[str, str]) -> None:
    for endpoint in (Endpoint(use="careless"), Endpoint(key=SECRET), Endpoint(base_url=LOOPBACK, key=SECRET)):
        assert 'write key = "env:NAME"' in refusal(endpoint, home)


def test_an_unknown_word_in_the_users_file_is_refused(home: dict[str, str]) -> None:
    assert "endpoints.toml: [endpoints.typo]: " in refusal(Endpoint(use="typo"), home)


def test_a_users_file_that_is_no_toml_is_refused(home: dict[str, str]) -> None:
    for text in (b"[endpoints", b"\xff"):
        endpoints_file(home).write_bytes(text)
        assert refusal(Endpoint(use="office"), home).startswith("cannot read ")
    endpoints_file(home).write_text("endpoints = 3")
    assert "endpoints.toml: " in refusal(Endpoint(use="office"), home)


@pytest.mark.parametrize(
    "base_url", ["", "https://a.example", "http://10.0.0.5:8642", "http://127.0.0.1.a.example", "http://localhost.a"]
)
def test_a_server_elsewhere_needs_a_key(base_url: str) -> None:
    assert "needs a key: set ANTHROPIC_API_KEY" in refusal(Endpoint(base_url=base_url), {})


def test_a_variable_that_is_not_set_is_named() -> None:
    assert "'OFFICE' is not set" in refusal(Endpoint(key="env:OFFICE"), SDK)


@pytest.mark.parametrize(
    "base_url", ["a.example", "ftp://a.example", "http://", "/v1", "http://[::1", "https://a.example:port"]
)
def test_what_is_no_address_is_refused(base_url: str) -> None:
    assert "should be http://HOST:PORT or https://HOST" in refusal(Endpoint(base_url=base_url), SDK)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    assert "no user and password" in refusal(Endpoint(base_url=f"https://me:{SECRET}@a.example"), SDK)


def test_an_address_shows_no_key() -> None:
    found = address(Endpoint(), environment=SDK)
    assert SECRET not in f"{found!r} {found} {[found]}"
    assert HOSTED in repr(found)


@pytest.mark.parametrize(
    ("base_url", "is_hosted"),
    [("https://api.anthropic.com", True), ("https://api.anthropic.com/v1/", True), (LOOPBACK, False)],
)
def test_the_hosted_api_is_known_by_its_address(base_url: str, is_hosted: bool) -> None:
    assert (address(Endpoint(base_url=base_url), environment=SDK).base_url == HOSTED) is is_hosted
