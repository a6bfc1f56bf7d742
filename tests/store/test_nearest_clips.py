import numpy as np
import pytest
from sqlalchemy import inspect, text

from store.identifiers import new_id
from store.models import GenerationRepository, ModelRepository, index_name
from store.nearest_clips import nearest_clips
from store.videos import NewClip, VideoRepository

DIM = 16


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def videos(session):
    return VideoRepository(session)


def make_generation(session, dim=DIM):
    models = ModelRepository(session)
    model = models.register(
        name="m",
        version="1",
        heads=[],
        tasks=["recall"],
        folder_key="k",
        sha256="s",
        visual_sha256="v",
        config={},
    )
    return create_indexed(session, model.id, dim=dim)


def create_indexed(session, model_id, *, dim):
    generations = GenerationRepository(session)
    generation = generations.create(model_id=model_id, recall_model_id=model_id, plan={})
    if dim is not None:
        generations.ensure_index(generation.id, dim)
    return generations.get(generation.id)


def unit_vectors(number, dim=DIM, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(number, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(session, generation_id, *, num_videos, clips_per_video):
    """Insert random clips; gives their videos, and their vectors (number of clips, DIM)."""
    vectors = unit_vectors(num_videos * clips_per_video)
    return insert_clips(session, generation_id, vectors, clips_per_video=clips_per_video), vectors


def insert_clips(session, generation_id, vectors, *, clips_per_video):
    """Insert a clip for each vector, and their videos, of which it gives the ids."""
    video_ids = [new_id() for _ in range(len(vectors) // clips_per_video)]
    copy = session.connection().connection.driver_connection.cursor().copy
    with copy(
        "COPY videos (id, uri, sha256, state, is_still, probe, tags, metadata) FROM STDIN"
    ) as rows:
        for n, id_ in enumerate(video_ids):
            tags = ["even"] if n % 2 == 0 else ["odd"]
            rows.write_row([id_, f"file:///{n}.mp4", str(n), "ready", False, "{}", tags, "{}"])
    columns = (
        "generation_id, video_id, index, start_seconds, end_seconds, instants, vector, tokens_key"
    )
    with copy(f"COPY clips ({columns}) FROM STDIN") as rows:
        for row, vector in enumerate(vectors):
            video_id, index = video_ids[row // clips_per_video], row % clips_per_video
            text_of_vector = str(vector.tolist())
            rows.write_row([generation_id, video_id, index, 0, 1, [0.5], text_of_vector, "k"])
    session.execute(text("ANALYZE clips, videos"))
    return video_ids


def places(hits, video_ids, clips_per_video):
    order = {id_: n for n, id_ in enumerate(video_ids)}
    return [order[clip.video_id] * clips_per_video + clip.index for clip, _, _ in hits]


def num_index_scans(session, generation_id):
    query = text("SELECT pg_stat_get_xact_numscans(CAST(:name AS regclass))")
    return session.scalar(query, {"name": index_name(generation_id)})


def test_the_most_similar_clips_come_first_with_their_similarity(session, videos):
    generation = make_generation(session, dim=2)
    video, _ = videos.create(uri="file:///a.mp4", sha256="a")
    vectors = [(0.0, 1.0), (1.0, 0.0), (0.6, 0.8), (-1.0, 0.0)]
    clips = [NewClip(i, i, i + 1, [i], vector, "k") for i, vector in enumerate(vectors)]
    videos.replace_clips(video.id, generation.id, [*clips, NewClip(4, 4, 5, [4.5], None, "k")])

    hits = nearest_clips(session, generation.id, [1.0, 0.0], 9)

    assert [clip.index for clip, _, _ in hits] == [1, 2, 0, 3]
    assert [uri for _, uri, _ in hits] == ["file:///a.mp4"] * 4
    assert [round(similarity, 3) for _, _, similarity in hits] == [1.0, 0.6, 0.0, -1.0]


def test_a_small_library_is_searched_exactly(session, videos):
    generation = make_generation(session)
    video_ids, vectors = fill(session, generation.id, num_videos=500, clips_per_video=4)

    for query in unit_vectors(5, seed=1):
        hits = nearest_clips(session, generation.id, query.tolist(), 20)

        exact = np.argsort(-(vectors.astype(np.float16).astype(np.float64) @ query))[:20]
        assert places(hits, video_ids, 4) == exact.tolist()
    assert num_index_scans(session, generation.id) == 0


def test_a_large_library_is_searched_by_its_index(session, videos):
    generation = make_generation(session, dim=None)
    video_ids, vectors = fill(session, generation.id, num_videos=2500, clips_per_video=4)
    GenerationRepository(session).ensure_index(generation.id, DIM)
    found, wanted = 0, 0

    for query in unit_vectors(10, seed=1):
        hits = nearest_clips(session, generation.id, query.tolist(), 20, exact_up_to=9_999)

        exact = set(np.argsort(-(vectors @ query))[:20].tolist())
        found, wanted = found + len(exact & set(places(hits, video_ids, 4))), wanted + 20
        similarities = [similarity for _, _, similarity in hits]
        assert len(hits) == 20
        assert similarities == sorted(similarities, reverse=True)
    assert num_index_scans(session, generation.id) >= 10
    assert found / wanted > 0.9

    # A filter that leaves little: all of it is compared, so nothing is missed.
    few = video_ids[100:103]
    query = vectors[0].tolist()
    hits = nearest_clips(session, generation.id, query, 50, video_ids=few, exact_up_to=9_999)
    assert len(hits) == 12

    # One that leaves half goes on along the index until there is enough.
    hits = nearest_clips(session, generation.id, query, 200, tags=["odd"], exact_up_to=4_000)
    assert len(hits) == 200
    assert {clip.video_id for clip, _, _ in hits} <= set(video_ids[1::2])


def test_what_the_index_does_not_reach_for_a_filter_is_found_all_the_same(session):
    generation = make_generation(session, dim=None)
    query = unit_vectors(1, seed=1)[0]
    # Four of five videos are about what is searched for, and the odd fifth about its opposite.
    signs = np.where(np.arange(2000) % 5 == 1, -1.0, 1.0)
    vectors = signs[:, None] * (query + unit_vectors(2000))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    video_ids = insert_clips(session, generation.id, vectors, clips_per_video=1)
    far = [id_ for id_, sign in zip(video_ids, signs, strict=True) if sign < 0]
    session.execute(text("UPDATE videos SET tags = '{far}' WHERE id = ANY(:ids)"), {"ids": far})
    GenerationRepository(session).ensure_index(generation.id, DIM)
    # In so small a library the planner would rather sort than take the index.
    session.execute(text("SET LOCAL enable_sort = off"))

    hits = nearest_clips(
        session,
        generation.id,
        query.tolist(),
        10,
        tags=["far"],
        exact_up_to=300,
        filtered=500,
    )

    likeness = vectors.astype(np.float16).astype(np.float64) @ query
    exact = [n for n in np.argsort(-likeness).tolist() if signs[n] < 0][:10]
    assert num_index_scans(session, generation.id) == 1  # it was tried
    assert places(hits, video_ids, 1) == exact


def test_found_clips_come_without_their_vectors(session, videos):
    generation = make_generation(session)
    _, vectors = fill(session, generation.id, num_videos=2, clips_per_video=1)

    hits = nearest_clips(session, generation.id, vectors[0].tolist(), 2)

    assert [inspect(clip).unloaded & {"vector"} for clip, _, _ in hits] == [{"vector"}] * 2


def test_filters_leave_only_clips_of_wanted_videos(session, videos):
    generation = make_generation(session)
    video_ids, vectors = fill(session, generation.id, num_videos=20, clips_per_video=2)
    query = vectors[0].tolist()
    few = [video_ids[3], video_ids[4], video_ids[4]]

    by_id = nearest_clips(session, generation.id, query, 50, video_ids=few)
    by_tag = nearest_clips(session, generation.id, query, 50, tags=["odd"])
    by_both = nearest_clips(session, generation.id, query, 50, video_ids=few, tags=["odd"])
    by_two_tags = nearest_clips(session, generation.id, query, 50, tags=["odd", "even"])
    by_none = nearest_clips(session, generation.id, query, 50, video_ids=[])

    assert {clip.video_id for clip, _, _ in by_id} == set(few)
    assert {clip.video_id for clip, _, _ in by_tag} == set(video_ids[1::2])
    assert {clip.video_id for clip, _, _ in by_both} == {video_ids[3]}
    assert by_two_tags == by_none == []


def test_generations_are_never_mixed(session, videos):
    one = make_generation(session, dim=2)
    models = ModelRepository(session)
    model_id = models.list()[0].id
    other = create_indexed(session, model_id, dim=3)
    video, _ = videos.create(uri="file:///a.mp4", sha256="a")
    videos.replace_clips(video.id, one.id, [NewClip(0, 0, 1, [0.5], (1.0, 0.0), "k")])
    videos.replace_clips(video.id, other.id, [NewClip(7, 0, 1, [0.5], (1.0, 0.0, 0.0), "k")])

    hits = nearest_clips(session, other.id, [1.0, 0.0, 0.0], 5)

    assert [clip.index for clip, _, _ in hits] == [7]
