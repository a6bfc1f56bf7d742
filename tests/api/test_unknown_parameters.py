import pytest


@pytest.mark.parametrize(
    ("path", "name", "hint"),
    [
        ("/v1/videos?page=2", "page", "did you mean page_size? "),
        ("/v1/videos?tags=a&page_size=3", "tags", "did you mean tag? "),
        ("/v1/jobs?Kind=ingest", "Kind", "did you mean kind? "),
        ("/v1/labels?limit=5", "limit", ""),
    ],
)
def test_a_parameter_that_a_list_does_not_have_is_refused_by_name(client, path, name, hint):
    answer = client.get(path)

    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "invalid_request"
    said = f"query.{name}: there is no such parameter; {hint}this path has "
    assert problem["detail"].startswith(said)
    assert "page_size" in problem["detail"]
    assert [error["field"] for error in problem["errors"]] == [f"query.{name}"]


def test_a_path_without_parameters_takes_what_clients_add_against_caches(client, make_video):
    video_id = make_video()

    assert client.get(f"/v1/videos/{video_id}?t=123").status_code == 200


def test_who_has_no_key_learns_no_parameters(anonymous):
    assert anonymous.get("/v1/videos?page=2").status_code == 401
