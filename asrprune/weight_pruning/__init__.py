"""Weight pruning with many masks over one set of weights.

Works alone, with torch and numpy; it knows neither speech nor a trainer. A layer is one prunable
parameter seen as a matrix, and is pruned in blocks, such as 8x1: 8 outputs of one input. Each block
has the level, of 250, at which it drops out, so that the masks of all sparsities come from one byte
a block. The model's parameters keep their names, and masks are never part of it.
"""
