"""Every test starts from the same seed, on one thread."""

import pytest
import torch

# The models are tiny: a second thread makes them slower, on a busy machine thirty times.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
