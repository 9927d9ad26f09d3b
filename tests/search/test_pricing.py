"""What a study of many stages will cost: the bill by hand, and what is made of it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from search import Config
from search.cli.main import main
from search.studies import pricing
from search.studies.pricing import _operations, price, rederive_bill, replicate_bill
from search.studies.settings import Prices


@pytest.fixture
def config(ground):
    return Config.of(
        "rederive", data=str(ground / "images"), preset="cpu", budget=100, train_images=120,
        validation_images=120, resolution=8, epochs=300, workers=4, searches=2, random_searches=1,
        seeds=3, grid=48,
    )  # fmt: skip


def test_the_bill_of_a_re_derivation(config):
    # none, imagenet, random:25, trivialaugment, three found and the grid's: 8 arms.
    counts = [item.evaluations for item in rederive_bill(config)]
    assert counts == [200, 100, 48, 2 * 3 * 8, 3 * 8]
    models = [item.evaluator.options.get("model") for item in rederive_bill(config)]
    assert models == [None] * 4 + ["wrn-16-1"]
    paper = rederive_bill(Config.of("rederive", data="imagenet", seeds=0, other_child="none"))
    assert [item.evaluations for item in paper] == [15_000]


def test_the_bill_of_a_replication():
    made = Config.of("replicate", method=["random", "staged", "none"], draws=4, budget=50, seeds=3)
    assert [item.evaluations for item in replicate_bill(made)] == [4 * 2 * 50, 2 * 4 * 3 * 3]


def test_long_children_are_measured_in_part_and_multiplied_out(config, monkeypatch):
    asked = []

    def measured(evaluator, task, space, pool, samples):
        asked.append((evaluator.epochs, len(task.train), len(task.validation)))
        return [2.0 if "model" in evaluator.options else 1.0], 2

    small, large = (_operations(name, 120, (3, 8, 8)) for name in ("convnet", "wrn-16-1"))
    monkeypatch.setattr(pricing, "measured", measured)
    # 83 epochs of 120 images for the one, fewer than 120 images for the other.
    monkeypatch.setattr(pricing, "MEASURED", 10_000 * small)
    monkeypatch.setattr(
        pricing, "_operations", lambda name, *_: 250 * small if name == "wrn-16-1" else small
    )
    lines = "\n".join(price(config, Prices(price=0.5, gpu_price=4.0)))
    assert asked == [(83, 120, 120), (1, 40, 40)] and large > small
    child = (300 * 120 + 40) / (83 * 120 + 40)
    other = 2 * (300 * 120 + 40) / (40 + 13)
    # 396 children of one kind, 24 of the other; four workers.
    hours = (396 * child + 24 * other) / 3600
    assert f"in all: {hours / 4:.3g} h with 4 workers, {hours:.3g} core-hours for" in lines
    assert f"core-hours for {hours * 0.5:,.2f}; or " in lines
    assert f"15,000 such children: {15_000 * child / 3600 / 4:.3g} h" in lines
    assert "15,000 hours of Tesla P100" in lines and "paper: Wide-ResNet-40-2" in lines


def test_the_papers_child_takes_an_hour_of_the_papers_gpu(monkeypatch, ground):
    """The anchor itself: the same child, as many images, of the same size."""
    monkeypatch.setattr(pricing, "measured", lambda *_: ([1.0], 1))
    monkeypatch.setattr(pricing, "PAPER_PASSES", 200 * 120)
    monkeypatch.setattr(pricing, "PAPER_SIDE", 8)
    made = Config.of(
        "rederive", data=str(ground / "images"), train_images=120, validation_images=120,
        resolution=8, evaluations=10, seeds=0, other_child="none",
    )  # fmt: skip
    lines = "\n".join(price(made, Prices()))
    gpu_hours = 10 * (200 * 120 + 40) / (200 * 120)
    assert f"{gpu_hours:.3g} GPU-hours" in lines and "price" not in lines


@pytest.mark.parametrize(("preset", "priced"), [((), ["paper", "cpu"]), (("cpu",), ["cpu"])])
def test_the_command_prices_every_preset_unless_one_is_given(monkeypatch, preset, priced):
    seen = []
    monkeypatch.setattr(
        pricing, "price", lambda config, prices: seen.append((config, prices)) or ["a line"]
    )
    words = ["estimate", "rederive", "--data", "tree", "--price", "0.5", "--seeds", "2"]
    result = CliRunner().invoke(main, words + [w for p in preset for w in ("--preset", p)])
    assert result.output == "a line\n" * len(priced)
    assert [config.evaluator.preset for config, _ in seen] == priced
    assert {config.settings.seeds for config, _ in seen} == {2}
    assert {prices for _, prices in seen} == {Prices(price=0.5)}


def test_operations_by_hand():
    # Zagoruyko and Komodakis count multiplications and additions of Wide-ResNet-40-2 together.
    assert 0.64e9 < _operations("wrn-40-2", 10, (3, 32, 32)) < 0.68e9
