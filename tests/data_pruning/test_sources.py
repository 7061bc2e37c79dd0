"""Keep-sets follow ids, in every way that lhotse makes a CutSet; or the CutSet is refused."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet, load_manifest_lazy
from lhotse.cut import MonoCut
from lhotse.shar import SharWriter
from lhotse.testing.dummies import dummy_recording

from asrprune.base.errors import UserError
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.kept import KeptCuts
from asrprune.data_pruning.sampler import PruningSampler
from asrprune.data_pruning.sources import read_in_order
from tests.data_pruning.sampling_cases import (
    BINS,
    make_cut,
    make_cuts,
    make_options,
    make_sampler,
    names_of,
    resume,
    train,
    train_with_states,
)

COUNT = 40
pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using DynamicBucketingSampler with an eager"),
]


def _parts(folder: Path) -> list[Path]:
    paths = []
    for number, part in enumerate(make_cuts(COUNT).split(4)):
        paths.append(folder / f"part-{number}.jsonl.gz")
        part.to_file(paths[-1])
    return paths


def _shar(folder: Path) -> Path:
    if not (folder / "shar").exists():
        (folder / "shar").mkdir()
        with SharWriter(folder / "shar", fields={}, shard_size=7) as writer:
            for cut in make_cuts(COUNT):
                writer.write(cut)
    return folder / "shar"


def _lazy(folder: Path) -> CutSet:
    path = folder / "all.jsonl.gz"
    make_cuts(COUNT).to_file(path)
    return load_manifest_lazy(path)


def _halves(folder: Path) -> list[CutSet]:
    return [CutSet.from_jsonl_lazy(path) for path in _parts(folder)]


WAYS: dict[str, Callable[[Path], CutSet]] = {
    "in memory": lambda folder: make_cuts(COUNT),
    "shuffled in memory": lambda folder: make_cuts(COUNT).shuffle(),
    "lazy": _lazy,
    "from_files": lambda folder: CutSet.from_files(_parts(folder)),
    "from_files with a seed": lambda folder: CutSet.from_files(_parts(folder), seed=5),
    "lazy shuffle": lambda folder: _lazy(folder).shuffle(buffer_size=15),
    "lazy shuffle, own generator": lambda folder: _lazy(folder).shuffle(
        rng=random.Random(3), buffer_size=15
    ),
    "shar": lambda folder: CutSet.from_shar(in_dir=_shar(folder)),
    "shuffled shar": lambda folder: CutSet.from_shar(in_dir=_shar(folder), shuffle_shards=True),
    "randomized shar": lambda folder: CutSet.from_shar(
        in_dir=_shar(folder), shuffle_shards=True, seed="randomized"
    ),
    "mux": lambda folder: CutSet.mux(*_halves(folder), weights=[1, 2, 3, 4]),
    "randomized mux": lambda folder: CutSet.mux(*_halves(folder), seed="randomized"),
    "combined": lambda folder: _halves(folder)[0] + CutSet.from_files(_parts(folder)[1:]),
    "filtered": lambda folder: CutSet.from_files(_parts(folder)).filter(lambda cut: True),
    "mapped": lambda folder: _lazy(folder).shuffle().map(lambda cut: cut),
    "repeated": lambda folder: CutSet.from_files(_parts(folder)).repeat(times=2),
}


@pytest.fixture(params=list(WAYS))
def make(request, tmp_path) -> Callable[[], CutSet]:
    """A new CutSet at each call, as a training that is started again makes it."""
    return lambda: WAYS[request.param](tmp_path)


def _difficulty(name: str) -> float:
    return 1.0 + int(name.split("-")[1][:3])


def test_easy_ones_are_kept_whatever_the_order(make):
    """Losses are known difficulties; "easy" keeps the lower half of them, in every cycle."""
    options = make_options("easy", keep=0.5, unit="utterances", strata=0, max_age=0, detrend=False)
    sampler = make_sampler(make(), options)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        seen = []
        for batch in sampler:
            names = [cut.id for cut in batch]
            sampler.update(names, [_difficulty(name) for name in names], [0] * len(names))
            seen += names
        assert len(seen) == len({*seen})
        if epoch in (1, 2, 3):
            kept = {name.split("_")[0] for name in seen}
            assert kept == {f"cut-{number:03d}" for number in range(COUNT // 2)}
        else:
            assert {name.split("_")[0] for name in seen} == {cut.id for cut in make_cuts(COUNT)}


def test_a_restart_finds_its_place_whatever_the_order(make, request):
    """With another state of the global generators, as another process has."""

    def sampler() -> PruningSampler:
        random.seed(len(made)), torch.manual_seed(len(made)), np.random.seed(len(made))
        made.append(1)
        return make_sampler(make(), make_options("orderdp"))

    made: list[int] = []
    if "shuffled in memory" in request.node.name:  # by the user, in another way in each process
        state = sampler().state_dict()
        with pytest.raises(UserError, match="belong to another training manifest"):
            sampler().load_state_dict(state)
        return
    batches, states = train_with_states(sampler())
    for number in (2, len(batches) // 2, len(batches) - 2):
        rest, _ = resume(sampler, states[number])
        assert rest == batches[number + 1 :]


def test_ranks_share_out_what_is_kept_whatever_the_order(make, ranks_apart, request):
    if "shuffled in memory" in request.node.name:
        return  # `set_epoch` compares the ranks' indices, and refuses
    found = []
    for rank in (0, 1):
        random.seed(rank)
        sampler = make_sampler(make(), make_options(), rank=rank, world_size=2)
        sampler.set_epoch(1)
        found += [name for batch in names_of(sampler) for name in batch if "_dup" not in name]
    assert len(found) == len({*found}) == sampler.num_cuts


def test_epochs_of_a_shuffled_set_differ(tmp_path):
    """Each epoch has an order of its own, which global generators do not change."""
    cuts = _lazy(tmp_path).shuffle(buffer_size=15)
    orders = {}
    for epoch in (0, 1, 0):
        state = random.getstate()
        ids = [cut.id for piece in read_in_order(cuts, seed=7, epoch=epoch) for cut in piece]
        assert random.getstate() == state
        assert orders.setdefault(epoch, ids) == ids
        random.random()
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


REFUSED = {
    "endless": (lambda cuts: cuts.repeat(), "have no end"),
    "infinite mux": (lambda cuts: CutSet.infinite_mux(cuts, cuts), "have no end"),
    "drawn by the machine": (lambda cuts: CutSet.mux(cuts, cuts, seed="trng"), 'seed="trng"'),
    "endless below a filter": (lambda cuts: cuts.repeat().filter(bool).shuffle(), "have no end"),
}


@pytest.mark.parametrize("way", REFUSED)
def test_what_cannot_be_planned_is_refused(way, tmp_path):
    change, message = REFUSED[way]
    cuts = change(_lazy(tmp_path))
    with pytest.raises(UserError, match=message):
        CutIndex.from_cuts(cuts)
    with pytest.raises(UserError, match=message):
        KeptCuts(cuts, CutIndex.from_cuts(make_cuts(COUNT)))


def test_parts_of_ranks_are_not_split_twice(tmp_path):
    cuts = CutSet.from_shar(in_dir=_shar(tmp_path), split_for_dataloading=True)
    index = CutIndex.from_cuts(cuts)
    KeptCuts(cuts, index)
    with pytest.raises(UserError, match="split_for_dataloading=False"):
        KeptCuts(cuts, index, world_size=2)


def test_other_cuts_than_those_of_the_index_are_refused(tmp_path):
    """As many, and others: in memory, of a file, and of a set without a fixed order."""
    others = CutSet.from_cuts(
        make_cut(f"other-{number:03d}" if number == 17 else cut.id, cut.duration)
        for number, cut in enumerate(make_cuts(COUNT))
    )
    others.to_file(tmp_path / "others.jsonl.gz")
    index = CutIndex.from_cuts(make_cuts(COUNT))
    with pytest.raises(UserError, match="'other-017' comes out of the training CutSet"):
        KeptCuts(others, index)
    lazy = load_manifest_lazy(tmp_path / "others.jsonl.gz")
    with pytest.raises(UserError, match=r"others.jsonl.gz: cut 18 is 'other-017'"):
        list(KeptCuts(lazy, index))
    with pytest.raises(UserError, match="'other-017' comes out of the training CutSet"):
        list(KeptCuts(lazy.shuffle(), index))


def test_new_ids_at_each_iteration_are_refused(tmp_path):
    """Mixing gives each result a random id, unless it is told not to."""

    def with_audio(cut: MonoCut) -> MonoCut:
        cut.recording = dummy_recording(0, duration=10.0)
        return cut

    noise = CutSet.from_cuts([with_audio(make_cut("noise", 3.0))])
    mixed = _lazy(tmp_path).map(with_audio).mix(noise, mix_prob=0.5, preserve_id="left")
    options = make_options("easy2hard")
    assert len(list(train(make_sampler(mixed, options)))) > 10
    new = _lazy(tmp_path).map(with_audio).mix(noise, mix_prob=0.5)
    index = CutIndex.from_cuts(make_cuts(COUNT))
    sampler = PruningSampler(new, index, options, epochs=5, duration_bins=BINS, max_duration=20.0)
    with pytest.raises(UserError, match="mix without preserve_id"):
        list(sampler)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("end", ["", "\n", "\n\n \n"])
def test_a_manifest_may_end_and_pause_as_it_likes(end, compressed, tmp_path):
    """Without a last newline, and with empty lines anywhere."""
    cuts = make_cuts(COUNT)
    cuts.to_file(tmp_path / "plain.jsonl")
    lines = (tmp_path / "plain.jsonl").read_text().splitlines()
    lines[5:5] = ["", "  "]
    path = tmp_path / ("odd.jsonl.gz" if compressed else "odd.jsonl")
    text = ("\n".join(lines) + end).encode()
    if compressed:
        text = gzip.compress(text)
    path.write_bytes(text)
    options = make_options("easy2hard")
    lazy = load_manifest_lazy(path)
    sampler = PruningSampler(
        lazy, CutIndex.from_manifest(path), options, epochs=5, duration_bins=BINS,
        max_duration=20.0, seed=3,
    )  # fmt: skip
    assert list(train(sampler)) == list(train(make_sampler(cuts, options)))


def test_a_changed_order_is_found_out():
    """A source that ignores all seeds: after a restart the first batches are others."""
    options = make_options("random")
    _, states = train_with_states(make_sampler(make_cuts(), options))
    state = next(state for state in states if state["epoch"] == 2 and state["batches"] == 3)
    sampler = make_sampler(make_cuts().sort_by_duration(), options)
    sampler.index = CutIndex.from_cuts(make_cuts())
    sampler._drawing._kept._lines = sampler.index.find_cuts(
        [cut.id for cut in make_cuts().sort_by_duration()]
    )
    sampler.load_state_dict(state)
    with pytest.raises(UserError, match="first 3 batches of this epoch differ from those before"):
        list(sampler)
