"""Choose a day in an Element Plus date picker as a person does: open it, turn its pages, click the day.

Months are turned with the picker's own buttons and counted from its header, in whatever language it is written.
"""

import re
from datetime import date
from typing import TYPE_CHECKING

from blocks._errors import Reason, SourceRefused

if TYPE_CHECKING:
    from playwright.async_api import Page

INPUT = 'input.el-input__inner[placeholder="Pick a day"]'
_PANEL = ".el-picker-panel.el-date-picker"
_LABELS = f"{_PANEL} .el-date-picker__header-label"
# Cells of the months before and after fill the first and last week; a column of week numbers may stand before them.
_CELLS = "table.el-date-table td:not(.prev-month):not(.next-month):not(.week)"

_READ_HEADER = """labels => Array.from(document.querySelectorAll(labels))
    .filter(label => label.offsetParent !== null).map(label => label.innerText.trim())"""
_HEADER_CHANGED = f"""([labels, before]) => {{
    const now = ({_READ_HEADER})(labels);
    return now.length === before.length && now.join("|") !== before.join("|");
}}"""

_ENGLISH = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)


class DayPicker:
    """The date picker of one page; waits without end, so callers bound it."""

    def __init__(self, page: "Page") -> None:
        self._page = page
        self._input = page.locator(INPUT).first
        self._panel = page.locator(f"{_PANEL}:visible")
        self._months = {name[:length]: month for month, name in enumerate(_ENGLISH, 1) for length in (3, len(name))}

    async def pick(self, day: date) -> bool:
        """Choose `day`; return whether it was not chosen already.

        Raises:
            SourceRefused: the picker does not let anybody choose that day, or is unlike any known one.
        """
        before = await self._input.input_value()
        await self._input.click()
        await self._panel.wait_for()
        await self._turn_to(day)
        cell = self._panel.locator(_CELLS).filter(has_text=re.compile(rf"^\s*0?{day.day}\s*$"))
        if (count := await cell.count()) != 1:
            raise SourceRefused(f"The date picker has {count} cells for {day}; the site has changed, use direct mode.")
        classes = (await cell.get_attribute("class") or "").split()
        if "available" not in classes or "disabled" in classes:
            raise SourceRefused(
                f"The terminal's date picker does not offer {day}: choose a day it has pictures of.",
                reason=Reason.NOT_FOUND,
            )
        await cell.click()
        await self._panel.wait_for(state="hidden")
        return await self._input.input_value() != before

    async def _turn_to(self, day: date) -> None:
        year, month = await self._read_month()
        away = (day.year - year) * 12 + day.month - month
        years = round(away / 12)
        for count, months, forward, back in (
            (years, 12, "d-arrow-right", "d-arrow-left"),
            (away - 12 * years, 1, "arrow-right", "arrow-left"),
        ):
            for _ in range(abs(count)):
                turned = year * 12 + month - 1 + (months if count > 0 else -months)
                year, month = turned // 12, turned % 12 + 1
                shown, label = await self._turn(forward if count > 0 else back)
                if (shown, self._find_month(label) or month) != (year, month):
                    raise SourceRefused(
                        f"The date picker shows {label} {shown} in place of {year}-{month:02}; run again."
                    )
                self._months.setdefault(label.casefold(), month)

    async def _turn(self, button: str) -> tuple[int, str]:
        """Turn one page with `button`; return the year then, and what the header calls the month."""
        before = await self._read_header()
        await self._panel.locator(f"button.{button}").click()
        await self._page.wait_for_function(_HEADER_CHANGED, arg=[_LABELS, before], timeout=0)
        return _split_header(await self._read_header())

    async def _read_month(self) -> tuple[int, int]:
        year, label = _split_header(await self._read_header())
        if month := self._find_month(label):
            return year, month
        return await self._learn_months(year, label)

    def _find_month(self, label: str) -> int | None:
        number = re.search(r"\d+", label)
        return int(number[0]) if number and 1 <= int(number[0]) <= 12 else self._months.get(label.casefold())

    async def _learn_months(self, year: int, label: str) -> tuple[int, int]:
        """Turn back into the year before, whose last month is the twelfth, and name every month passed on the way."""
        passed, turned_to = [label], year
        while turned_to == year and len(passed) <= 12:
            turned_to, label = await self._turn("arrow-left")
            passed.append(label)
        self._months |= {label.casefold(): month for month, label in enumerate(reversed(passed[:-1]), 1)}
        self._months[passed[-1].casefold()] = 12
        return turned_to, 12

    async def _read_header(self) -> list[str]:
        header: list[str] = await self._page.evaluate(_READ_HEADER, _LABELS)
        return header


def _split_header(labels: list[str]) -> tuple[int, str]:
    """Return the year, and what the header calls the month."""
    years = [label for label in labels if re.search(r"\d{4}", label)]
    months = [label for label in labels if label not in years]
    if len(years) != 1 or len(months) != 1:
        raise SourceRefused(
            f"The date picker's header is unlike any known one ({' '.join(labels) or 'empty'}); use direct mode."
        )
    return int(re.findall(r"\d{4}", years[0])[0]), months[0]
