import numpy as np
import pytest
from sqlalchemy import inspect, text

from store.identifiers import new_id
from store.models.repository import GenerationRepository, ModelRepository, index_name
from store.videos.nearest_clips import (
    clips_after,
    clips_at,
    clips_nearest_in_videos,
    count_matching,
    nearest_clips,
)
from store.videos.records import NewClip
from store.videos.repository import VideoRepository

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
    videos.replace_clips(
        video.id, generation.id, clips=[*clips, NewClip(4, 4, 5, [4.5], None, "k")]
    )

    hits = nearest_clips(session, generation.id, vector=[1.0, 0.0], limit=9)

    assert [clip.index for clip, _, _ in hits] == [1, 2, 0, 3]
    assert [uri for _, uri, _ in hits] == ["file:///a.mp4"] * 4
    assert [round(similarity, 3) for _, _, similarity in hits] == [1.0, 0.6, 0.0, -1.0]


def test_a_small_library_is_searched_exactly(session, videos):
    generation = make_generation(session)
    video_ids, vectors = fill(session, generation.id, num_videos=500, clips_per_video=4)

    for query in unit_vectors(5, seed=1):
        hits = nearest_clips(session, generation.id, vector=query.tolist(), limit=20)

        exact = np.argsort(-(vectors.astype(np.float16).astype(np.float64) @ query))[:20]
        assert places(hits, video_ids, 4) == exact.tolist()
    assert num_index_scans(session, generation.id) == 0


def test_a_large_library_is_searched_by_its_index(session, videos):
    generation = make_generation(session, dim=None)
    video_ids, vectors = fill(session, generation.id, num_videos=2500, clips_per_video=4)
    GenerationRepository(session).ensure_index(generation.id, DIM)
    found, wanted = 0, 0

    for query in unit_vectors(10, seed=1):
        hits = nearest_clips(
            session, generation.id, vector=query.tolist(), limit=20, exact_up_to=9_999
        )

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
    hits = nearest_clips(
        session, generation.id, vector=query, limit=50, video_ids=few, exact_up_to=9_999
    )
    assert len(hits) == 12

    # One that leaves half goes on along the index until there is enough.
    hits = nearest_clips(
        session, generation.id, vector=query, limit=200, tags=["odd"], exact_up_to=4_000
    )
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
        vector=query.tolist(),
        limit=10,
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

    hits = nearest_clips(session, generation.id, vector=vectors[0].tolist(), limit=2)

    assert [inspect(clip).unloaded & {"vector"} for clip, _, _ in hits] == [{"vector"}] * 2


def test_filters_leave_only_clips_of_wanted_videos(session, videos):
    generation = make_generation(session)
    video_ids, vectors = fill(session, generation.id, num_videos=20, clips_per_video=2)
    query = vectors[0].tolist()
    few = [video_ids[3], video_ids[4], video_ids[4]]

    by_id = nearest_clips(session, generation.id, vector=query, limit=50, video_ids=few)
    by_tag = nearest_clips(session, generation.id, vector=query, limit=50, tags=["odd"])
    by_both = nearest_clips(
        session, generation.id, vector=query, limit=50, video_ids=few, tags=["odd"]
    )
    by_two_tags = nearest_clips(
        session, generation.id, vector=query, limit=50, tags=["odd", "even"]
    )
    by_none = nearest_clips(session, generation.id, vector=query, limit=50, video_ids=[])

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
    videos.replace_clips(video.id, one.id, clips=[NewClip(0, 0, 1, [0.5], (1.0, 0.0), "k")])
    videos.replace_clips(video.id, other.id, clips=[NewClip(7, 0, 1, [0.5], (1.0, 0.0, 0.0), "k")])

    hits = nearest_clips(session, other.id, vector=[1.0, 0.0, 0.0], limit=5)

    assert [clip.index for clip, _, _ in hits] == [7]


def fill_with_long_ones(session, generation_id, query, *, long_clips, num_short):
    """Insert two long videos that are about the query, and short ones that are about it less."""
    long_ones = query + 0.1 * unit_vectors(2 * long_clips)
    short_ones = 0.5 * query + unit_vectors(num_short * 2, seed=2)
    video_ids = insert_clips(session, generation_id, normal(long_ones), clips_per_video=long_clips)
    session.execute(text("UPDATE videos SET sha256 = 'long' || sha256"))
    return video_ids, insert_clips(session, generation_id, normal(short_ones), clips_per_video=2)


