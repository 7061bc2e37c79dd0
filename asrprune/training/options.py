"""Define the options of the training loop (standard library only)."""

from dataclasses import dataclass

from asrprune.base.errors import UserError
from asrprune.base.options import REBATCH, RESUMABLE, option


@dataclass
class OptimizerOptions:
    """Set AdamW and its schedule, in units of progress (0 at the start, 1 at the planned end)."""

    lr: float = option(1e-3, minimum=0)  # the peak learning rate
    betas: list[float] = option(factory=lambda: [0.9, 0.98])
    eps: float = option(1e-9, minimum=0)
    weight_decay: float = option(1e-2, minimum=0)  # not on biases and norms
    schedule: str = option("cosine", choices=("cosine", "linear", "constant"))
    warmup: float = option(0.05, minimum=0, maximum=1)  # share of the training with a rising rate
    final_lr: float = option(0.02, minimum=0, maximum=1)  # final rate as a share of the peak
    clip_norm: float = option(5.0, minimum=0)  # highest norm of the whole gradient; 0: no clipping


@dataclass
class TrainingOptions:
    """Set the start, the length, the precision and the output of a training."""

    # averaged.pt, epoch-N.pt or checkpoint-N.pt of a trained model to start from; empty: none
    init_from: str = ""
    # A trained model. The training also learns from the scores of its encoder. Empty: none. On a
    # resume, the path may be another one.
    teacher: str = option("", change=RESUMABLE)
    # factor of the divergence from the teacher in the loss
    teacher_scale: float = option(0.1, minimum=0)
    # modules that keep their weights, such as encoder.layers.0, or patterns of parameters' names
    freeze: list[str] = option(factory=list)
    # LoRA (arXiv 2106.09685): the matrices that weight_pruning.include names are frozen, and a
    # change of this rank is trained for each of them; 0: no LoRA
    lora_rank: int = option(0, minimum=0)
    epochs: int = option(30, change=RESUMABLE, minimum=1)
    optimizer: OptimizerOptions = option(factory=OptimizerOptions)
    precision: str = option("float32", choices=("float32", "bfloat16", "float16"))
    grad_accumulation: int = option(1, change=REBATCH, minimum=1)  # micro-batches of a step
    average_period: int = option(100, minimum=1)  # steps between updates of the averaged model
    device: str = option("auto", change=RESUMABLE, choices=("auto", "cpu", "cuda"))
    threads: int = option(0, change=RESUMABLE, minimum=0)  # CPU threads per rank; 0: torch chooses
    deterministic: bool = option(False, change=RESUMABLE)  # bit-exact resume on a GPU, but slower
    log_interval: int = option(50, change=RESUMABLE, minimum=1)  # steps
    checkpoint_interval: int = option(1000, change=RESUMABLE, minimum=1)  # steps
    keep_checkpoints: int = option(2, change=RESUMABLE, minimum=1)  # number of checkpoint-N.pt
    oom_scan: bool = option(False, change=RESUMABLE)  # try the largest batches before the start

    def check(self, prefix: str) -> None:
        """Check that the options of a teacher go together.

        Args:
            prefix: the text before an option's name in messages, such as ``training.``.

        Raises:
            UserError: ``teacher_scale`` is set without a teacher, or is 0 with one.
        """
        if not self.teacher and self.teacher_scale != TrainingOptions.teacher_scale:
            raise UserError(
                f"{prefix}teacher_scale={self.teacher_scale:g}: is for {prefix}teacher. Name a "
                "teacher, or leave the scale out"
            )
        if self.teacher and not self.teacher_scale:
            raise UserError(
                f"{prefix}teacher_scale=0: nothing would be learnt from {prefix}teacher. Leave the "
                "teacher out, or set a larger scale"
            )
