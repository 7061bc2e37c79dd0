"""Start the ranks of a training on this machine, or on several machines, with torchrun.

torchrun watches the ranks, and ends all of them when one of them has died. Here, ranks that are
told to end have more time to save than torchrun gives them by default.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

from asrprune.base.errors import UserError

GRACE = 240  # seconds for a step and a checkpoint; tools/slurm.sh warns 5 minutes before the end
PORTS = range(20_000, 32_000)  # below the ports that systems use for outgoing connections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where ranks run."""
    parser.add_argument("--world-size", type=int, default=1, help="ranks on each machine")
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument(
        "--rendezvous",
        help="HOST:PORT of one of them, where all can meet: then start the same command on each. "
        "Without it, a Slurm job of so many nodes starts it on all of them",
    )


def check(args: argparse.Namespace) -> None:
    """Check the options that say where ranks run.

    Args:
        args: the options of `add_arguments`.

    Raises:
        UserError: ``--world-size`` or ``--nodes`` is below 1, or ``--rendezvous`` is given for one
            machine.
    """
    for name in ("world_size", "nodes"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: at least 1")
    if args.rendezvous and args.nodes == 1:
        raise UserError(
            f"--rendezvous {args.rendezvous}: is where several machines meet; say how many with "
            "--nodes"
        )


def launch(args: argparse.Namespace, words: Sequence[str]) -> int | None:
    """Start the command ``asrprune WORDS`` once for each rank.

    Args:
        args: the options of `add_arguments`.
        words: the words of the command after ``asrprune``.

    Returns:
        The exit status; None if this process is a rank itself, or is to be the only rank.

    Raises:
        UserError: see `check`; or there are several machines, and neither ``--rendezvous`` nor a
            Slurm job of so many machines.
    """
    check(args)
    if "RANK" in os.environ or args.world_size == args.nodes == 1:
        return None
    if args.nodes == 1:
        return _start_ranks(["--standalone"], args.world_size, words)
    if not args.rendezvous:
        return _start_on_nodes(args.nodes, words)
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={args.rendezvous}", "--rdzv-id=asrprune"]
    return _start_ranks([f"--nnodes={args.nodes}", *meeting], args.world_size, words)


def _start_ranks(launcher: list[str], world_size: int, words: Sequence[str]) -> int:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    launcher = [*launcher, f"--nproc-per-node={world_size}"]
    _give_ranks_time()
    try:
        torchrun([*launcher, "-m", "asrprune.cli", *words])
    except SignalException as error:  # torchrun passed it on, and the ranks have saved and ended
        return 128 + error.sigval
    except ChildFailedError as error:  # the failed rank has printed the reason
        _, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        sys.stderr.write(
            f"asrprune: error: a rank was killed by {name}, and all have ended. If nobody did that "
            "then memory ran out: lower --max-duration. The same command goes on from the last "
            "checkpoint\n"
        )
        return 128 - failure.exitcode
    return 0


def _give_ranks_time() -> None:
    """Make torchrun wait GRACE seconds, not 30, before it kills ranks that were told to end.

    torchrun has no option for this time. If a rank has failed, the other ranks save nothing, and
    torchrun waits 30 seconds.
    """
    from torch.distributed.launcher import api

    class PatientAgent(api.LocalElasticAgent):
        def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM) -> None:
            if self._pcontext:
                self._pcontext.close(death_sig, timeout=GRACE)
            super()._shutdown(death_sig)

    api.LocalElasticAgent = PatientAgent


def _start_on_nodes(nodes: int, words: Sequence[str]) -> int:
    """Start the command on all machines of a Slurm job. The ranks meet on the first machine.

    Returns:
        The exit status.

    Raises:
        UserError: this process is in no Slurm job, or the job has another number of machines.
    """
    job, count = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_NNODES")
    if not job.isdigit() or not shutil.which("srun"):
        raise UserError(
            f"--nodes {nodes}: this is no Slurm job. Start the same command on each machine, with "
            "--rendezvous HOST:PORT of one of them"
        )
    if count != str(nodes):
        raise UserError(f"--nodes {nodes}: the Slurm job has {count} (sbatch --nodes {nodes})")
    names = subprocess.run(
        ["scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", "")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    place = f"{names[0]}:{PORTS[int(job) % len(PORTS)]}"
    tasks = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    tasks.append("--kill-on-bad-exit=1")
    if cores := os.environ.get("SLURM_CPUS_PER_TASK"):  # srun does not take this from the job
        tasks.append(f"--cpus-per-task={cores}")
    command = [sys.executable, "-m", "asrprune.cli", *words, "--rendezvous", place]
    process = subprocess.Popen([*tasks, *command])
    received = []

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        process.terminate()  # on a first SIGINT, srun would only print the state of its tasks

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    status = process.wait()
    if received and status:
        return 128 + received[0]
    return status if status >= 0 else 128 - status
