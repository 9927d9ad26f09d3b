"""Images per class: what is asked for is drawn, and every piece of advice works when followed."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from policies import InputError
from proxy_tasks import get_task
from proxy_tasks.draw import PARTS, Request, class_counts, fill
from proxy_tasks.names import SHARES

FOLDER = ((4000, 5000, 10000), (1.0, 0.2, 0.2))
LONG_TAIL = np.array([600, 60, 6])


def request(train, validation=None, test=None, asked=(None, None, None), shares="equal", seed=0):
    pools = zip(PARTS, (train, validation, test), strict=True)
    arrays = {part: np.array(sizes) for part, sizes in pools if sizes is not None}
    names = tuple(f"class{k}" for k in range(len(train)))
    counts, wishes = FOLDER
    tables = [dict(zip(PARTS, values, strict=True)) for values in (asked, counts, wishes)]
    return Request(names, arrays, *tables, shares, seed)


def changed(r: Request, **asked: int) -> Request:
    """With other numbers asked for."""
    return dataclasses.replace(r, asked={**r.asked, **asked})


@st.composite
def requests(draw):
    classes = draw(st.integers(2, 6))
    sizes = st.lists(st.integers(1, 300), min_size=classes, max_size=classes)
    asked = st.one_of(st.none(), st.integers(1, 900))
    return request(
        draw(sizes),
        draw(st.one_of(st.none(), sizes)),
        draw(st.one_of(st.none(), sizes)),
        tuple(draw(asked) for _ in PARTS),
        draw(st.sampled_from(list(SHARES))),
        draw(st.integers(0, 5)),
    )


def check(r: Request, counts: dict) -> None:
    """No image twice, none missing, every class in every part."""
    for part in PARTS:
        assert (counts[part] >= 1).all()
        if r.asked[part] is not None:
            assert counts[part].sum() == r.asked[part]
        together = sum(counts[p] for p in r.sharing(part))
        assert (together <= r.available(part)).all()


def test_train_takes_what_the_parts_cut_from_it_leave():
    """Where nothing is asked for: no image that there is goes unused."""
    for sizes in ([6, 6], [7, 9]):
        counts = class_counts(request(sizes))
        assert sum(counts.values()).tolist() == sizes
    own = class_counts(request([20, 20], [5, 5], [5, 5]))
    assert [own[part].tolist() for part in PARTS] == [[20, 20], [5, 5], [5, 5]]
    for shares in ("proportional", "capped"):
        r = request([60, 20], [5, 5], [5, 5], shares=shares)
        assert class_counts(r)["train"].tolist() == [60, 20]
        many = request([6000, 6000], [5, 5], [5, 5], shares=shares)
        assert class_counts(many)["train"].sum() == FOLDER[0][0]


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.filterwarnings("error")
def test_a_class_that_a_part_lacks_is_named(shares):
    with pytest.raises(InputError, match="test_images: needs 1 images of class 'class1', but got"):
        class_counts(request([20, 20], test=[5, 0], shares=shares))


class TestAdvice:
    @given(requests())
    @example(request([3, 3, 5], asked=(None, 1, 4)))
    @example(request([3, 3], asked=(1, 1, 1)))
    @example(request([53, 44], [7, 13], None, (79, None, 27), "proportional", 3))
    @example(request([116, 88], asked=(204, None, None), shares="proportional"))
    @pytest.mark.long
    def test_works_when_followed(self, r):
        """Any class sizes, any numbers, any way to share: one change for each part is enough."""
        for _ in range(len(PARTS) + 1):
            try:
                check(r, class_counts(r))
                return
            except InputError as error:
                text = str(error)
            shares = r"use (?:--shares (?P<shares>\w+) and )?"
            followed = re.search(
                shares + r"at most --(?P<part>\w+)-images (?P<number>\d+)", text
            ) or re.search(rf"^(?P<part>\w+)_images: .*{shares}at least (?P<number>\d+)$", text)
            other = re.search(r"use --shares (\w+)$", text)
            if other is not None:
                asked = tuple(r.asked[p] for p in PARTS)
                other = request(*(r.sizes.get(p) for p in PARTS), asked, other[1], r.seed)
                check(other, class_counts(other))
            if followed is None:
                assert "add images of class" in text or other is not None
                return
            shares, part, number = followed.group("shares", "part", "number")
            asked = tuple({**r.asked, part: int(number)}[p] for p in PARTS)
            final = "at most" in followed[0]
            r = request(*(r.sizes.get(p) for p in PARTS), asked, shares or r.shares, r.seed)
            if final:
                done = [n is None or n >= len(r.class_names) for n in asked]
                if all(done):
                    check(r, class_counts(r))
                    self.check_fewer(r, part, int(number))
        raise AssertionError("the advice never led to a draw")

    def check_fewer(self, r, part, number):
        """ "At most" is said of every number down to one image of each class."""
        for fewer in {*range(len(r.class_names), number, 1 + number // 20), number - 1}:
            if fewer >= len(r.class_names):
                less = changed(r, **{part: fewer})
                check(less, class_counts(less))

    @given(requests())
    @pytest.mark.long
    def test_and_one_image_more_does_not(self, r):
        try:
            class_counts(r)
            return
        except InputError as error:
            found = re.search(r"; use at most --(\w+)-images (\d+)", str(error))
        if found is None or any(n is not None and n < len(r.class_names) for n in r.asked.values()):
            return
        with pytest.raises(InputError):
            class_counts(changed(r, **{found[1]: int(found[2]) + 1}))

    def test_the_first_hint_on_a_long_tail_works(self):
        """600, 60 and 6 images: the smallest class decides, not the first that is short."""
        with pytest.raises(InputError, match="use at most --train-images 12, or use --shares cap"):
            class_counts(request(LONG_TAIL, asked=(1000, None, None)))
        assert class_counts(request(LONG_TAIL, asked=(12, None, None)))["train"].tolist() == [4] * 3

    def test_the_part_that_takes_too_much_is_named(self):
        with pytest.raises(
            InputError, match="test_images: needs 1 .*at most --validation-images 36"
        ):
            class_counts(request([20, 20], asked=(None, 39, 2)))

    def test_of_parts_that_share_classes_the_larger_one_is_named(self):
        r = request(LONG_TAIL, asked=(5000, 60, 60), shares="capped")
        with pytest.raises(InputError, match="train_images: needs 5000 .*'546 beside"):
            class_counts(r)

    def test_a_class_that_is_too_small_for_three_parts(self):
        with pytest.raises(InputError, match="add images of class 'class1', or take it out"):
            class_counts(request([50, 2], asked=(4, 4, 4)))


class TestShares:
    def test_capped_takes_all_that_small_classes_can_spare(self):
        r = request(LONG_TAIL, asked=(120, 60, 60), shares="capped")
        counts = class_counts(r)
        check(r, counts)
        # Half of each class is train's share.
        assert counts["train"].tolist() == [87, 30, 3]
        assert counts["validation"].tolist() == [44, 15, 1]

    def test_proportional_follows_the_data(self):
        r = request(LONG_TAIL, asked=(111, 111, 111), shares="proportional")
        assert [c.tolist() for c in class_counts(r).values()] == [[100, 10, 1]] * 3

    @pytest.mark.parametrize("shares", SHARES)
    def test_balanced_classes_are_balanced_whatever_is_said(self, shares):
        counts = class_counts(request([100] * 4, asked=(120, 80, 80), shares=shares))
        assert {k: set(v.tolist()) for k, v in counts.items()} == {
            "train": {30}, "validation": {20}, "test": {20}
        }  # fmt: skip

    @pytest.mark.parametrize("shares", SHARES)
    def test_defaults_fit_any_tail(self, shares):
        for tail in ([600, 60, 6], [5000, 3, 3], [9, 8, 7], [40_000, 400, 40]):
            r = request(tail, shares=shares)
            check(r, class_counts(r))

    @given(
        sizes=st.lists(st.integers(1, 400), min_size=2, max_size=9),
        share=st.floats(0, 1),
        seed=st.integers(0, 9),
    )
    def test_fill_adds_up_and_respects_caps(self, sizes, share, seed):
        caps = np.array(sizes)
        total = round(len(caps) + share * (caps.sum() - len(caps)))
        ties = np.random.default_rng(seed).permutation(len(caps))
        for weights in (np.ones(len(caps)), caps.astype(float)):
            counts = fill(total, weights, caps, ties)
            assert counts.sum() == total and (counts >= 1).all() and (counts <= caps).all()
        # Of classes that are not exhausted, none has more than one image more than another.
        level = fill(total, np.ones(len(caps)), caps, ties)
        free = level[level < caps]
        assert not len(free) or level.max() - free.min() <= 1

    def test_the_task_takes_them(self, tmp_path):
        rng = np.random.default_rng(0)
        for name, count in (("a", 60), ("b", 12), ("c", 6)):
            (tmp_path / "train" / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "train" / name / f"{i}.png")
        numbers = dict(train_images=39, validation_images=13, test_images=13, resolution=8)
        with pytest.raises(InputError, match="; use --shares capped$"):
            get_task("folder", tmp_path, **numbers)
        for shares, expected in (("proportional", [30, 6, 3]), ("capped", [29, 7, 3])):
            task = get_task("folder", tmp_path, **numbers, shares=shares)
            assert np.bincount(task.train.labels).tolist() == expected
        with pytest.raises(InputError, match="did you mean 'proportional'"):
            get_task("folder", tmp_path, shares="proportion")
