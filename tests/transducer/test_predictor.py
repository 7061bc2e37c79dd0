"""Step by step equals the whole transcript; selected states go on as their hypotheses would."""

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.transducer.predictor import lstm, stateless

VOCAB = 11
torch.set_num_threads(1)
MAKERS = {
    "stateless-1": lambda: stateless(VOCAB, dim=8, context_size=1),
    "stateless-2": lambda: stateless(VOCAB, dim=8, context_size=2),
    "stateless-4": lambda: stateless(VOCAB, dim=6, context_size=4),
    "lstm": lambda: lstm(VOCAB, dim=8, num_layers=2),
}


@pytest.fixture(params=MAKERS)
def predictor(request):
    torch.manual_seed(0)
    return MAKERS[request.param]().eval()


@torch.no_grad()
def test_steps_equal_forward(predictor):
    y = torch.randint(1, VOCAB, (3, 7))
    whole = predictor(y)
    assert whole.shape == (3, 8, predictor.output_dim)
    out, state = predictor.step(None, predictor.initial_state(3, y.device))
    torch.testing.assert_close(out, whole[:, 0])
    for s in range(7):
        out, state = predictor.step(y[:, s], state)
        torch.testing.assert_close(out, whole[:, s + 1])


@torch.no_grad()
def test_a_position_has_not_seen_its_future(predictor):
    y = torch.randint(1, VOCAB, (2, 6))
    changed = y.clone()
    changed[:, 4:] = (changed[:, 4:] + 3) % VOCAB
    torch.testing.assert_close(predictor(y)[:, :5], predictor(changed)[:, :5])
    assert not torch.allclose(predictor(y)[:, 5:], predictor(changed)[:, 5:])


@torch.no_grad()
def test_selected_states_go_on(predictor):
    y = torch.randint(1, VOCAB, (3, 5))
    _, state = predictor.step(None, predictor.initial_state(3, y.device))
    for s in range(4):
        _, state = predictor.step(y[:, s], state)
    index = torch.tensor([2, 0, 2, 1])
    out, _ = predictor.step(y[index, 4], predictor.select(state, index))
    torch.testing.assert_close(out, predictor(y)[index, -1])


@torch.no_grad()
def test_empty_transcripts(predictor):
    out = predictor(torch.zeros(2, 0, dtype=torch.int64))
    start, _ = predictor.step(None, predictor.initial_state(2, out.device))
    torch.testing.assert_close(out[:, 0], start)


@torch.no_grad()
def test_stateless_sees_its_context_only_and_starts_from_nothing_then_blank():
    predictor = stateless(VOCAB, dim=8, context_size=2)
    assert predictor.initial_state(1, torch.device("cpu")).tolist() == [[-1, 0]]
    y = torch.randint(1, VOCAB, (1, 6))
    other = y.clone()
    other[0, 0] = y[0, 0] % (VOCAB - 1) + 1
    torch.testing.assert_close(predictor(y)[:, 3:], predictor(other)[:, 3:])
    # -1 embeds as zeros, not as the last row
    predictor.embedding.weight[-1] += 1.0
    by_hand = predictor.conv.weight[:, :, 1] @ predictor.embedding.weight[0, :4]
    assert predictor.conv.groups == 2
    by_hand[4:] = predictor.conv.weight[4:, :, 1] @ predictor.embedding.weight[0, 4:]
    torch.testing.assert_close(predictor(y)[0, 0], by_hand.relu())


def test_impossible_sizes_are_user_errors():
    with pytest.raises(UserError):
        stateless(VOCAB, context_size=0)
    with pytest.raises(UserError):
        lstm(VOCAB, num_layers=0)
