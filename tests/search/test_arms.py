"""Arms of a comparison: policies as before, with pieces of a recipe beside them."""

from __future__ import annotations

import json
import logging
from shutil import copyfile
from types import SimpleNamespace

import pytest

from policies import CIFAR10, IMAGENET, RandAugment, save_policy
from policies.errors import InputError
from proxy_tasks import EvaluatorConfig, get_task
from proxy_tasks.manifest import Manifest
from proxy_tasks.trials import read_journal
from search.studies import fixed
from search.studies.arms import (
    Arm,
    parse_arm,
    parse_arms,
    warn_of_files_changed,
    warn_of_images_seen,
)
from search.studies.compare import compare_candidates, compare_evaluators, run_compare, with_arms
from search.studies.config import Config
from search.studies.study import grown
from search.studies.train_settings import TrainSettings
from tests.proxy_tasks.trees import write_tree
from tests.search.commands import FIDELITY, PLANTED, answer, invoke
from tests.search.fakes import FakePool, Killed


def test_pieces_are_options_of_the_recipe_by_their_types():
    arm = parse_arm("randaugment:2,9+cutmix:1+copies:3+loss:binary-cross-entropy+lr:1e-2")
    assert arm.members == (RandAugment(2, 9),)
    assert arm.recipe == {"cutmix": 1.0, "copies": 3, "loss": "binary-cross-entropy", "lr": 0.01}
    assert type(arm.recipe["cutmix"]) is float and type(arm.recipe["copies"]) is int
    assert arm.name == arm.text
    assert parse_arm("none+loss:torch.nn:MSELoss").recipe == {"loss": "torch.nn:MSELoss"}


def test_files_methods_and_random_policies_take_pieces_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b+c.json", "b+cutmix:1.0.json"):
        save_policy(tmp_path / name, IMAGENET)
    assert parse_arm("a.json+erase:0.5").recipe == {"erase": 0.5}
    assert parse_arm("b+c.json").recipe == {}
    assert parse_arm("b+c.json+erase:0.5").recipe == {"erase": 0.5}
    assert parse_arm("b+cutmix:1.0.json").recipe == {}, "what is a file is a file"
    method = parse_arm("mine=a.json,b+c.json+ema:0.9")
    assert (method.name, len(method.members)) == ("mine+ema:0.9", 2)
    assert parse_arm("random:5+mixup:0.2").random == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("imagenet+cutmx:1", r"policy imagenet\+cutmx:1: cutmx: must be one of .*mean 'cutmix'"),
        ("none+erase:2", r"policy none\+erase:2: erase: must be a number, at least 0, at most 1"),
        ("none+copies:1.5", "copies: must be a whole number, at least 1"),
        ("none+cutmix:much", "cutmix: must be a number"),
        ("none+cutmix:nan", "cutmix: must be a number"),
        ("none+cutmix:", "cutmix: must be a number"),
        ("none+optimizer_options:{}", "must be one of batch_size"),
        ("none+cutmix:1+cutmix:1", "cutmix: must be given once"),
        ("none+cutmix", "may be followed by pieces of a recipe, as in"),
        ("nnone+cutmix:1", "policy: must be"),
    ],
)
def test_mistakes_name_the_arm_and_the_rule(text, words):
    with pytest.raises(InputError, match=words):
        parse_arm(text)


def test_json_holds_the_recipe_and_is_as_before_without_one():
    plain, mixed = parse_arm("imagenet"), parse_arm("imagenet+cutmix:1.0")
    assert mixed.to_json() == {
        **plain.to_json(), "text": mixed.text, "name": mixed.name, "recipe": {"cutmix": 1.0}
    }  # fmt: skip
    assert "recipe" not in plain.to_json()
    for arm in (plain, mixed):
        assert Arm.from_json(json.loads(json.dumps(arm.to_json()))) == arm
    with pytest.raises(InputError, match="arms as a comparison writes them"):
        Arm.from_json({**plain.to_json(), "recipe": 3})


