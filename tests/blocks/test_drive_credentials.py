"""How Google knows us: each kind of credentials, what is refused of them, and that none of it shows anywhere."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from blocks._errors import Reason, SourceRefused, SourceUnavailable, WrongUse
from blocks.google_drive import GoogleDriveCredentials, GoogleDriveFolder
from tests.blocks.drive_folder import account_of, folder_of, key_of, names, user_of
from tests.servers.drive import Drive, error, html_page, make_service_account, serve_drive

CANARY = "canary-of-a-secret-91c4"
ACCOUNT = {"client_email": "a", "token_uri": "https://b/", "private_key": CANARY}


@pytest.fixture
def drive() -> Iterator[Drive]:
    with serve_drive() as server:
        yield server


@pytest.fixture
def root(drive: Drive) -> str:
    root = drive.add_folder("cameras")
    drive.add_file("a.jpg", b"\xff\xd8\xff", root)
    return root


@pytest.mark.parametrize("make", [key_of, account_of, user_of])
def test_every_kind_of_credentials_opens_the_folder(drive: Drive, root: str, make: Any) -> None:
    assert names(folder_of(drive, root, credentials=make(drive)).list_files()) == ["a.jpg"]


def test_one_token_serves_a_whole_run(drive: Drive, root: str) -> None:
    source = folder_of(drive, root, credentials=account_of(drive))
    with source.connected():
        source.list_files()
        source.list_files()
    assert len(drive.asked("token")) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "give one of api_key"),
        ({"api_key": CANARY, "client_id": "a", "client_secret": CANARY, "refresh_token": CANARY}, "give one of"),
        ({"client_id": "a", "refresh_token": CANARY}, "belong together"),
        ({"api_key": CANARY, "subject": "ada@example.org"}, "subject is for a service account"),
        ({"api_key": f"{CANARY} and more"}, "more than one word"),
        ({"api_key": f"{CANARY}ü"}, "more than one word"),
        ({"service_account_info": {"type": "authorized_user", "a": CANARY}}, "not the JSON file of a service"),
        ({"service_account_info": ACCOUNT}, "no usable private_key"),
        ({"api_key": CANARY, "token_url": f"http://{CANARY}.example.org/"}, "plain https:// address"),
    ],
)  # fmt: skip
def test_what_can_not_work_is_refused_without_being_quoted(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as raised:
        GoogleDriveCredentials(**fields)
    assert CANARY not in str(raised.value)


def test_the_key_file_can_be_given_as_its_text(drive: Drive, root: str) -> None:
    text = json.dumps(make_service_account(drive))
    credentials = GoogleDriveCredentials.model_validate({"service_account_info": text})
    assert names(folder_of(drive, root, credentials=credentials).list_files()) == ["a.jpg"]
    with pytest.raises(ValidationError, match="not the JSON file") as refused:
        GoogleDriveCredentials.model_validate({"service_account_info": f"/home/ada/{CANARY}.json"})
    assert CANARY not in str(refused.value)


def test_a_signed_request_is_never_sent_over_plain_http(drive: Drive) -> None:
    info = make_service_account(drive) | {"token_uri": "http://tokens.example.org/"}
    with pytest.raises(ValidationError, match="plain https:// address"):
        GoogleDriveCredentials(service_account_info=info)
    with pytest.raises(ValidationError, match="plain https:// address"):
        folder_of(drive, "1AbCdEfGhIjKlMnOp", api_url="http://drive.example.org/v3")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"refresh_token": SecretStr(CANARY)}, r"make a new one \(invalid_grant\)"),
        ({"client_secret": SecretStr(CANARY)}, r"copy both again from its console \(invalid_client\)"),
    ],
)
def test_a_refused_login_says_what_to_do_and_nothing_that_was_sent(
    drive: Drive, root: str, spoil: dict[str, Any], words: str
) -> None:
    with pytest.raises(SourceRefused, match=words) as refused:
        folder_of(drive, root, credentials=user_of(drive, **spoil)).list_files()
    assert refused.value.reason is Reason.UNAUTHORIZED
    assert CANARY not in str(refused.value)


def test_a_service_account_of_another_project_is_refused(drive: Drive, root: str) -> None:
    info = make_service_account(drive) | {"client_email": "stranger@example.iam.gserviceaccount.com"}
    with pytest.raises(SourceRefused, match="invalid_grant"):
        folder_of(drive, root, credentials=GoogleDriveCredentials(service_account_info=info)).list_files()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(503, "backendError"), SourceUnavailable),
        (html_page(200), SourceUnavailable),
        (lambda handler: handler.send_json(200, {"token_type": "Bearer"}), SourceUnavailable),
        (lambda handler: handler.send_json(400, {"error": {"nested": CANARY}}), SourceRefused),
        (html_page(403), SourceRefused),
    ],
)
def test_a_login_that_fails_otherwise_is_told_by_its_status(drive: Drive, root: str, answer: Any, kind: type) -> None:
    drive.script("token", answer)
    with pytest.raises(kind) as raised:
        folder_of(drive, root, credentials=user_of(drive)).list_files()
    assert CANARY not in str(raised.value)


def test_a_token_that_is_refused_twice_is_an_answer(drive: Drive, root: str) -> None:
    drive.script(f"get:{root}", error(401, "authError"), error(401, "authError"))
    with pytest.raises(SourceRefused, match="make the credentials anew"):
        folder_of(drive, root, credentials=user_of(drive)).list_files()
    assert len(drive.asked("token")) == 2


def test_no_secret_shows_in_what_is_printed_logged_or_written_down(
    drive: Drive, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    drive.need_key(root, "0-canary-resource")
    link = drive.link(root, resourcekey="0-canary-resource")
    shown = []
    for make in (key_of, account_of, user_of):
        credentials = make(drive)
        source = folder_of(drive, root, credentials=credentials, folder_url=link)
        page = source.list_page(None)
        shown += [repr(credentials), str(credentials), source.root, source.source_name, str(page.mark), caplog.text]
        drive.script(f"list:{root}", error(403, "forbidden"))
        with pytest.raises(SourceRefused) as refused:
            source.list_files()
        shown.append(str(refused.value))
    secrets = [drive.api_key, drive.client_secret, drive.refresh_token, "canary-resource", "PRIVATE KEY", *drive.tokens]
    assert [secret for secret in secrets for text in shown if secret in text] == []
    assert "canary" not in json.dumps(GoogleDriveFolder.model_json_schema())


@pytest.mark.usefixtures("prefect_api")
def test_a_link_is_opened_with_the_default_credentials_or_says_which_to_make(drive: Drive, root: str) -> None:
    with pytest.raises(WrongUse) as raised:
        GoogleDriveFolder.of_link(drive.link(root))
    for words in ("google-drive-credentials/default", "Google Drive Credentials", "Blocks", "register_blocks"):
        assert words in str(raised.value)
    GoogleDriveCredentials.register_type_and_schema()
    account_of(drive).save("default")
    try:
        source = GoogleDriveFolder.of_link(drive.link(root))
    finally:
        GoogleDriveCredentials.delete("default")
    assert source is not None
    source.api_url = drive.api_url
    assert names(source.list_files()) == ["a.jpg"]


@pytest.mark.usefixtures("prefect_api")
def test_a_saved_folder_comes_back_with_its_credentials(drive: Drive, root: str) -> None:
    account_of(drive).save("station")
    try:
        saved = GoogleDriveCredentials.load("station")
        folder_of(drive, root, credentials=saved).save("garden")
        try:
            source = GoogleDriveFolder.load("garden")
            assert source.source_name == "google-drive/garden"
            assert names(source.list_files()) == ["a.jpg"]
        finally:
            GoogleDriveFolder.delete("garden")
    finally:
        GoogleDriveCredentials.delete("station")
