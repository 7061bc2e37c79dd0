"""Dynamic data pruning: which utterances, and which parts of them, train in a cycle.

Works alone, with torch, numpy and lhotse. An index numbers the cuts of a manifest; scores are
gathered while training; a policy turns them into a frozen plan for each cycle; the sampler makes
batches of what the plan keeps. In a training loop of one's own, whose ``losses`` are (B,), each
summed over the ``num_tokens`` (B,) of its cut::

    options = DataPruningOptions("infobatch", keep=0.7)
    index = CutIndex.from_cuts(cuts)
    sampler = PruningSampler(
        cuts, index, options, epochs=epochs, duration_bins=bins, max_duration=seconds
    )
    for epoch in range(sampler.epoch, epochs):
        sampler.set_epoch(epoch)
        for batch in DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=workers):
            ids = [cut.id for cut in batch["supervisions"]["cut"]]
            losses, num_tokens = compute_losses(batch)
            sampler.update(ids, losses, num_tokens)
            if (weights := sampler.weights_of(ids)) is not None:
                losses = losses * torch.from_numpy(weights).to(losses)
            take_step(losses)

A checkpoint holds ``sampler.state_dict()``, which ``sampler.load_state_dict`` takes before the
loop. ``cut`` in a batch of lhotse's is due to ``return_cuts=True`` of its datasets.
"""
