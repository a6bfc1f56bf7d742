"""The size of a frame whose longer side is given; the shorter one is truncated.

The arithmetic is that of the authors' code: the ratio first, then the product, then int().
"""


def fitted_size(height: int, width: int, max_side_px: int) -> tuple[int, int]:
    """Return the (height, width) whose longer side is max_side_px, enlarging if need be.

    fitted_size(449, 448, 448)  ->  (448, 447)
    """
    if height >= width:
        return max_side_px, max(1, int(max_side_px * (width / height)))
    return max(1, int(max_side_px * (height / width))), max_side_px


def shrunk_size(height: int, width: int, max_side_px: int) -> tuple[int, int]:
    """As fitted_size, but a frame that is small enough keeps its size."""
    if max(height, width) <= max_side_px:
        return height, width
    return fitted_size(height, width, max_side_px)
