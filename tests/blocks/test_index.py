"""What the listing reader promises about any page, server or not: names, times, sizes, charsets, refusals."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from blocks._errors import Reason, SourceUnavailable
from blocks._index import SOUP_BYTES, IndexPage, IndexReader, parse_index, read_index
from blocks._records import LISTING_SCHEMA, RemoteFile, iter_files

URL = "http://camera.test/cam/"
HTML = "text/html"
JSON = "application/json"


def read_both(
    body: str | bytes, content_type: str | None = HTML, *, url: str = URL, zone: ZoneInfo | timezone = UTC
) -> IndexPage:
    """Return what both parsers read, which must be the same."""
    body = body.encode() if isinstance(body, str) else body
    page = parse_index(url, body, content_type, zone=zone)
    reader = IndexReader(url, content_type, zone=zone)
    for start in range(0, len(body), 7):
        reader.feed(body[start : start + 7])
    pieces = reader.close()
    assert pieces.files.rows() == page.files.rows()
    assert pieces.folders == page.folders
    assert dict(page.files.schema) == LISTING_SCHEMA
    return page


def listing(*hrefs: str, head: str = "") -> str:
    links = "".join(f'<li><a href="{href}">link</a></li>' for href in hrefs)
    return f"<html><head><title>Index of /cam/</title>{head}</head><body><ul>{links}</ul></body></html>"


def keys(page: IndexPage) -> list[str]:
    return page.files["key"].to_list()


def row(text: str, zone: ZoneInfo | timezone = UTC) -> RemoteFile:
    page = read_both(f'<title>Index of /cam/</title><pre><a href="a.jpg">a.jpg</a> {text}\n</pre>', zone=zone)
    (file,) = iter_files(page.files)
    return file


@pytest.mark.parametrize(
    ("href", "key"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("/cam/a.jpg", "a.jpg"),
        ("../cam/a.jpg", "a.jpg"),
        ("http://camera.test/cam/a.jpg", "a.jpg"),
        ("http://CAMERA.test:80/cam/a.jpg", "a.jpg"),
        ("//camera.test/cam/a.jpg", "a.jpg"),
        ("/c%61m/a.jpg", "a.jpg"),
        (" a.jpg ", "a.jpg"),
        ("./http:foo.jpg", "http:foo.jpg"),
        ("http:foo.jpg", "foo.jpg"),  # as browsers read it
        ("%3FC=N", "?C=N"),
        ("a&amp;b.jpg", "a&b.jpg"),
        ("50% off.jpg", "50% off.jpg"),
        ("...", "..."),
        (";v.jpg", ";v.jpg"),
        ("caf%E9.jpg", "caf%E9.jpg"),
    ],
)
def test_a_reference_to_one_segment_below_the_page_is_a_file(href: str, key: str) -> None:
    assert keys(read_both(listing(href))) == [key]


@pytest.mark.parametrize(
    "href",
    [
        *[
            "",
            "#",
            "?",
            "?C=N;O=D",
            "a.jpg?download=zip",
            "a.jpg#top",
            "a.jpg?",
            ".",
            "..",
            "../",
            "/",
            "/cam/",
            "/cam",
        ],
        *["/a.jpg", "../a.jpg", "x/a.jpg", "https://camera.test/cam/a.jpg", "http://camera.test:8080/cam/a.jpg"],
        *["http://other.test/cam/a.jpg", "//other.test/cam/a.jpg", "javascript:go()", "mailto:a@b.test"],
        *["%2e%2e", "%2E%2E/", "%2e", "..%2f..%2fetc%2fpasswd", "a%2Fb.jpg", "a%00.jpg", "http://[broken/a.jpg"],
    ],
)
def test_a_reference_elsewhere_or_to_an_unsafe_name_is_none(href: str) -> None:
    page = read_both(listing(href, "kept.jpg"))

    assert keys(page) == ["kept.jpg"]
    assert page.folders == ()


def test_a_trailing_slash_makes_a_folder() -> None:
    page = read_both(listing("sub/", "./a:b/", "/cam/x%20y/", "caf%E9/", "caf%25E9/", "sub/"))

    assert {(folder.name, folder.href) for folder in page.folders} == {
        ("sub", "./sub/"),
        ("a:b", "./a:b/"),
        ("x y", "./x%20y/"),
        ("caf%E9", "./caf%25E9/"),
        ("caf%25E9", "./caf%E9/"),
    }


def test_a_base_element_moves_what_references_mean() -> None:
    head = '<base href="/cam/thumbs/"><base href="/elsewhere/">'

    assert keys(read_both(listing("../a.jpg", "b.jpg", "/cam/c.jpg", head=head))) == ["a.jpg", "c.jpg"]
    assert keys(read_both(listing("a.jpg", head='<base href="http://[broken/">'))) == ["a.jpg"]


def test_a_page_that_is_a_file_of_its_directory_lists_that_directory() -> None:
    assert keys(read_both(listing("a.jpg"), url="http://camera.test/cam/index.php?sort=name")) == ["a.jpg"]


def test_names_that_are_not_utf8_keep_their_bytes_and_never_take_another_s_key() -> None:
    page = read_both(listing("a%FF.jpg", "a%ff.jpg", "a%25FF.jpg", "%25FF%FE.jpg", "%FF%25FE.jpg"))

    found = dict(page.files["key", "locator"].rows())
    assert found.pop("a%FF.jpg") is None
    assert set(found.values()) == {"a%FF.jpg", "%25FF%FE.jpg", "%FF%25FE.jpg"}
    assert page.files["key"].is_unique().all()


def test_a_locator_is_kept_where_the_key_does_not_say_the_address() -> None:
    page = read_both(listing("plain.jpg", "a%20b.jpg", "a,b.jpg", "%c3%a9.jpg", "50% off.jpg", "dot%2Ejpg", "å.jpg"))

    assert dict(page.files["key", "locator"].rows()) == {
        "plain.jpg": None,
        "a b.jpg": None,
        "a,b.jpg": "a,b.jpg",
        "é.jpg": "%c3%a9.jpg",
        "50% off.jpg": "50%%20off.jpg",
        "dot.jpg": "dot%2Ejpg",
        "å.jpg": None,
    }


@pytest.mark.parametrize(
    ("text", "modified", "size"),
    [
        ("15-Jan-2024 03:04               59392", "2024-01-15T03:04:00", 59392),
        ("2024-01-15 03:04  512   ", "2024-01-15T03:04:00", 512),
        ("2024-01-15 03:04   58K  ", "2024-01-15T03:04:00", None),
        ("2024-01-15 03:04:05 1.2M", "2024-01-15T03:04:05", None),
        ("2024-Jan-15 03:04:05 0.6K image/jpeg", "2024-01-15T03:04:05", None),
        ("512 B 2024-Jan-15 03:04", "2024-01-15T03:04:00", 512),
        ("2024-01-15T03:04:05Z 7 B", "2024-01-15T03:04:05", 7),
        ("2024-01-15T05:04:05.25+02:00 7", "2024-01-15T03:04:05.25", 7),
        ("2024-01-15 12:04:05.123456789 +0900 JST 7", "2024-01-15T03:04:05.123456", 7),
        ("Mon, 15 Jan 2024 03:04:05 GMT 7", "2024-01-15T03:04:05", 7),
        ("31-Feb-2024 03:04 7", None, 7),
        ("1/15/2024 3:04 PM 59392", None, 59392),
        ("2024-01-15 03:04 My 12 cats", "2024-01-15T03:04:00", None),
        ("12", None, None),
        ("99999999999999999999999 B", None, None),
    ],
)
def test_times_and_exact_sizes_are_read_and_nothing_is_guessed(
    text: str, modified: str | None, size: int | None
) -> None:
    file = row(text)

    assert file.modified == (modified and datetime.fromisoformat(modified).replace(tzinfo=UTC))
    assert file.size == size
    assert file.validator == " ".join(text.split())


def test_times_without_a_zone_are_read_in_the_given_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")

    assert row("15-Jul-2024 12:00 7", berlin).modified == datetime(2024, 7, 15, 10, tzinfo=UTC)
    assert row("15-Jul-2024 12:00 7", timezone(timedelta(hours=-3))).modified == datetime(2024, 7, 15, 15, tzinfo=UTC)
    assert row("2024-07-15T12:00:00Z 7", berlin).modified == datetime(2024, 7, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", ["27-Oct-2024 02:30 7", "31-Mar-2024 02:30 7"])
def test_a_time_the_zone_shows_twice_or_never_is_unknown(text: str) -> None:
    file = row(text, ZoneInfo("Europe/Berlin"))

    assert (file.modified, file.size, file.validator) == (None, 7, text)


def test_a_line_with_several_names_says_nothing_about_any() -> None:
    page = read_both("<title>Index of /</title><p><a href=a.jpg>a</a> <a href=b.jpg>b</a> 2024-01-15 03:04 7</p>")

    assert page.files["key", "size", "modified", "validator"].rows() == [
        ("a.jpg", None, None, None),
        ("b.jpg", None, None, None),
    ]


def test_a_number_on_a_page_that_no_server_made_is_no_size() -> None:
    page = read_both("<ul><li><a href=a.jpg>a</a> 2024-01-15 03:04 17<li><a href=b.jpg>b</a></ul>")

    assert page.files["size"].to_list() == [None, None]
    assert page.files["validator"].to_list() == ["2024-01-15 03:04 17", None]


IIS = (
    "<html><head><title>camera.test - /cam/</title></head><body><H1>camera.test - /cam/</H1><hr>\r\n\r\n"
    '<pre><A HREF="/">[To Parent Directory]</A><br><br>'
    ' 1/15/2024  3:04 PM        59392 <A HREF="/cam/a%20b.jpg">a b.jpg</A><br>'
    ' 1/15/2024  3:04 PM        &lt;dir&gt; <A HREF="/cam/sub/">sub</A><br></pre><hr></body></html>'
)
CADDY_2_8 = """<!DOCTYPE html><html><head><title>cam/</title></head><body><header><h1><a href="../">/</a></h1></header>
<div class="meta"><input type="search" id="filter"></div><div class='listing'><table><thead><tr><th>
<a href="?sort=name&order=asc">Name</a></th></tr></thead><tbody><tr class="file"><td></td>
<td><a href="./a.jpg"><svg></svg><span class="name">a.jpg</span></a></td>
<td class="size" data-size="59392"><div class="sizebar"><div class="sizebar-bar"></div><div class="sizebar-text">
58 KiB</div></div></td><td class="timestamp hideable">
<time datetime="2024-01-15T03:04:05Z">01/15/2024 03:04:05 AM +00:00</time></td></tr>
</tbody></table></div></body></html>"""


def test_iis_and_newer_caddy_pages_are_listings() -> None:
    assert list(iter_files(read_both(IIS).files)) == [RemoteFile("a b.jpg", 59392, None, "1/15/2024 3:04 PM 59392")]
    assert list(iter_files(read_both(CADDY_2_8).files)) == [
        RemoteFile("a.jpg", 59392, datetime(2024, 1, 15, 3, 4, 5, tzinfo=UTC), "59392 B 2024-01-15T03:04:05Z")
    ]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<title>Index of /</title><a href='ä.jpg'>a</a>".encode("latin-1"), "text/html;charset=ISO-8859-1"),
        (b"<meta charset=iso-8859-1><title>Index of /</title><a href='\xe4.jpg'>a</a>", HTML),
        ("<title>Index of /</title><a href='ä.jpg'>a</a>".encode("utf-8-sig"), "text/html;charset=ISO-8859-1"),
        ("<title>Index of /</title><a href='ä.jpg'>a</a>".encode("utf-16"), HTML),
        ("<title>Index of /</title><a href='ä.jpg'>a</a>".encode(), "text/html; charset=no-such-charset"),
        ("<title>Index of /</title><a href='ä.jpg'>a</a>".encode(), "text/html; charset=hex"),
        ("<meta charset=utf-16><title>Index of /</title><a href='ä.jpg'>a</a>".encode(), None),
    ],
)
def test_pages_in_any_charset_give_the_names_a_browser_would_ask_for(body: bytes, content_type: str | None) -> None:
    assert keys(read_both(body, content_type)) == ["ä.jpg"]


@pytest.mark.parametrize(
    "body", [b"\0<a href=a.jpg>x</a>\0", b"<div>" * 5_000 + b"<a href=a.jpg>", b"<a href=a.jpg><b>" * 3_000]
)
def test_a_broken_page_still_gives_its_names(body: bytes) -> None:
    assert keys(read_both(b"<title>Index of /</title>" + body)) == ["a.jpg"]


NGINX_JSON = '{ "name":"%s", "type":"%s", "mtime":"Mon, 15 Jan 2024 03:04:05 GMT", "size":7 }'


def test_one_undecodable_name_in_json_costs_no_other_row() -> None:
    rows = [NGINX_JSON % ("a.jpg", "file"), NGINX_JSON % ("caf\udce9.jpg", "file"), NGINX_JSON % ("b{[.jpg", "file")]
    body = ("[\r\n" + ",\r\n".join(rows) + "\r\n]").encode("utf-8", "surrogateescape")

    page = read_both(body, JSON)

    assert dict(page.files["key", "locator"].rows()) == {"a.jpg": None, "b{[.jpg": None, "caf%E9.jpg": "caf%E9.jpg"}
    assert page.files["size"].to_list() == [7, 7, 7]


def test_json_and_xml_names_can_be_anything_but_unsafe() -> None:
    names = ["..", "a/b", r"\ud800.jpg", "", "dir", r"nul\u0000.jpg", "sock"]
    kinds = ["file", "file", "file", "file", "directory", "file", "other"]
    page = read_both("[" + ",".join(map(NGINX_JSON.__mod__, zip(names, kinds, strict=True))) + "]", JSON)
    assert keys(page) == ["%ED%A0%80.jpg"]
    assert [folder.name for folder in page.folders] == ["dir"]

    body = (
        '<?xml version="1.0"?>\r\n<list>\r\n<file mtime="2024-01-15T03:04:05Z" size="7">a\x01&amp;amp;&lt;\r.jpg</file>'
    )
    page = read_both(body + "<other>sock</other><directory>dir</directory><file>..</file></list>", "text/xml")
    assert keys(page) == ["a\x01&amp;<\r.jpg"]
    assert [folder.name for folder in page.folders] == ["dir"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("[\r\n" + NGINX_JSON % ("a.jpg", "file") + ",\r\n", JSON),
        ("[\r\n" + NGINX_JSON % ("a.jpg", "file") + ',\r\n{ "na', JSON),
        ("[", JSON),
        ('<?xml version="1.0"?>\r\n<list>\r\n<file mtime="2024-01-15T03:04:05Z" size="7">a.jpg</fi', "text/xml"),
        ('<?xml version="1.0"?>\r\n<list>\r\n', "text/xml"),
    ],
)
def test_a_json_or_xml_page_cut_short_is_never_taken_for_a_whole_one(body: str, content_type: str) -> None:
    with pytest.raises(SourceUnavailable) as error:
        parse_index(URL, body.encode(), content_type)
    assert error.value.reason is Reason.CUT_SHORT


def nginx_page(count: int) -> Iterator[bytes]:
    yield b"<html>\r\n<head><title>Index of /cam/</title></head>\r\n<body>\r\n"
    yield b'<h1>Index of /cam/</h1><hr><pre><a href="../">../</a>\r\n'
    for number in range(count):
        name = b"IMG_%07d.jpg" % number
        yield b'<a href="%b">%b</a>%b15-Jan-2024 03:04 %19d\r\n' % (name, name, b" " * 35, 60_000 + number)
    yield b"</pre><hr></body>\r\n</html>\r\n"


def test_a_page_too_large_for_the_soup_is_read_by_the_same_rule() -> None:
    count = 20_000
    body = b"".join(nginx_page(count))
    assert len(body) > SOUP_BYTES

    for page in (read_index(URL, nginx_page(count), HTML), parse_index(URL, body, HTML)):
        assert page.files["key"].to_list() == [f"IMG_{number:07d}.jpg" for number in range(count)]
        assert page.files["size"].to_list() == list(range(60_000, 60_000 + count))
        assert page.files["modified"].unique().to_list() == [datetime(2024, 1, 15, 3, 4, tzinfo=UTC)]


MEASURE = """
from blocks._index import read_index
from tests.blocks.test_index import nginx_page

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
assert len(read_index("http://camera.test/cam/", nginx_page(100_000), "text/html").files) == 100_000
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_a_page_of_13_megabytes_takes_150_megabytes_at_most() -> None:
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", MEASURE], cwd=root, check=True, capture_output=True, text=True)

    assert int(run.stdout) < 150_000


def test_an_empty_listing_has_the_columns_of_every_listing() -> None:
    files = read_both(listing()).files

    assert files.equals(pl.DataFrame(schema=LISTING_SCHEMA))
