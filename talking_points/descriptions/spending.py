"""What a build's answers cost, and the cap on it.

Every answer that was paid for is counted when it comes, used or not, in a small file beside the kept answers: all
workers of a build share it, and a build that goes on later goes on from what was spent.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from talking_points.build_config import BuildConfig, Price, StepConfig
from talking_points.config import Section, fingerprint
from talking_points.descriptions.backends import VISION_STEPS
from talking_points.descriptions.backends.protocol import ChatRequest, Completion, RequestError
from talking_points.errors import RunError
from talking_points.sqlite_files import ForeignDatabaseError, check_pages, open_database

_PATIENCE = 60
"""Seconds to wait for other processes that use the file."""
_MILLION = 1e6
_CHARACTERS_PER_TOKEN, _TOKENS_PER_IMAGE = 4, 1000
"""What texts and images are taken for where no server has counted them."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS spent (model TEXT PRIMARY KEY, requests INTEGER NOT NULL,"
    " images INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL)"
)


class BudgetSpent(RunError):
    """The build's budget is used up; what is finished is kept."""


@dataclass(frozen=True)
class Spent:
    """Requests answered, images sent, tokens of prompts and of answers."""

    requests: int = 0
    images: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


def cost(spent: Spent, price: Price) -> float:
    """Money for so many tokens and images, in the currency of the prices."""
    return (
        spent.tokens_in * price.tokens_in + spent.tokens_out * price.tokens_out + spent.images * price.images
    ) / _MILLION


def estimate_tokens(request: ChatRequest) -> int:
    """About how many tokens a request has, its images among them."""
    return _tokens_of(request.system + request.prompt) + _TOKENS_PER_IMAGE * len(request.images)


def _tokens_of(text: str) -> int:
    return len(text) // _CHARACTERS_PER_TOKEN + 1


class Spending(Section):
    """What a shard needs to count what its answers cost: the file that all count in, prices by model, the budget.

    ``build`` is what a build is called where several count in one database instead.
    """

    file: str
    prices: dict[str, Price]
    budget: str | None
    build: str = ""


class StepPrices(Section):
    """The prices of the steps' models."""

    currency: str
    steps: dict[str, Price]


def make_spending_order(config: BuildConfig, folder: Path) -> Spending | None:
    """What a shard needs to count its spending; None where no prices are given."""
    if not config.prices:
        return None
    # The folder of remote outputs is shared by all of a user's builds; a local one moves with its build.
    own = f"-{fingerprint(config.output)}" if "://" in config.output else ""
    served = {name: price for step in config.asking.values() for name, price in _own_price(config, step).items()}
    file = str(folder / f"spending{own}.sqlite")
    build = config.output if "://" in config.output else str(Path(config.output).absolute())
    return Spending(file=file, prices=config.prices | served, budget=config.budget, build=fingerprint(build))


def counted_as(step: StepConfig) -> str:
    """The name under which the ledger counts a step's answers: a batch has prices of its own."""
    return f"{step.model} (batch)" if step.batch else step.model or ""


def price_of(config: BuildConfig, step: StepConfig) -> Price | None:
    """What a step's model charges, the provider's discount for batches taken off; None where no price is given."""
    return next(iter(_own_price(config, step).values()), None)


def _own_price(config: BuildConfig, step: StepConfig) -> dict[str, Price]:
    price = config.prices.get(step.model or "")
    if price is None:
        return {}
    share = 1 - step.batch.discount if step.batch else 1.0
    scaled = {name: value * share for name, value in price.model_dump().items()}
    return {counted_as(step): Price.model_validate(scaled)}


