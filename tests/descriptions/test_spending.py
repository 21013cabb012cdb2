"""What answers cost, the cap on it, and going on after it was raised."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from talking_points.build_config import BuildConfig, Price, dataset_settings
from talking_points.config import ConfigError, fingerprint, load_config
from talking_points.descriptions.asking import FIRST_WINDOW, WholesaleFailure, ask
from talking_points.descriptions.backends.protocol import ChatRequest, Completion, RequestError
from talking_points.descriptions.request_cache import RequestCache
from talking_points.descriptions.spending import (
    Ledger,
    Spending,
    Spent,
    cost,
    cost_summary,
    make_spending_order,
    step_prices,
)
from talking_points.sqlite_files import ForeignDatabaseError
from talking_points.stop_requests import clear_stop
from tests.descriptions.test_asking import CONFIG, Scripted, requests
from tests.test_sqlite_files import plant_journal

SERVED = ["output=x", "generate.backend=openai", "generate.model=m", "generate.endpoint=http://h/v1"]
PRICE = {"tokens_in": 2.0, "tokens_out": 8.0, "images": 1000.0}


def config(*more: str, **values: Any) -> BuildConfig:
    return load_config(BuildConfig, None, [*SERVED, *more], prices={"m": PRICE}, **values)


def order(folder: Path, budget: str | None) -> Spending:
    found = make_spending_order(config(budget=budget), folder)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("spent", "money"),
    [
        (Spent(), 0.0),
        (Spent(1, 0, 1_000_000, 0), 2.0),
        (Spent(1, 0, 0, 500_000), 4.0),
        (Spent(1000, 1000, 0, 0), 1.0),
        (Spent(10, 10, 1000, 100), 0.0128),
    ],
)
def test_cost_is_per_million(spent: Spent, money: float) -> None:
    assert cost(spent, Price.model_validate(PRICE)) == pytest.approx(money)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("50 USD", "50 USD"),
        ("50USD", "50 USD"),
        ("0.5 eur", "0.5 EUR"),
        ("50", "50 USD"),
        ("2.5", "2.5 USD"),
        ("null", None),
    ],
)
def test_a_budget_is_an_amount_and_a_currency(given: str, read: str) -> None:
    assert config(f"budget={given}").budget == read


@pytest.mark.parametrize("given", ["much", "-3 USD", "50 dollars", "USD"])
def test_another_budget_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="expected an amount and a currency"):
        config(f"budget={given}")


def test_a_budget_without_the_price_of_a_served_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"add prices\.<model> .* for m "):
        load_config(BuildConfig, None, [*SERVED, "budget=50 USD"])


def test_prices_and_budgets_change_no_dataset() -> None:
    plain = load_config(BuildConfig, None, SERVED)
    assert fingerprint(dataset_settings(config(budget="3 USD"))) == fingerprint(dataset_settings(plain))


def right(request: ChatRequest, attempt: int) -> Completion:
    # 0.001 USD each
    return Completion(f"about {request.id}", "stop", 100, 100)


def test_a_build_stops_at_its_budget_and_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    clear_stop()
    served = CONFIG.model_copy(update={"concurrency": 8})
    first, second = Scripted(right), Scripted(right)
    kept = tmp_path / "c.sqlite"
    with RequestCache(kept, Ledger(order(tmp_path, "0.04 USD"), "m")) as cache:
        with pytest.raises(WholesaleFailure, match=r"0\.04 USD is spent \(0\.04 USD for 40 answers\).*larger budget"):
            ask(first, requests(100), served, cache)
        assert len(first.asked) == 40, "the first window teaches what a request costs; then not one more is asked"
    ledger = Ledger(order(tmp_path, "1 USD"), "m")
    with RequestCache(kept, ledger) as cache:
        answers = ask(second, requests(100), served, cache)
        assert ledger.read_spent() == {"m": Spent(100, 0, 10_000, 10_000)}
    assert len(second.asked) == 60
    assert [answers[f"r{n}"].text for n in range(100)] == [f"about r{n}" for n in range(100)]


def test_answers_that_are_not_used_are_paid_too(tmp_path: Path) -> None:
    clear_stop()
    ledger = Ledger(order(tmp_path, None), "m")
    backend = Scripted(lambda request, n: Completion("", "length", 10, 5) if request.id == "r1" else right(request, n))
    with RequestCache(tmp_path / "c.sqlite", ledger) as cache:
        ask(backend, requests(2), CONFIG, cache)
        assert ledger.read_spent() == {"m": Spent(3, 0, 120, 110)}


def test_answers_that_cannot_be_read_are_paid_too(tmp_path: Path) -> None:
    clear_stop()
    ledger = Ledger(order(tmp_path, None), "m")
    spoilt = RequestError("reasoning_only", "", False, 10, 5)
    with RequestCache(tmp_path / "c.sqlite", ledger) as cache:
        answers = ask(Scripted(lambda request, n: spoilt), requests(1), CONFIG, cache)
        assert ledger.read_spent() == {"m": Spent(1, 0, 10, 5)}
    assert (answers["r0"].tokens_in, answers["r0"].tokens_out) == (10, 5)


def test_a_budget_holds_where_the_server_counts_no_tokens(tmp_path: Path) -> None:
    clear_stop()
    backend = Scripted(lambda request, n: Completion(f"about {request.id} " + "x" * 250, "stop"))
    cache = RequestCache(tmp_path / "c.sqlite", Ledger(order(tmp_path, "0.01 USD"), "m"))
    with cache, pytest.raises(WholesaleFailure, match=r"0\.01 USD is spent"):
        ask(backend, requests(100), CONFIG.model_copy(update={"concurrency": 8}), cache)
    assert FIRST_WINDOW <= len(backend.asked) < 40


def test_builds_that_share_a_folder_of_answers_count_apart(tmp_path: Path) -> None:
    remote = [make_spending_order(config(output=f"s3://bucket/{name}"), tmp_path) for name in ("a", "b")]
    here = [make_spending_order(config(output=name), tmp_path) for name in ("a", "b")]
    files = [found.file for found in (*remote, *here) if found]
    assert len(set(files)) == 3, "a local build's own folder may be moved"


def test_workers_count_together(tmp_path: Path) -> None:
    ledgers = [Ledger(order(tmp_path, "1 USD"), "m") for _ in range(3)]
    request = ChatRequest(id="a", step="generate", prompt="b")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: ledgers[n % 3].count(request, Completion("x", "stop", 7, 3)), range(120)))
    assert all(ledger.read_spent() == {"m": Spent(120, 0, 840, 360)} for ledger in ledgers)
    for ledger in ledgers:
        ledger.close()


def test_a_model_without_a_price_costs_nothing(tmp_path: Path) -> None:
    ledger = Ledger(order(tmp_path, "1 USD"), "mine")
    ledger.count(ChatRequest(id="a", step="generate", prompt="b"), Completion("x", "stop", 10**9, 10**9))
    assert ledger.read_spent() == {}
    assert ledger.affordable() is None
    ledger.close()


def test_the_summary_names_requests_tokens_and_money_of_priced_steps() -> None:
    prices = step_prices(config(budget="5 EUR"))
    spent = {"generate": {"requests": 10, "tokens_in": 1_000_000, "tokens_out": 250_000}}
    assert prices is not None
    assert cost_summary(prices, spent) == {
        "currency": "EUR",
        "total": 4.0,
        "steps": {"generate": {"requests": 10, "tokens_in": 1_000_000, "tokens_out": 250_000, "cost": 4.0}},
    }
    assert step_prices(load_config(BuildConfig, None, SERVED)) is None


def test_a_planted_file_of_counts_is_named(tmp_path: Path) -> None:
    given, victim = order(tmp_path, "1 USD"), tmp_path / "thesis.tex"
    path = Path(given.file)
    victim.write_text("mine")
    plant_journal(path, victim)
    with pytest.raises(ForeignDatabaseError, match="names another file"):
        Ledger(given, "m")
    assert victim.exists()
    Path(f"{path}-journal").unlink()
    path.unlink()
    ledger = Ledger(given, "m")
    for planted in ("many", -5):
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("INSERT OR REPLACE INTO spent VALUES ('m', 1, 0, ?, 0)", (planted,))
        with pytest.raises(ForeignDatabaseError, match="no whole number"):
            ledger.affordable()
    ledger.close()