def config(*policy: str, **options) -> Config:
    return with_arms(Config.of("compare", policy=policy, seeds=2, **options))


def test_each_recipe_has_an_evaluator_of_its_own_over_the_runs():
    own = {"recipe": {"erase": 0.1, "smoothing": 0.1}, "model": "convnet"}
    asked = config("none", "imagenet+erase:0.5", "none+erase:0.5", "none+cutmix:1.0")
    asked = asked.changed(evaluator_options=own)
    evaluators, candidates = compare_evaluators(asked), compare_candidates(asked)
    assert len(evaluators) == 3 and evaluators["main"] == asked.evaluator
    recipes = {c.label: evaluators[c.scorer].options["recipe"] for c in candidates}
    assert recipes == {
        "none": {"erase": 0.1, "smoothing": 0.1},
        "imagenet+erase:0.5": {"erase": 0.5, "smoothing": 0.1},
        "none+erase:0.5": {"erase": 0.5, "smoothing": 0.1},
        "none+cutmix:1.0": {"erase": 0.1, "smoothing": 0.1, "cutmix": 1.0},
    }
    assert all(each.options["model"] == "convnet" for each in evaluators.values())
    # Paired: every arm has the same seeds.
    assert {c.seed for c in candidates if c.label == "none"} == {c.seed for c in candidates}


def test_recipes_of_other_values_have_other_evaluators():
    asked = config("none+erase:0.5", "none+erase:0.25", "imagenet+erase:0.50")
    evaluators, candidates = compare_evaluators(asked), compare_candidates(asked)
    found = {c.label: evaluators[c.scorer].options["recipe"]["erase"] for c in candidates}
    assert found == {"none+erase:0.5": 0.5, "none+erase:0.25": 0.25, "imagenet+erase:0.50": 0.5}
    assert len(evaluators) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "synthetic", "evaluator": "synthetic"}, "option of synthetic"),
        ({"policy": ("none+momentum:0.5+optimizer:adamw",)}, "momentum: is a setting of sgd only"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, options, words):
    asked = Config.of("compare", **{"policy": ("none+cutmix:1",), **options})
    with pytest.raises(InputError, match=words) as error:
        run_compare(asked, tmp_path / "run", progress=False)
    assert f"policy {asked.settings.policy[0]}: " in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_comparison_grows_by_an_arm_with_a_recipe(tmp_path, monkeypatch):
    seen: list[str] = []

    def engine(searcher, evaluators, *arguments, **how):
        from search.engine import loop

        seen.extend(evaluators)
        monkeypatch.setattr(loop, "WorkerPool", FakePool())
        return loop.run(searcher, evaluators, *arguments, **how)

    monkeypatch.setattr(fixed, "run", engine)
    out = tmp_path / "run"
    begun = Config.of("compare", policy=("none",), seeds=2, workers=1)
    run_compare(begun, out, progress=False)
    more = grown(out, {"policy": ("none+cutmix:1.0",)})  # as `augsearch resume` does it
    run_compare(more, out, progress=False, resume=True)
    scorer = parse_arm("none+cutmix:1.0").scorer
    assert seen == ["main", "main", scorer]
    found = {(t.label, t.scorer, t.batch) for t in read_journal(out / "trials.jsonl")}
    assert found == {
        (label, name, batch) for label, name in (("none", "main"), ("none+cutmix:1.0", scorer))
        for batch in (0, 1)
    }  # fmt: skip


