"""Print versions, devices and the loss backend, and advice on missing parts."""

import argparse
import importlib
import sys

from asrprune.base.environment import git_state, machine, usable_cores, versions

# module of an optional extra -> the features that need the module
OPTIONAL = dict.fromkeys(("espeakng_loader", "num2words"), "rehearsals")
OPTIONAL |= dict.fromkeys(("onnx", "onnxruntime", "onnxscript", "sherpa_onnx"), "exports")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no options: ``asrprune doctor`` has none."""


def main(_: argparse.Namespace) -> int:
    """Print the report, and return the exit status: 1 if training would not work, else 0."""
    found, advice = versions(), []
    lines = [f"{name:<14} {version}" for name, version in found.items()]
    lines += [f"{name:<14} {text}" for name, text in machine().items()]
    if state := git_state():
        lines.append(f"{'commit':<14} {state}")
    broken = [name for name in ("torch", "torchaudio", "lhotse") if not _imports(name, advice)]
    if "torch" not in broken:
        lines += _devices(advice)
        lines += _loss_backend(advice)
    for module, use in OPTIONAL.items():
        if not _imports(module, []):
            advice.append(f"{module} is missing; {use} need it: bash tools/setup_env.sh")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.writelines(f"-> {text}\n" for text in advice)
    sys.stdout.write("not ready to train\n" if broken else "ready to train\n")
    return 1 if broken else 0


def _imports(module: str, advice: list[str]) -> bool:
    try:
        importlib.import_module(module)
    except Exception as error:  # a mismatched binary wheel may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        advice.append(f"{module} does not import: {reason}")
        if module == "torchaudio":
            advice.append("install torch and torchaudio of one release and build")
        return False
    return True


def _devices(advice: list[str]) -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return [f"{'device':<14} cpu, {torch.get_num_threads()} threads on {usable_cores()} cores"]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if not torch.cuda.is_bf16_supported():
        advice.append("this GPU has no bfloat16: use training.precision=float16")
    return [f"{'device':<14} cuda:{index} {name}" for index, name in enumerate(names)]


def _loss_backend(advice: list[str]) -> list[str]:
    from asrprune.transducer.k2_backend import k2_available

    there, reason = k2_available()
    if there:
        return [f"{'loss backend':<14} k2"]
    advice.append(
        f"k2: {reason}. Everything but fast_beam_search works without it; for its faster loss on "
        "a GPU: bash tools/install_k2.sh"
    )
    return [f"{'loss backend':<14} torch"]
