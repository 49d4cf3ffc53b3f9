"""server.config: every setting from every source, and refusals that name the setting and the source."""

from pathlib import Path

import pytest

from overnight.core.prices import told
from overnight.errors import UsageError
from overnight.ports.world import World
from overnight.server import build, config
from overnight.server.config import EngineSettings, Settings

_KEY = "0" * 64


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "overnight.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_sources_every_setting_has_its_default() -> None:
    loaded = config.load(None, {}, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(Settings.__struct_fields__)


def test_later_sources_win_and_are_named(tmp_path: Path) -> None:
    path = _file(tmp_path, 'listen = "127.0.0.1:1"\ndata = "from-file"\nrequest_counts = "at_end"\n')
    environment = {"OVERNIGHT_LISTEN": "127.0.0.1:2", "OVERNIGHT_DATA": "from-environment", "OTHER": "x"}
    loaded = config.load(path, environment, {"listen": "127.0.0.1:3"})
    assert (loaded.settings.listen, loaded.settings.data) == ("127.0.0.1:3", "from-environment")
    assert loaded.settings.request_counts == "at_end"
    assert loaded.origins["listen"] == "--listen"
    assert loaded.origins["data"] == "$OVERNIGHT_DATA"
    assert loaded.origins["request_counts"] == str(path)
    assert loaded.origins["engines"] == "default"


def test_the_environment_writes_lists_with_spaces_and_anything_else_as_text() -> None:
    environment = {
        "OVERNIGHT_ENGINES": "embedded http://h:1",
        "OVERNIGHT_TRUSTED_PROXIES": "10.0.0.0/8 ::1/128",
        "OVERNIGHT_STRICT_PARAMS": "true",
        "OVERNIGHT_REQUESTS_PER_MINUTE": "50",
    }
    settings = config.load(None, environment, {}).settings
    assert settings.engines == [EngineSettings(spec="embedded"), EngineSettings(spec="http://h:1")]
    assert settings.trusted_proxies == ["10.0.0.0/8", "::1/128"]
    assert settings.strict_params is True
    assert settings.requests_per_minute == 50


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed = 3", "there is no setting 'speed'; the settings are listen, data, engines"),
        ("listen = ", "is not valid TOML"),
        ("listen = 3", "listen: Expected `str`"),
        ('listen = "nowhere"', "listen: 'nowhere' is not HOST:PORT"),
        ('listen = "127.0.0.1:99999"', "is not HOST:PORT"),
        ('listen = ":80"', "is not HOST:PORT"),
        ('request_counts = "never"', "request_counts: Invalid enum value 'never'"),
        ("requests_per_minute = 0", "requests_per_minute: Expected `int` >= 1"),
        ('public_url = "ftp://x"', "public_url: "),
        ('trusted_proxies = ["everyone"]', "trusted_proxies: 'everyone'"),
        ('[[engines]]\nspec = "embedded"\nspeed = 1', "engines: Object contains unknown field `speed`"),
        ('[[engines]]\nspec = "embedded"\nin_flight_max = 0', "engines: Expected `int` >= 1"),
        ('[[keys]]\nsha256 = "secret"', "keys: Expected `str` matching regex"),
        (f'[[keys]]\nsha256 = "{_KEY}"\nworkspace = "x"', "keys: Expected `str` matching regex"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        config.load(path, {}, {})
    assert str(caught.value).startswith(f"{path}")
    assert said in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, binary = tmp_path / "none.toml", tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"cannot read the configuration .*none\.toml: No such file"):
        config.load(missing, {}, {})
    with pytest.raises(UsageError, match=r"binary\.toml is not valid TOML"):
        config.load(binary, {}, {})


def test_a_wrong_variable_and_a_wrong_flag_are_named() -> None:
    with pytest.raises(UsageError, match=r"^\$OVERNIGHT_STRICT_PARAMS: strict_params: .*it is 'maybe'"):
        config.load(None, {"OVERNIGHT_STRICT_PARAMS": "maybe"}, {})
    with pytest.raises(UsageError, match=r"^--request-counts: request_counts: "):
        config.load(None, {}, {"request_counts": "never"})


@pytest.mark.parametrize("flags", [{"api_key": ["sk-secret"]}, {"keys": [{"sha256": "sk-secret"}]}])
def test_a_refusal_never_repeats_a_key(flags: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        config.load(None, {}, flags)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "example.com:80"])
def test_the_network_needs_a_key(listen: str) -> None:
    settings = config.load(None, {}, {"listen": listen}).settings
    with pytest.raises(UsageError, match=r"would let anybody on the network in"):
        config.check_reachable(settings, has_key=False)
    config.check_reachable(settings, has_key=True)


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:8642", "::1", 8642), ("localhost:65535", "localhost", 65535)],
)
def test_this_machine_needs_none(listen: str, host: str, port: int) -> None:
    settings = config.load(None, {}, {"listen": listen}).settings
    assert (settings.host, settings.port) == (host, port)
    config.check_reachable(settings, has_key=False)


