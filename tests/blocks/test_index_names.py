"""Any name survives the way from a disk over a server's quoting and a page into a key and back into an address."""

import html
import json
import re
from urllib.parse import quote, unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from blocks._index import IndexPage, IndexReader, parse_index, quote_key
from blocks._records import is_safe_key

URL = "http://camera.test/c%C3%A4m/"

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."}
)
RAW_NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda raw: not set(raw) & {0, ord("/")} and raw not in {b".", b".."}
)
SAFE = st.sampled_from(["", "!$&'()*+,;=@", "~", ":!$&'()*+,;=@~"])


def quote_like_a_server(raw: bytes, safe: str, *, lower: bool) -> str:
    """Return `raw` as servers write it: more or less of it quoted, in either case, no colon in a bare first segment."""
    quoted = quote(raw, safe=safe)
    if lower:
        quoted = re.sub("%..", lambda escape: escape[0].lower(), quoted)
    return f"./{quoted}" if ":" in quoted else quoted


def html_page(hrefs: list[str]) -> bytes:
    rows = "".join(f'<a href="{html.escape(href)}">..&gt;</a>   15-Jan-2024 03:04  7\r\n' for href in hrefs)
    return f'<html><head><title>Index of /cäm/</title></head><pre><a href="../">../</a>\r\n{rows}</pre></html>'.encode()


def read_incrementally(body: bytes) -> IndexPage:
    reader = IndexReader(URL, "text/html")
    reader.feed(body)
    return reader.close()


@given(st.lists(NAMES, unique=True, max_size=5), SAFE, st.booleans())
def test_any_name_comes_back_from_any_server_s_page(names: list[str], safe: str, lower: bool) -> None:
    body = html_page([quote_like_a_server(name.encode(), safe, lower=lower) for name in names])

    for page in (parse_index(URL, body, "text/html"), read_incrementally(body)):
        assert page.files["key"].to_list() == names
        assert page.files["size"].to_list() == [7] * len(names)


@given(st.lists(RAW_NAMES, unique=True, max_size=5), SAFE)
def test_any_bytes_get_a_key_of_their_own_and_the_address_that_brings_them(raws: list[bytes], safe: str) -> None:
    body = html_page([quote_like_a_server(raw, safe, lower=False) for raw in raws])

    files = parse_index(URL, body, "text/html").files

    assert len(set(files["key"])) == len(raws)
    addresses = {unquote_to_bytes(locator or quote_key(key)) for key, locator in files["key", "locator"].rows()}
    assert addresses == set(raws)


@given(st.lists(NAMES, unique=True, max_size=5))
def test_any_name_comes_back_from_json_and_xml(names: list[str]) -> None:
    rows = [{"name": name, "type": "file", "mtime": "Mon, 15 Jan 2024 03:04:05 GMT", "size": 7} for name in names]
    elements = "".join(
        f'<file mtime="2024-01-15T03:04:05Z" size="7">{html.escape(name, False)}</file>\r\n' for name in names
    )

    from_json = parse_index(URL, json.dumps(rows).encode(), "application/json").files
    from_xml = parse_index(URL, f'<?xml version="1.0"?>\r\n<list>\r\n{elements}</list>'.encode(), "text/xml").files

    for files in (from_json, from_xml):
        assert files["key"].to_list() == names
        assert files["size"].to_list() == [7] * len(names)


@given(st.lists(st.one_of(NAMES, st.text("./%2feE05C\\:?#&;ab ", max_size=14)), max_size=6))
def test_no_page_whatever_it_links_gives_an_unsafe_key(hrefs: list[str]) -> None:
    body = html_page(hrefs)

    pages = parse_index(URL, body, "text/html"), read_incrementally(body)

    for page in pages:
        names = [*page.files["key"], *(folder.name for folder in page.folders)]
        assert all(is_safe_key(name) and "/" not in name for name in names)
        assert page.files["key"].is_unique().all()
    assert pages[0].files.rows() == pages[1].files.rows()


@given(NAMES)
def test_quoting_a_key_is_undone_by_any_server(name: str) -> None:
    assert unquote_to_bytes(quote_key(f"a b/{name}")) == f"a b/{name}".encode()
