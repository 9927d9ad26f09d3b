from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis import (
    batch_entropies,
    histogram_overlap,
    plots,
    policy_sheet,
    policy_statistics,
    search,
)
from analysis.rederive import _strength
from analysis.runs import load_run, trials_table
from policies import IMAGENET, OPS, Policy, save_policy
from proxy_tasks.trials import Trial
from tests.analysis.journals import journal_line, reported
from tests.golden.runs import copy


def test_shares_count_operations_as_often_as_they_are_applied():
    policy = Policy([[("Rotate", 0.5, 3), ("Invert", 0.3, None)], [("Rotate", 1.0, 9)]])
    counted = policy_statistics([policy])
    assert counted.count == 3
    assert counted.operations["Rotate"] == pytest.approx(1.5 / 1.8)
    assert counted.magnitudes[3] == pytest.approx(0.5 / 1.5)  # Invert has none
    assert counted.probabilities[5] == pytest.approx(1 / 3)  # what is written
    assert policy_statistics([Policy([[("Rotate", 0.86, 3)]])]).probabilities[9] == 1
    for shares in (counted.operations, counted.probabilities, counted.magnitudes):
        assert shares.sum() == pytest.approx(1)
    written = policy_statistics([policy], applied=False)
    assert written.operations["Rotate"] == pytest.approx(2 / 3)
    assert written.magnitudes[3] == written.magnitudes[9] == 0.5


def test_an_operation_that_is_never_applied_is_not_used():
    """The published ImageNet policy has an Equalize with probability 0."""
    without = Policy([[o for o in sub if o[1] > 0] for sub in IMAGENET])
    assert sum(map(len, without)) == sum(map(len, IMAGENET)) - 1
    with_it, without_it = policy_statistics([IMAGENET]), policy_statistics([without])
    pd.testing.assert_series_equal(with_it.operations, without_it.operations)
    pd.testing.assert_series_equal(with_it.magnitudes, without_it.magnitudes)
    assert with_it.probabilities[0] == pytest.approx(0.02)
    nothing = policy_statistics([Policy([[("Rotate", 0.0, 3)]])])
    assert nothing.operations.sum() == 0 and nothing.magnitudes.sum() == 0
    assert nothing.probabilities[0] == 1


def test_policies_of_different_lengths_weigh_the_same():
    short, long = Policy([[("Rotate", 1.0, 3)]]), Policy([[("Color", 1.0, 3)]] * 9)
    assert policy_statistics([short, long]).operations["Rotate"] == pytest.approx(0.5)


def test_so_do_their_probabilities_and_strengths():
    one, nine = Policy([[("Rotate", 0.1, 0)]]), Policy([[("Rotate", 0.9, 9)]] * 9)
    tenths = policy_statistics([one, nine]).probabilities
    assert (tenths[1], tenths[9]) == pytest.approx((0.5, 0.5))
    certain = [Policy([[("Rotate", 1.0, 0)]]), Policy([[("Rotate", 1.0, 9)]] * 9)]
    assert _strength(certain, "Rotate", (32, 32)) == "15.0°"


def test_overlap_is_one_for_equal_and_zero_for_disjoint_histograms():
    imagenet = policy_statistics([IMAGENET]).operations
    only = policy_statistics([Policy([[("Cutout", 1.0, 1)]])]).operations
    assert histogram_overlap(imagenet, imagenet) == pytest.approx(1)
    assert histogram_overlap(imagenet, only) == 0


def test_entropy_is_one_for_uniform_draws_and_falls_when_they_settle():
    rng = np.random.default_rng(0)
    names = [name for name in OPS if name != "Identity"]

    def policy(choices):
        return tuple(
            ((str(rng.choice(choices)), int(rng.integers(11)) / 10, int(rng.integers(10))),)
            for _ in range(800)
        )

    table = pd.DataFrame({"batch": [0, 1], "policy": [policy(names), policy(["Rotate", "ShearX"])]})
    entropies = batch_entropies(table)
    # 800 draws of 16: the entropy is short by about 15 / 1600 nats of 2.77, 0.3 %.
    assert entropies["operation"][0] == pytest.approx(1, abs=0.01)
    assert entropies["operation"][1] == pytest.approx(np.log(2) / np.log(16), abs=0.01)
    assert (entropies[["probability", "magnitude"]] > 0.98).all(axis=None)
    narrow = batch_entropies(table[table["batch"] == 1], 2)
    assert narrow["operation"][1] == pytest.approx(1, abs=0.01), "1 where all are drawn alike"
    assert np.isnan(batch_entropies(table, 1)["operation"][1])


@pytest.mark.long
def test_report_of_a_finished_search(write_run):
    rng = np.random.default_rng(0)
    rows = [
        journal_line(b, s, 0.5 + 0.01 * b + 0.01 * rng.normal()) for b in range(5) for s in range(8)
    ]
    rows[3] = journal_line(0, 3, None)
    directory = write_run(
        rows, {"settings": {"evaluations": 40}, "task": {"name": "reduced-fashion"}}
    )
    save_policy(directory / "policy.json", Policy([[("Rotate", 0.5, 3), ("Invert", 0.2, None)]]))
    text = reported(directory).read_text()
    assert "Complete: 40 evaluations." in text and "1 of them failed" in text
    assert "RuntimeError: planted" in text and '("Rotate", 0.5, 3)' in text
    for picture in ("reward.png", "diversity.png", "histograms.png"):
        assert picture in text and (directory / picture).is_file()


