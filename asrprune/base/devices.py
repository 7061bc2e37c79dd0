"""Choose the device of a command, and the attention kernels of a GPU."""

import torch

from asrprune.base.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device with a name. ``auto`` is the GPU if there is a GPU, otherwise the CPU.

    Args:
        name: auto, cpu, cuda or cuda:N.

    Raises:
        UserError: the device does not exist.
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
    """Return the GPU of a rank, or the CPU.

    Args:
        wanted: ``training.device``: auto, cpu or cuda.
        local_rank: number of the rank among the ranks of its machine, from 0.

    Raises:
        UserError: a GPU is requested, and the machine has no GPU for this rank.
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
    """Switch off the attention of cuDNN on a GPU, and return the device.

    cuDNN builds a plan for every new shape, and each batch has a new shape. Measured on an H100
    with a Conformer of 12 layers: 2.4 s for a step with a new shape, 0.12 s for a step with a known
    shape. With PyTorch's own kernels, every step takes 0.15 s.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
    return device
