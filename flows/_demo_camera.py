"""A camera trap that does not exist: draws what it would have seen, and serves the pictures like a camera's web page.

The same number always gives the same bytes.
"""

import html
import io
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CAMERA = "WEIR2"
WIDTH, HEIGHT = 1024, 768
_STRIP = 36
_FIRST_DAY = datetime(2026, 5, 14)  # noqa: DTZ001 - a camera's clock; the zone stands beside it in EXIF
_ZONE = "+02:00"
_LATITUDE, _LONGITUDE = (52.0, 6.0, 14.4), (9.0, 21.0, 36.0)  # degrees, minutes, seconds
_GROUND = 0.74  # of the height: where animals stand

Colour: TypeAlias = tuple[int, int, int]
Frame: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class _Light:
    """What the sun makes of the scene: sky from zenith to horizon, far and near land, and the disc in the sky."""

    zenith: Colour
    horizon: Colour
    far: Colour
    near: Colour
    disc: Colour
    disc_at: tuple[float, float]
    is_infrared: bool = False


_NIGHT = _Light((14, 16, 20), (46, 50, 58), (40, 43, 48), (12, 13, 15), (215, 218, 225), (0.78, 0.16), is_infrared=True)
_DAWN = _Light((88, 110, 160), (255, 190, 140), (168, 140, 150), (38, 44, 40), (255, 232, 190), (0.22, 0.44))
_DAY = _Light((84, 150, 214), (206, 228, 240), (138, 168, 178), (44, 74, 40), (255, 252, 235), (0.62, 0.12))
_DUSK = _Light((52, 48, 96), (244, 128, 84), (116, 82, 104), (26, 24, 32), (255, 178, 110), (0.7, 0.5))

_VISITS = (
    (0, 5, 52, "deer"),
    (0, 8, 17, "hare"),
    (0, 13, 5, "nothing"),
    (0, 19, 48, "deer"),
    (0, 22, 36, "fox"),
    (1, 1, 14, "boar"),
    (1, 3, 2, "badger"),
    (1, 6, 21, "crane"),
    (1, 11, 40, "crane"),
    (1, 16, 33, "hare"),
    (1, 20, 9, "fox"),
    (1, 23, 55, "boar"),
)


def draw_pictures(count: int) -> dict[str, bytes]:
    """Return `count` JPEGs with EXIF by their file names, oldest first."""
    return dict(_take_picture(number) for number in range(count))


@contextmanager
def serve_pictures(pictures: Mapping[str, bytes]) -> Iterator[str]:
    """Serve `pictures` with an index page on a free loopback port, and yield the page's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(pictures))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="demo camera")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _make_handler(pictures: Mapping[str, bytes]) -> type[BaseHTTPRequestHandler]:
    rows = "".join(f'<li><a href="{html.escape(name)}">{html.escape(name)}</a></li>\n' for name in pictures)
    index = f"<!DOCTYPE html><title>Index of /</title><h1>Index of /</h1><ul>\n{rows}</ul>\n".encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = index if self.path == "/" else pictures.get(self.path[1:])
            if content is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8" if content is index else "image/jpeg")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Last-Modified", format_datetime(_FIRST_DAY.replace(tzinfo=UTC), usegmt=True))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal belongs to the demo."""

    return Handler


