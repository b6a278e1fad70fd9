"""The Drive API v3 as far as it is needed: one item, a folder's page, the changes since a token, a file's bytes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from blocks._drive_errors import explain_drive
from blocks._drive_items import ITEM_FIELDS, DriveItem, is_id
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._http import ask
from blocks._http_download import is_html
from blocks._pace import Pace
from blocks._patience import Patience

API_URL = "https://www.googleapis.com/drive/v3"
_PAGE_SIZE = 1000
_LARGEST_PAGE = 64 << 20  # bytes; a page of 1,000 items has about 1 MB
_KEYS_HEADER = "X-Goog-Drive-Resource-Keys"
_ROOT_FIELDS = f"{ITEM_FIELDS},ownedByMe,sharedWithMeTime"
_ALL_DRIVES = {"supportsAllDrives": "true", "includeItemsFromAllDrives": "true"}


@dataclass(frozen=True, slots=True)
class FolderPage:
    """Some of what lies in a folder, and the token of the next page; None on the last."""

    items: list[DriveItem]
    next_token: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """One item that has changed; `item` is None where it was deleted or is no longer ours to see."""

    id: str
    item: DriveItem | None


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """Some of the changes, and the token of those after them; `is_last`: there are no more yet."""

    changes: list[Change]
    next_token: str
    is_last: bool


@dataclass(frozen=True, slots=True)
class DriveWire:
    """Asks the API at `api_url`; `resource_keys` (by id) are shown for the items that need them."""

    client: httpx.Client
    pace: Pace
    api_url: str
    patience: Callable[[], Patience]
    resource_keys: dict[str, str] = field(default_factory=dict, repr=False)

    def get_item(self, item_id: str) -> DriveItem:
        """Return one item.

        Raises:
            SourceRefused: it is not there, or not for us (reason `not_found` either way).
        """
        query = {"fields": _ROOT_FIELDS, "supportsAllDrives": "true"}
        answer = self._get(f"files/{item_id}", query, [item_id])
        return DriveItem.of(answer if is_id(answer.get("id")) else answer | {"id": item_id})

    def list_folder(self, folder_id: str, token: str | None, drive_id: str | None) -> FolderPage:
        """Return the page of a folder's content at `token`, what is in the trash left out.

        Raises:
            PageTokenRefused: the token is good no longer.
        """
        quoted = folder_id.replace("\\", "\\\\").replace("'", "\\'")
        answer = self._get(
            "files",
            {
                "q": f"'{quoted}' in parents and trashed = false",
                "fields": f"nextPageToken,incompleteSearch,files({ITEM_FIELDS})",
                "pageSize": str(_PAGE_SIZE),
                **_ALL_DRIVES,
                **({"corpora": "drive", "driveId": drive_id} if drive_id else {}),
                **({"pageToken": token} if token else {}),
            },
            [folder_id],
        )
        if answer.get("incompleteSearch"):
            raise SourceUnavailable(
                "Google Drive did not look through everything, so nothing can be concluded; it is tried again.",
                reason=Reason.SERVER_ERROR,
            )
        items = [DriveItem.of(fields) for fields in _rows(answer, "files") if is_id(fields.get("id"))]
        self.resource_keys.update({item.id: item.resource_key for item in items if item.resource_key})
        following = answer.get("nextPageToken")
        return FolderPage(items, _required(following) if following else None)

    def get_start_token(self, drive_id: str | None) -> str:
        """Return the token of the changes that come after now."""
        where = {"driveId": drive_id} if drive_id else {}
        token = self._get("changes/startPageToken", {"supportsAllDrives": "true", **where}).get("startPageToken")
        return _required(token)

    def list_changes(self, token: str, drive_id: str | None) -> ChangesPage:
        """Return the page of changes at `token`, oldest first.

        Raises:
            PageTokenRefused: the token is good no longer.
        """
        answer = self._get(
            "changes",
            {
                "pageToken": token,
                "fields": f"nextPageToken,newStartPageToken,changes(changeType,removed,fileId,file({ITEM_FIELDS}))",
                "pageSize": str(_PAGE_SIZE),
                "includeRemoved": "true",
                **_ALL_DRIVES,
                **({"driveId": drive_id} if drive_id else {}),
            },
        )
        changes = [
            Change(
                str(change["fileId"]),
                None if change.get("removed") or not file else DriveItem.of(file | {"id": change["fileId"]}),
            )
            for change in _rows(answer, "changes")
            if is_id(change.get("fileId"))
            for file in [change.get("file") or {}]
            if isinstance(file, dict)
        ]
        following = answer.get("nextPageToken")
        return ChangesPage(changes, _required(following or answer.get("newStartPageToken")), not following)

    def media_url(self, item: DriveItem) -> str:
        """Return the address of a file's bytes."""
        return f"{self.api_url}/files/{item.id}?alt=media&supportsAllDrives=true"

    def headers_for(self, ids: list[str]) -> dict[str, str]:
        """Return the header that shows the resource keys of the items, where they have any."""
        keys = [f"{item_id}/{self.resource_keys[item_id]}" for item_id in ids if item_id in self.resource_keys]
        return {_KEYS_HEADER: ",".join(keys)} if keys else {}

    def _get(self, path: str, query: Mapping[str, str], ids: list[str] | None = None) -> dict[str, Any]:
        url = httpx.URL(f"{self.api_url}/{path}", params=query)
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip", **self.headers_for(ids or [])}
        return self.patience().until_it_heals(lambda: self._read(url, headers))

    def _read(self, url: httpx.URL, headers: Mapping[str, str]) -> dict[str, Any]:
        with ask(self.client, url, pace=self.pace, headers=headers, explain=explain_drive) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                self.pace.after_bytes(len(chunk))
                if len(body) > _LARGEST_PAGE:
                    raise SourceRefused("Google Drive's answer has no end: check api_url.", reason=Reason.TOO_LARGE)
        try:
            answer = json.loads(body)
        except ValueError as error:
            if is_html(bytes(body[:512]), response.headers.get("content-type")):
                # Such as the "unusual traffic" page in front of the API, which goes as it came.
                raise SourceUnavailable(
                    "Google Drive answered with a web page in place of a listing, as it does when it is asked too much "
                    "or a network wants a login; it is tried again.",
                    reason=Reason.HTML_PAGE,
                ) from error
            raise SourceUnavailable(
                "Google Drive's answer is no JSON; it is tried again.", reason=Reason.SERVER_ERROR
            ) from error
        if not isinstance(answer, dict):
            raise SourceRefused("Google Drive's answer is none of its API's: check api_url.")
        return answer


def _rows(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    rows = answer.get(name) or []
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _required(token: object) -> str:
    if not isinstance(token, str) or not token:
        raise SourceUnavailable("Google Drive's answer lacks its token; it is tried again.", reason=Reason.SERVER_ERROR)
    return token
