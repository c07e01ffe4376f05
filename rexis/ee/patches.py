"""Images as rows of patches and back, so that a key acts on the numbers of each patch and an image stays an image."""

from collections.abc import Callable

from torch import Tensor


def along_patches(images: Tensor, patch: int, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a map to every patch.

    Args:
        images: [..., channels, height, width]; the patch divides height and width.
        transform: of rows [..., channels * patch * patch], the numbers of a patch in the order of a convolution's weight.

    Raises:
        ValueError: another shape.
    """
    if images.ndim < 3 or images.shape[-1] % patch or images.shape[-2] % patch:
        raise ValueError(f"expected images [..., channels, height, width] in patches of {patch} pixels, got shape {list(images.shape)}")
    *batch, channels, height, width = images.shape
    rows, columns = height // patch, width // patch
    split = images.reshape(-1, channels, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    moved = transform(split.reshape(-1, rows, columns, channels * patch * patch))
    return moved.reshape(-1, rows, columns, channels, patch, patch).permute(0, 3, 1, 4, 2, 5).reshape(*batch, channels, height, width)
