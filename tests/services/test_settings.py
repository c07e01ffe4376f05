"""Settings: where values come from, what production refuses, what a log line may show."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, SecretStr

from rexis.errors import ConfigurationError
from services.foundation.settings import ServiceSettings

KEY = "11" * 32


class ExampleSettings(ServiceSettings):
    service: ClassVar[str] = "example"
    relayer_key: SecretStr | None = Field(default=None)


LOCAL = {
    "REXIS_PUBLIC_URL": "http://127.0.0.1:8001",
    "REXIS_DATABASE_URL": "sqlite:///example.sqlite",
    "REXIS_REDIS_URL": "redis://127.0.0.1:6379/0",
    "REXIS_OBJECT_STORE_URL": "file:///tmp/objects",
    "REXIS_SESSION_KEY": KEY,
    "REXIS_CHAIN_RPC_URL": "http://127.0.0.1:8545",
}
PRODUCTION = {
    "REXIS_ENV": "production",
    "REXIS_PUBLIC_URL": "https://marketplace.example.org",
    "REXIS_DATABASE_URL": "postgresql+psycopg://rexis:s3cret@database/marketplace?sslpassword=hidden",
    "REXIS_REDIS_URL": "rediss://:p@ss@redis:6379/0",
    "REXIS_OBJECT_STORE_URL": "s3://bucket/marketplace",
    "REXIS_SESSION_KEY": KEY,
    "REXIS_CHAIN_RPC_URL": "https://rpc.example.org/v3/0123456789abcdef",
    "REXIS_CHAIN_ID": "8453",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*LOCAL, *PRODUCTION}:
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_reads_the_environment_and_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, LOCAL)
    settings = ExampleSettings.from_environment()
    assert settings.database_url == "sqlite:///example.sqlite"
    assert settings.session_key.get_secret_value() == KEY
    with pytest.raises(ValueError, match="frozen"):
        settings.debug = True


def test_names_every_missing_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"REXIS_PUBLIC_URL": "http://127.0.0.1:8001", "REXIS_SESSION_KEY": "not hexadecimal, but secret"})
    with pytest.raises(ConfigurationError) as caught:
        ExampleSettings.from_environment()
    message = str(caught.value)
    assert all(f"{name}: Field required" in message for name in ("REXIS_DATABASE_URL", "REXIS_REDIS_URL", "REXIS_CHAIN_RPC_URL"))
    assert "REXIS_SESSION_KEY: Value error, expected 64 hex digits" in message
    assert "but secret" not in message


@pytest.mark.parametrize("name", ["REXIS_SESSION_KEY", "REXIS_RELAYER_KEY", "REXIS_DATABASE_URL", "REXIS_CHAIN_RPC_URL"])
def test_reads_secrets_and_urls_from_mounted_files(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    value = KEY if name.endswith("KEY") else "sqlite:///mounted.sqlite"
    mounted.write_text(value + "\n")
    set_all(monkeypatch, {key: text for key, text in LOCAL.items() if key != name})
    monkeypatch.setenv(f"{name}_FILE", str(mounted))
    read = getattr(ExampleSettings.from_environment(), name.removeprefix("REXIS_").lower())
    assert (read.get_secret_value() if isinstance(read, SecretStr) else read) == value


def test_a_mounted_file_that_can_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_all(monkeypatch, {name: value for name, value in LOCAL.items() if name != "REXIS_SESSION_KEY"})
    monkeypatch.setenv("REXIS_SESSION_KEY_FILE", str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match=r"REXIS_SESSION_KEY_FILE=.*nothing can not be read"):
        ExampleSettings.from_environment()


def test_a_secret_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("22" * 32)
    set_all(monkeypatch, LOCAL)
    monkeypatch.setenv("REXIS_SESSION_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(ConfigurationError, match="REXIS_SESSION_KEY and REXIS_SESSION_KEY_FILE are both set"):
        ExampleSettings.from_environment()


def test_an_empty_mounted_key_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    set_all(monkeypatch, {name: value for name, value in LOCAL.items() if name != "REXIS_SESSION_KEY"})
    monkeypatch.setenv("REXIS_SESSION_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(ConfigurationError, match="expected 64 hex digits"):
        ExampleSettings.from_environment()


def test_production_starts_with_production_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PRODUCTION)
    assert ExampleSettings.from_environment().env == "production"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REXIS_DEBUG", "true"),
        ("REXIS_DATABASE_URL", "sqlite:///example.sqlite"),
        ("REXIS_REDIS_URL", "redis://127.0.0.1:6379/0"),
        ("REXIS_REDIS_URL", "redis://localhost/0"),
        ("REXIS_OBJECT_STORE_URL", "file:///var/objects"),
        ("REXIS_OBJECT_STORE_URL", "memory://"),
        ("REXIS_CHAIN_ID", "31337"),
        ("REXIS_PUBLIC_URL", "http://marketplace.example.org"),
    ],
)
def test_production_refuses_embedded_parts_and_names_the_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, name: value})
    with pytest.raises(ConfigurationError, match=f"REXIS_ENV=production refuses: {name}"):
        ExampleSettings.from_environment()


def test_the_shown_settings_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, "REXIS_RELAYER_KEY": "33" * 32})
    settings = ExampleSettings.from_environment()
    shown = repr(settings.masked())
    for secret in (KEY, "33" * 32, "s3cret", "hidden", "p@ss", "0123456789abcdef"):
        assert secret not in shown
    for kept in ("postgresql+psycopg://***@database/marketplace", "rediss://***@redis:6379/0", "https://rpc.example.org"):
        assert kept in shown
    assert KEY not in repr(settings)
