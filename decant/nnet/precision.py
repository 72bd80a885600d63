"""The precision of a network's matrix products."""

import torch

PRECISIONS = ("auto", "float32", "bfloat16")


def check_precision(precision: str) -> None:
    """Raises ValueError if it is not one of PRECISIONS."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; known are auto, float32 and bfloat16")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products in bfloat16; elsewhere they are many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which matrix products run in this precision; auto: bfloat16 where the hardware has it."""
    wanted = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
