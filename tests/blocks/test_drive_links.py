"""The links that people share, and what becomes of those that name no folder."""

import pytest
from pydantic import ValidationError

from blocks._drive_links import DriveLink, is_drive_link, parse_folder_link, parse_link
from blocks._errors import WrongUse
from blocks.google_drive import GoogleDriveFolder
from tests.blocks.drive_folder import folder_of
from tests.servers.drive import Drive

ID = "1AbC-dEf_GhIjKlMnOpQrStUvWxYz0123"


@pytest.mark.parametrize(
    ("link", "found"),
    [
        (f"https://drive.google.com/drive/folders/{ID}", DriveLink(ID, "folder")),
        (f"https://drive.google.com/drive/folders/{ID}?usp=sharing", DriveLink(ID, "folder")),
        (f"https://drive.google.com/drive/folders/{ID}?resourcekey=0-k_y&usp=x", DriveLink(ID, "folder", "0-k_y")),
        (f"https://drive.google.com/drive/u/0/folders/{ID}", DriveLink(ID, "folder")),
        (f"http://www.drive.google.com/drive/mobile/folders/{ID}/", DriveLink(ID, "folder")),
        (f"drive.google.com/drive/folders/{ID}", DriveLink(ID, "folder")),
        (f" https://drive.google.com/a/example.org/folderview?id={ID} ", DriveLink(ID, "folder")),
        (f"https://drive.google.com/embeddedfolderview?id={ID}#grid", DriveLink(ID, "folder")),
        (f"https://drive.google.com/open?id={ID}&resourcekey=0-x", DriveLink(ID, None, "0-x")),
        ("https://drive.google.com/drive/my-drive", DriveLink("root", "folder")),
        (f"https://drive.google.com/file/d/{ID}/view?resourcekey=0-x", DriveLink(ID, "file", "0-x")),
        (f"https://drive.google.com/uc?id={ID}&export=download", DriveLink(ID, "file")),
        (f"https://docs.google.com/document/d/{ID}/edit", DriveLink(ID, "file")),
        (ID, DriveLink(ID, None)),
    ],
)  # fmt: skip
def test_every_form_of_link_is_understood(link: str, found: DriveLink) -> None:
    assert parse_link(link) == found


@pytest.mark.parametrize(
    "link",
    [
        "https://drive.google.com/drive/",
        "https://drive.google.com/drive/folders/",
        "https://drive.google.com/drive/folders/1AbC…",
        "https://drive.google.com/open?id=../../etc",
        f"https://drive.google.com.example.org/drive/folders/{ID}",
        f"https://user:pass@drive.google.com/drive/folders/{ID}",
        f"ftp://drive.google.com/drive/folders/{ID}",
        "https://[drive/",
        "",
        "pictures of my garden",
    ],
)
def test_what_is_no_link_is_refused_in_a_sentence(link: str) -> None:
    with pytest.raises(ValueError, match=r"link"):
        parse_folder_link(link)


def test_only_drives_own_addresses_are_taken_for_drives() -> None:
    assert is_drive_link(f"https://drive.google.com/drive/folders/{ID}")
    assert is_drive_link(f"https://docs.google.com/document/d/{ID}/edit")
    assert not is_drive_link(f"https://www.dropbox.com/scl/fo/{ID}")
    assert not is_drive_link("/home/ada/drive.google.com")
    assert not is_drive_link(ID)
    assert GoogleDriveFolder.of_link("https://cameras.example.org/drive.google.com/") is None


def test_the_link_of_a_file_is_answered_with_what_to_give_instead() -> None:
    link = f"https://drive.google.com/file/d/{ID}/view"
    with pytest.raises(WrongUse, match="share the folder that the file lies in"):
        GoogleDriveFolder.of_link(link)
    with pytest.raises(ValidationError, match="share the folder that the file lies in"):
        folder_of(Drive(url="http://127.0.0.1:9"), ID, folder_url=link)


def test_what_people_see_of_a_folder_is_without_its_resource_key() -> None:
    source = folder_of(
        Drive(url="http://127.0.0.1:9"), ID, folder_url=f"https://drive.google.com/open?id={ID}&resourcekey=0-ca"
    )
    assert source.root == source.folder_url == f"https://drive.google.com/drive/folders/{ID}"
    assert source.resource_key is not None
    assert source.resource_key.get_secret_value() == "0-ca"
    assert "0-ca" not in repr(source)
    again = GoogleDriveFolder.model_validate(source.model_dump())
    assert again.resource_key == source.resource_key
