"""Batches of one language each: whose turn it is, what comes in them, and where they go on."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet

from asrprune.base.errors import UserError
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.monolingual import LanguageSchedule
from asrprune.data_pruning.plan import check_plan
from asrprune.data_pruning.sampler import PruningSampler
from tests.data_pruning.sampling_cases import (
    make_cuts,
    make_options,
    make_sampler,
    names_of,
    on_two_ranks,
    resume,
    train_with_states,
)
from tests.training.command import assert_same

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using DynamicBucketingSampler with an eager"),
    pytest.mark.filterwarnings("ignore:Your 'buffer_size' setting"),
]

SIZES = {"en": 60, "fr": 30, "cy": 10}


def spoken(sizes: dict[str, int] = SIZES) -> CutSet:
    """Cuts of some languages, not in order."""
    cuts = []
    for language, size in sizes.items():
        for cut in make_cuts(size):
            cut = cut.with_id(f"{language}-{cut.id}")
            cut.supervisions[0].language = language
            cuts.append(cut)
    order = np.random.default_rng(0).permutation(len(cuts)).tolist()
    return CutSet.from_cuts(cuts[place] for place in order)


def make(options=None, cuts=None, exponent=0.5, accumulate=1, **values) -> PruningSampler:
    cuts = cuts or spoken()
    turns = LanguageSchedule(CutIndex.from_cuts(cuts), exponent, accumulate, seed=3)
    return make_sampler(cuts, options, turns=turns, **values)


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 30), min_size=1),
    st.floats(0, 1),
)
def test_turns_are_as_often_as_the_hours_say(sizes, exponent):
    turns = LanguageSchedule(CutIndex.from_cuts(spoken(sizes)), exponent, seed=1)
    turns.check()
    hours = turns.seconds
    assert hours.sum() == pytest.approx(turns.index.duration.sum(dtype=float))
    expected = (hours / hours.sum()) ** exponent
    assert turns.shares == pytest.approx(expected / expected.sum())
    draws = [turns.language(1, step) for step in range(400)]
    for number, share in enumerate(turns.shares):
        # five standard deviations
        assert (
            abs(draws.count(number) / 400 - share) < 5 * np.sqrt(share * (1 - share) / 400) + 0.01
        )


def test_a_turn_is_a_pure_function():
    turns, again = (LanguageSchedule(CutIndex.from_cuts(spoken()), seed=seed) for seed in (1, 1))
    other = LanguageSchedule(turns.index, seed=2)
    steps = range(50)
    first = [turns.language(3, step) for step in steps]
    assert first == [again.language(3, step) for step in reversed(steps)][::-1]
    assert first != [turns.language(4, step) for step in steps]
    assert first != [other.language(3, step) for step in steps]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_a_step_is_of_one_language_on_all_ranks(world, accumulate, exponent, ranks_apart):
    samplers = [
        make(exponent=exponent, accumulate=accumulate, rank=rank, world_size=world, epochs=3)
        for rank in range(world)
    ]
    total = float(samplers[0].index.duration.sum(dtype=float))
    for epoch in (0, 1):
        batches = []
        for sampler in samplers:
            sampler.set_epoch(epoch)
            batches.append(list(sampler))
        assert len({len(one) for one in batches}) == 1 and len(batches[0]) % accumulate == 0
        turns, visits, seconds = samplers[0].turns, defaultdict(list), 0.0
        for place, of_ranks in enumerate(zip(*batches, strict=True)):
            language = turns.names[turns.language(epoch, place // accumulate)]
            assert seconds < total or place % accumulate  # and no step too many
            for batch in of_ranks:
                assert {cut.supervisions[0].language for cut in batch} == {language}
                visits[language] += [cut.id for cut in batch]
                seconds += sum(cut.duration for cut in batch)
        assert seconds >= total
        for language, names in visits.items():
            # pass by pass, each of its cuts comes once
            size = SIZES[language]
            assert len(set(names)) == len(names)
            for number in range(-(-len(names) // size)):
                part = names[number * size : (number + 1) * size]
                suffix = f"_pass{number}" if number else ""
                assert all(name.endswith(suffix) for name in part)
                assert len({name.partition("_pass")[0] for name in part}) == len(part)
        if not exponent and world * accumulate < 3:
            assert any(name.endswith("_pass1") for name in visits["cy"])
    first, second = (names_of(sampler) for sampler in (make(), make(seed=4)))
    assert first != second


def test_what_comes_again_is_drawn_anew_and_scored():
    sampler = make(exponent=0.0)
    batches = names_of(sampler)
    cy = [name for batch in batches for name in batch if name.startswith("cy")]
    assert [name.partition("_pass")[0] for name in cy[:10]] != [
        name.partition("_pass")[0] for name in cy[10:20]
    ]
    for batch in batches:
        sampler.update(batch, [2.0] * len(batch), [1] * len(batch), loss_class=12)
    sampler.end_cycle()
    assert sampler.scores.known[sampler.index.utterances_of(cy[:10])].all()
    assert sampler.weights_of(cy) is None
    codes, names = sampler.index.groups["language"]
    assert {names[sampler.index.language_of(name)] for name in cy} == {"cy"}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_after_every_batch(accumulate):
    def begin() -> PruningSampler:
        return make(make_options("easy2hard", stratify_by="language"), accumulate=accumulate)

    batches, states = train_with_states(begin())
    assert len(states) > 40
    for number in range(0, len(states), 5):
        rest, last = resume(begin, states[number])
        assert rest == batches[number + 1 :], number
        assert_same(last, states[-1])


def check_two_ranks(rank: int, folder) -> None:
    def begin() -> PruningSampler:
        return make(make_options("easy2hard"), rank=rank, world_size=2)

    batches, states = train_with_states(begin())
    (folder / f"{rank}.txt").write_text(
        "\n".join(f"{epoch} {names[0].partition('-')[0]}" for epoch, names, *_ in batches)
    )
    middle = len(states) // 2
    rest, last = resume(begin, states[middle])
    assert rest == batches[middle + 1 :]
    assert_same(last["scores"], states[-1]["scores"])


def test_two_ranks_agree_and_resume(tmp_path):
    on_two_ranks(tmp_path, check_two_ranks, tmp_path)
    one, other = ((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    assert one == other and one.count("cy") and one.count("en")


def test_another_number_of_micro_batches_starts_the_epoch_again(caplog):
    _, states = train_with_states(make())
    other = make(accumulate=2)
    other.load_state_dict(states[4])
    iter(other)
    assert other.batches == 0 and "accumulate (1 -> 2) changed" in caplog.text


@pytest.mark.parametrize("strata", [0, 4])
@pytest.mark.parametrize("unit", ["utterances", "seconds"])
def test_stratify_by_a_language_as_much_is_kept_as_of_all(strata, unit):
    """Though one language is much harder than the others."""
    options = make_options("easy", stratify_by="language", strata=strata, unit=unit, max_age=0)
    sampler = make(options)
    codes, names = sampler.index.groups["language"]
    hard = np.where(np.array(names)[codes] == "cy", 100.0, 1.0)
    losses = hard * np.random.default_rng(0).uniform(1, 2, len(codes))
    ids = [cut.id for cut in spoken()]
    sampler.update(ids, losses, [1] * len(ids))
    sampler.set_epoch(1)
    keep, index = sampler.plan.keep, sampler.index
    cost = index.duration if unit == "seconds" else np.ones(len(codes))
    assert abs(cost[keep].sum() - 0.6 * cost.sum()) <= cost.max() / 2 + 1e-3
    if unit == "utterances" and not strata:
        assert {name: int(keep[codes == code].sum()) for code, name in enumerate(names)} == {
            "en": 36, "fr": 18, "cy": 6
        }  # fmt: skip
    count = max(strata, 1)
    parts = index.strata(count, "language")
    assert set(parts.tolist()) == set(range(count * len(names)))
    for part in range(count * len(names)):  # each to less than a cut, and the easiest of them
        mine = np.flatnonzero(parts == part)
        assert set(codes[mine]) == {part // count}
        assert abs(cost[mine][keep[mine]].sum() - 0.6 * cost[mine].sum()) < cost[mine].max()
        assert losses[mine][keep[mine]].max() < losses[mine][~keep[mine]].min()
    if not strata:
        without = make(make_options("easy", strata=0, unit=unit, max_age=0))
        without.update(ids, losses, [1] * len(ids))
        with pytest.raises(UserError, match="keeps no cut of language 'cy'"):
            without.set_epoch(1)


def test_what_cannot_be_is_said():
    no_language = make_cuts(5)
    with pytest.raises(UserError, match="no cut has a language. Set language in"):
        make(cuts=no_language)
    some = CutSet.from_cuts([*spoken(), *no_language])
    with pytest.raises(UserError, match="some cuts do not have a language"):
        make(cuts=some)
    index = CutIndex.from_cuts(no_language)
    with pytest.raises(
        UserError, match=r"stratify_by=language: the training manifest does not give"
    ):
        check_plan(index, make_options("easy", stratify_by="language"))
    with pytest.raises(
        UserError, match=r"stratify_by=language: the rule of policy infobatch is for all cuts"
    ):
        check_plan(CutIndex.from_cuts(spoken()), make_options("infobatch", stratify_by="language"))


def test_a_language_of_which_nothing_is_kept():
    sampler = make(exponent=0.0)
    codes, names = sampler.index.groups["language"]
    sampler.plan.keep[codes == names.index("cy")] = False
    with pytest.raises(UserError, match="epoch 0: language 'cy' gives no batch"):
        list(sampler)
