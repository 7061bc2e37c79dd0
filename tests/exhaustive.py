"""Tests that run with ``tools/test.sh --exhaustive`` alone.

Each takes long, and a quicker test of its file says nearly as much: of fewer ranks, of another
method, or of one kind of interruption. Before a release all of them run.
"""

EXHAUSTIVE = frozenset(
    f"tests/{name}"
    for name in (
        "rehearsal/test_commonvoice.py"
        "::test_killed_and_resumed_by_one_process_gives_the_same_bytes",
        "rehearsal/test_commonvoice.py::test_a_clip_that_is_missing_is_made_again",
        "export/test_int8.py::test_matrices_have_the_names_of_parameters[conformer]",
        "export/test_int8.py::test_the_texts_are_those_of_sherpa[offline]",
        "export/test_onnx_files.py::test_each_language_by_itself",
        "export/test_onnx_files.py::test_streams_of_any_age_in_one_batch[emformer-options1]",
        "export/test_onnx_files.py::test_streams_of_any_age_in_one_batch[emformer-options2]",
        "export/test_onnx_files.py::test_streams_of_any_age_in_one_batch"
        "[streaming_conformer-options3]",
        "export/test_onnx_files.py::test_what_a_file_holds[conformer]",
        "export/test_onnx_files.py::test_what_a_file_holds[streaming_conformer]",
        "export/test_onnx_files.py::test_what_was_pruned_gradually_is_sparse[averaged.pt]",
        "export/test_pathways_file.py"
        "::test_an_exported_network_names_the_symbols_of_its_language[channel]",
        "export/test_sherpa.py::test_a_whole_utterance",
        "recipes/test_commonvoice.py::test_a_dry_run_of_a_rehearsal_shows_every_command",
        "recipes/test_commonvoice.py::test_a_rehearsal_becomes_cuts_and_a_tokenizer",
        "recipes/test_commonvoice.py::test_pathways_go_on_from_the_dense_model",
        "recipes/test_commonvoice.py::test_a_dry_run_loads_the_configuration",
        "recipes/test_fsdd.py::test_genuine_files_become_cuts",
        "recipes/test_genuine_librispeech.py::test_genuine_files_train",
        "recipes/test_going_on.py::test_fine_tuning_at_tiny_size",
        "recipes/test_new_recipe.py::test_the_guide_in_earnest",
        "compare/pathways/test_compare.py::test_a_seed_is_done_before_the_next",
        "compare/pathways/test_compare.py::test_a_training_begins_when_those_before_it_are_done",
        "compare/pathways/test_compare.py::test_another_beginning_is_refused",
        "compare/pathways/test_compare.py::test_records_are_trusted_where_nobody_needs_the_files",
        "compare/pathways/test_compare.py::test_what_another_one_needs_later",
        "compare/test_compare.py::test_a_half_done_cell_goes_on_with_the_same_training_only",
        "compare/test_compare.py::test_records_count_without_their_folders_where_they_are_trusted",
        "compare/test_compare.py::test_stopped_it_goes_on_from_there[15]",
        "compare/test_compare.py::test_stopped_it_goes_on_from_there[9]",
        "compare/test_compare.py::test_what_comes_after_a_training_is_done_again",
        "compare/weight_pruning/test_compare.py"
        "::test_a_new_sparsity_takes_no_new_training_of_what_has_them_all",
        "compare/test_preparation.py::test_what_is_prepared_is_what_is_trained_on"
        "[egs/commonvoice/ASR/conf/compare_added_language.yaml]",
        "compare/test_preparation.py::test_what_is_prepared_is_what_is_trained_on"
        "[egs/commonvoice/ASR/conf/compare_languages.yaml]",
        "compare/test_preparation.py::test_what_is_prepared_is_what_is_trained_on"
        "[egs/commonvoice/ASR/conf/compare_pathways.yaml]",
        "compare/test_preparation.py::test_what_is_prepared_is_what_is_trained_on"
        "[egs/commonvoice/ASR/conf/compare_pathways_large.yaml]",
        "compare/weight_pruning/test_compare.py::test_a_failed_network",
        "compare/weight_pruning/test_compare.py::test_another_search_takes_no_new_training",
        "training/test_added_language.py::test_a_language_that_is_added_learns[channel-False]",
        "training/test_distributed.py::test_a_rank_that_is_killed",
        "training/test_distributed.py::test_ranks_leave_together[0]",
        "training/test_distributed.py::test_ranks_that_are_told_to_end_have_time_to_save[1-False]",
        "training/test_distributed.py::test_ranks_that_are_told_to_end_have_time_to_save[60-True]",
        "training/test_distributed.py::test_the_machines_of_a_slurm_job",
        "training/test_freezing.py::test_two_ranks",
        "training/test_masked_training.py::test_resume_after_every_step[distilled]",
        "training/test_masked_training.py::test_resume_after_every_step[sandwich]",
        "training/test_masked_training.py::test_resume_after_every_step[supernet]",
        "training/test_pathways.py::test_resume_after_any_step[all]",
        "training/test_pathways.py::test_resume_after_any_step[capped]",
        "training/test_pathways.py::test_resume_after_any_step[sensitivity]",
        "training/test_pathways.py::test_resume_after_any_step[fixed]",
        "training/test_pruned_training.py::test_resume_after_every_batch[0]",
        "training/test_pruned_training.py::test_resume_after_every_batch_on_two_ranks",
        "training/test_resume.py::test_resume_after_every_batch[3]",
        "training/test_train_verb.py::test_run_sh_needs_no_environment",
        "training/test_train_verb.py::test_interrupted_by_a_signal_to_the_process_group[15-143]",
    )
)
