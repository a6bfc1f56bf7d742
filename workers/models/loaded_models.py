"""What one process has in memory of models, and what their passes may cost. Imports torch."""

from typing import Final

import structlog

from workers.child.context import WorkerContext
from workers.child.device import child_index, take_device
from workers.jobs.batching import CostLimit
from workers.models.model_cache import ModelCache
from workers.models.ready_models import ReadyModels
from workers.models.token_cache import TokenCache

log = structlog.get_logger(__name__)

# What a pass may cost, and a first guess of what that takes; the passes themselves tell the rest.
_CPU_MEGAPIXELS: Final = 1.6  # 8 frames of 448 px
_CPU_SECONDS_PER_MEGAPIXEL: Final = 0.6  # of clipbert-mini on two cores
_GPU_MEGAPIXELS: Final = 50.0  # 250 frames of 448 px
_GPU_SECONDS_PER_MEGAPIXEL: Final = 0.005
_CPU_MATCH_CLIPS: Final = 256
_CPU_SECONDS_PER_MATCH_CLIP: Final = 0.008  # of clipbert-mini on two cores
_GPU_MATCH_CLIPS: Final = 4096
_GPU_SECONDS_PER_MATCH_CLIP: Final = 0.0001


class LoadedModels:
    """The models of one process: `context.own(LoadedModels)`.

    Args:
        context: of the process.

    Attributes:
        cache: the models in memory.
        ready: which models answer here, so that nobody waits for a load.
        tokens: the visual tokens of recently asked videos.
        forward_limit: what one CNN forward may cost, in megapixels; lower once memory ran out.
        match_limit: how many (text, clip) pairs are scored in one go.
    """

    def __init__(self, context: WorkerContext) -> None:
        settings = context.settings
        device = take_device(
            settings.device,
            child_index=child_index(),
            finetune_share=settings.finetune_memory_share,
        )
        log.info("device.taken", device=device, child=child_index())
        self.cache = ModelCache(
            context.blobs,
            device=device,
            capacity=settings.models_in_memory,
            folder=settings.model_cache,
        )
        self.ready = ReadyModels(self.cache)
        self.tokens = TokenCache(context.blobs, capacity_bytes=settings.token_cache_bytes)
        is_cpu = device == "cpu"
        self.forward_limit = CostLimit(
            settings.forward_megapixels or (_CPU_MEGAPIXELS if is_cpu else _GPU_MEGAPIXELS),
            seconds_per_cost=_CPU_SECONDS_PER_MEGAPIXEL if is_cpu else _GPU_SECONDS_PER_MEGAPIXEL,
        )
        self.match_limit = CostLimit(
            settings.match_clips or (_CPU_MATCH_CLIPS if is_cpu else _GPU_MATCH_CLIPS),
            seconds_per_cost=_CPU_SECONDS_PER_MATCH_CLIP if is_cpu else _GPU_SECONDS_PER_MATCH_CLIP,
        )
