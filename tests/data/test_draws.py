import torch

from fovea.data.draws import Draws, sample_seeds, uniform

# The first outputs of SplitMix64 seeded with 1234567, as published on Rosetta Code.
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_draws_are_splitmix64():
    seeds = torch.tensor([1234567])
    ours = [uniform(seeds, draw).item() for draw in range(1, 6)]
    assert ours == [(number >> 40) / 2**24 for number in PUBLISHED]


def test_draws_of_one_sample_are_splitmix64_too():
    draws = Draws(1234567)
    assert [draws.uniform(0, 1) for _ in range(5)] == [(n >> 11) / 2**53 for n in PUBLISHED]
    draws = Draws(0)
    numbers = [draws.randint(2, 5) for _ in range(4000)]
    assert {n: numbers.count(n) // 800 for n in numbers} == {2: 1, 3: 1, 4: 1, 5: 1}
    assert -3 <= draws.uniform(-3, -2) < -2


def test_draws_are_uniform_and_independent_of_each_other():
    seeds = sample_seeds(0, 3, torch.arange(100_000), torch.zeros(100_000, dtype=torch.int64))
    first, second = uniform(seeds, 1), uniform(seeds, 2)
    for numbers in (first, second):
        counts = torch.histc(numbers, 20, 0, 1)
        # Chi-squared with 19 degrees of freedom: above 43.8 once in a thousand.
        assert ((counts - 5000) ** 2 / 5000).sum() < 43.8
        assert numbers.min() >= 0
        assert numbers.max() < 1
    assert torch.corrcoef(torch.stack([first, second]))[0, 1].abs() < 0.015
    neighbours = torch.stack([first[:-1], first[1:]])
    assert torch.corrcoef(neighbours)[0, 1].abs() < 0.015


def test_seeds_differ_by_run_epoch_sample_and_copy_and_not_by_place():
    indices, copies = torch.arange(1000), torch.zeros(1000, dtype=torch.int64)
    variants = [
        sample_seeds(seed, epoch, indices, copies + copy)
        for seed in (0, 1)
        for epoch in (0, 1)
        for copy in (0, 1)
    ]
    together = torch.cat(variants)
    assert len(together.unique()) == len(together)
    assert together.min() >= 0
    assert torch.equal(sample_seeds(0, 0, indices.flip(0), copies), variants[0].flip(0))
