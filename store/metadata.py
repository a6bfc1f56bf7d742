"""All tables, for migrations and for every session: a flush follows foreign keys between rooms."""

from typing import Final

from sqlalchemy import MetaData

from store import api_keys, counts
from store.jobs import tables as jobs
from store.labels import tables as labels
from store.models import tables as models
from store.results import tables as results
from store.table_base import Table
from store.videos import tables as videos

TABLE_MODULES: Final = (api_keys, counts, jobs, labels, models, results, videos)
"""What declares tables: each module's are in the metadata once it is imported."""

metadata: Final[MetaData] = Table.metadata
