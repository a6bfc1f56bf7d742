"""Bring the database of STORE_DATABASE_URL to the newest schema: `python -m migrations`."""

from store.database import upgrade_schema
from store.settings import StoreSettings


def main() -> None:
    upgrade_schema(StoreSettings().database_url)


if __name__ == "__main__":
    main()
