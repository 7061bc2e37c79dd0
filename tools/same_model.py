"""Say whether two model files hold the same bits: ``python tools/same_model.py ONE OTHER``."""

import sys

import torch

one, other = (torch.load(path, weights_only=True)["model"] for path in sys.argv[1:])
if one.keys() != other.keys():
    sys.exit(f"the models have other tensors: {sorted(one.keys() ^ other.keys())[:3]}")
if different := [name for name in one if not torch.equal(one[name], other[name])]:
    sys.exit(f"the models differ in {len(different)} tensors, such as {different[:3]}")
sys.stdout.write(f"the models are equal to the bit in all {len(one)} tensors\n")
