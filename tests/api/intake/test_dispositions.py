"""File names as clients write them into forms."""

import pytest

from api.intake.dispositions import Disposition, read_disposition

NAME = b'form-data; name="file"; '


@pytest.mark.parametrize(
    ("parameters", "filename"),
    [
        (b'filename="a.mp4"', "a.mp4"),
        (b"filename=a.mp4", "a.mp4"),
        (b'FileName="a.mp4"', "a.mp4"),
        (b'filename="a;b=c.mp4"', "a;b=c.mp4"),
        (rb'filename="a\"b\\c.mp4"', 'a"b\\c.mp4'),
        (rb'filename="C:\dir\x.mp4"', "C:\\dir\\x.mp4"),
        (b'filename="a%22b%41.mp4"', 'a"b%41.mp4'),  # browsers escape the quote only
        ('filename="\u00fc.mp4"'.encode(), "\u00fc.mp4"),
        ('filename="\u00fc.mp4"'.encode("latin-1"), "\u00fc.mp4"),
        ('filename="\u201eA\u201c.mp4"'.encode("cp1252"), "\u201eA\u201c.mp4"),
        # RFC 5987 and 8187, which wins over the plain one wherever it stands
        (b"filename*=UTF-8''%e2%82%ac%20rates.mp4", "\u20ac rates.mp4"),
        (b"filename=\"fallback.mp4\"; filename*=utf-8'en'%c3%bc.mp4", "\u00fc.mp4"),
        (b"filename*=utf-8''%c3%bc.mp4; filename=\"fallback.mp4\"", "\u00fc.mp4"),
        (b"filename*=ISO-8859-1''%fc.mp4", "\u00fc.mp4"),
        (b"filename=\"fallback.mp4\"; filename*=utf-8''%ff.mp4", "fallback.mp4"),
        (b"filename=\"fallback.mp4\"; filename*=no-such''a.mp4", "fallback.mp4"),
        (b'filename="fallback.mp4"; filename*=broken', "fallback.mp4"),
        # RFC 2047: .NET
        (b'filename="=?utf-8?B?w7wubXA0?="', "\u00fc.mp4"),
        (b"filename==?utf-8?B?w7wubXA0?=", "\u00fc.mp4"),
        (b'filename="=?ISO-8859-1?Q?=FC_a.mp4?="', "\u00fc a.mp4"),
        (b'filename="=?utf-8?B?w7w=?= =?utf-8?B?LmNk?="', "\u00fc.cd"),
        (b"filename=\"=?utf-8?B?w7wubXA0?=\"; filename*=utf-8''%C3%BC2.mp4", "\u00fc2.mp4"),
        (b'filename="=?no-such?B?w7w=?="', "=?no-such?B?w7w=?="),
        # RFC 2231
        (b"filename*0*=utf-8''%c3%bc; filename*1=\" b.mp4\"", "\u00fc b.mp4"),
        (b'filename=""', ""),
        (b"", None),
    ],
)
def test_a_file_name_is_read_as_its_client_meant_it(parameters, filename):
    assert read_disposition(NAME + parameters) == Disposition("file", filename)


def test_a_name_is_encoded_as_a_file_name_may_be():
    assert read_disposition(b"form-data; name*=utf-8''%66ile").name == "file"
    assert read_disposition(b'form-data; name="=?utf-8?B?ZmlsZQ==?="').name == "file"
    assert read_disposition(b"form-data").name is None


def form(*parts):
    lines = b"".join(b"--b\r\n%b\r\n\r\n%b\r\n" % part for part in parts)
    return {
        "content": lines + b"--b--\r\n",
        "headers": {"Content-Type": "multipart/form-data; boundary=b"},
    }


def part(disposition, content=b"film"):
    return (b"Content-Disposition: form-data; " + disposition, content)


def test_an_uploads_name_reaches_the_library_decoded(client):
    sent = form(part(b'name="file"; filename="x.mp4"; filename*=utf-8\'\'dir%2F%c3%bc.mp4'))

    job = client.post("/v1/videos", **sent)

    assert job.status_code == 202, job.text
    assert "%C3%BC.mp4" in job.text or "\u00fc.mp4" in job.text
    assert "dir/" not in job.text


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([part(b'name="video"; filename="a.mp4"')], "must be in the part `file`; it came in `vi"),
        ([part(b'name="File"; filename="a.mp4"')], "must be in the part `file`; it came in `Fi"),
        ([part(b'name="tag"')], "no part `tag`; it may have `file`, `batch_id`"),
        ([part(b'name="tags"')], "no part `file` with a file name; it has `tags`"),
        ([], "no part `file` with a file name; it has no part at all"),
        ([part(b'name="file"; filename=""', b"")], "no file was chosen"),
        ([part(b'name="file"')], "must be a file with a file name"),
        ([part(b'name="a\x1b[2Jb"; filename="x"')], "it came in `a[2Jb`"),
    ],
)
def test_a_wrong_part_is_told_what_came_and_what_is_wanted(client, parts, said):
    answer = client.post("/v1/videos", **form(*parts))

    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]


def test_a_part_without_a_name_and_an_endless_header_are_malformed(client):
    for head in (b'filename="a.mp4"', b'name="file"; filename="' + b"a" * 20_000 + b'"'):
        answer = client.post("/v1/videos", **form(part(head)))

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_multipart")