def test_images_that_a_search_has_seen_are_told(tmp_path, caplog):
    """A test part that is cut from train moves with the number of validation images."""
    data = write_tree(tmp_path, {"train": 40})
    sizes = {"train_images": 30, "test_images": 30, "resolution": 8}
    tasks = {}
    for name, validation in (("few", 15), ("many", 60)):
        (tmp_path / name).mkdir()
        tasks[name] = get_task("folder", data, validation_images=validation, **sizes)
        (tmp_path / name / "config.json").write_text('{"kind": "search"}')
        (tmp_path / name / "manifest.json").write_bytes(tasks[name].manifest.encode())
        save_policy(tmp_path / name / "policy.json", IMAGENET,
                    provenance={"cost": {"evaluations": 5, "image_passes": 50}})  # fmt: skip
    files = {name: str(tmp_path / name / "policy.json") for name in tasks}
    # One search trained on some test images of the other task, another had rewards of them all.
    for here, there, part, count in (
        ("many", "few", "train", 15),
        ("few", "many", "validation", 30),
    ):
        run = SimpleNamespace(task=tasks[here], log=logging.getLogger("search"))
        warn_of_images_seen(run, [parse_arm(files[here]), parse_arm("imagenet")])
        assert not caplog.records
        contents = [tasks[here].manifest.parts["test"], tasks[there].manifest.parts[part]]
        assert len(set.intersection(*(set(rows.contents) for rows in contents))) == count
        warn_of_images_seen(run, [parse_arm(f"both={','.join(files.values())}+cutmix:1.0")])
        [record] = caplog.records
        assert record.message.startswith(f"both+cutmix:1.0: {count} of the 30 test images")
        assert str(tmp_path / there) in record.message
        caplog.clear()


def test_a_file_out_of_its_run_tells_whether_the_images_were_the_same(tmp_path, caplog):
    manifest = SimpleNamespace(parts={"test": SimpleNamespace(contents=[])})
    task = SimpleNamespace(name="folder", manifest=manifest, manifest_hash="here")
    run = SimpleNamespace(task=task, log=logging.getLogger("search"))
    files = {
        name: tmp_path / f"{name}.json" for name in ("same", "other", "another-task", "silent")
    }
    for name, about in (
        ("same", {"task": "folder", "manifest_hash": "here"}),
        ("other", {"task": "folder", "manifest_hash": "there"}),
        ("another-task", {"task": "synthetic", "manifest_hash": "there"}),
        ("silent", None),
    ):
        save_policy(files[name], IMAGENET, provenance=about)
    both = f"both={files['other']},{files['same']}"
    warn_of_images_seen(run, [*map(parse_arm, map(str, files.values())), parse_arm(both)])
    told = [record.message for record in caplog.records]
    assert [message.partition(":")[0] for message in told] == ["other.json", "both"]
    assert "not known: it had other images, and" in told[0] and str(files["other"]) in told[0]
    arm = parse_arm(str(files["other"]))
    files["other"].write_text("{")  # since the run was begun, which is told elsewhere
    caplog.clear()
    warn_of_images_seen(run, [arm])
    assert not caplog.records


def test_only_runs_of_ours_are_asked_what_they_have_seen(tmp_path, monkeypatch, caplog):
    """Others call their files config.json too; and no policy is of the folder where one stands."""
    data = write_tree(tmp_path, {"train": 40})
    task = get_task("folder", data, train_images=30, validation_images=15, resolution=8)
    run = SimpleNamespace(task=task, log=logging.getLogger("search"))
    for place, kind in (("others", "mine"), ("lr=0.1,a+b:c", "kind")):
        (tmp_path / place / "proposals").mkdir(parents=True)
        (tmp_path / place / "config.json").write_text(f'{{"{kind}": "search"}}')
        for file in ("policy.json", "proposals/best-5.json"):
            save_policy(tmp_path / place / file, IMAGENET)
    (tmp_path / "others/manifest.json").write_text('{"mine": 1}')
    warn_of_images_seen(run, [parse_arm(str(tmp_path / "others/policy.json"))])
    ours = tmp_path / "lr=0.1,a+b:c"
    (ours / "manifest.json").write_bytes(task.manifest.encode())
    monkeypatch.chdir(ours)
    parts = {**task.manifest.parts, "train": task.manifest.parts["test"]}
    monkeypatch.setattr(Manifest, "read", lambda path: SimpleNamespace(parts=parts))
    warn_of_images_seen(run, [parse_arm("imagenet"), parse_arm("none")])
    assert not caplog.records
    copyfile(ours / "policy.json", ours / "again.json")
    files = [str(ours / name) for name in ("policy.json", "proposals/best-5.json", "again.json")]
    for text in (*files[:2], "twice=policy.json,again.json"):
        warn_of_images_seen(run, [parse_arm(text)])
        assert len(caplog.records) == 1
        caplog.clear()


