import json
import unicodedata
from uuid import UUID

import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from store.database import alembic_config, make_sessions, upgrade_schema
from store.metadata import metadata
from store.models.repository import ModelRepository
from store.results.tables import Question
from store.table_base import Task


def tables_of(url):
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    return set(sqlalchemy.inspect(engine).get_table_names()) - {"alembic_version"}


def test_the_schema_goes_up_and_down_and_up(empty_database_url):
    config = alembic_config(empty_database_url)

    command.upgrade(config, "head")
    after_up = tables_of(empty_database_url)
    command.downgrade(config, "base")
    after_down = tables_of(empty_database_url)
    command.upgrade(config, "head")

    assert after_up == tables_of(empty_database_url) == set(metadata.tables)
    assert after_down == set()


def test_the_migrations_make_just_what_the_tables_say(empty_database_url):
    upgrade_schema(empty_database_url)

    engine = sqlalchemy.create_engine(empty_database_url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_what_was_there_before_labels_is_carried_over(empty_database_url):
    config = alembic_config(empty_database_url)
    command.upgrade(config, "0001")
    engine = sqlalchemy.create_engine(empty_database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO models VALUES (gen_random_uuid(), 'mini', '1', '{}', '{recall,qa}', "
            "'k', 's', 'v', '{}', '{}')",
            "INSERT INTO serving (task, model_id) SELECT unnest(tasks), id FROM models",
            "INSERT INTO jobs (id, kind, state, priority, input) SELECT gen_random_uuid(), "
            "'question', 'succeeded', 5, '{}' FROM generate_series(1, 2)",
            "INSERT INTO questions (id, text, input) SELECT id, '  What   IS it? ', '{}' FROM jobs",
            'UPDATE questions SET input = \'{"choices": ["a", "b"]}\' '
            "WHERE id = (SELECT id FROM questions LIMIT 1)",
        ):
            connection.exec_driver_sql(statement)

    command.upgrade(config, "head")

    sessions = make_sessions(empty_database_url)
    with sessions.begin() as session:
        models = ModelRepository(session)
        [model] = models.list()
        assert models.state(model) == "serving"
        assert models.fitting("qa", "v").id == model.id
        assert {change.task for change in models.promotions()} == {Task.RECALL, Task.QA}
        assert all(change.id.version == 7 for change in models.promotions())
        questions = session.scalars(sqlalchemy.select(Question)).all()
        assert {question.text_key for question in questions} == {"what is it"}
        assert {question.task for question in questions} == {Task.QA, Task.MULTIPLE_CHOICE}
    sessions.kw["bind"].dispose()


def test_file_names_are_written_in_one_form_from_now_on(empty_database_url):
    config = alembic_config(empty_database_url)
    command.upgrade(config, "0002")
    engine = sqlalchemy.create_engine(empty_database_url, poolclass=sqlalchemy.NullPool)
    decomposed = unicodedata.normalize("NFD", "Käse.mp4")
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO videos (id, uri, sha256, filename, state, is_still, probe, tags, "
                "metadata) VALUES (gen_random_uuid(), 'file:///k', 's', :name, 'ready', false, "
                "'{}', '{}', '{}')"
            ),
            {"name": decomposed},
        )
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO jobs (id, kind, state, priority, input, result) VALUES "
                "(gen_random_uuid(), 'ingest', 'succeeded', 5, '{}', CAST(:result AS jsonb))"
            ),
            {"result": json.dumps({"filename": decomposed, "duplicate": True})},
        )

    command.upgrade(config, "head")

    with engine.connect() as connection:
        names = connection.scalars(sqlalchemy.text("SELECT filename FROM videos")).all()
        results = connection.scalars(sqlalchemy.text("SELECT result FROM jobs")).all()
    assert names == ["Käse.mp4"]
    assert results == [{"filename": "Käse.mp4", "duplicate": True}]


def test_what_was_asked_before_is_open_if_it_would_have_been_suggested(empty_database_url):
    config = alembic_config(empty_database_url)
    command.upgrade(config, "0010")
    engine = sqlalchemy.create_engine(empty_database_url, poolclass=sqlalchemy.NullPool)
    asked = (  # of which video, what, its answer's uncertainty
        (1, "what is it", 0.5),
        (1, "what is it", 0.4),  # the newest that has a measure
        (1, "what is it", None),
        (1, "where is it", 0.5),  # its label was deleted
        (2, "what is it", 0.5),  # has a label
        (None, "what is it", 0.5),
    )
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO videos (id, uri, sha256, state, is_still, probe, tags, metadata) "
            "SELECT lpad(n::text, 32, '0')::uuid, 'u', n::text, 'ready', false, '{}', '{}', '{}' "
            "FROM generate_series(1, 2) AS n"
        )
        for number, (video, key, uncertainty) in enumerate(asked):
            named = {"id": UUID(int=number), "video": video and UUID(int=video)}
            connection.execute(
                sqlalchemy.text(
                    "INSERT INTO jobs (id, kind, state, priority, input) "
                    "VALUES (:id, 'question', 'succeeded', 5, '{}')"
                ),
                named,
            )
            connection.execute(
                sqlalchemy.text(
                    "INSERT INTO questions "
                    "(id, video_id, text, text_key, task, input, uncertainty) "
                    "VALUES (:id, :video, :key, :key, 'qa', '{}', :uncertainty)"
                ),
                named | {"key": key, "uncertainty": uncertainty},
            )
        for number, (video, label, deleted_at) in enumerate(
            [(1, "Where is it?", "now"), (2, "What  is it?", None), (2, "What is it", None)]
        ):
            connection.execute(
                sqlalchemy.text(
                    "INSERT INTO labels (id, video_id, task, text, answer, choices, provenance, "
                    "split, content_sha256, deleted_at) VALUES (:id, :video, 'qa', :label, 'x', "
                    "'{}', '{}', 'train', :sha256, CAST(:deleted_at AS timestamptz))"
                ),
                {
                    "id": UUID(int=number),
                    "video": UUID(int=video),
                    "label": label,
                    "sha256": str(number),
                    "deleted_at": deleted_at,
                },
            )

    command.upgrade(config, "head")

    with engine.begin() as connection:
        found = connection.exec_driver_sql("SELECT id FROM questions WHERE is_open ORDER BY id")
        assert [row.id for row in found] == [UUID(int=1), UUID(int=3)]
