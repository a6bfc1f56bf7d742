"""Which instants of a video to look at: pure, no pixels.

With a generator the same plans sample for training: at random, each draw from that generator.
"""

import random

from clipbert.sampling.authors import plan_authors_clips
from clipbert.sampling.plan import Clip, SamplingPlan
from clipbert.sampling.segments import plan_segment_clips
from clipbert.video.probed_video import VideoProbe


def plan_clips(
    probe: VideoProbe,
    plan: SamplingPlan,
    *,
    generator: random.Random | None = None,
    window: tuple[float, float] | None = None,
) -> list[Clip]:
    """Choose the instants of one video to look at.

        plan_clips(probe of 12 s, SamplingPlan(num_clips=3, frames_per_clip=2, clip_seconds=2.0))
        ->  instants (1, 3), (5, 7), (9, 11)

    Args:
        probe: the video, from probe_video.
        plan: how to place the clips.
        generator: None for the plan's fixed instants; for training, the source of every draw.
            `segments` and `keyframes` draw each clip within its segment; `authors` draws each
            clip anywhere, so clips may overlap and are not in order.
        window: seconds from where to where clips are placed, as if the video were no longer;
            None: in all of the video. Nothing is placed in the probe's gaps: segments tile what
            is between them.

    Returns:
        The clips, by index.

    Raises:
        NoFrameCount: the `authors` plan, and the header lacks what its formula divides by.
        OutsideVideo: the window lies in a gap.
        FrameNotFound: the `authors` plan, and no frame lies in the window that it computes.
        ValueError: the `authors` plan, and the probe came from JSON, without frame timestamps.

    Source: Lei et al., ClipBERT, CVPR 2021, section 3, and its code. The paper's clips are placed
    by frame counts from the header; ours by timestamps, which every container has.
    """
    place = plan_authors_clips if plan.name == "authors" else plan_segment_clips
    return place(probe, plan, generator=generator, window=window)
