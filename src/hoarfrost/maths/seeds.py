"""Named random generators: everything random in a run follows from one seed."""

import hashlib

import torch


def named_generator(seed: int, name: str) -> torch.Generator:
    """A generator that depends on the seed and on what it is for, so that no draw disturbs another."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def generator_at(state: torch.Tensor) -> torch.Generator:
    """A generator that goes on from the state (bytes,) uint8 of another."""
    generator = torch.Generator()
    generator.set_state(state)
    return generator
