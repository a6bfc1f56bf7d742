"""Find times that their neighbours contradict, and better ones: pure, no file."""

import numpy as np
from numpy.typing import NDArray

Ticks = NDArray[np.int64]

# No codec decodes a frame more than 16 others before it is shown.
MAX_REORDERED = 16
# Of so few packets none can be told from the others.
_FEWEST_PACKETS = 3
_NEIGHBOURS = 24
_MAX_FLAGGED = 64


# So many stamps in a row may be damaged.
_MAX_LEAVING = 16


def leaving(off_line: Ticks, threshold: int) -> NDArray[np.bool_]:
    """Find the stamps that leave a line to which those after them return.

    Pauses, joints and holes shift all that comes after; only damage comes back to where it was.

    Args:
        off_line: int64 (N,), of each stamp from where an even clock would be.
        threshold: what is no more than this is jitter.
    """
    is_leaving = np.zeros(len(off_line), dtype=bool)
    starts = [0, *(np.flatnonzero(np.abs(np.diff(off_line)) > threshold) + 1).tolist()]
    run = 0
    while run < len(starts) - 2:
        away = starts[run + 1]
        level = off_line[away - 1]
        for back in range(run + 2, len(starts)):
            if starts[back] - away > min(_MAX_LEAVING, len(off_line) // 2):
                run += 1
                break
            if abs(off_line[starts[back]] - level) <= threshold:
                is_leaving[away : starts[back]] = True
                run = back
                break
        else:
            run += 1
    return is_leaving


def misplaced(times: Ticks, *, threshold: int) -> tuple[list[int], list[int]]:
    """Find the rows that more packets around them contradict than any codec reorders."""
    late: list[int] = []
    early: list[int] = []
    rows = np.arange(len(times))
    while len(late) + len(early) < _MAX_FLAGGED and len(rows) > _FEWEST_PACKETS:
        left = times[rows]
        if np.all(np.diff(left) >= 0):
            break
        num_earlier_after = np.zeros(len(rows), dtype=np.int64)
        num_later_before = np.zeros(len(rows), dtype=np.int64)
        for distance in range(1, min(_NEIGHBOURS, len(rows) - 1) + 1):
            is_later = left[:-distance] > left[distance:]
            num_earlier_after[:-distance] += is_later
            num_later_before[distance:] += is_later
        worst_late, worst_early = int(num_earlier_after.max()), int(num_later_before.max())
        if max(worst_late, worst_early) <= threshold:
            break
        if worst_late >= worst_early:
            place = int(num_earlier_after.argmax())
            late.append(int(rows[place]))
        else:
            place = int(num_later_before.argmax())
            early.append(int(rows[place]))
        rows = np.delete(rows, place)
    return late, early


def lonely(times: Ticks, *, jump: int) -> list[int]:
    """Find the rows that are shown long before all around them, though others come earlier.

    The other way round it may be a long pause: the last frame but one to be decoded is shown last.
    """
    found = []
    for row in (np.flatnonzero(np.diff(times) < -jump) + 1).tolist():
        first = max(0, row - _NEIGHBOURS)
        around = np.delete(times[first : row + _NEIGHBOURS + 1], row - first)
        if times[row] < around.min() - jump:
            found.append(row)
    return found


def fill_in(times: Ticks, damaged: list[int], decoded: Ticks, step: int) -> None:
    """Put damaged frames where one is missing, near the time of their decoding."""
    is_sound = np.ones(len(times), dtype=bool)
    is_sound[damaged] = False
    delay = int(np.median(times[is_sound] - decoded[is_sound])) if is_sound.any() else 0
    taken = np.sort(times[is_sound])
    for row in damaged:
        wanted = int(decoded[row]) + delay
        reach = 2 * MAX_REORDERED * step
        near = taken[
            np.searchsorted(taken, wanted - reach) : np.searchsorted(taken, wanted + reach)
        ]
        holes = near[:-1][np.diff(near) * 2 >= 3 * step] + step
        times[row] = wanted if len(holes) == 0 else holes[np.abs(holes - wanted).argmin()]
        taken = np.insert(taken, np.searchsorted(taken, times[row]), times[row])
