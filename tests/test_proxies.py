from __future__ import annotations

import pytest

from talking_points.errors import InputError
from talking_points.proxies import (
    is_this_machine,
    proxy_variable,
    reach_this_machine_directly,
    refuse_unusable_proxies,
)


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.8.9.1/v1", True),
        ("http://localhost:8000", True),
        ("http://LOCALHOST.:8000", True),
        ("http://a.localhost", True),
        ("http://[::1]:8000/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("no url", False),
    ],
)
def test_this_machine_is_known_by_its_names(url: str, own: bool) -> None:
    assert is_this_machine(url) is own


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.example, b"}, "a.example,b,127.0.0.1,localhost,::1"),
        ({"no_proxy": "a", "NO_PROXY": "b,localhost"}, "a,b,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_loopback_names_are_added_to_what_is_there(before: dict[str, str], after: str) -> None:
    for _ in range(2):
        reach_this_machine_directly(before)
        assert before == {"NO_PROXY": after, "no_proxy": after}


@pytest.mark.parametrize(
    ("variable", "url", "named"),
    [
        ("HTTP_PROXY", "http://models.example/v1", "HTTP_PROXY"),
        ("http_proxy", "http://models.example/v1", "http_proxy"),
        ("HTTPS_PROXY", "https://models.example/v1", "HTTPS_PROXY"),
        ("ALL_PROXY", "https://models.example/v1", "ALL_PROXY"),
        ("HTTP_PROXY", "https://models.example/v1", None),
        ("HTTP_PROXY", "http://127.0.0.1/v1", None),
        ("HTTP_PROXY", "http://inside.example/v1", None),
    ],
)
def test_the_proxy_on_the_way_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str, named: str | None
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "inside.example")
    monkeypatch.setenv(variable, "http://proxy.example:3128")
    assert proxy_variable(url) == named


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", r"ALL_PROXY names a SOCKS proxy.*httpx\[socks\]"),
        ("https_proxy", "socks5h://u:secretword@h:9", "https_proxy names a SOCKS proxy"),
        (
            "HTTP_PROXY",
            "ftp://u:secretword@h:9",
            "HTTP_PROXY: expected a proxy of the kind http, .*found 'ftp'",
        ),
        ("HTTP_PROXY", "http://proxy.example:3128", None),
        ("HTTP_PROXY", "proxy.example:3128", None),
        ("FTP_PROXY", "ftp://proxy.example", None),
    ],
)
def test_a_proxy_that_no_client_can_be_made_with_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str | None
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("talking_points.proxies.find_spec", lambda name: None)
    monkeypatch.setenv(variable, value)
    if message is None:
        refuse_unusable_proxies()
        return
    with pytest.raises(InputError, match=message) as caught:
        refuse_unusable_proxies()
    assert "secretword" not in str(caught.value)
