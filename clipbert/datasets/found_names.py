"""Call each video by one name, however the lines of a data set write it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from clipbert.datasets.annotation_files import AnnotationFile
from clipbert.errors import VideoError


def found_names(written: Iterable[str], find: Callable[[str], str]) -> dict[str, str]:
    """Return the name of each video that is found, by what is written; what is not found stays.

    Args:
        written: what names the videos.
        find: the name under which a video goes; raises a VideoError where none is found.
    """
    names = {}
    for each in set(written):
        try:
            names[each] = find(each)
        except VideoError:
            names[each] = each
    return names


def with_names(file: AnnotationFile, names: Mapping[str, str]) -> AnnotationFile:
    """Return a file whose lines call the videos by these names."""
    annotations = tuple(
        each
        if names[each.video] == each.video
        else dataclasses.replace(each, video=names[each.video])
        for each in file.annotations
    )
    return dataclasses.replace(file, annotations=annotations)


def as_found(file: AnnotationFile, find: Callable[[str], str]) -> AnnotationFile:
    """Return a file whose lines call each video that is found by the name under which it goes."""
    return with_names(file, found_names((each.video for each in file.annotations), find))
