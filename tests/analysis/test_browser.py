"""Pages in a real browser: what is seen, that nothing is loaded, that nothing goes wrong."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from analysis import page
from tests.analysis.test_html import GOLDEN, HOSTILE, hostile_run
from tests.analysis.test_report import epoch_line
from tests.golden.runs import FOLDER

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason=f"no browser here: none of {', '.join(NAMES)}"),
]
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --enable-logging=stderr "
    "--hide-scrollbars --virtual-time-budget=4000"
).split()
WATCH = """<script>
window.wrong = [];
const note = (event) => wrong.push(String(event.message || event.target.outerHTML));
addEventListener("error", note, true);
addEventListener("securitypolicyviolation", (event) => wrong.push("asked " + event.blockedURI));
</script>"""
# What a test asks of the page once it is loaded; `extra` is an expression of its own.
PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  for (const part of document.querySelectorAll("details")) part.open = true;
  const size = (each) => {
    const box = each.getBoundingClientRect();
    return [box.width, box.height];
  };
  const found = {
    text: document.body.innerText,
    images: [...document.images].map((each) => [each.naturalWidth, ...size(each)]),
    charts: [...document.querySelectorAll("figure > svg")].map(size).filter(([w]) => w > 0),
    cut: [...document.querySelectorAll("figure > svg text")].filter((each) => {
      const [text, chart] = [each, each.closest("svg")].map((it) => it.getBoundingClientRect());
      return text.left < chart.left - 2 || text.right > chart.right + 2;
    }).map((each) => each.textContent),
    loaded: performance.getEntriesByType("resource").map((each) => each.name),
    width: innerWidth,
    over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.querySelector("figure > svg text") ?? document.body).fill,
    extra: EXTRA,
    wrong,
  };
  parent.postMessage(JSON.stringify(found), "*");
}));
</script>"""
# No window is as narrow as a telephone; a frame is.
FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><script>
addEventListener("message", (event) => {
  const place = document.createElement("pre");
  place.id = "probe";
  place.textContent = event.data;
  document.body.append(place);
});
</script><body><iframe src="page.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>"""


def looked_at(
    text: str, folder, width: int = 1400, dark: bool = False, extra: str = "null"
) -> dict:
    """What a browser makes of a page: see PROBE."""
    text = text.replace("<head>", f"<head>{WATCH}", 1)
    text = text.replace("</body>", PROBE.replace("EXTRA", extra) + "</body>", 1)
    (folder / "page.html").write_text(text, encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    profile = folder / "profile"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run(
        [BROWSER, *QUIET, *scheme, "--window-size=1500,1000", f"--user-data-dir={profile}",
         "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    shutil.rmtree(profile, ignore_errors=True)
    probe = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert probe, done.stderr[-2000:]
    found = json.loads(html.unescape(probe.group(1)))
    found["console"] = re.findall(r"CONSOLE.*", done.stderr)
    return found


def seen_whole(text: str, folder, width: int, dark: bool) -> dict:
    """What a browser makes of a page, once nothing is found to be missing, cut or asked for."""
    found = looked_at(text, folder, width, dark)
    assert found["wrong"] == [] and found["console"] == [] and found["loaded"] == []
    assert found["width"] == width
    assert "How it was made, and how to make it again" in found["text"]
    assert all(natural > 0 and min(seen) >= 60 for natural, *seen in found["images"])
    assert all(min(size) > 100 for size in found["charts"]) and found["cut"] == []
    assert all(wide < width for wide, _ in found["charts"])
    assert len(found["charts"]) == text.count('<figure class="scroll"')
    assert found["over"] <= 0  # only tables and charts scroll, in boxes of their own
    paper = int(re.search(r"\d+", found["paper"]).group())
    assert (paper < 60) == dark
    if found["charts"]:
        ink = int(re.search(r"\d+", found["ink"]).group())
        assert abs(ink - paper) > 150  # charts follow
    return found


LOOKS = pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])


@LOOKS
@pytest.mark.parametrize("name", [n for n in GOLDEN if n not in ("search-tpe", "search-random")])
def test_every_kind_is_seen_whole(name, width, dark, tmp_path):
    seen_whole(page([FOLDER / name]), tmp_path, width, dark)


@LOOKS
def test_several_runs_with_a_training_are_seen_whole(write_run, width, dark, tmp_path):
    directory = write_run([], {"kind": "train"})
    lines = [epoch_line(number, 2.0 / number) for number in range(1, 5)]
    (directory / "epochs.jsonl").write_text("".join(lines))
    found = seen_whole(page([directory, FOLDER / "compare"]), tmp_path, width, dark)
    assert found["text"].count("imagenet against none") == 2  # in the summary, in its report
    assert len(found["charts"]) == 2


def test_a_policy_is_shown_on_images(tmp_path):
    found = looked_at(page([FOLDER / "search-ppo"]), tmp_path)
    assert len(found["images"]) == 6 * 26 and len(found["charts"]) == 3


def test_tables_sort(tmp_path):
    """By value, not by letters, and back."""
    extra = """(() => {
      const table = document.querySelector("table.sortable");
      const column = () => [...table.tBodies[0].rows].map((row) => row.cells[2].textContent);
      const button = table.tHead.rows[0].cells[2].querySelector("button");
      button.click(); const up = column();
      button.click(); return [up, column(), table.tHead.rows[0].cells[2].ariaSort];
    })()"""
    up, down, said = looked_at(page([FOLDER / "randaugment"]), tmp_path, extra=extra)["extra"]
    assert [float(value) for value in up] == sorted(map(float, up)) and len(set(up)) > 2
    assert down == up[::-1] and said == "descending"


def test_points_tell_what_they_are(tmp_path):
    extra = """(() => {
      const point = document.querySelector(".point");
      point.firstElementChild.nextElementSibling.dispatchEvent(
        new PointerEvent("pointerover", {bubbles: true, clientX: 20, clientY: 200}));
      const tip = document.getElementById("tip");
      return [tip.hidden, tip.textContent, point.querySelector("title").textContent];
    })()"""
    hidden, tip, title = looked_at(page([FOLDER / "search-ppo"]), tmp_path, extra=extra)["extra"]
    assert not hidden and tip == title and re.match(r"batch \d+, slot \d+: -0\.\d+; \w", tip)


def test_the_policy_can_be_copied(tmp_path):
    extra = """(() => {
      const code = document.querySelector(".code");
      code.querySelector("button.copy").click();
      return [getSelection().toString(), code.querySelector("code").textContent];
    })()"""
    chosen, text = looked_at(page([FOLDER / "search-ppo"]), tmp_path, extra=extra)["extra"]
    assert chosen.split() == text.split() and text.startswith('(("')


def test_what_users_name_does_nothing(write_run, tmp_path):
    text = page([hostile_run(write_run)])
    found = looked_at(text, tmp_path, extra="document.querySelectorAll('[onerror]').length")
    assert found["wrong"] == [] and found["console"] == [] and found["extra"] == 0
    assert HOSTILE.replace("`", "") in found["text"].replace("`", "")


def test_the_probe_sees_what_is_wrong(tmp_path):
    """A request, an error and a picture that is broken: so that the tests above can fail."""
    text = page([FOLDER / "compare"])
    bad = '<img src="https://example.org/a.png"><script>nothing_of_the_kind()</script>'
    found = looked_at(text.replace("</main>", f"{bad}</main>", 1), tmp_path)
    assert any("https://example.org" in each for each in found["wrong"])
    assert any("nothing_of_the_kind" in each for each in found["wrong"])
    assert len(found["console"]) >= 2 and found["images"][-1][0] == 0