def test_a_method_of_many_files_is_no_name_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [f"a-search-with-a-name-{number}.json" for number in range(30)]
    for file in files:
        save_policy(tmp_path / file, IMAGENET)
    assert len(parse_arm(f"ours={','.join(files)}").members) == 30
    with pytest.raises(InputError, match="policy: must be a policy or schedule file"):
        parse_arm("x" * 300)


def test_a_manifest_that_cannot_be_read_is_told_and_refuses_nothing(tmp_path, caplog):
    save_policy(tmp_path / "policy.json", IMAGENET)
    (tmp_path / "config.json").write_text('{"kind": "search"}')
    (tmp_path / "manifest.json").write_text('{"version": 1}')
    task = SimpleNamespace(manifest=SimpleNamespace(parts={"test": SimpleNamespace(contents=[])}))
    run = SimpleNamespace(task=task, log=logging.getLogger("search"))
    warn_of_images_seen(run, [parse_arm(str(tmp_path / "policy.json"))])
    assert "whether its search has seen test images is not known" in caplog.text


def test_files_that_changed_since_a_run_was_begun_are_told(tmp_path, caplog):
    """It goes on with what they held: the newer policy would be judged by nobody, unseen."""
    files = [tmp_path / name / "policy.json" for name in ("same", "other", "broken", "gone")]
    for file in files:
        file.parent.mkdir()
        save_policy(file, IMAGENET, provenance={"cost": {"image_passes": 50}})
    texts = [*map(str, files), "imagenet", "random:3", f"both={files[0]},{files[1]}"]
    arms = parse_arms(texts, 2)
    save_policy(files[0], IMAGENET)  # the same, with less about it
    save_policy(files[1], CIFAR10)
    files[2].write_text("{")
    files[3].unlink()
    for resumed, told in ((False, []), (True, ["other/policy.json", "broken/policy.json", "both"])):
        run = SimpleNamespace(resumed=resumed, log=logging.getLogger("search"))
        warn_of_files_changed(run, arms)
        assert [record.message.partition(":")[0] for record in caplog.records] == told


@pytest.mark.long
@pytest.mark.parametrize("words", [
    f"compare {PLANTED} --policy none mine.json --seeds 2",
    f"replicate {PLANTED} --method random mine.json --draws 2 --budget 24 --seeds 2",
    f"{FIDELITY} --policies 8 --seeds 2 --policy mine.json",
])  # fmt: skip
def test_every_study_of_arms_tells_of_changed_files(tmp_path, words):
    """Also before anything was judged: what is judged first would be the policy of then."""
    save_policy(tmp_path / "mine.json", IMAGENET)
    with pytest.raises(Killed):
        invoke(words, tmp_path, FakePool(answer=answer, killed_after=3))
    save_policy(tmp_path / "mine.json", CIFAR10)
    assert "mine.json: its file has changed" in invoke("resume run --quiet", tmp_path)


def test_distinct_names_are_asked_for():
    with pytest.raises(InputError, match="must not name an arm twice"):
        parse_arms(["none+cutmix:1", "none+cutmix:1"], 1)


def test_train_takes_the_pieces_as_its_options():
    assert TrainSettings("none").joined({"cutmix": 1.0}) == TrainSettings("none", cutmix=1.0)
    assert TrainSettings("none", cutmix=1.0).joined({"cutmix": 1.0}).cutmix == 1.0
    with pytest.raises(InputError, match="cutmix: must not differ from the cutmix of the policy"):
        TrainSettings("none", cutmix=0.5).joined({"cutmix": 1.0})


def test_evaluators_without_pieces_are_the_runs_own():
    own = EvaluatorConfig(options={"recipe": {"ema": 0.9}})
    assert parse_arm("none").evaluator(own) is own and parse_arm("none").scorer == "main"