class Ledger:
    """Counts what answers of one model cost. May be used from several threads; open one per shard."""

    def __init__(self, spending: Spending, model: str) -> None:
        self._model = model
        self._prices = spending.prices
        self._budget = spending.budget
        self._open(spending)

    def _open(self, spending: Spending) -> None:
        self._lock = threading.Lock()
        self._path = Path(spending.file)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._path}.lock", timeout=_PATIENCE):
            self._database = open_database(self._path, _TABLE, patience=_PATIENCE, wal=True)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def count(self, request: ChatRequest, answer: Completion | RequestError) -> None:
        """Add one answer; committed at once."""
        self.count_answer(len(request.images), estimate_tokens(request), answer)

    def count_answer(self, images: int, estimated: int, answer: Completion | RequestError) -> None:
        """Add an answer to a request of so many images and about so many tokens.

        What a server has not counted is estimated: a budget that nothing is counted against would hold nobody back.
        """
        if self._model in self._prices:
            written = _tokens_of(answer.text) if isinstance(answer, Completion) else 0
            self._add(images, answer.prompt_tokens or estimated, answer.completion_tokens or written)

    def _add(self, images: int, tokens_in: int, tokens_out: int) -> None:
        with self._lock:
            self._database.execute(
                "INSERT INTO spent VALUES (?, 1, ?, ?, ?) ON CONFLICT (model) DO UPDATE SET requests = requests + 1,"
                " images = images + excluded.images, tokens_in = tokens_in + excluded.tokens_in,"
                " tokens_out = tokens_out + excluded.tokens_out",
                (self._model, images, tokens_in, tokens_out),
            )

    def read_spent(self) -> dict[str, Spent]:
        """What was spent so far, by model. Raises ``ForeignDatabaseError`` where the file holds something else."""
        with self._lock:
            check_pages(self._database, self._path)
            rows = self._database.execute("SELECT model, requests, images, tokens_in, tokens_out FROM spent").fetchall()
        for model, *counts in rows:
            if not isinstance(model, str) or not all(isinstance(count, int) and count >= 0 for count in counts):
                raise ForeignDatabaseError(self._path, "a count is no whole number")
        return {row[0]: Spent(*row[1:]) for row in rows}

    def left(self) -> float | None:
        """What the budget leaves; None where there is none."""
        if self._budget is None:
            return None
        spent = self.read_spent()
        total = sum(cost(counts, self._prices[name]) for name, counts in spent.items() if name in self._prices)
        return budget_of(self._budget)[0] - total

    def expected(self, most: Spent) -> float:
        """What so many requests may cost: what this model's answers have cost so far, or the most that they can."""
        price = self._prices.get(self._model)
        if price is None:
            return 0.0
        own = self.read_spent().get(self._model, Spent())
        return cost(own, price) / own.requests * most.requests if own.requests else cost(most, price)

    def affordable(self) -> int | None:
        """How many further requests the budget allows, by what this model's have cost so far; None: no limit known.

        Raises ``BudgetSpent`` when it allows none.
        """
        if self._budget is None:
            return None
        amount, currency = budget_of(self._budget)
        spent = self.read_spent()
        total = sum(cost(counts, self._prices[name]) for name, counts in spent.items() if name in self._prices)
        own = spent.get(self._model, Spent())
        each = (
            cost(own, self._prices[self._model]) / own.requests if own.requests and self._model in self._prices else 0.0
        )
        if total >= amount or each > amount - total:
            raise BudgetSpent(
                f"the budget of {self._budget} is spent ({total:.2f} {currency} for "
                f"{sum(counts.requests for counts in spent.values())} answers): finished answers are kept; set a "
                "larger budget and run the build again to go on"
            )
        return int((amount - total) / each) if each else None


def budget_of(text: str) -> tuple[float, str]:
    """Amount and currency of ``50 USD``."""
    amount, _, currency = text.partition(" ")
    return float(amount), currency


def step_cost(price: Price, step: str, requests: int, tokens_in: int, tokens_out: int) -> float:
    """What so many requests of a step cost; those of a step that shows an image hold one each."""
    images = requests if step in (*VISION_STEPS, "judge") else 0
    return cost(Spent(requests, images, tokens_in, tokens_out), price)


def step_prices(config: BuildConfig) -> StepPrices | None:
    """The prices of the steps' models; None where none is given."""
    priced = {name: price for name, step in config.asking.items() if (price := price_of(config, step)) is not None}
    if config.judge is not None and config.judge.shows == "text" and "judge" in priced:
        priced["judge"] = priced["judge"].model_copy(update={"images": 0.0})
    return StepPrices(currency=config.currency, steps=dict(priced)) if priced else None


def cost_summary(prices: StepPrices, spent: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """What the texts of a dataset cost, by step: requests, tokens and money, for its manifest and card.

    ``spent`` gives requests, tokens_in and tokens_out by step. Answers for
    texts that were made anew with other settings are in the build's ledger and not here.
    """
    steps = {}
    for step, price in prices.steps.items():
        counts = dict(spent[step])
        steps[step] = {**counts, "cost": round(step_cost(price, step, **counts), 4)}
    total = round(sum(entry["cost"] for entry in steps.values()), 4)
    return {"currency": prices.currency, "total": total, "steps": steps}
