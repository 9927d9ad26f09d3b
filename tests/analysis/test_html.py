"""One page for any runs: what it says, that it needs nothing else, and that nobody can get in."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis import load_run, page, write_reports
from analysis.document import Picture, Sentences, Text
from analysis.drawing import told
from analysis.examples import task_images
from analysis.gallery import rows
from analysis.html import GENERATOR, PAGE_NAME, place_of_page, prose
from analysis.plots import reward_curve
from analysis.report import REPORTS
from analysis.runs import trials_table
from analysis.svg import inline
from policies import IMAGENET, InputError, Policy, RandAugment, save_policy
from proxy_tasks import get_task
from proxy_tasks.trials import Trial
from tests.analysis.journals import journal_line
from tests.golden.runs import FOLDER

GOLDEN = sorted(path.name for path in FOLDER.iterdir() if (path / "config.json").exists())
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>&{{7*7}}`</code><b>`$\\frac$'
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """Elements, what they load, their text; refuses wrong nesting."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


def hostile_run(write_run) -> Path:
    """A comparison in which everything that a user may name is an attack."""
    lines = [
        journal_line(0, slot, 0.5 + 0.01 * slot, label=label, part="test", seed=7)
        for slot, label in enumerate(("none", HOSTILE))
    ]
    failed = journal_line(1, 0, None, label=HOSTILE, part="test", error=f"Broken: {HOSTILE}")
    arm = {"name": HOSTILE, "text": HOSTILE, "members": [IMAGENET.to_json()]}
    settings = {"policy": ["none", HOSTILE], "seeds": 2, "arms": [arm]}
    task = {"name": HOSTILE, "data": f"/{HOSTILE}"}
    return write_run([*lines, failed], {"kind": "compare", "settings": settings, "task": task})


@pytest.mark.long
@pytest.mark.parametrize("name", GOLDEN)
def test_every_kind_has_a_page_that_loads_nothing(name):
    text = page([FOLDER / name])
    reader = Reader(text)
    report = REPORTS[load_run(FOLDER / name).kind](load_run(FOLDER / name))
    assert report.title in reader.text
    for part in report.sections:
        for block in part.blocks:
            if isinstance(block, Sentences | Text):
                lines = block.lines if isinstance(block, Sentences) else (block.text,)
                for line in lines:
                    assert line.replace("`", "") in reader.text
    pictures = [b for part in report.sections for b in part.blocks if isinstance(b, Picture)]
    assert len(reader.all("svg")) >= len(pictures)
    assert f"augsearch {report.run.kind}" in reader.text  # the command that makes it again
    assert f"python{report.run.environment['python']}" in reader.text.replace("\n", "")
    for _, attributes in reader.found:
        for key in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attributes.get(key, "#").startswith(("#", "data:")), attributes
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    assert "url(" not in style and "@import" not in style
    policy = next(a for a in reader.all("meta") if a.get("http-equiv"))["content"]
    assert policy.startswith("default-src 'none'")


@pytest.mark.long
def test_ids_are_there_once_and_charts_use_their_own():
    """A hatch or a clip path of a chart that is hidden is not found."""
    text = page([FOLDER / "search-ppo", FOLDER / "search-tpe"])
    ids = [a["id"] for _, a in Reader(text).found if "id" in a]
    assert len(ids) == len(set(ids)) and {"run-1", "run-2"} <= set(ids)
    charts = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert any("fill: url(#" in chart for chart in charts)
    for chart in charts:
        for name in re.findall(r"""(?:url\(|href=")#([^")]+)""", chart):
            assert f'id="{name}"' in chart


@pytest.mark.long
def test_several_runs_begin_with_what_was_found(write_run):
    """The comparison first, in the words of its own report."""
    search = write_run([journal_line(0, 0)], name="search")
    lines = [journal_line(n, 0, 0.5, label="none", part="test", seed=n) for n in range(3)]
    lines += [journal_line(n, 1, 0.6, label="mine", part="test", seed=n) for n in range(3)]
    settings = {"policy": ["none", "mine"], "seeds": 3}
    comparison = write_run(lines, {"kind": "compare", "settings": settings}, name="compare")
    text = page([search, comparison])
    summary = text[text.index("<header>") : text.index("</header>")]
    first, second = re.findall(r'href="#(run-\d)"', summary)
    assert (first, second) == ("run-2", "run-1")
    for line in REPORTS["compare"](load_run(comparison)).found:
        assert str(prose(line)) in summary
    assert "mine against none: +10.00 points" in summary and "Best reward 0.5000" in summary
    assert "<header>" not in page([search])


