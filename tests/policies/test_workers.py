"""In other processes: DataLoader workers (forked, spawned), Ray actors, a fresh interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from policies import IMAGENET, InputError, PolicyTransform, RandAugment

ROOT = Path(__file__).parents[2]
PICTURE = np.random.default_rng(0).integers(0, 256, (3, 24, 24), dtype=np.uint8)


class Copies(Dataset):
    """The same image over and over, transformed: only the draws tell results apart."""

    def __init__(self, transform, n: int = 64) -> None:
        self.transform, self.n = transform, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(torch.from_numpy(PICTURE))


def epochs(transform, count: int = 1, seed: int = 0, **options) -> list[list[bytes]]:
    loader = DataLoader(
        Copies(transform), batch_size=8, generator=torch.Generator().manual_seed(seed), **options
    )
    return [[image.numpy().tobytes() for batch in loader for image in batch] for _ in range(count)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def transform() -> PolicyTransform:
    # Practically every draw of it is another image: signs and magnitudes of two operations.
    rows = [
        [("Rotate", 1.0, i), ("Brightness", 1.0, j)] for i in range(1, 10) for j in range(1, 10)
    ]
    return PolicyTransform(rows, generator=seeded(5))


def shared(a: list[bytes], b: list[bytes]) -> int:
    """Positions where two sequences of results agree."""
    return sum(x == y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
class TestDataLoader:
    def test_workers_do_not_repeat_each_other(self, transform, context):
        ((*results,),) = epochs(transform, num_workers=2, multiprocessing_context=context)
        # Batches alternate between the two workers: 8 from the first, 8 from the second, ...
        batches = [results[i : i + 8] for i in range(0, 64, 8)]
        first, second = sum(batches[0::2], []), sum(batches[1::2], [])
        # 324 outcomes: two independent streams agree at about 32/324 of the positions.
        assert shared(first, second) <= 4
        assert len(set(results)) > 40


def test_epochs_do_not_repeat_each_other(transform):
    first, second = epochs(transform, 2, num_workers=2, multiprocessing_context="fork")
    assert shared(first, second) <= 5


def test_persistent_workers(transform):
    first, second = epochs(
        transform, 2, num_workers=2, multiprocessing_context="fork", persistent_workers=True
    )
    assert shared(first, second) <= 5


@pytest.mark.long
def test_workers_are_reproducible(transform):
    options = dict(count=2, num_workers=2, multiprocessing_context="fork")
    again = transform.with_generator(seeded(5))
    other = transform.with_generator(seeded(6))
    first = epochs(transform, **options)
    assert first == epochs(again, **options)
    assert first != epochs(other, **options), "the explicit generator has no say"
    assert first != epochs(again, seed=1, **options), "the loader's generator has no say"


def test_without_workers_the_generator_itself_is_used(transform):
    (results,) = epochs(transform)
    again = transform.with_generator(seeded(5))
    assert results == [again(torch.from_numpy(PICTURE)).numpy().tobytes() for _ in range(64)]


def test_new_generator_inside_a_worker(transform, monkeypatch):
    """A copy made in a worker does not go on with the stream of its original."""
    info = types.SimpleNamespace(id=0, seed=7)
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: info)
    image = torch.from_numpy(PICTURE)

    def three(t) -> list[bytes]:
        return [t(image).numpy().tobytes() for _ in range(3)]

    first = three(transform)
    assert three(transform.with_generator(seeded(5))) == first
    assert three(transform.with_generator(seeded(6))) != first


def test_collating_whole_batches_in_workers():
    """Batched use: the loader fetches a batch, the transform runs in collate_fn."""
    augment = RandAugment(generator=seeded(1))
    loader = DataLoader(
        Copies(lambda x: x), batch_size=16, num_workers=2, multiprocessing_context="fork",
        collate_fn=lambda images: augment(torch.stack(images)),
    )  # fmt: skip
    batches = list(loader)
    assert [b.shape for b in batches] == [(16, 3, 24, 24)] * 4
    assert not torch.equal(batches[0], batches[1])


@pytest.mark.ray
def test_ray_actors():
    ray = pytest.importorskip("ray")
    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:

        @ray.remote(num_cpus=1)
        class Actor:
            def augment(self, transform, images):
                return transform(images)

        images = np.stack([PICTURE] * 8)
        transform = PolicyTransform(IMAGENET, generator=seeded(3))
        actor = Actor.remote()
        # Arrays arrive read-only, straight from shared memory.
        got = ray.get(actor.augment.remote(transform, ray.put(images)))
        assert np.array_equal(got, transform(images))
    finally:
        if started:
            ray.shutdown()


def run_fresh(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip


@pytest.mark.long
def test_first_use_in_a_fresh_process():
    """Less than half of what importing torch takes (a second, or two and a half), once compiled
    code is cached; compiling takes many times as much. Processor time, the least of three."""
    code = """
        import time
        start = time.process_time()
        import torch, policies
        imported = time.process_time() - start
        images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        start = time.process_time()
        policies.PolicyTransform(policies.IMAGENET)(images)
        print((time.process_time() - start) / imported)
    """
    run_fresh(code)  # fills the cache
    assert min(float(run_fresh(code)) for _ in range(3)) < 0.5


def test_importing_does_not_load_numba():
    assert run_fresh("import sys, policies; print('numba' in sys.modules)").strip() == "False"


def test_without_a_place_for_compiled_code_it_warns_and_works():
    """A function without a source file has no place either: numba says the same of it."""
    from policies.compiled import UncachedKernels, _warn, compiled

    _warn.cache_clear()
    namespace: dict = {}
    exec(compile("def double(x):\n    return 2 * x\n", "<nowhere>", "exec"), namespace)
    with pytest.warns(UncachedKernels, match="set NUMBA_CACHE_DIR"):
        double = compiled()(namespace["double"])
    assert double(4) == 8


@pytest.mark.slow
def test_read_only_installation_without_a_home(tmp_path):
    """Folders that cannot be made: a file stands in the way, which stops even root."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "policies", tmp_path / "policies", ignore=ignore)
    (tmp_path / "policies" / "__pycache__").write_text("")
    code = (
        "import sys, torch, policies; assert policies.__path__[0].startswith(sys.argv[1]); "
        "print(policies.RandAugment()(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).shape)"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": "/dev/null", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "[2, 3, 8, 8]" in done.stdout
    assert done.stderr.count("set NUMBA_CACHE_DIR") == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's counters")
@pytest.mark.long
def test_memory_above_input_and_output():
    """At 224 x 224 the peak stays under twice the batch, contiguous or not."""
    code = """
        import torch, policies
        def status(field):
            line = next(l for l in open("/proc/self/status") if l.startswith(field))
            return int(line.split()[1]) * 1024
        transform = policies.RandAugment(2, 9)
        transform(torch.zeros(2, 3, 224, 224, dtype=torch.uint8))
        images = torch.randint(0, 256, (512, 3, 224, 224), dtype=torch.uint8)
        for given in (images, images.contiguous(memory_format=torch.channels_last)):
            before = status("VmRSS")
            result = transform(given)
            print((status("VmHWM") - before) / images.numel() - 1)
            del result
    """
    above = [float(line) for line in run_fresh(code).split()]
    # The output itself is one; a lower figure would mean that nothing was measured.
    assert len(above) == 2 and -0.1 < min(above) and max(above) < 2


class Batches(Dataset):
    """Whole batches, transformed by threads."""

    def __init__(self, transform) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(torch.from_numpy(PICTURE).expand(16, -1, -1, -1))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.long
def test_threads_work_in_a_process_that_inherits_none(method, transform):
    threaded = PolicyTransform(transform.policy, threads=3)
    threaded(torch.zeros(8, 3, 24, 24, dtype=torch.uint8))  # starts this process's threads
    loader = DataLoader(
        Batches(threaded),
        batch_size=None,
        num_workers=1,
        multiprocessing_context=method,
        timeout=60,
    )
    assert [tuple(batch.shape) for batch in loader] == [(16, 3, 24, 24)] * 4


class Floats:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return PolicyTransform(IMAGENET)(torch.zeros(3, 4, 4))


@pytest.mark.long
def test_a_mistake_in_a_worker_is_a_mistake():
    with pytest.raises(InputError, match="must have dtype uint8"):
        list(DataLoader(Floats(), num_workers=1))
