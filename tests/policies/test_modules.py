"""Transforms as modules, in other processes and pipelines, and under torch.compile."""

from __future__ import annotations

import copy
import pickle
import threading
import types

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn
from torch._subclasses import FakeTensorMode
from torchvision import transforms, tv_tensors
from torchvision.transforms import v2

from policies import (
    IMAGENET,
    OPS,
    InputError,
    PolicyTransform,
    RandAugment,
    TrivialAugmentWide,
    UniformAugment,
    get_convention,
)
from policies.ops import _linspace
from policies.schedule import Schedule, ScheduleTransform
from tests.policies.on_torch import with_kernels
from tests.policies.samples import make, same, seeded, tensor

# ---------------------------------------------------------------------------------- modules


class Mine(torch.Tensor):
    pass


class TestModule:
    def test_sequential(self):
        chain = nn.Sequential(make(), v2.ToDtype(torch.float32, scale=True), nn.Flatten(0))
        wanted = v2.functional.to_dtype(make()(tensor()), torch.float32, scale=True).flatten()
        assert torch.equal(chain(tensor()), wanted)
        assert isinstance(make(), nn.Module) and not list(make().parameters())
        assert "PolicyTransform" in repr(chain) and chain.state_dict() == {}

    def test_eval_does_not_switch_it_off(self):
        sure = PolicyTransform([[("Invert", 1.0, None)]]).eval()
        assert torch.equal(sure(tensor()), 255 - tensor())

    def test_copies_draw_alike_and_apart(self):
        transform = make(IMAGENET)
        transform(tensor(3))
        batch = tensor(30)
        copies = [copy.deepcopy(transform), pickle.loads(pickle.dumps(transform)),
                  copy.deepcopy(nn.Sequential(transform))[0],
                  copy.deepcopy(v2.Compose([transform])).transforms[0]]  # fmt: skip
        assert all(one == transform for one in copies)
        wanted = transform(batch)
        for one in copies:
            assert torch.equal(one(batch), wanted)  # its own generator, in the same state
        assert not torch.equal(transform(batch), wanted)

    def test_hooks_stay_with_the_one_they_were_given_to(self):
        transform, seen = make(), []
        transform.register_forward_hook(lambda *_: seen.append(1))
        other = transform.with_generator(seeded(4))
        other.register_forward_hook(lambda *_: seen.append(2))
        transform(tensor())
        assert seen == [1]
        other(tensor())
        assert seen == [1, 1, 2]  # the copy brought the first along

    def test_subclasses_stay_what_they_are(self):
        assert type(make()(tensor().as_subclass(Mine))) is Mine
        assert type(make()(tensor().as_subclass(Mine), 3)[0]) is Mine

    def test_views_are_read_right_and_left_alone(self):
        wide = torch.randint(0, 256, (4, 3, 20, 52), dtype=torch.uint8)
        before = wide.clone()
        view = wide[:, :, :, ::2]
        moved, _ = make()(view, 1)
        assert torch.equal(moved, make()(view.contiguous())) and moved.is_contiguous()
        assert torch.equal(wide, before)

    @pytest.mark.filterwarnings("ignore::FutureWarning")
    def test_scripting_and_tracing_are_refused(self):
        for wrong in (lambda: torch.jit.script(make()),
                      lambda: torch.jit.script(nn.Sequential(make())),
                      lambda: torch.jit.trace(make(), tensor())):  # fmt: skip
            with pytest.raises(InputError, match="use torch.compile"):
                wrong()

    def test_inside_torchvisions_containers(self):
        wanted = make(IMAGENET)(tensor(5))
        for container in (
            v2.RandomApply([make(IMAGENET)], p=1.0), v2.RandomChoice([make(IMAGENET)]),
            v2.RandomOrder([make(IMAGENET)]), transforms.Compose([make(IMAGENET)]),
            transforms.RandomApply([make(IMAGENET)], p=1.0),
        ):  # fmt: skip
            assert torch.equal(container(tensor(5)), wanted)

    def test_what_modules_are_asked_for_changes_nothing(self):
        moved = make(IMAGENET).half().double().to("cpu").share_memory().requires_grad_(False)
        assert moved == make(IMAGENET)
        with torch.inference_mode():
            assert torch.equal(moved(tensor(5)), make(IMAGENET)(tensor(5)))


ALL_OPS = [[(name, 0.9, 3 if op.has_magnitude else None)] for name, op in OPS.items()]