_PAID = """[[engines]]
spec = "http://127.0.0.1:1"
replicas = ["http://127.0.0.1:2"]
budget_usd_per_day = 2.5
prices = {"qwen" = {input = 0.2, output = 0.6, cache_read = 0.02}}
"""


def test_a_budget_and_prices_reach_every_replica_of_an_engine(tmp_path: Path) -> None:
    file = _file(tmp_path, _PAID + '[[engines]]\nspec = "http://127.0.0.1:3"\n')
    first, second, free = build.routes(config.load(file, {}, {}).settings.engines, world=World(), environment={})
    assert (first.budget_usd_per_day, second.budget_usd_per_day, free.budget_usd_per_day) == (2.5, 2.5, None)
    assert first.prices == second.prices == {"qwen": told(input=0.2, output=0.6, cache_read=0.02)}
    assert free.prices == {}


@pytest.mark.parametrize("value", ["0", "-1.0", "inf", "nan", "1000001.0", '"much"'])
def test_a_budget_that_is_no_amount_is_refused(tmp_path: Path, value: str) -> None:
    file = _file(tmp_path, f'[[engines]]\nspec = "claude"\nbudget_usd_per_day = {value}\n')
    with pytest.raises(UsageError, match="budget_usd_per_day"):
        config.load(file, {}, {})


@pytest.mark.parametrize("price", ["{input = 1}", "{input = 1, output = -1}", "{input = 1, output = inf}"])
def test_a_price_that_is_none_is_refused(tmp_path: Path, price: str) -> None:
    file = _file(tmp_path, f'[[engines]]\nspec = "claude"\nprices = {{"m" = {price}}}\n')
    with pytest.raises(UsageError, match="engines"):
        config.load(file, {}, {})


def test_prices_are_listed_in_their_order_those_of_the_file_last(tmp_path: Path) -> None:
    more = tmp_path / "prices.toml"
    more.write_text('"*" = { input = 3.0, output = 3.0, web_searches = 10.0, cache_write_1h = 9.0 }\n')
    text = (
        f'prices_file = "{more}"\n[prices]\nhouse = {{ input = 1.0, output = 1.0, batch = 1.0 }}\n'
        '"claude-*" = [{ input = 2.0, output = 2.0 }, { from = "2026-11-01", input = 4.0, output = 4.0 }]\n'
    )
    found = build.price_list(config.load(_file(tmp_path, text), {}, {}).settings)
    assert [(line.pattern, line.since, line.rate) for line in found] == [
        ("house", "", told(input=1.0, output=1.0, batch=1.0)),
        ("claude-*", "", told(input=2.0, output=2.0)),
        ("claude-*", "2026-11-01", told(input=4.0, output=4.0)),
        ("*", "", told(input=3.0, output=3.0, web_searches=10.0, cache_write_1h=9.0)),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no price list"),
        ("m = { input = 1.0 }", "missing required field `output`"),
        ("m = { input = 1.0, output = -1.0 }", ">= 0"),
        ("m = { input = 1.0, output = 1.0, speed = 2 }", "unknown field `speed`"),
        ('m = { input = 1.0, output = 1.0, from = "soon" }', "RFC3339"),
    ],
)
def test_a_price_list_that_is_none_stops_the_start(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said) as raised:
        build.price_list(Settings(prices_file=str(file)))
    assert str(file) in str(raised.value)
    with pytest.raises(UsageError, match="cannot read"):
        build.price_list(Settings(prices_file=str(tmp_path / "missing.toml")))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("usd_per_hour = 0.0", "> 0"),
        ("usd_per_hour = 100001.0", "<= 100000"),
        ("usd_per_hour = 1.0\nbudget_usd_per_day = 5.0", "by the hour or by the token, not both"),
        (
            "usd_per_hour = 1.0\nprices = { m = { input = 1.0, output = 1.0 } }",
            "by the hour or by the token, not both",
        ),
    ],
)
def test_hours_that_make_no_sense_stop_the_start(line: str, said: str, tmp_path: Path) -> None:
    text = f'[[engines]]\nspec = "http://127.0.0.1:9"\n{line}\n'
    with pytest.raises(UsageError, match=said):
        config.load(_file(tmp_path, text), {}, {})


def test_a_batch_endpoint_has_no_hours(tmp_path: Path) -> None:
    text = '[[engines]]\nspec = "claude-batch"\nusd_per_hour = 1.0\n'
    with pytest.raises(UsageError, match="takes no hours of a machine"):
        config.load(_file(tmp_path, text), {}, {})
