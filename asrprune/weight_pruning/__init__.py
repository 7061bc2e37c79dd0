"""Weight pruning with many masks over one set of weights.

Works alone, with torch and numpy; it knows neither speech nor a trainer. A layer is one prunable
parameter seen as a matrix, and is pruned in blocks, such as 8x1: 8 outputs of one input. Each block
has the level, of 250, at which it drops out, so that the masks of all sparsities come from one byte
a block. The model's parameters keep their names, and masks are never part of it. In a training loop
of one's own, for any model, with two sub-networks of its weights::

    block = parse_block("8x1")
    layers = {layer.name: layer for layer in find_layers(model, block, exclude=["head.*"])}
    bank = MaskBank(model, list(layers.values()), block)
    optimizer = GatedOptimizer(
        torch.optim.AdamW(model.parameters()),
        {name: (model.get_parameter(name), layer) for name, layer in layers.items()}, block,
    )
    for step, batch in enumerate(batches):
        if step % 100 == 0:
            bank.refresh()
        optimizer.zero_grad()
        for sparsity in (0.5, 0.8):
            with bank.apply(sparsity):
                compute_loss(model, batch).backward()
        optimizer.step(bank.union(0.5, 0.8))

Afterwards ``pack(model.state_dict(), bank, 0.8)`` is a sub-network by itself. A checkpoint holds
the state dicts of model, bank and optimizer.
"""