def _take_picture(number: int) -> tuple[str, bytes]:
    days, hour, minute, visitor = _VISITS[number % len(_VISITS)]
    moment = _FIRST_DAY + timedelta(days=days + 2 * (number // len(_VISITS)), hours=hour, minutes=minute)
    dice = np.random.default_rng(number)
    light = _choose_light(moment.hour)
    frame = _draw_land(light)
    picture = Image.fromarray(frame.clip(0, 255).astype(np.uint8))
    _draw_visitor(picture, visitor, light, dice)
    picture = _develop(picture, light, dice)
    _print_strip(picture, moment, temperature=round(9 + 7 * math.sin((hour - 9) / 24 * 2 * math.pi)))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=88, exif=_make_exif(moment, number))
    return f"Aufnahme_{moment:%y%m%d_%H%M}_{CAMERA}.jpg", content.getvalue()


def _choose_light(hour: int) -> _Light:
    if hour < 5 or hour >= 22:
        return _NIGHT
    if hour < 8:
        return _DAWN
    return _DAY if hour < 19 else _DUSK


@lru_cache(maxsize=4)
def _draw_land(light: _Light) -> Frame:
    """Return sky, sun or moon, four ridges and the meadow; the camera stands still, so only the light changes."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    height = (y / (HEIGHT * 0.62)).clip(0, 1)[..., None] ** 0.8
    frame: Frame = np.array(light.zenith, np.float32) * (1 - height) + np.array(light.horizon, np.float32) * height
    away = np.hypot(x - light.disc_at[0] * WIDTH, y - light.disc_at[1] * HEIGHT)
    glow = np.exp(-((away / (WIDTH * 0.15)) ** 1.2)) * 0.55 + ((WIDTH * 0.026 - away) / 2 + 0.5).clip(0, 1)
    frame += (np.array(light.disc, np.float32) - frame) * glow.clip(0, 1)[..., None]
    across: Frame = np.linspace(0, 1, WIDTH, dtype=np.float32)
    for layer in range(4):
        nearness = layer / 3
        dice = np.random.default_rng(100 + layer)
        crest = np.full(WIDTH, 0.44 + 0.085 * layer, np.float32)
        for octave in range(1, 7):
            crest += 0.055 / octave**1.15 * np.sin(across * 2.1 * octave * (2 + layer) + dice.uniform(0, 2 * np.pi))
        if layer >= 2:
            crest -= _treetops(across, dice, tallest=0.05 + 0.06 * (layer - 2))
        colour = np.array(light.far, np.float32) * (1 - nearness) + np.array(light.near, np.float32) * nearness
        edge = ((y - crest * HEIGHT) / 1.5).clip(0, 1)[..., None]
        mist = ((y - crest * HEIGHT) / (HEIGHT * 0.3)).clip(0, 1)[..., None] * (1 - nearness) * 0.5
        land = colour * (1 - mist) + np.array(light.horizon, np.float32) * mist
        frame = frame * (1 - edge) + land * edge
    meadow = ((y - HEIGHT * (0.71 + 0.02 * np.sin(across * 5))) / 5).clip(0, 1)[..., None]
    grass = np.array(light.near, np.float32) * 1.15 + np.array((6, 14, 4) if not light.is_infrared else (9, 9, 9))
    brighter = 1 + (y / HEIGHT - 0.71)[..., None] * 1.6
    return np.asarray(frame * (1 - meadow) + grass * brighter * meadow, np.float32)


def _treetops(across: Frame, dice: np.random.Generator, tallest: float) -> Frame:
    """Return how far spruces stand above a crest, as fractions of the height."""
    tops = np.zeros(across.shape, np.float32)
    for place in dice.uniform(-0.02, 1.02, 60):
        size = tallest * dice.uniform(0.45, 1.0)
        outline = (1 - np.abs(across - place) / (size * 0.24)).clip(0, 1)
        jagged = outline * (0.86 + 0.14 * np.abs(np.sin(outline * 22)))
        tops = np.maximum(tops, jagged * size)
    return np.asarray(tops, np.float32)


def _draw_visitor(picture: Image.Image, visitor: str, light: _Light, dice: np.random.Generator) -> None:
    """Draw an animal's silhouette on the meadow, at twice the size and then reduced for smooth edges."""
    if visitor == "nothing":
        return
    canvas = Image.new("L", (1200, 1000), 0)
    _ANIMALS[visitor](ImageDraw.Draw(canvas))
    is_mirrored = dice.random() < 0.5
    if is_mirrored:
        canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    size = _SIZES[visitor] * dice.uniform(0.85, 1.15)
    mask = canvas.resize((round(1200 * size), round(1000 * size)), Image.Resampling.LANCZOS)
    left = round(dice.uniform(0.08, 0.9) * (WIDTH - mask.width))
    top = round(HEIGHT * (_GROUND + dice.uniform(0.05, 0.12)) - 900 * size)
    colour = (168, 170, 174) if light.is_infrared else tuple(round(part * 0.45) for part in light.near)
    picture.paste(colour, (left, top), mask)
    if light.is_infrared:  # eyeshine: what gives a visitor away at night
        across, down = _EYES[visitor]
        spot = left + (1200 - across if is_mirrored else across) * size, top + down * size
        ImageDraw.Draw(picture).ellipse((spot[0] - 3, spot[1] - 3, spot[0] + 3, spot[1] + 3), fill=(255, 255, 255))


def _legs(draw: ImageDraw.ImageDraw, places: tuple[int, ...], top: int, width: int) -> None:
    for step, place in enumerate(places):
        lean = (-18, 14, -10, 22)[step % 4]
        draw.line((place, top, place + lean, 760, place + lean // 2, 900), fill=255, width=width, joint="curve")


def _draw_deer(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((330, 430, 800, 640), fill=255)
    draw.polygon([(700, 470), (840, 240), (920, 270), (800, 560)], fill=255)
    draw.polygon([(830, 225), (920, 215), (1030, 300), (1010, 330), (880, 310)], fill=255)
    draw.polygon([(845, 240), (780, 190), (800, 250)], fill=255)
    for side in (-1, 1):
        stem = [(870, 225), (870 + 50 * side, 150), (865 + 95 * side, 40)]
        draw.line(stem, fill=255, width=13, joint="curve")
        for along, tip in ((0.45, (70, -70)), (0.8, (60, -60))):
            x, y = 870 + 95 * side * along, 225 - 185 * along
            draw.line((x, y, x + tip[0] * side * 0.8, y + tip[1]), fill=255, width=11)
    draw.polygon([(335, 480), (290, 560), (350, 540)], fill=255)
    _legs(draw, (390, 450, 700, 750), 560, 30)


def _draw_fox(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((400, 590, 780, 740), fill=255)
    draw.polygon([(420, 620), (250, 640), (90, 740), (110, 790), (270, 770), (440, 710)], fill=255)
    draw.polygon([(720, 610), (800, 520), (880, 560), (800, 700)], fill=255)
    draw.polygon([(780, 530), (900, 530), (1000, 610), (980, 630), (820, 640)], fill=255)
    draw.polygon([(790, 545), (790, 450), (850, 530)], fill=255)
    draw.polygon([(850, 535), (870, 445), (905, 545)], fill=255)
    _legs(draw, (450, 500, 690, 740), 680, 26)


def _draw_boar(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((260, 400, 860, 740), fill=255)
    draw.polygon([(700, 430), (900, 520), (1050, 660), (1040, 700), (930, 710), (720, 720)], fill=255)
    draw.polygon([(790, 470), (810, 380), (870, 490)], fill=255)
    for bristle in range(14):
        x = 340 + bristle * 34
        draw.line((x, 430 - abs(bristle - 7) * -4, x - 14, 385 + abs(bristle - 7) * 5), fill=255, width=9)
    draw.line((270, 520, 215, 590, 225, 640), fill=255, width=12)
    _legs(draw, (360, 440, 690, 770), 680, 50)


def _draw_hare(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((430, 600, 760, 890), fill=255)
    draw.ellipse((640, 520, 800, 760), fill=255)
    draw.ellipse((690, 440, 880, 580), fill=255)
    draw.ellipse((690, 190, 750, 480), fill=255)
    draw.ellipse((752, 200, 806, 480), fill=255)
    draw.ellipse((395, 770, 480, 850), fill=255)
    draw.ellipse((480, 850, 720, 910), fill=255)
    draw.line((740, 700, 760, 900), fill=255, width=36)


def _draw_badger(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((300, 580, 820, 800), fill=255)
    draw.polygon([(720, 620), (880, 660), (1010, 780), (990, 810), (760, 800)], fill=255)
    draw.ellipse((790, 610, 850, 680), fill=255)
    draw.polygon([(320, 660), (210, 720), (225, 750), (350, 730)], fill=255)
    _legs(draw, (400, 480, 700, 780), 770, 48)


def _draw_crane(draw: ImageDraw.ImageDraw) -> None:
    draw.polygon([(380, 520), (520, 420), (740, 430), (790, 500), (700, 590), (520, 600), (330, 640)], fill=255)
    draw.line((740, 470, 800, 330, 770, 220, 810, 140), fill=255, width=34, joint="curve")
    draw.ellipse((770, 100, 860, 170), fill=255)
    draw.polygon([(845, 115), (980, 145), (845, 155)], fill=255)
    draw.line((590, 580, 570, 740, 590, 900), fill=255, width=16, joint="curve")
    draw.line((660, 580, 690, 740, 660, 900), fill=255, width=16, joint="curve")


_ANIMALS: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    "deer": _draw_deer,
    "fox": _draw_fox,
    "boar": _draw_boar,
    "hare": _draw_hare,
    "badger": _draw_badger,
    "crane": _draw_crane,
}
_SIZES = {"deer": 0.42, "fox": 0.3, "boar": 0.36, "hare": 0.2, "badger": 0.28, "crane": 0.34}
_EYES = {
    "deer": (925, 262),
    "fox": (895, 575),
    "boar": (900, 585),
    "hare": (815, 500),
    "badger": (890, 710),
    "crane": (820, 132),
}


def _develop(picture: Image.Image, light: _Light, dice: np.random.Generator) -> Image.Image:
    """Return the picture as the sensor gives it: a little soft, with noise, darker in the corners; grey by infrared."""
    if light.is_infrared:
        picture = picture.convert("L")
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.7)), np.float32).reshape(HEIGHT, WIDTH, -1)
    y = np.linspace(-1, 1, HEIGHT, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    falloff = 1 - (0.7 if light.is_infrared else 0.22) * (x**2 + y**2) / 2
    noise = dice.standard_normal((HEIGHT, WIDTH), np.float32) * (6 if light.is_infrared else 2)
    seen = soft * falloff[..., None] * (1.3 if light.is_infrared else 1) + noise[..., None]
    return Image.fromarray(seen.clip(0, 255).astype(np.uint8).squeeze()).convert("RGB")


def _print_strip(picture: Image.Image, moment: datetime, temperature: int) -> None:
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, HEIGHT - _STRIP, WIDTH, HEIGHT), fill=(16, 16, 16))
    font, line = ImageFont.load_default(20), HEIGHT - _STRIP // 2
    draw.text((20, line), f"{moment:%Y-%m-%d  %H:%M}", fill=(240, 240, 240), font=font, anchor="lm")
    draw.text((WIDTH // 2, line), f"{temperature} °C", fill=(240, 240, 240), font=font, anchor="mm")
    draw.text((WIDTH - 20, line), f"catchment demo  {CAMERA}", fill=(240, 240, 240), font=font, anchor="rm")


def _make_exif(moment: datetime, number: int) -> Image.Exif:
    exif = Image.Exif()
    taken = f"{moment:%Y:%m:%d %H:%M:%S}"
    exif.update({0x010F: "catchment", 0x0110: "Demo Trap", 0x0132: taken})  # Make, Model, DateTime
    exif.get_ifd(0x8769).update(
        {
            0x9003: taken,  # DateTimeOriginal
            0x9011: _ZONE,  # OffsetTimeOriginal
            0xA431: f"{CAMERA}-0001",  # BodySerialNumber
            0x9286: b"ASCII\0\0\0" + f"picture {number + 1}".encode(),  # UserComment
        }
    )
    exif.get_ifd(0x8825).update({1: "N", 2: _LATITUDE, 3: "E", 4: _LONGITUDE})  # GPS
    return exif
