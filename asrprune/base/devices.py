"""The device that a command works on, and which of a GPU's kernels it takes there."""

import torch

from asrprune.base.errors import UserError


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU if there is one.

    Raises:
        UserError: no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: {reason}; use auto, cpu, cuda or cuda:N") from error
    return _ready_for_all_shapes(device)


def device_of_rank(wanted: str, local_rank: int) -> torch.device:
    """The GPU of a rank among those of its machine, or the CPU for all of them.

    Args:
        wanted: ``training.device``: auto, cpu or cuda.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("training.device=cuda, but torch sees no GPU; `asrprune doctor` tells more")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"--world-size asks for GPU number {local_rank + 1} of this machine, which has "
            f"{torch.cuda.device_count()}"
        )
    torch.cuda.set_device(local_rank)
    return _ready_for_all_shapes(torch.device("cuda", local_rank))


def _ready_for_all_shapes(device: torch.device) -> torch.device:
    """No attention by cuDNN: it builds a plan for every new shape, and each batch has its own.

    Measured on an H100 with a Conformer of 12 layers: 2.4 s for a step of a new shape, 0.12 s for
    the same one again, and 0.15 s for any with the kernels that PyTorch brings.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
    return device