def test_what_users_name_stays_text(write_run):
    text = page([hostile_run(write_run)])
    reader = Reader(text)
    assert len(reader.all("script")) == 1 and not any("onerror" in a for _, a in reader.found)
    assert not reader.all("b")
    assert all(image["src"].startswith("data:") for image in reader.all("img"))
    shown = HOSTILE.replace("`", "")
    assert reader.text.replace("`", "").count(shown) >= 4  # in sentences, tables, errors, charts
    assert "{{7*7}}" in reader.text and "49" not in re.findall(r"&amp;(\d+)", text)


def test_prose_knows_code_and_nothing_else():
    assert prose("a `b` <c> [d](e)") == "a <code>b</code> &lt;c&gt; [d](e)"


class TestWhere:
    @pytest.mark.long
    def test_a_page_lies_in_the_run(self, write_run):
        directory = write_run([journal_line(0, 0)])
        markdown, path = write_reports([directory])
        assert markdown == directory / "report.md" and markdown.exists()
        assert path == directory / PAGE_NAME and GENERATOR in path.read_text()
        assert write_reports([directory])[-1] == path  # a view: written again at will

    @pytest.mark.long
    def test_of_several_in_the_folder_around_them(self, write_run, tmp_path):
        several = [write_run([journal_line(0, 0)], name=name) for name in ("one", "two")]
        *_, path = write_reports(several)
        assert path == tmp_path / PAGE_NAME
        reader = Reader(path.read_text())
        assert [a["href"] for a in reader.all("a")] == ["#run-1", "#run-2"]
        assert "one" in reader.text and "two" in reader.text

    def test_no_other_file_is_written_over(self, write_run, tmp_path):
        mine = tmp_path / "mine.html"
        mine.write_text("<p>mine")
        for out, rule in ((mine, "must be a new file"), (tmp_path / "a" / "b.html", "must lie")):
            with pytest.raises(InputError, match=rule):
                write_reports([write_run([], name=f"run{out.name}")], out)
        with pytest.raises(InputError, match="must be a new file"):
            place_of_page(["x"], tmp_path)
        assert mine.read_text() == "<p>mine"


class TestGallery:
    def test_says_what_was_applied_and_does_it(self):
        images = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), np.uint8)
        policy = Policy([[("Invert", 0.5, None), ("Rotate", 1.0, 9)]])
        (row,), _ = rows(policy, images)
        assert row.title == (
            "1. Invert, probability 0.5 → Rotate, probability 1, magnitude 9 (±30.0°)"
        )
        applied = [cell.steps[0].applied for cell in row.cells]
        assert 8 <= sum(applied) <= 32  # of 40 at 0.5: outside once in 10,000
        values = {cell.steps[1].value for cell in row.cells}
        assert values == {"+30.0°", "−30.0°"} and all(c.steps[1].applied for c in row.cells)

    def test_a_picture_is_what_its_words_say(self):
        images = np.zeros((30, 1, 8, 8), np.uint8)
        (row,), _ = rows(Policy([[("Invert", 0.5, None)]]), images)
        for cell in row.cells:
            assert pixels(cell.png).max() == (255 if cell.steps[0].applied else 0)

    def test_a_transform_tells_its_own_draws(self):
        images = np.zeros((6, 1, 8, 8), np.uint8)
        found, _ = rows(RandAugment(2, 9), images)
        names = {step.name for row in found for cell in row.cells for step in cell.steps}
        assert len(names) > 3 and all(len(cell.steps) <= 2 for row in found for cell in row.cells)

    def test_a_title_is_of_the_images_size(self):
        images = np.zeros((1, 3, 8, 331), np.uint8)
        (row,), _ = rows(Policy([[("TranslateX", 1.0, 9)]]), images)
        assert row.title.endswith("magnitude 9 (±150\N{NO-BREAK SPACE}px)")
        assert row.cells[0].steps[0].value[1:] == "150\N{NO-BREAK SPACE}px"

    def test_long_policies_are_cut_and_say_so(self):
        images = np.zeros((1, 1, 8, 8), np.uint8)
        found, remark = rows(Policy([[("Invert", 0.5, None)]] * 40), images)
        assert len(found) == 30 and remark == "The first 30 of 40 sub-policies."


