"""Recorded steps. Without a GPU all but the recording itself: what is read lies still."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from policies import InputError, UniformAugment
from proxy_tasks import EvaluatorConfig, make_evaluator, training
from proxy_tasks.graphs import FIRST, Replayed, record_cuda
from proxy_tasks.models import make_child
from proxy_tasks.presets import Preset
from proxy_tasks.training import Arena, LearningRate, TrainConfig, seeded_augment
from tests.proxy_tasks.trees import striped_task

CPU = torch.device("cpu")


class Recorder:
    """Stands for CUDA graphs: nothing runs while it records, and a replay knows no new tensors."""

    def __init__(self, shape=()):
        self.shape, self.recorded, self.replays = shape, 0, 0

    def __call__(self, work):
        self.recorded += 1
        result = torch.full(self.shape, torch.nan)

        def replay():
            self.replays += 1
            result.copy_(work())

        return replay, result


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_replayed_steps_train_as_plain_ones(count, optimizer):
    task = striped_task(train=90)  # batches of 22 and 23 images
    preset = Preset(
        "test", "convnet", 3, 23, 0.05, 5e-4, "cosine", warmup=0.3, pad=2, optimizer=optimizer
    )
    config = TrainConfig(preset, LearningRate("cosine", 3, 0.05, warmup=0.3), True, 2)
    found, recorder = {}, Recorder(() if count == 1 else (count,))
    for kernels in ("plain", "graphs"):
        arena = Arena(task.train, CPU, torch.float32, kernels)
        arena.record = recorder
        children = [make_child("convnet", 1, 2, seed, CPU) for seed in range(count)]
        augments = [seeded_augment(UniformAugment(), seed) for seed in range(count)]
        trained = arena.train_children(children, augments, config, range(count))
        states = [state for child in children for state in child.state_dict().items()]
        weights = [value for name, value in states if "running" not in name]
        statistics = [value for name, value in states if "running" in name]
        found[kernels] = weights, [each.loss for each in trained], statistics
    assert recorder.recorded == 2 and recorder.replays == 12 - 2 * FIRST
    plain, graphs = found["plain"], found["graphs"]
    # A rate that is a tensor is float32; only AdamW computes with it before the weights' float32.
    tolerance = 0 if optimizer == "sgd" else 1e-5
    torch.testing.assert_close(graphs[0], plain[0], rtol=0, atol=tolerance)
    # Variances reach 40, where float32 has steps of 4e-6.
    torch.testing.assert_close(graphs[2], plain[2], rtol=tolerance / 10, atol=tolerance)
    assert graphs[1] == pytest.approx(plain[1], abs=tolerance)


def test_recorded_steps_do_not_hold_their_learner(monkeypatch):
    """On a GPU their memory would stay until the collector comes by, which is rare."""
    task = striped_task(train=90)
    preset = Preset("test", "convnet", 3, 23, 0.05, 5e-4, "cosine", pad=2)
    config = TrainConfig(preset, LearningRate("cosine", 3, 0.05), True, 2)
    arena = Arena(task.train, CPU, torch.float32, "graphs")
    arena.record, learners = Recorder(), []

    class Noted(training.Learner):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            learners.append(weakref.ref(self))

    monkeypatch.setattr(training, "Learner", Noted)
    gc.disable()
    try:
        arena.train_children([make_child("convnet", 1, 2, 0, CPU)], [None], config, [0])
        assert arena.record.recorded and [learner() for learner in learners] == [None]
    finally:
        gc.enable()


def test_what_a_step_reads_stays_where_it_was():
    places = set()

    def step(images, draws):
        places.add((images.data_ptr(), draws.data_ptr()))
        return images.sum() + draws.sum()

    replayed = Replayed(step, Recorder())
    for number in range(7):
        images = torch.full((3,), number, dtype=torch.int64)
        draws = torch.full((5, 4), 2 * number, dtype=torch.int64)
        assert replayed(images, draws) == 3 * number + 40 * number
        if number == FIRST - 1:
            places.clear()
    assert len(places) == 1


def test_there_are_none_on_a_cpu():
    with pytest.raises(InputError, match="kernels: may be graphs on a GPU only, but got 'cpu'"):
        make_evaluator(EvaluatorConfig(kernels="graphs", device="cpu"), striped_task())


@pytest.mark.parametrize("change", [
    {"ema": 0.9}, {"cutmix": 1.0}, {"erase": 0.5}, {"optimizer": "torch.optim:Adam"},
])  # fmt: skip
def test_recipes_that_cannot_be_recorded_are_refused(change):
    from proxy_tasks.evaluators.children import check_recordable

    preset = Preset("test", "convnet", 3, 23, 0.05, 5e-4, "cosine")
    check_recordable(preset, torch.device("cuda"))
    with pytest.raises(InputError, match="kernels: may be graphs"):
        check_recordable(Preset(**{**vars(preset), **change}), torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_graphs_equal_plain_steps():
    task, cuda = striped_task(), torch.device("cuda")
    config = EvaluatorConfig(epochs=3, device="cuda", precision="float32")
    plain = make_evaluator(config, task).evaluate(None, 1)
    graphs = EvaluatorConfig(epochs=3, device="cuda", precision="float32", kernels="graphs")
    recorded = make_evaluator(graphs, task).evaluate(None, 1)
    assert recorded.metrics["log_likelihood"] == pytest.approx(
        plain.metrics["log_likelihood"], abs=2e-3
    )
    held = torch.ones(3, device=cuda)
    replay, result = record_cuda(lambda: held * 2)
    held.fill_(4)
    replay()
    assert result.tolist() == [8, 8, 8]