@pytest.mark.parametrize("rows", [[], [journal_line(0, 0)], [journal_line(0, 0, None)]])
def test_report_of_a_search_that_has_hardly_begun(write_run, rows):
    text = reported(write_run(rows)).read_text()
    assert "it is written when the search is complete" in text


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 28, 28), (3, 120, 200)])
def test_sheet_has_a_row_per_sub_policy_and_a_column_per_image(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    policy = Policy([[("Invert", 1.0, None)], [("Rotate", 0.0, 9)]])
    picture = Image.open(policy_sheet(policy, images, tmp_path / "sheet.png", certain=False))
    from analysis import sheet

    step = sheet.SIDE + sheet.GAP
    assert picture.height == sheet.HEAD + 3 * step + sheet.GAP
    array = np.asarray(picture).astype(int)
    left = picture.width - 4 * step - sheet.GAP  # the first thumbnail
    rows = [
        array[sheet.HEAD + row * step : sheet.HEAD + row * step + 20, left : left + 20]
        for row in range(3)
    ]
    # p = 0 leaves the image, Invert at p = 1 turns it into its negative.
    assert (rows[2] == rows[0]).all() and (rows[1] == 255 - rows[0]).all()


def test_certain_draws_what_training_would_mostly_leave_out(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    never, always = ([[("Invert", p, None)]] for p in (0.0, 1.0))
    pictures = {
        name: policy_sheet(
            Policy(rows), images, tmp_path / f"{name}.png", certain=certain, title=" "
        )
        for name, rows, certain in [("a", never, True), ("b", always, True), ("c", never, False)]
    }
    # The labels differ (p 0, p 1), so only the thumbnails are compared.
    a, b, c = (np.asarray(Image.open(path))[122:, -208:] for path in pictures.values())
    assert (a == b).all() and (a != c).any()


def test_sheets_are_reproducible(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    first = policy_sheet(IMAGENET, images, tmp_path / "a.png", seed=3).read_bytes()
    filled = policy_sheet(IMAGENET, images, tmp_path / "f.png", seed=3, fill=128).read_bytes()
    assert filled != first
    assert policy_sheet(IMAGENET, images, tmp_path / "b.png", seed=3).read_bytes() == first
    assert policy_sheet(IMAGENET, images, tmp_path / "c.png", seed=4).read_bytes() != first


def test_a_diverged_child_is_never_the_best(write_run):
    """Its reward, the log-likelihood of guessing, may be above those of honest children."""
    rows = [journal_line(0, slot, 0.1 + 0.01 * slot) for slot in range(4)]
    rows[1]["evaluation"] |= {"reward": 0.9, "diverged": True}
    text = reported(write_run(rows)).read_text()
    assert "Best reward 0.1300" in text and "1 children diverged" in text
    assert "0.9000" not in text


def test_no_line_of_the_picture_goes_through_a_diverged_child(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure) or path)
    rows = [journal_line(slot // 2, slot, 0.1 + 0.01 * slot) for slot in range(6)]
    rows[1]["evaluation"] |= {"reward": 0.9, "diverged": True}
    trials = trials_table([Trial.from_json(row) for row in rows])
    plots.reward_curve(trials, tmp_path / "reward.png")
    means, best = (line.get_ydata() for line in drawn[0].axes[0].lines)
    assert list(means) == pytest.approx([0.1, 0.125, 0.145])
    assert list(best) == pytest.approx([0.1, 0.1, 0.12, 0.13, 0.14, 0.15])


def test_the_best_of_many_stands_beside_what_its_policy_got_with_other_seeds(write_run):
    lucky = [[["Color", 0.5, 3]]]
    rows = [journal_line(0, slot, 0.4 + 0.001 * slot) for slot in range(5)]
    rows += [
        journal_line(1, slot, reward, augmentation=lucky) for slot, reward in enumerate((0.6, 0.45))
    ]
    text = reported(write_run(rows)).read_text()
    assert "other seeds" in text
    best = next(line for line in text.splitlines() if "0.6000" in line and line.startswith("|"))
    assert "0.4500" in best and "Color 0.5 3" in best


def test_a_child_that_diverged_under_the_best_policy_is_not_left_out_beside_it(write_run):
    wild = [[["Color", 0.5, 3]]]
    rows = [journal_line(0, slot, 0.4 + 0.001 * slot) for slot in range(5)]
    rows += [journal_line(1, slot, 0.6 - 0.01 * slot, augmentation=wild) for slot in range(3)]
    rows[-2]["evaluation"] |= {"diverged": True, "reward": 0.1}
    text = reported(write_run(rows)).read_text()
    best = next(line for line in text.splitlines() if "0.6000" in line and line.startswith("|"))
    assert best.split("|")[4].strip() == "diverged"


def test_equal_rewards_are_said_to_say_nothing(write_run):
    text = reported(write_run([journal_line(0, slot, 0.5) for slot in range(3)])).read_text()
    assert "All rewards are the same" in text


def test_how_settled_a_search_is_counts_by_the_operations_it_may_use(tmp_path, monkeypatch):
    whole, asked = copy("search-ppo", tmp_path / "run"), []
    config = json.loads((whole / "config.json").read_text())
    config["settings"]["ops"] = ["Rotate", "Color"]
    (whole / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(search, "batch_entropies", lambda trials, count: asked.append(count) or [])
    search._curves(load_run(whole))
    assert asked == [2]
