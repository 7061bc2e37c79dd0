"""Which parameters are pruned, and what is said of the others."""

import pytest
import torch
import torchaudio
from torch import nn

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.blocks import parse_block
from asrprune.weight_pruning.masks.gated import GatedOptimizer
from asrprune.weight_pruning.masks.prunable import Layer, as_matrix, find_layers, table

EIGHT = parse_block("8x1")


class Zoo(nn.Module):
    """One of each kind."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(16, 8)
        self.stem = nn.Conv2d(1, 8, 3)
        self.point = nn.Conv1d(8, 16, 1)
        self.flat = nn.Conv2d(16, 8, (1, 1), stride=2)
        self.cube = nn.Conv3d(8, 8, 1)
        self.depthwise = nn.Conv1d(8, 8, 5, groups=8)
        self.grouped = nn.Conv1d(8, 8, 1, groups=2)
        self.up = nn.ConvTranspose1d(8, 8, 1)
        self.attention = nn.MultiheadAttention(8, 2)
        self.cross = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True)
        self.lstm = nn.LSTM(8, 8, bidirectional=True, proj_size=4)
        self.cell = nn.GRUCell(8, 8)
        self.norm = nn.LayerNorm((2, 8))
        self.bilinear = nn.Bilinear(4, 4, 8)
        self.table = nn.Parameter(torch.zeros(8, 8))
        self.out = nn.Linear(8, 24)


TAKEN = {
    "point.weight": (16, 8, "convolution"),
    "flat.weight": (8, 16, "convolution"),
    "attention.in_proj_weight": (24, 8, "attention"),
    "attention.out_proj.weight": (8, 8, "linear"),
    "cross.q_proj_weight": (8, 8, "attention"),
    "cross.k_proj_weight": (8, 4, "attention"),
    "cross.v_proj_weight": (8, 6, "attention"),
    "cross.out_proj.weight": (8, 8, "linear"),
    "out.weight": (24, 8, "linear"),
}


def named(layers):
    return {layer.name: (layer.rows, layer.columns, layer.kind) for layer in layers}


def test_each_parameter_by_its_use():
    layers = find_layers(Zoo(), EIGHT)
    assert named(layers) == TAKEN
    order = [name for name, _ in Zoo().named_parameters()]
    assert [order.index(layer.name) for layer in layers] == sorted(
        order.index(name) for name in TAKEN
    )


def test_recurrent_weights_by_option():
    layers = named(find_layers(Zoo(), parse_block("4x1"), recurrent=True))
    added = {name for name in layers if name not in TAKEN}
    assert added == {
        name for name, _ in Zoo().named_parameters() if name.startswith("lstm.weight")
    } | {
        "cell.weight_ih",
        "cell.weight_hh",
    }
    assert layers["lstm.weight_ih_l0"] == (32, 8, "recurrent")
    assert layers["lstm.weight_hr_l0_reverse"] == (4, 8, "recurrent")


def test_every_parameter_in_the_table_with_its_reason():
    module = Zoo()
    layers = find_layers(module, EIGHT, exclude=["out.*"])
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table(module, layers).splitlines()
    ]
    body, totals = rows[2:-2], rows[-2:]
    parameters = {name: p for name, p in module.named_parameters() if p.ndim > 1}
    assert [row[0] for row in body] == list(parameters)
    for name, shape, elements, what in body:
        assert shape.split(" x ") == [str(size) for size in parameters[name].shape]
        assert elements == str(parameters[name].numel())
        assert (
            what == TAKEN[name][2] if name in TAKEN and name != "out.weight" else what[:4] == "no: "
        )
    reasons = {row[0]: row[3].removeprefix("no: ") for row in body}
    assert reasons["out.weight"] == "left out by option"
    assert reasons["words.weight"] == "embedding"
    assert reasons["depthwise.weight"] == "depthwise convolution"
    assert reasons["grouped.weight"] == "grouped convolution"
    assert reasons["stem.weight"] == "convolution of 3 x 3"
    assert reasons["up.weight"] == "transposed convolution"
    assert reasons["norm.weight"] == "normalisation"
    assert reasons["lstm.weight_ih_l0"] == "recurrent, which is pruned by option alone"
    assert reasons["table"] == "table of Zoo, which has no rule"
    assert reasons["cross.bias_k"] == "bias"
    pruned = sum(layer.rows * layer.columns for layer in layers)
    whole = sum(p.numel() for p in module.parameters())
    assert totals[0] == ["pruned: 8 layers", "", f"{pruned:,}", f"{pruned / whole:.1%} of all"]
    assert totals[1][2] == f"{whole:,}"


@pytest.mark.parametrize(
    "module, left_out",
    [
        (torchaudio.models.Conformer(16, 2, 32, 2, 5), ("depthwise",)),
        (torchaudio.models.Emformer(16, 2, 32, 2, 4), ()),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2), ()),
    ],
)
def test_nothing_hides_in_known_encoders(module, left_out):
    layers = find_layers(module, EIGHT)
    matrices = {name for name, p in module.named_parameters() if p.ndim > 1}
    missing = matrices - {layer.name for layer in layers}
    kinds = [type(module.get_submodule(name.rpartition(".")[0])) for name in missing]
    assert kinds == [nn.Conv1d] * len(missing) and (len(missing) == 2) == bool(left_out)
    for layer in layers:
        assert as_matrix(module.get_parameter(layer.name)).shape == layer.shape


def test_a_tied_parameter_counts_once_and_only_if_all_allow_it():
    tied = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8), nn.Embedding(16, 8), nn.Linear(8, 16)])
    tied[1].weight = tied[0].weight
    tied[3].weight = tied[2].weight
    assert named(find_layers(tied, EIGHT)) == {"0.weight": (8, 8, "linear")}
    swapped = nn.ModuleList([nn.Linear(8, 16), nn.Embedding(16, 8), nn.Linear(8, 8)])
    swapped[1].weight = swapped[0].weight
    layers = find_layers(swapped, EIGHT)
    assert [layer.name for layer in layers] == ["2.weight"]
    assert "no: shared with 1.weight: embedding" in table(swapped, layers)
    shared = nn.Linear(8, 8)
    assert len(find_layers(nn.Sequential(shared, nn.ReLU(), shared), EIGHT)) == 1


def test_patterns_choose():
    only = find_layers(Zoo(), EIGHT, include=["cross.*", "out.*"], exclude=["*.[kv]_proj_weight"])
    assert [layer.name for layer in only] == [
        "cross.q_proj_weight",
        "cross.out_proj.weight",
        "out.weight",
    ]
    # to leave out what is left out anyway is no mistake
    assert named(find_layers(Zoo(), EIGHT, exclude=["words.*", "*bias"])) == TAKEN


@pytest.mark.parametrize("option", ["include", "exclude"])
@pytest.mark.parametrize(
    "pattern, near", [("atention.*", "attention.*"), ("out.wieght", "out.weight")]
)
def test_a_pattern_without_match_is_refused_with_the_nearest(option, pattern, near):
    with pytest.raises(UserError) as error:
        find_layers(Zoo(), EIGHT, **{option: ["out.*", pattern]})
    assert f"weight_pruning.{option}={pattern}: " in str(error.value)
    assert f"did you mean {near!r}?" in str(error.value)


def test_what_cannot_be_pruned_is_not_included():
    with pytest.raises(UserError, match=r"include=words\.\*: .*words\.weight \(embedding\)"):
        find_layers(Zoo(), EIGHT, include=["words.*"])


@pytest.mark.parametrize("size", ["8x1", "1x3", "2:4"])
def test_a_block_that_does_not_divide(size):
    module = nn.Sequential(*[nn.Linear(10, 20) for _ in range(7)], nn.Linear(24, 24))
    block = parse_block(size)
    with pytest.raises(UserError) as error:
        find_layers(module, block)
    message = str(error.value)
    assert f"weight_pruning.block={size} does not divide 0.weight (20 x 10), 1.weight" in message
    assert "4.weight (20 x 10) and 2 more; " in message and "7.weight" not in message
    assert ("ragged=pad" in message) == (":" not in size)
    if ":" in size:
        with pytest.raises(UserError, match="does not divide"):
            find_layers(module, block, ragged="pad")
    else:
        assert len(find_layers(module, block, ragged="pad")) == 8
    assert len(find_layers(module, block, include=["7.*"])) == 1


def test_nothing_to_prune_is_refused():
    with pytest.raises(UserError, match="ReLU has no parameter that can be pruned"):
        find_layers(nn.ReLU(), EIGHT)
    with pytest.raises(UserError, match="recurrent=true"):
        find_layers(nn.LSTM(8, 8), EIGHT)
    with pytest.raises(UserError, match="no layer is left of weight; loosen"):
        find_layers(nn.Linear(8, 8), EIGHT, exclude=["*"])
    with pytest.raises(UserError, match="weight has no shape yet"):
        find_layers(nn.LazyLinear(8), EIGHT)


def test_numbers_that_are_not_real_are_left_out():
    module = nn.ModuleList([nn.Linear(8, 8, dtype=torch.complex64), nn.Linear(8, 8)])
    assert find_layers(module, EIGHT) == [Layer("1.weight", 8, 8, "linear", EIGHT)]
    assert "no: of complex64" in table(module, find_layers(module, EIGHT))


def test_no_weights_are_needed():
    assert named(find_layers(Zoo().to("meta"), EIGHT)) == TAKEN


def test_sharded_weights_are_refused(tmp_path):
    """FSDP2 turns parameters into DTensors, here on one rank."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    module = nn.Sequential(nn.Linear(16, 16))
    layers = find_layers(module, EIGHT)
    bank = MaskBank(module, layers)
    distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
        message = "0.weight is a DTensor.*DistributedDataParallel in place of FSDP2"
        with pytest.raises(UserError, match=message):
            find_layers(module, EIGHT)
        with pytest.raises(UserError, match=message):
            bank.refresh()
        optimizer = torch.optim.AdamW(module.parameters())
        with pytest.raises(UserError, match=message):
            GatedOptimizer(optimizer, {"0.weight": (module[0].weight, layers[0])})
    finally:
        distributed.destroy_process_group()