class TestSurroundings:
    """What a program sets for all of torch does not reach the pixels."""

    @pytest.mark.parametrize("kernels", ["compiled", "torch"])
    @pytest.mark.parametrize("setting", ["dtype", "device", "deterministic", "no grad"])
    def test_settings_of_torch(self, setting, kernels):
        wanted = make(ALL_OPS)(tensor(60))
        batch, transform = tensor(60), with_kernels(make(ALL_OPS), kernels)
        _linspace.cache_clear()
        try:
            if setting == "dtype":
                torch.set_default_dtype(torch.float64)
                found = transform(batch)
            elif setting == "device":
                with torch.device("meta"):
                    found = transform(batch)
            elif setting == "deterministic":
                torch.use_deterministic_algorithms(True)
                found = transform(batch)
            else:
                with torch.no_grad(), torch.autocast("cpu"):
                    found = transform(batch)
        finally:
            torch.set_default_dtype(torch.float32)
            torch.use_deterministic_algorithms(False)
            _linspace.cache_clear()
        assert torch.equal(found, wanted)

    def test_magnitudes_are_single_precision_whatever_the_default(self):
        """Solarize 3 is a threshold of 170 exactly; in double precision it would be 170.0000..."""
        for dtype in (torch.float64, torch.float16):
            wanted = [get_convention("paper").parameter("Rotate", i, False, 9, 9)
                      for i in range(10)]  # fmt: skip
            _linspace.cache_clear()
            torch.set_default_dtype(dtype)
            try:
                found = [get_convention("paper").parameter("Rotate", i, False, 9, 9)
                         for i in range(10)]  # fmt: skip
            finally:
                torch.set_default_dtype(torch.float32)
                _linspace.cache_clear()
            assert found == wanted

    def test_workers_of_a_program_with_another_default_device(self):
        info, batch = types.SimpleNamespace(id=1, seed=5), tensor(9)
        wanted = None
        for device in ("cpu", "meta"):
            with pytest.MonkeyPatch.context() as patch, torch.device(device):
                patch.setattr(torch.utils.data, "get_worker_info", lambda: info)
                found = make(IMAGENET)(batch)
            assert wanted is None or torch.equal(found, wanted)
            wanted = found

    def test_tensors_without_values_are_refused(self):
        with FakeTensorMode() as mode:
            fake = mode.from_tensor(tensor(2))
        for call in (
            lambda: torch.func.vmap(make())(tensor(2)), lambda: make()(fake),
            lambda: make()(tensor(2).to_sparse()),
        ):  # fmt: skip
            with pytest.raises(InputError, match="whose values are in memory"):
                call()


# ---------------------------------------------------------------------------------- compilation


@pytest.fixture
def compiled():
    torch.compiler.reset()
    yield lambda module, **options: torch.compile(module, backend="aot_eager", **options)
    torch.compiler.reset()


class TestCompile:
    @pytest.mark.parametrize("dynamic", [None, True, False])
    @pytest.mark.long
    def test_the_same_bytes_at_every_batch_size(self, compiled, dynamic):
        def pipeline():
            return v2.Compose([make(IMAGENET), v2.ToDtype(torch.float32, scale=True)])

        eager, fast = pipeline(), compiled(pipeline(), dynamic=dynamic)
        for n in (4, 7, 1, 32, 4):
            assert torch.equal(fast(tensor(n)), eager(tensor(n)))
        assert torch.equal(fast(tensor()), eager(tensor()))

    @pytest.mark.long
    @pytest.mark.parametrize("transform", [RandAugment, TrivialAugmentWide, UniformAugment])
    def test_alone_and_inside_a_function(self, compiled, transform):
        eager, fast = (transform(generator=seeded(5)) for _ in range(2))

        def step(images, labels):
            images, labels = fast(images, labels)
            return images.float().mean(dim=(1, 2, 3)) + labels

        step = compiled(step)
        for n in (3, 8, 5):
            labels = torch.arange(n)
            want = eager(tensor(n)).float().mean(dim=(1, 2, 3)) + labels
            assert torch.allclose(step(tensor(n), labels), want)

    @pytest.mark.long
    def test_in_front_of_a_network(self, compiled):
        body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 26, 2))
        network = nn.Sequential(make(IMAGENET), v2.ToDtype(torch.float32, scale=True), body)
        fast = compiled(copy.deepcopy(network))
        for n in (2, 6):
            assert torch.allclose(fast(tensor(n)), network(tensor(n)), atol=1e-5)
        assert len(list(network.parameters())) == 2

    def test_samples_of_a_compiled_pipeline(self, compiled):
        fast = compiled(v2.Compose([make()]))
        eager = make()
        for label in (1, 2):
            moved, passed = fast(tv_tensors.Image(tensor()), label)
            assert same(moved, eager(tv_tensors.Image(tensor()))) and passed == label


def test_a_shallow_copy_draws_on_the_same_generator():
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    for transform in (
        PolicyTransform(IMAGENET, generator=generator),
        ScheduleTransform(Schedule([(0, IMAGENET)], 5), generator),
    ):
        again = copy.copy(transform)
        assert again == transform and again is not transform and again.generator is generator
    copy.copy(PolicyTransform(IMAGENET, generator=generator))(image)


def test_what_an_image_says_of_itself_stays_whatever_is_drawn():
    """Else a later step turns some of the images upright, and others not."""
    image = Image.new("RGB", (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info = {"exif": exif.tobytes(), "comment": "mine"}
    for mode in ("RGB", "L"):
        given = image.convert(mode)
        given.info = dict(image.info)
        augment = PolicyTransform([[("Invert", 0.5, None)]])
        made = [augment(given) for _ in range(20)]
        assert all(each.info == image.info for each in made)
        assert {ImageOps.exif_transpose(each).size for each in made} == {(20, 40)}


def test_one_pool_of_threads_whatever_the_batches():
    augment = PolicyTransform([[("Invert", 1.0, None)]], threads=5)
    augment(torch.zeros(9, 3, 8, 8, dtype=torch.uint8))
    before = threading.active_count()
    for count in range(2, 9):
        augment(torch.zeros(count, 3, 8, 8, dtype=torch.uint8))
    assert threading.active_count() <= before + 4
    images, told = augment.explained(np.zeros((0, 3, 8, 8), np.uint8))
    assert images.shape == (0, 3, 8, 8) and told == []


def test_numbers_of_numpy_are_numbers():
    assert RandAugment(fill=np.int64(3)).fill == 3
    assert Schedule([(0, IMAGENET)], np.int64(5)).epochs == 5
