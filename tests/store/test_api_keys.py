import re

from sqlalchemy import text

from store.api_keys import ApiKeyRepository


def test_a_key_opens_and_is_not_kept_in_plain(sessions):
    with sessions.begin() as session:
        plain = ApiKeyRepository(session).create("clipbert up")

    with sessions.begin() as session:
        found = ApiKeyRepository(session).verify(plain)
        stored = session.execute(text("SELECT api_keys::text FROM api_keys")).scalar_one()
    assert re.fullmatch(r"cb_[0-9A-Za-z]{40}", plain)
    assert found.name == "clipbert up"
    assert plain.startswith(found.prefix)
    assert plain not in stored


def test_other_keys_open_nothing(sessions):
    with sessions.begin() as session:
        keys = ApiKeyRepository(session)
        plain = keys.create("a")

        for wrong in ("", plain[:-1], plain.swapcase(), plain + "\n", "ключ", "\ud800"):
            assert keys.verify(wrong) is None


def test_a_key_that_is_over_opens_nothing(sessions):
    with sessions.begin() as session:
        keys = ApiKeyRepository(session)
        plain = keys.create("a")
        session.execute(text("UPDATE api_keys SET expires_at = now() - interval '1 second'"))

        assert keys.verify(plain) is None


def test_a_revoked_key_opens_nothing_and_stays_listed(sessions):
    with sessions.begin() as session:
        keys = ApiKeyRepository(session)
        plain, other = keys.create("a"), keys.create("b")
        key_id = keys.verify(plain).id

    with sessions.begin() as session:
        keys = ApiKeyRepository(session)
        assert [keys.revoke(key_id), keys.revoke(key_id)] == [True, False]

    with sessions.begin() as session:
        keys = ApiKeyRepository(session)
        assert keys.verify(plain) is None
        assert keys.verify(other) is not None
        assert [(key.name, key.expires_at is None) for key in keys.all()] == [
            ("a", False),
            ("b", True),
        ]