class TestImages:
    def folder(self, tmp_path) -> Path:
        rng = np.random.default_rng(0)
        for name in ("a", "b"):
            (tmp_path / "data/train" / name).mkdir(parents=True)
            for number in range(6):
                pixels = rng.integers(0, 256, (20, 16, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data/train" / name / f"{number}.png")
        return tmp_path / "data"

    def run_on(self, write_run, data: Path):
        task = get_task("folder", data, resolution=16)
        directory = write_run([], {"task": {"name": "folder", "data": str(data)}})
        task.manifest.write(directory / "manifest.json")
        return load_run(directory), task

    def test_are_the_task_s_own_where_they_are(self, write_run, tmp_path):
        run, task = self.run_on(write_run, self.folder(tmp_path))
        images, words = task_images(run, 4)
        known = {image.tobytes() for image in task.train.images}
        assert len(images) == 4 and {image.tobytes() for image in images} <= known
        assert words.startswith("On training images of the task")

    @pytest.mark.parametrize("change", ["gone", "other"])
    @pytest.mark.long
    def test_embedded_ones_stand_in_and_it_says_so(self, write_run, tmp_path, change):
        data = self.folder(tmp_path)
        run, _ = self.run_on(write_run, data)
        if change == "gone":
            data.rename(tmp_path / "elsewhere")
        else:
            for path in data.rglob("*.png"):
                Image.new("RGB", (16, 16)).save(path)
        images, words = task_images(run, 4)
        assert images.shape == (4, 1, 28, 28) and "embedded Fashion-MNIST" in words
        assert ("must exist" in words) == (change == "gone")
        save_policy(run.directory / "policy.json", IMAGENET)
        assert words.split(" (")[0] in Reader(page([run.directory])).text


class TestCharts:
    def draw(self, path: Path) -> Path:
        from matplotlib.figure import Figure

        figure = Figure()
        axis = figure.subplots()
        axis.scatter([0, 1], [0, 1]).set_urls(told(["first <point>", "second"]))
        axis.scatter([2], [2]).set_urls(told(["alone"]))
        for bar, url in zip(axis.bar([0, 1], [1, 2]), told(["a bar", "b"]), strict=True):
            bar.set_url(url)
        figure.savefig(path)
        return path

    def test_points_have_titles(self):
        (text,) = inline(Picture("x", "what <it> shows", self.draw))
        titles = re.findall(r"<title>(.*?)</title>", text)
        assert titles[0] == "what &lt;it&gt; shows"
        assert titles[1:] == ["first &lt;point&gt;", "second", "alone", "a bar", "b"]
        assert "<a " not in text and 'xlink:href="#told' not in text

    def test_wide_ones_have_a_narrow_form(self):
        data = trials_table([Trial.from_json(journal_line(0, slot, 0.5)) for slot in range(3)])
        broad, narrow = inline(Picture("x", "x", lambda path: reward_curve(data, path)))
        assert 'viewBox="0 0 576 ' in broad and 'viewBox="0 0 316.8 ' in narrow  # 8 and 4.4 inches
        assert 'class="broad"' in broad and 'class="narrow"' in narrow
        assert broad.count("<title>") == narrow.count("<title>") == 1 + 3

    def test_ink_follows_the_page(self):
        (text,) = inline(Picture("x", "x", self.draw))
        assert "stroke: currentColor" in text and "#000000" not in text


@pytest.mark.long
def test_a_page_is_the_same_again():
    assert page([FOLDER / "compare"]) == page([FOLDER / "compare"])


def pixels(png: str) -> np.ndarray:
    import base64
    import io

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_the_file_of_a_run_is_json(write_run):
    """What the page shows of config.json can be copied."""
    directory = write_run([], {"settings": {"evaluations": 3}})
    code = re.findall(r'<code class="json">(.*?)</code>', page([directory]), re.DOTALL)
    assert json.loads(code[0].replace("&#34;", '"'))["settings"] == {"evaluations": 3}


@pytest.mark.parametrize("kind", REPORTS)
def test_a_run_without_results_has_a_page(write_run, kind):
    text = Reader(page([write_run([journal_line(0, 0, None)], {"kind": kind})])).text
    assert "Unfinished" in text and f"augsearch {kind}" in text