def normal(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("exact_up_to", [20_000, 100])
def test_long_videos_leave_room_for_others(session, exact_up_to):
    generation = make_generation(session)
    query = unit_vectors(1, seed=1)[0]
    long_ids, short_ids = fill_with_long_ones(
        session, generation.id, query, long_clips=300, num_short=30
    )

    hits = nearest_clips(
        session,
        generation.id,
        vector=query.tolist(),
        limit=400,
        num_videos=20,
        exact_up_to=exact_up_to,
    )
    odd = nearest_clips(
        session,
        generation.id,
        vector=query.tolist(),
        limit=400,
        num_videos=9,
        tags=["odd"],
        exact_up_to=50,
    )

    found = {clip.video_id for clip, _, _ in hits}
    assert len(found) >= 20
    assert found >= set(long_ids)
    assert len(hits) <= 400
    assert len({clip.video_id for clip, _, _ in odd}) >= 9
    assert {clip.video_id for clip, _, _ in odd} <= {*long_ids[1::2], *short_ids[1::2]}


def test_where_fewer_videos_match_all_of_them_come(session):
    generation = make_generation(session)
    query = unit_vectors(1, seed=1)[0]
    fill_with_long_ones(session, generation.id, query, long_clips=30, num_short=3)

    hits = nearest_clips(session, generation.id, vector=query.tolist(), limit=40, num_videos=20)

    assert len({clip.video_id for clip, _, _ in hits}) == 5


def test_equal_clips_come_in_the_order_of_their_videos(session):
    generation = make_generation(session)
    same = np.repeat(unit_vectors(1), 60, axis=0)
    video_ids = insert_clips(session, generation.id, same, clips_per_video=2)

    hits = nearest_clips(session, generation.id, vector=same[0].tolist(), limit=10, num_videos=5)

    wanted = [(id_, index) for id_ in sorted(video_ids)[:5] for index in (0, 1)]
    assert [(clip.video_id, clip.index) for clip, _, _ in hits] == wanted


def test_the_nearest_clips_of_given_videos_are_found_and_no_more(session):
    generation = make_generation(session)
    video_ids, vectors = fill(session, generation.id, num_videos=6, clips_per_video=20)
    query = unit_vectors(1, seed=1)[0]

    found = clips_nearest_in_videos(
        session,
        generation.id,
        vector=query.tolist(),
        video_ids=[video_ids[4], new_id(), video_ids[1]],
        limit=3,
    )

    likeness = vectors.astype(np.float16).astype(np.float64) @ query
    for number, id_ in ((1, video_ids[1]), (4, video_ids[4])):
        best = sorted(np.argsort(-likeness[20 * number : 20 * number + 20])[:3].tolist())
        assert [each.clip.index for each in found if each.clip.video_id == id_] == best
    assert len(found) == 6
    assert {each.video_end_seconds for each in found} == {1.0}
    assert found[0].similarity == pytest.approx(likeness[20 + found[0].clip.index], abs=1e-3)


def test_a_library_is_read_page_by_page_in_whole_videos(session):
    generation = make_generation(session)
    video_ids, vectors = fill(session, generation.id, num_videos=7, clips_per_video=3)
    query = vectors[0].tolist()

    pages, after = [], None
    while page := clips_after(session, generation.id, vector=query, after=after, num_videos=3):
        pages.append([(each.clip.video_id, each.clip.index) for each in page])
        after = page[-1].clip.video_id
    odd = clips_after(session, generation.id, vector=query, after=None, num_videos=9, tags=["odd"])

    assert [len(page) for page in pages] == [9, 9, 3]
    assert [place for page in pages for place in page] == [
        (id_, index) for id_ in sorted(video_ids) for index in range(3)
    ]
    assert {each.clip.video_id for each in odd} == set(video_ids[1::2])
    assert count_matching(session, generation.id, limit=100) == 21
    assert count_matching(session, generation.id, limit=100, tags=["odd"]) == 9
    assert count_matching(session, generation.id, limit=10) == 10
    places = [(video_ids[0], 1), (new_id(), 0)]
    assert [clip.index for clip, _ in clips_at(session, generation.id, places=places)] == [1]
