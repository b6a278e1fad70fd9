"""A page that is no listing is refused, and a listing never is."""

import pytest

from blocks._errors import Reason, SourceRefused
from blocks._index import parse_index, read_index
from tests.blocks.test_index import HTML, JSON, URL, read_both


@pytest.mark.parametrize(
    "page",
    [
        "<a href=a.jpg>a</a> <a href='b c.PNG'>b</a>",
        "<form method=get action=/find><input name=q></form><a href=a.heic>a</a>",
        "<p><a href='..'>Parent folder</a></p><p><a href=2026/>2026</a></p>",
        "<title>Index of /cam/</title><form method=post><input type=password></form><a href=a.txt>a</a>",
    ],
)
def test_a_page_that_links_images_or_shows_itself_a_listing_is_one(page: str) -> None:
    assert read_both(page).files.height + len(read_both(page).folders) > 0


LOGIN = "<title>Photos</title><form method=post><input name=user><input type=password></form>"
REFUSED = {
    "login": (LOGIN, "asks for a login titled 'Photos'"),
    "login with links": (
        LOGIN + "<a href=logo.png>l</a><a href=style.css>s</a><a href=/about>a</a>",
        "asks for a login",
    ),
    "login by another site": ("<title>Sign in - Cams</title><a href=logo.png>l</a>", "asks for a login"),
    "login without a form": ("<div><input type=Password><button>Go</button></div><a href=logo.png>l</a>", "a login"),
    "app": ("<!doctype html><title>Cams</title><div id=root></div><script src=/app.js></script>", "titled 'Cams'"),
    "works": ("<html><body><h1>It works!</h1></body></html>", "titled 'It works!'"),
    "welcome": (
        "<title>Welcome to nginx!</title><a href='http://nginx.org/'>nginx</a>",
        "turn the server's listing on",
    ),
    "site": ("<title>Cams</title><a href=/>Home</a><a href=blog/>Blog</a><a href=imprint.html>Imprint</a>", "image"),
    "back link": ("<title>Cams</title><a href='../'>Home</a><a href=blog/>Blog</a>", "image"),
    "text": ("Service moved", "image"),
    "empty": ("", "an empty page"),
    "blank": (" \r\n ", "an empty page"),
}


@pytest.mark.parametrize(("page", "looks_like"), REFUSED.values(), ids=REFUSED)
def test_a_page_that_is_no_listing_is_refused_with_what_it_looks_like(page: str, looks_like: str) -> None:
    for read in (read_both, lambda body: read_index(URL, [body.encode()], HTML)):
        with pytest.raises(SourceRefused, match="no directory listing") as refusal:
            read(page)
        assert looks_like in str(refusal.value)
        assert refusal.value.reason is (Reason.HTML_PAGE if page.strip() else Reason.REFUSED)


@pytest.mark.parametrize(
    ("body", "content_type", "looks_like"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg", "a single file"),
        (b'{"error": "forbidden"}', JSON, "JSON of another kind"),
        (b'[{"name": "a.jpg", "type": "file", "url": "https://api.test/a"}]', JSON, "JSON of another kind"),
        (b'{"a":' * 100_000, JSON, "JSON of another kind"),
        (b'{"a":"' + b"x" * 2_000_000, JSON, "JSON of another kind"),
        (b'<?xml version="1.0"?><ListBucketResult><Key>a.jpg</Key></ListBucketResult>', "application/xml", "S3"),
        (b'<?xml version="1.0"?><rss></rss>', "text/xml", "a web page"),
    ],
)
def test_answers_of_other_kinds_are_refused(body: bytes, content_type: str, looks_like: str) -> None:
    with pytest.raises(SourceRefused, match=looks_like):
        parse_index(URL, body, content_type)
    with pytest.raises(SourceRefused, match=looks_like):
        read_index(URL, [body[start : start + 65_536] for start in range(0, len(body), 65_536)], content_type)


def test_a_refusal_shows_no_credential() -> None:
    with pytest.raises(SourceRefused) as refusal:
        parse_index("http://warden:lynx@camera.test/cam/?token=secret", b"<h1>It works!</h1>", HTML)

    assert "http://camera.test/cam/ is no directory listing" in str(refusal.value)
    assert not any(secret in str(refusal.value) for secret in ("warden", "lynx", "secret"))
