"""Many runs as one experiment: spaces of settings, studies that survive, pruning, tables.

A study is a folder::

    outputs/sweeps/<name>/
        study.journal      every trial, value and report, appended line by line (Optuna's journal)
        sweep.yaml         the space and what all trials share
        sweep.csv          a row a trial, kept up to date; sweep.txt: the same to read
        0/ 1/ 2/ …         the run folder of each trial (with seeds: 0_seed1/ …)
        history.png …      pictures
        locks/             which trial is being run by a living process

Nothing is imported here: most of it is needed only by the process that sweeps.
"""
