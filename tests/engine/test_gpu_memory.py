"""Passes that get by with less memory, on functions that raise what torch would."""

import weakref

import pytest
import torch

from resnets.engine.gpu_memory import ForwardPasses, is_out_of_memory, no_memory
from resnets.specs.errors import DeviceError

CUDA = torch.device("cuda")
NO_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GiB, max allowed: 18.13 GiB). Tried to …"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported …"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
)


class Net:
    """Doubles its input, and has memory for so many images."""

    def __init__(self, fits, error=NO_MEMORY[0]):
        self.fits, self.error, self.tried = fits, error, []

    def __call__(self, images):
        self.tried.append(len(images))
        if len(images) > self.fits:
            raise self.error
        return 2 * images.flatten(1)


@pytest.mark.parametrize("error", NO_MEMORY)
@pytest.mark.parametrize("count", [1, 7, 16, 37])
@pytest.mark.parametrize("fits", [1, 3, 16, 100])
def test_every_image_has_its_result_once_and_in_order(count, fits, error):
    images = torch.arange(count, dtype=torch.float32).reshape(count, 1, 1, 1)
    net = Net(fits, error)
    results = ForwardPasses(16, CUDA, "fp32")(net, images)
    torch.testing.assert_close(results, 2 * images.flatten(1))


def test_a_size_that_fitted_is_kept():
    passes, net = ForwardPasses(16, CUDA, "fp32"), Net(5)
    for _ in range(2):
        passes(net, torch.zeros(16, 3, 8, 8))
    assert net.tried == [16, 8, 4, 4, 4, 4] + [4] * 4


def test_one_image_that_does_not_fit_is_an_error_that_says_what_helps():
    images = torch.zeros(4, 3, 448, 512)
    with pytest.raises(
        DeviceError, match=r"memory of cuda .* one image of 448 x 512 px in fp32.*bf16.*--device cpu\.$"
    ):
        ForwardPasses(16, CUDA, "fp32")(Net(0), images)
    for device, precision in ((CUDA, "bf16"), (torch.device("mps"), "fp32")):
        with pytest.raises(DeviceError, match=rf"{device} .* in {precision}\. Give --device cpu\.$"):
            ForwardPasses(16, device, precision)(Net(0), images)


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="shapes"):
        ForwardPasses(16, CUDA, "fp32")(Net(0, RuntimeError("shapes cannot be multiplied")), torch.zeros(4, 3, 8, 8))
    assert not is_out_of_memory(ValueError("MPS backend out of memory"))


def test_what_the_failed_pass_held_is_free_before_the_next():
    held = []

    def forward(images):
        activations = images.clone()
        assert not any(reference() is not None for reference in held[:3])
        held.append(weakref.ref(activations))
        if len(images) > 4:
            raise NO_MEMORY[0]
        return images.flatten(1)

    ForwardPasses(16, CUDA, "fp32")(forward, torch.zeros(16, 1, 2, 2))
    assert len(held) == 6


def test_the_general_error_is_one_line_with_what_torch_says_first():
    error = no_memory(torch.OutOfMemoryError(f"{NO_MEMORY[0]}\nmore"))
    assert "CUDA out of memory. Tried to allocate 2.00 GiB." in str(error)
    assert "total capacity" not in str(error)
    assert "\n" not in str(error)
